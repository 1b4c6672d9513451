"""What SpeechLM is pre-trained on: crops of any sounds with the units of their frames, and texts that are spelled.

Shapes: B batch, S samples, T frames, U units of a text, M letters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unibrivl.audio import load_audio, load_part
from unibrivl.data.folder import load
from unibrivl.data.layout import kind_of, walk
from unibrivl.data.packs import load_sounds_and_pictures, load_speech_emotion, load_spoken_digits
from unibrivl.data.records import DatasetError, Sample
from unibrivl.modeling import SpeechLMConfig, SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer
from unibrivl.modeling.front_end_speechlm import num_frames
from unibrivl.modeling.masking_speechlm import sample_spans
from unibrivl.training.parts import Batch
from unibrivl.training.recipes.speechlm_units import RATE_HZ, Units
from unibrivl.training.sampler import Draw, derive

NUM_SPECIAL = 4  # fairseq: <s>, <pad>, </s>, <unk> come before the units
PAD, NO_LETTER = 1, -100  # unit labels and letters where there are none
LETTERS = "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"  # SpeechLM: the order of its letters, which come after the four
MAX_TEXT_UNITS = 2800  # SpeechLM: longer texts were not trained on
PACKS = {
    "sounds_and_pictures": load_sounds_and_pictures,
    "spoken_digits": load_spoken_digits,
    "speech_emotion": load_speech_emotion,
}


# ---- which sounds


def sounds_of(path: str) -> list[Sample]:
    """Every sound of a pack, of a table, of a folder with a `metadata` table, or below any other folder."""
    path = os.path.expanduser(path)
    name = os.path.basename(os.path.abspath(path))
    if not os.path.exists(path):
        raise DatasetError(f"{path} does not exist. data.sounds takes folders, tables and packs, with commas between")
    if name in PACKS and os.path.isdir(os.path.join(path, "audio")):
        found = list(PACKS[name](path))
    elif os.path.isfile(path) and kind_of(path) in ("audio", "video"):
        found = [Sample(name, audio=path)]
    elif os.path.isfile(path) or any(entry.startswith("metadata.") for entry in os.listdir(path)):
        found = list(load(path))
    else:
        found = [
            Sample(os.path.relpath(file, path).replace(os.sep, "/"), audio=file)
            for file in walk(path)
            if kind_of(file) in ("audio", "video")
        ]
    heard = [sample for sample in found if sample.audio]
    if not heard:
        raise DatasetError(f"{path} holds no sound. Name a folder that does, or a table with a column audio")
    return heard


def chosen(paths: Sequence[str], without: Sequence[str]) -> list[Sample]:
    """The sounds of all paths, less those of the splits that are not to be heard."""
    if not paths:
        raise DatasetError("there is nothing to hear: --set data.sounds=FOLDER (or several, with commas between)")
    many = len(paths) > 1
    found = []
    for path in paths:
        for sample in sounds_of(path):
            if sample.split not in without:
                name = f"{os.path.basename(os.path.abspath(path))}/{sample.id}" if many else sample.id
                found.append(
                    Sample(name, sample.audio, start_s=sample.start_s, end_s=sample.end_s, group=sample.group)
                )
    if not found:
        raise DatasetError(f"all sounds are of the splits {', '.join(without)}, which data.without leaves out")
    return found


def divided(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the clips to learn from and of those to evaluate on, about `share` of all.

    Clips of one group (speaker, recording) stay together, where that leaves something on both sides.
    """
    groups: dict[str, list[int]] = {}
    for clip, sample in enumerate(samples):
        groups.setdefault(sample.group or f"\0{sample.id}", []).append(clip)
    if len(groups) < 20:  # OURS: of few speakers none can be spared
        groups = {sample.id: [clip] for clip, sample in enumerate(samples)}
    order = np.random.default_rng(derive(seed, len(samples))).permutation(len(groups))
    names, held = list(groups), list[int]()
    for number in order:
        if held and len(held) >= share * len(samples):
            break
        held += groups[names[number]]
    kept = sorted(set(range(len(samples))) - set(held))
    if not kept:
        raise DatasetError(f"{len(samples)} sounds are too few to learn from some and be evaluated on others")
    return kept, sorted(held)


def read(sample: Sample, begin: int = 0, end: int | None = None) -> np.ndarray:
    """(S,) float32 at the model's rate; of what the sample means only its samples from `begin` up to `end`."""
    assert sample.audio is not None
    first = round((sample.start_s or 0) * RATE_HZ)
    last = None if sample.end_s is None else round(sample.end_s * RATE_HZ)
    if end is not None:
        last = first + end if last is None else min(last, first + end)
    first += begin
    if not first and last is None:
        return load_audio(sample.audio, rate_hz=RATE_HZ).samples
    return load_part(sample.audio, first / RATE_HZ, None if last is None else last / RATE_HZ, rate_hz=RATE_HZ).samples


# ---- examples and batches


class Grid(NamedTuple):
    """Where a front end's frames lie: samples from one to the next, and those that one sees."""

    hop: int
    field: int


class SoundsAndUnits:
    """Crops of sounds that begin where a frame does, each with its units and, if there are texts, a text.

    Args:
        samples, units: of the same clips.
        clips: which of them.
        grid: of the front end that will hear them.
        max_frames (`int`): frames of a crop.
        texts: `Texts`, of which each example draws one.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        units: Units,
        clips: Sequence[int],
        grid: Grid,
        max_frames: int,
        texts: Texts | None = None,
    ):
        self.samples, self.units, self.grid, self.max_frames, self.texts = samples, units, grid, max_frames, texts
        self.ratio = units.rate_hz * grid.hop // RATE_HZ  # labels a frame
        frames: np.ndarray = units.counts[list(clips)] // self.ratio
        self.clips = [clip for clip, number in zip(clips, frames, strict=True) if number > 0]
        self.lengths = [min(int(number), max_frames) for number in frames if number > 0]  # batches are made of equals
        if not self.clips:
            raise DatasetError("no sound has units: they are too short, or cannot be read")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        chance = np.random.default_rng(draw.seed)
        example = self.crop(draw.index, chance)
        if self.texts is not None:
            example["text"] = self.texts[int(chance.integers(len(self.texts)))]
        return example

    def crop(self, index: int, chance: np.random.Generator | None = None) -> dict[str, Any]:
        """A crop at a random place, or without `chance` the middle."""
        clip = self.clips[index]
        labels = self.units[clip]
        spare = max(0, len(labels) // self.ratio - self.max_frames)
        first = spare // 2 if chance is None else int(chance.integers(spare + 1))
        # of a clip that is shorter all is read, down to the last sample that makes no frame
        hop, field = self.grid
        end = (first + self.max_frames - 1) * hop + field
        samples = read(self.samples[clip], first * hop, end if spare else None)[: end - first * hop]
        labels = np.asarray(labels[first * self.ratio : (first + self.max_frames) * self.ratio])
        return {"samples": samples, "units": labels}


def collated(examples: list[dict[str, Any]], extractor: SpeechLMFeatureExtractor, first_id: int) -> Batch:
    """`first_id` is the id of unit 0."""
    sounds = extractor([example["samples"] for example in examples], sampling_rate=RATE_HZ, return_tensors="pt")
    batch: Batch = {"input_values": sounds["input_values"]}
    if not sounds["attention_mask"].all():
        batch["attention_mask"] = sounds["attention_mask"]
    batch["unit_labels"] = padded([example["units"] + first_id for example in examples], PAD)
    texts = [example["text"] for example in examples if "text" in example]
    if texts:
        batch["input_ids"] = padded([ids for ids, _ in texts], PAD)
        batch["letter_labels"] = padded([letters for _, letters in texts], NO_LETTER)
    return batch


def padded(rows: Sequence[np.ndarray], value: int) -> torch.Tensor:
    tensors = [torch.from_numpy(np.ascontiguousarray(row, dtype=np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


class Texts:
    """Lines of a file as phone units and letters.

    Args:
        path: one text a line.
        tokenizer: with its lexicon. Texts with words that it does not know are left out: noise cannot be spelled.
    """

    def __init__(self, path: str, tokenizer: SpeechLMPhoneTokenizer):
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
        self.rows = []
        for line in lines:
            words = tokenizer.words(line)
            if words and not tokenizer.unknown_words(line):
                ids = np.array(tokenizer(line)["input_ids"])
                spelled = "".join(f"{word}|" for word in words)
                if len(ids) <= MAX_TEXT_UNITS and set(spelled) <= set(LETTERS):
                    self.rows.append((ids, np.array([NUM_SPECIAL + LETTERS.index(letter) for letter in spelled])))
        if not self.rows:
            raise DatasetError(f"{path} has no line whose words are all in the lexicon. `unibrivl lexicon` makes one")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[number]


class SavedTogether:
    """What hears and what reads, saved into one folder."""

    def __init__(self, *parts: Any):
        self.parts = parts

    def save_pretrained(self, folder: str | Path) -> None:
        for part in self.parts:
            part.save_pretrained(folder)


# ---- evaluation


def masked_batches(
    data: SoundsAndUnits,
    extractor: SpeechLMFeatureExtractor,
    first_id: int,
    config: SpeechLMConfig,
    size: int,
    seed: int,
) -> list[Batch]:
    """Middles of the clips with spans that are masked each time the same, clips of like length together."""
    order = sorted(range(len(data)), key=lambda index: data.lengths[index])
    batches = []
    for start in range(0, len(order), size):
        examples = [data.crop(index) for index in order[start : start + size]]
        batch = collated(examples, extractor, first_id)
        width = num_frames(batch["input_values"].shape[1], config)
        width = min(width, batch["unit_labels"].shape[1] // data.ratio)
        masks = []
        for number, example in enumerate(examples):
            heard = num_frames(max(data.grid.field, len(example["samples"])), config)
            real = min(heard, len(example["units"]) // data.ratio)
            chance = np.random.RandomState(derive(seed, start + number) % 2**32)
            row = sample_spans((1, width), config.mask_time_prob, config.mask_time_length, chance, [real])
            masks.append(torch.from_numpy(row))
        batches.append({**batch, "mask_time_indices": torch.cat(masks)})
    return batches


def masked_scores(model: Any, batches: Sequence[Batch]) -> dict[str, float]:
    """Of masked frames: cross-entropy and accuracy of both heads, and the accuracy of always saying the commonest."""
    right, loss, count = np.zeros(2), np.zeros(2), 0
    seen = torch.zeros(model.config.unit_vocab_size, dtype=torch.long)
    for batch in batches:
        output = model(**{name: value.to(model.device) for name, value in batch.items()}, return_dict=True)
        scored_BT = output.mask_time_indices & output.frame_mask.bool()
        labels_N = output.labels[scored_BT]
        for head, logits_BTC in enumerate((output.speech_logits, output.shared_logits)):
            logits_NC = logits_BTC[scored_BT].float()
            right[head] += int((logits_NC.argmax(-1) == labels_N).sum())
            loss[head] += float(torch.nn.functional.cross_entropy(logits_NC, labels_N, reduction="sum"))
        count += len(labels_N)
        seen += torch.bincount(labels_N.cpu(), minlength=len(seen))
    if not count:
        raise DatasetError("the held-out sounds are too short to mask a frame: raise data.held_out")
    return {
        "masked_accuracy": right[1] / count,
        "masked_accuracy_speech": right[0] / count,
        "masked_loss": loss[1] / count,
        "majority": int(seen.max()) / count,
    }
