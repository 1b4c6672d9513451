"""`AudioCue`: the words of one sound, as a file that any pipeline of diffusers reads.

    cue.save("word.safetensors")
    stock.load_textual_inversion("word.safetensors")       # plain diffusers: "a photo of <audio>"
    AudioCue.load("word.safetensors")                      # and back, with where it comes from

With one text encoder the file is a textual inversion as diffusers writes it: one tensor under its token. With several
each has its tensor under the name that people know it by, clip_l and clip_g, to be loaded one after the other.

Shapes: K words, D width of a token table.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub import load_state_dict_from_file, save_torch_state_dict
from torch import nn

from .token_table_audio_token import same_table, table_fingerprint, table_of, told_of_tables

FILE = "learned_embeds.safetensors"  # where diffusers looks in a folder
ENDING = ".safetensors"
ABOUT = "unibrivl_audio_cue"  # in the file's metadata
# text encoder of a pipeline -> its name in files of several
FILE_NAMES = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5"}
TOKEN = "<audio>"


@dataclass
class AudioCue:
    """
    Args:
        vectors (`dict[str, torch.Tensor]`): text encoder -> (K, D), what it reads in the place of a sound.
        token (`str`): what stands for them in a prompt of plain diffusers.
        base_name (`str`, *optional*): the base they were learned for.
        fingerprints (`dict[str, str]`): of its token tables; see `token_table_audio_token`.
        about (`dict`): where they come from, in plain values: the sound, the pictures, how they were learned.
    """

    vectors: dict[str, torch.Tensor]
    token: str = TOKEN
    base_name: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.vectors = {name: (one[None] if one.dim() == 1 else one).detach() for name, one in self.vectors.items()}
        counts = {len(one) for one in self.vectors.values()}
        if len(counts) != 1 or 0 in counts or any(one.dim() != 2 for one in self.vectors.values()):
            shapes = {name: tuple(one.shape) for name, one in self.vectors.items()}
            raise ValueError(f"a cue has as many words, (words, width), for every text encoder; these are {shapes}")
        if not all(one.isfinite().all() for one in self.vectors.values()):
            raise ValueError("the words of this cue are not finite: learn them at a lower rate, or load another")
        if not self.token or self.token.split() != [self.token]:
            raise ValueError(f"a cue's token is one word without spaces, such as <dog>; got {self.token!r}")

    @property
    def num_words(self) -> int:
        return len(next(iter(self.vectors.values())))

    @property
    def words(self) -> dict[str, torch.Tensor]:
        """text encoder -> (1, 1, K, D), one sound of one text, as `injected` and `audio_embeds` take them."""
        return {name: one[None, None] for name, one in self.vectors.items()}

    @classmethod
    def for_base(
        cls, vectors: Mapping[str, torch.Tensor], text_encoders: Mapping[str, nn.Module], **fields
    ) -> "AudioCue":
        """A cue that knows the token tables it was learned among."""
        prints = {name: table_fingerprint(table_of(text_encoders[name])) for name in vectors}
        return cls(dict(vectors), fingerprints={name: one for name, one in prints.items() if one}, **fields)

    def check_base(self, text_encoders: Mapping[str, nn.Module], base_name: str | None = None) -> None:
        """Raises a ValueError, naming both, if a text encoder reads words by another table."""
        theirs = base_name or "the base at hand"
        for name, one in self.vectors.items():
            if name not in text_encoders:
                raise ValueError(f"this cue has words for {name}, which {theirs} does not have: learn them for it")
            table = table_of(text_encoders[name])
            fits = one.shape[1] == table.shape[1]
            if not fits or (name in self.fingerprints and not same_table(self.fingerprints[name], table)):
                mine = told_of_tables(self.fingerprints or {name: f"?x{one.shape[1]}"})
                found = told_of_tables({name: table_fingerprint(table) or "offloaded"})
                raise ValueError(
                    f"this cue was learned for {self.base_name or 'a base without a name'} ({mine}), and {theirs} "
                    f"reads words by another table ({found}): learn the sound for this base"
                )

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> str:
        """Into a file `.safetensors`, or a folder, where it is called learned_embeds.safetensors; its path."""
        place = file_in(os.fspath(path))
        folder, name = os.path.split(os.path.abspath(place))
        os.makedirs(folder, exist_ok=True)
        about: dict[str, Any] = {"base_name": self.base_name, "fingerprints": self.fingerprints, "about": self.about}
        about |= {"token": self.token, "encoders": list(self.vectors)}
        if len(self.vectors) == 1:
            tensors = {self.token: next(iter(self.vectors.values()))}
        else:
            tensors = {FILE_NAMES.get(encoder, encoder): one for encoder, one in self.vectors.items()}
        tensors = {key: one.float().cpu().contiguous() for key, one in tensors.items()}
        with tempfile.TemporaryDirectory(prefix=".cue-", dir=folder) as partial:  # whole, or not there
            save_torch_state_dict(
                tensors, partial, filename_pattern="cue{suffix}.safetensors", metadata={ABOUT: json.dumps(about)}
            )
            os.replace(os.path.join(partial, "cue.safetensors"), os.path.join(folder, name))
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AudioCue":
        """A file of ours, or a textual inversion of anybody's in safetensors."""
        place = file_in(os.fspath(path))
        if not os.path.isfile(place):
            raise FileNotFoundError(f"there is no {place}: name a file of words, or the folder that holds {FILE}")
        try:
            tensors, about = load_state_dict_from_file(place), metadata_of(place)
        except Exception as error:  # safetensors has errors of its own, which are no library of ours
            raise ValueError(f"{place} is no safetensors file: {error}") from error
        encoders = {file_name: encoder for encoder, file_name in FILE_NAMES.items()}
        if len(tensors) == 1:
            ((token, only),) = tensors.items()
            names = about.get("encoders") or ["text_encoder"]
            vectors, token = {names[0]: only}, about.get("token", token)
        elif tensors and tensors.keys() <= {*encoders, *about.get("encoders", ())}:
            vectors, token = {encoders.get(key, key): one for key, one in tensors.items()}, about.get("token", TOKEN)
        else:
            raise ValueError(
                f"{place} holds {', '.join(sorted(tensors)[:4]) or 'nothing'}, which is no textual inversion: that is "
                f"one tensor under its token, or {', '.join(encoders)}"
            )
        return cls(
            vectors, token, about.get("base_name"), dict(about.get("fingerprints") or {}), about.get("about") or {}
        )


def file_in(path: str) -> str:
    if os.path.isdir(path) or not os.path.splitext(path)[1]:
        return os.path.join(path, FILE)
    if not path.endswith(ENDING):
        raise ValueError(f"{path} does not end in {ENDING}: words are saved in safetensors, and read from there alone")
    return path


def metadata_of(path: str) -> dict[str, Any]:
    """What our own files say of themselves; nothing of anybody else's."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    told = json.loads(header.get("__metadata__", {}).get(ABOUT, "{}"))
    return told if isinstance(told, dict) else {}


__all__ = ["AudioCue"]
