"""Pseudo-words in a prompt: "a cabin, with <audio>" as ids that are safe, and vectors in the place of their rows.

    prompts = AudioPrompts(tokenizer, num_words=1)
    prompt = prompts(["A photo of <audio>", "<audio:0> and <audio:1>"])
    with injected(text_encoder, prompt, words):                  # (B, N, K, D): of each text, of each sound
        states = text_encoder(prompt.input_ids).last_hidden_state

Neither tokenizer nor text encoder change: placeholders are known to a copy of the tokenizer alone, the ids that the
encoder gets are those of an ordinary word, and a hook on its embedding writes the vectors over that word's rows while
the block lasts. A row more in the table would do the same to the states, and worse to the vector of a whole text: an
encoder of the old kind (`eos_token_id == 2`) takes that at the highest id, and a new row has a higher one than the
end of the text.

This lies among the models because training needs it as much as pipelines, which are its siblings; a pipeline reaches
it through its adapter, whose copy on the Hub brings this file along.

Shapes: B texts, L ids of each, N sounds, K words of a sound, S slots of all texts, D width of a token table.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AddedToken
from transformers.utils import logging

from .token_table_audio_token import embedding_module

logger = logging.get_logger(__name__)

PLACEHOLDER = re.compile(r"<audio(?::(\d+))?>")
NEUTRAL = "a"  # any word will do: what is read of it is its place


@dataclass
class AudioPrompt:
    """
    Args:
        input_ids (`torch.LongTensor`): (B, L), an ordinary word's id in every slot.
        attention_mask (`torch.LongTensor`): (B, L), 1 on all but padding.
        rows, positions, sounds, words (`torch.LongTensor`): (S,), of each slot in which text it is and where, which
            sound it is of, and which of that sound's words.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    sounds: torch.Tensor
    words: torch.Tensor

    @property
    def num_sounds(self) -> int:
        """The most that a text speaks of."""
        return int(self.sounds.max()) + 1 if len(self.sounds) else 0

    def to(self, device: torch.device | str) -> "AudioPrompt":
        return AudioPrompt(**{name: value.to(device) for name, value in vars(self).items()})


class AudioPrompts:
    """Texts with placeholders to ids. `<audio>` is `<audio:0>`.

    Args:
        tokenizer: of the text encoder; it is copied.
        num_words (`int`): K, slots that a placeholder takes.
        max_length (*optional*): of the ids; by default the tokenizer's.
    """

    def __init__(self, tokenizer: Any, num_words: int = 1, max_length: int | None = None):
        if num_words < 1:
            raise ValueError(f"num_words is how many vectors a sound has, from 1; got {num_words}")
        self.tokenizer, self.num_words = copy.deepcopy(tokenizer), num_words
        self.max_length = max_length or tokenizer.model_max_length
        if self.max_length > 1 << 20:
            raise ValueError("this tokenizer does not say how long a text may be: pass max_length")
        plain = self._ids(NEUTRAL)
        whole = list(self.tokenizer(NEUTRAL).input_ids)
        start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self.before, self.behind = whole[:start], whole[start + len(plain) :]
        self.neutral_id = plain[0]
        pad = self.tokenizer.pad_token_id
        self.pad_id = (self.behind or [0])[-1] if pad is None else pad
        self.known = set[str]()
        self.sound_of: dict[int, int] = {}  # id of a placeholder in the copy -> number of the sound

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    def _learn(self, texts: Sequence[str]) -> None:
        """Make the copy know the placeholders of these texts."""
        for text in texts:
            for found in PLACEHOLDER.finditer(text):
                if found[0] not in self.known:
                    self.tokenizer.add_tokens([AddedToken(found[0], normalized=False, special=False)])
                    self.sound_of[self.tokenizer.convert_tokens_to_ids(found[0])] = int(found[1] or 0)
                    self.known.add(found[0])

    def __call__(self, texts: str | Sequence[str]) -> AudioPrompt:
        """Ids of these texts, padded to the length that the encoder takes.

        What is too long is cut at its end, as pipelines do, unless a sound would be cut off: that is an error.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        self._learn(texts)
        room = self.max_length - len(self.before) - len(self.behind)
        ids, masks, slots = [], [], []
        for row, text in enumerate(texts):
            spoken = self._spoken(text)
            cut = spoken[room:]
            if any(sound is not None for _, sound, _ in cut):
                raise ValueError(
                    f"{text!r} is {len(spoken)} tokens long and {room} fit, so a sound would be cut off: shorten the "
                    "text, or put the sound further to the front"
                )
            if cut:
                logger.warning(f"{text!r} is {len(spoken)} tokens long and {room} fit: its end is not read")
            spoken = spoken[:room]
            slots += [
                (row, len(self.before) + place, sound, word)
                for place, (_, sound, word) in enumerate(spoken)
                if sound is not None
            ]
            line = [*self.before, *(one for one, _, _ in spoken), *self.behind]
            spare = self.max_length - len(line)
            ids.append(line + [self.pad_id] * spare)
            masks.append([1] * len(line) + [0] * spare)
        found_S4 = torch.tensor(slots, dtype=torch.long).reshape(-1, 4)
        return AudioPrompt(torch.tensor(ids), torch.tensor(masks), *found_S4.unbind(1))

    def _spoken(self, text: str) -> list[tuple[int, int | None, int]]:
        """(id, number of the sound or None, number of its word) of every place."""
        spoken: list[tuple[int, int | None, int]] = []
        for one in self._ids(text):
            if one in self.sound_of:
                spoken += [(self.neutral_id, self.sound_of[one], word) for word in range(self.num_words)]
            else:
                spoken.append((one, None, 0))
        return spoken


@contextmanager
def injected(text_encoder: nn.Module, prompt: AudioPrompt, words: torch.Tensor) -> Iterator[None]:
    """While it lasts, the encoder reads `words` in the slots of `prompt`. Gradients flow to them.

    Args:
        text_encoder: CLIP's, T5's, ...; called once or more with `prompt.input_ids`, and with nothing else.
        prompt: see `AudioPrompts`.
        words (`torch.Tensor`): (B, N, K, D), or (N, K, D) for all texts alike; or (K, D) of one sound.
    """
    check_not_compiled(text_encoder)
    words_BNKD = spread(words, len(prompt.input_ids))
    check_enough(prompt, words_BNKD)
    module, calls = embedding_module(text_encoder), 0

    def overwrite(embedding: nn.Module, arguments: tuple, output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        ids = arguments[0]
        if ids.shape != prompt.input_ids.shape or not torch.equal(ids, prompt.input_ids.to(ids.device)):
            raise ValueError(
                f"within injected(...) the text encoder reads the ids of its prompt, {tuple(prompt.input_ids.shape)}, "
                f"and it got others, {tuple(ids.shape)}: encode other texts outside"
            )
        if words_BNKD.shape[-1] != output.shape[-1]:
            raise ValueError(
                f"the words have {words_BNKD.shape[-1]} numbers and this text encoder reads words of "
                f"{output.shape[-1]}: they were made for another base, or for another of its text encoders"
            )
        calls += 1
        place = prompt.to(output.device)
        chosen_SD = words_BNKD.to(output)[place.rows, place.sounds, place.words]
        return output.index_put((place.rows, place.positions), chosen_SD)

    handle = module.register_forward_hook(overwrite)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise ValueError(
            f"{type(text_encoder).__name__} did not look up a word while its prompt had sounds in it: call it inside "
            "the block, with prompt.input_ids"
        )


def spread(words: torch.Tensor, num_texts: int) -> torch.Tensor:
    """(B, N, K, D)."""
    if words.dim() == 2:
        words = words[None]
    if words.dim() == 3:
        words = words.expand(num_texts, *words.shape)
    if words.dim() != 4 or len(words) != num_texts:
        raise ValueError(
            f"words are {tuple(words.shape)} and must be (texts, sounds, words of each, width), of {num_texts} texts"
        )
    return words


def check_enough(prompt: AudioPrompt, words_BNKD: torch.Tensor) -> None:
    if not len(prompt.sounds):
        return
    given, wanted = words_BNKD.shape[1:3], (prompt.num_sounds, int(prompt.words.max()) + 1)
    if given[0] < wanted[0]:
        raise ValueError(f"the text speaks of <audio:{wanted[0] - 1}> and {given[0]} sounds were given: one for each")
    if given[1] != wanted[1]:
        raise ValueError(
            f"a sound is {given[1]} words and its place has room for {wanted[1]}: AudioPrompts(..., "
            f"num_words={given[1]})"
        )


def check_not_compiled(text_encoder: nn.Module) -> None:
    """A compiled encoder may have been traced without the hook, and would then read the ordinary word in silence."""
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in text_encoder.modules()
    )
    if compiled or torch.compiler.is_compiling():
        raise ValueError(
            "this text encoder is compiled, and a compiled one may pass by what is put into its prompt: leave it out "
            "of torch.compile (it runs once for a picture), and compile the UNet"
        )


__all__ = ["AudioPrompt", "AudioPrompts", "check_not_compiled", "injected"]
