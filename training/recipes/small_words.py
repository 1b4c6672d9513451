"""The recipe `small_words`: the embedded model's tokenizer and its text encoder in the image tower's space.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_words --set data.folder=PACKS

A small CLIP text encoder learns where texts belong: "a photo of a dog" where the image tower sees photographs of dogs,
"a dog" between photographs and drawings of them. Classes without pictures get a place of their own, far from all
others, for sounds to meet them there. The same encoder, without its projection, is what the generator reads with.

Shapes: B texts of a batch, P places, T tokens, V image tower's width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.gather import Shares
from unibrivl.training.objectives.base import Objective
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.photos import normalised, processor_for
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_world import (
    SIDE,
    SmallWorld,
    SmallWorldData,
    pixels_of,
    texts_of,
)
from unibrivl.training.sampler import Draw

START, END = "<|startoftext|>", "<|endoftext|>"
AT_ONCE = 256  # pictures of one forward pass of the tower
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()&/"


@dataclass(frozen=True)
class SmallWordsModel:
    """
    Args:
        tower: folder of the image tower.
        vocab_size (`int`): at most; there are few words in this world.
        longest (`int`): tokens of a text, its start and end included.
    """

    tower: str = "runs/small_pictures/model"
    vocab_size: int = 1024
    longest: int = 24
    hidden_size: int = 192
    num_hidden_layers: int = 3
    num_attention_heads: int = 4


@dataclass(frozen=True)
class SmallWordsObjective:
    temperature: float = 0.07  # CLIP paper: where it begins


def config() -> RunConfig:
    return RunConfig(
        recipe="small_words",
        output_dir="runs/small_words",
        model=SmallWordsModel(),
        data=SmallWorldData(),
        objective=SmallWordsObjective(),
        steps=600,
        batch_size=128,
        learning_rate=1e-3,  # OURS: a transformer of a million numbers
        warmup=50,
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        evaluate_every=250,
        save_every=250,
        log_every=50,
        primary="accuracy",
    )


def build(config: RunConfig) -> Parts:
    size = config.model
    if not Path(size.tower).is_dir():
        raise ConfigError(
            f"there is no image tower in {size.tower}: train one, unibrivl train --recipe small_pictures --set "
            f"data.folder={config.data.folder}, or name one with --set model.tower=..."
        )
    world = SmallWorld(config.data)
    places = Places.of(world, AutoModel.from_pretrained(size.tower).eval())
    tokenizer = tokenizer_for(places.texts, size.vocab_size, size.longest)
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden_size,
            intermediate_size=4 * size.hidden_size,
            num_hidden_layers=size.num_hidden_layers,
            num_attention_heads=size.num_attention_heads,
            max_position_embeddings=size.longest,
            projection_dim=places.embeds_PV.shape[1],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

    def collate(examples: list[dict]) -> Batch:
        return {
            **read(tokenizer, [one["text"] for one in examples]),
            "place": torch.tensor([one["place"] for one in examples]),
        }

    def evaluate(model: Any) -> dict[str, float]:
        """The share of all texts that are nearest to their own place."""
        embeds_NV = nn.functional.normalize(model(**read(tokenizer, places.texts)).text_embeds.float(), dim=-1)
        nearest_N = (embeds_NV.cpu() @ places.embeds_PV.t()).argmax(1)
        return {"accuracy": float((nearest_N == torch.tensor(places.place_of_text)).float().mean())}

    about = About(
        task="feature-extraction",
        dataset=f"{len(places.texts)} texts of the small world, all seen, {world.variant}",
        towers={"image": {"model": size.tower}},
        licences=licences_of(world.learned),
    )
    return Parts(model, PlacesLoss(model, places.embeds_PV, config.objective.temperature), places, collate, evaluate,
                 tokenizer, about)  # fmt: skip


def read(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Batch:
    """As Stable Diffusion reads: all texts padded to the most tokens, without a mask."""
    found = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return {"input_ids": found["input_ids"]}


def tokenizer_for(texts: Sequence[str], vocab_size: int, longest: int) -> CLIPTokenizer:
    """CLIP's kind of tokenizer, its pairs of letters learned from these texts; every text can be read."""
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix="</w>", show_progress=False, initial_alphabet=sorted(LETTERS)
    )
    learned.train_from_iterator([text.lower() for text in sorted(set(texts))], trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    alphabet = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    tokens = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), START, END])
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=longest)


@dataclass(frozen=True)
class Places:
    """Where texts belong in the image tower's space.

    Args:
        embeds_PV: unit vectors, the mean of a class's pictures of one kind, or of all kinds.
        texts, place_of_text: every text and the number of its place.
    """

    embeds_PV: torch.Tensor
    names: tuple[str, ...]
    texts: tuple[str, ...]
    place_of_text: tuple[int, ...]

    @classmethod
    def of(cls, world: SmallWorld, tower: Any) -> Places:
        items = world.pictures("world")
        embeds_NV = embeds_of(tower, pixels_of(items))
        of_kind: dict[tuple[str, str], list[int]] = {}
        for row, one in enumerate(items):
            of_kind.setdefault((one.kind, one.label), []).append(row)
        rows, names, texts, places = list[torch.Tensor](), list[str](), list[str](), list[int]()
        for label in world.labels:
            means = {
                kind: embeds_NV[found].mean(0) for (kind, of_label), found in of_kind.items() if of_label == label
            }
            for kind, mean_V in sorted(means.items()):
                texts += texts_of(kind, label)
                places += [len(rows)] * len(texts_of(kind, label))
                rows.append(mean_V)
                names.append(f"{kind} {label}")
            between_V = torch.stack(list(means.values())).mean(0) if means else own_place(label, embeds_NV)
            texts += texts_of("sound", label)
            places += [len(rows)] * len(texts_of("sound", label))
            rows.append(between_V)
            names.append(label)
        embeds_PV = nn.functional.normalize(torch.stack(rows), dim=-1)
        return cls(embeds_PV, tuple(names), tuple(texts), tuple(places))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {"text": self.texts[draw.index], "place": self.place_of_text[draw.index]}


def embeds_of(tower: Any, pixels_N3HW: np.ndarray) -> torch.Tensor:
    """(N, V) unit vectors of pictures as bytes."""
    processor, found = processor_for(SIDE), []
    with torch.no_grad():
        for some in torch.from_numpy(pixels_N3HW).split(AT_ONCE):
            found.append(tower(pixel_values=normalised(some.float(), processor)).pooler_output.flatten(1))
    return nn.functional.normalize(torch.cat(found).float(), dim=-1)


def own_place(label: str, embeds_NV: torch.Tensor) -> torch.Tensor:
    """A direction that follows from a class's name, of what pictures of this tower vary in."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:6], "big")
    weights_N = torch.randn(len(embeds_NV), generator=torch.Generator().manual_seed(seed))
    mean_V = embeds_NV.mean(0)
    return mean_V + 2 * nn.functional.normalize(weights_N @ (embeds_NV - mean_V), dim=-1) * mean_V.norm()


class PlacesLoss(Objective):
    """Texts pick their place among all places, and come as near to it as they can.

    Args:
        embeds_PV: the places, of length one.

    Inputs: `input_ids`, and `place`, (B,) numbers.
    Terms: `picked`, `near`.
    """

    def __init__(self, model: nn.Module, embeds_PV: torch.Tensor, temperature: float):
        super().__init__(model)
        self.embeds_PV, self.temperature = embeds_PV, temperature

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        embeds_BV = nn.functional.normalize(model(input_ids=batch["input_ids"]).text_embeds.float(), dim=-1)
        cosines_BP = embeds_BV @ self.embeds_PV.to(embeds_BV.device).t()
        shares, place_B = Shares.of(embeds_BV), batch["place"]
        picked_B = nn.functional.cross_entropy(cosines_BP / self.temperature, place_B, reduction="none")
        near_B = 1 - cosines_BP.gather(1, place_B[:, None])[:, 0]
        return {"picked": shares.mean(picked_B), "near": shares.mean(near_B)}
