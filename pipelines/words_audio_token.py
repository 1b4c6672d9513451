"""Words of sounds in the prompts of any pipeline of diffusers, for the length of a block and without a longer table.

    rows = [[dog], [dog, rain]]                            # of each prompt, of each of its sounds: {encoder: (K, D)}
    with Speaker(pipe) as say:
        pipe.encode_prompt([say(text, sounds) for text, sounds in zip(prompts, rows)], ...)

The pipeline's own way of reading a prompt stays in charge, whatever its family: its tokenizers are exchanged for
copies that know a token for each word of each sound, and before a text encoder looks up ids, those tokens become an
ordinary word's, whose rows are then overwritten with the words. Vocabulary, weights and what the encoder pools are
untouched.

Files of pipelines import none of the models, so that their copies run alone; the few lines that training's
`injection_audio_token` has too stand here for that reason.

Shapes: K words of a sound, D width of a token table, B texts, L ids of each.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from transformers import AddedToken

from .calling_unibrivl import exchanged

PLACEHOLDER = re.compile(r"<audio(?::(\d+))?>")
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "text_encoder_3": "tokenizer_3"}
NEUTRAL = "a"  # any word will do: what is read of it is its place

Words = Mapping[str, torch.Tensor]  # text encoder -> (K, D), the words of one sound


def sounds_in(text: str) -> int:
    """How many sounds a text speaks of: one more than the highest number of a placeholder; `<audio>` is number 0."""
    return max((int(found[1] or 0) + 1 for found in PLACEHOLDER.finditer(text)), default=0)


def text_encoders_of(pipe: Any) -> dict[str, nn.Module]:
    """Those that a pipeline has, by its names for them."""
    found = {name: getattr(pipe, name, None) for name in TOKENIZERS}
    return {name: encoder for name, encoder in found.items() if encoder is not None}


def lookup_of(text_encoder: nn.Module) -> nn.Module:
    """The module that turns ids into rows when the encoder runs: T5's own `get_input_embeddings` is another one."""
    inside = getattr(getattr(text_encoder, "encoder", None), "embed_tokens", None)
    return inside if inside is not None else text_encoder.get_input_embeddings()


class Speaker:
    """While its block lasts, a pipeline's text encoders read words of sounds.

    A call turns a text with placeholders, and its sounds, into one that the pipeline's tokenizers know. A text whose
    end has to be cut off, and a sound with it, is a ValueError.
    """

    def __init__(self, pipe: Any):
        self.readers = {name: Reader.of(pipe, name, encoder) for name, encoder in text_encoders_of(pipe).items()}
        self.known: dict[int, str] = {}  # sound -> its tokens
        self.held: list[Words] = []  # so that no other sound gets the number of one that is gone
        self.stack = ExitStack()

    def __enter__(self) -> "Speaker":
        with ExitStack() as stack:
            for reader in self.readers.values():
                stack.enter_context(reader)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()

    def __call__(self, text: str, sounds: Sequence[Words]) -> str:
        for sound in sounds:
            if id(sound) not in self.known:
                count = len(next(iter(sound.values())))
                tokens = [f"<audio-{len(self.known)}-{word}>" for word in range(count)]
                self.known[id(sound)] = " ".join(tokens)
                self.held.append(sound)
                for name, reader in self.readers.items():
                    reader.learn(tokens, sound[name])
        said = PLACEHOLDER.sub(lambda found: f" {self.known[id(sounds[int(found[1] or 0)])]} ", text)
        for reader in self.readers.values():
            reader.check_room(said, text)
        return said


class Reader:
    """A text encoder and a copy of its tokenizer, which know tokens that stand for words of sounds.

    Args:
        pipe: the pipeline; within the block its tokenizer is the copy.
        tokenizer_name: the pipeline's name for it.
        encoder: the text encoder.
        tokenizer: the copy.
    """

    def __init__(self, pipe: Any, tokenizer_name: str, encoder: nn.Module, tokenizer: Any):
        self.pipe, self.tokenizer_name, self.encoder, self.tokenizer = pipe, tokenizer_name, encoder, tokenizer
        self.rows: dict[int, torch.Tensor] = {}  # id -> (D,)
        self.neutral_id = tokenizer(NEUTRAL, add_special_tokens=False).input_ids[0]
        self.places_BL: torch.Tensor | None = None
        self.ids_BL: torch.Tensor | None = None

    @classmethod
    def of(cls, pipe: Any, name: str, encoder: nn.Module) -> "Reader":
        """With the copy of an earlier call, if the tokenizer is still the one that was copied."""
        tokenizer = getattr(pipe, TOKENIZERS[name])
        copies = pipe.__dict__.setdefault("_speaking_tokenizers", {})
        original, size, kept = copies.get(name, (None, 0, None))
        if original is not tokenizer or size != len(tokenizer):
            kept = copy.deepcopy(tokenizer)
            copies[name] = (tokenizer, len(tokenizer), kept)
        return cls(pipe, TOKENIZERS[name], encoder, kept)

    def learn(self, tokens: Sequence[str], words_KD: torch.Tensor) -> None:
        missing = [token for token in tokens if token not in self.tokenizer.get_added_vocab()]
        self.tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in missing])
        width = lookup_of(self.encoder).weight.shape[1]
        if words_KD.dim() != 2 or words_KD.shape != (len(tokens), width):
            raise ValueError(
                f"the words of a sound are {tuple(words_KD.shape)}, and the encoder of {self.tokenizer_name} reads "
                f"words of {width} numbers: they were made for another base, or for another of its text encoders"
            )
        for token, row in zip(tokens, words_KD, strict=True):
            self.rows[self.tokenizer.convert_tokens_to_ids(token)] = row

    def check_room(self, said: str, text: str) -> None:
        """Raises where a sound would be cut off with the end of a text."""
        length = self.tokenizer.model_max_length
        whole = self.tokenizer(said, truncation=False, verbose=False).input_ids
        read = self.tokenizer(said, truncation=True, max_length=length).input_ids
        if sum(one in self.rows for one in whole) != sum(one in self.rows for one in read):
            raise ValueError(
                f"{text!r} is {len(whole)} tokens long and {length} fit, so a sound would be cut off: shorten the "
                "text, or put the sound further to the front"
            )

    def __enter__(self) -> "Reader":
        check_not_compiled(self.encoder)
        self.exchanged = exchanged(self.pipe, **{self.tokenizer_name: self.tokenizer})
        self.exchanged.__enter__()
        self.hooks = [
            self.encoder.register_forward_pre_hook(self.make_safe, with_kwargs=True),
            lookup_of(self.encoder).register_forward_hook(self.overwrite),
        ]
        return self

    def __exit__(self, *error) -> None:
        self.exchanged.__exit__(None, None, None)
        for hook in self.hooks:
            hook.remove()

    def make_safe(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Ids that the table has; where the words belong is kept for the moment of the look-up."""
        ids_BL = args[0] if args else kwargs["input_ids"]
        ours = torch.tensor(sorted(self.rows), dtype=ids_BL.dtype, device=ids_BL.device)
        self.places_BL, self.ids_BL = torch.isin(ids_BL, ours), ids_BL
        safe_BL = ids_BL.masked_fill(self.places_BL, self.neutral_id)
        return ((safe_BL, *args[1:]), kwargs) if args else (args, {**kwargs, "input_ids": safe_BL})

    def overwrite(self, lookup: nn.Module, args: tuple, rows_BLD: torch.Tensor) -> torch.Tensor | None:
        places_BL, ids_BL, self.places_BL, self.ids_BL = self.places_BL, self.ids_BL, None, None
        if places_BL is None or ids_BL is None or not places_BL.any():
            return None
        words_SD = torch.stack([self.rows[one] for one in ids_BL[places_BL].tolist()])
        return rows_BLD.masked_scatter(places_BL.to(rows_BLD.device)[..., None], words_SD.to(rows_BLD))


def check_not_compiled(text_encoder: nn.Module) -> None:
    """A compiled encoder may have been traced without the hooks, and would then read the ordinary word in silence."""
    if any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in text_encoder.modules()
    ):
        raise ValueError(
            "this text encoder is compiled, and a compiled one may pass by what is put into its prompt: leave it out "
            "of torch.compile (it runs once for a picture), and compile the UNet"
        )


__all__ = ["PLACEHOLDER", "Reader", "Speaker", "Words", "lookup_of", "sounds_in", "text_encoders_of"]
