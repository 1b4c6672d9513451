"""What the embedded model can do, on the packs' test parts: every bar of its card by one command.

    python benchmarks/bars_embedded.py --model runs/embedded/open/pipeline --judge runs/judge/model --data PACKS

The judge is made by

    unibrivl train --recipe small_pictures --set data.folder=PACKS --set data.variant=research --set data.part=judge \\
        --set model.name=judge --set seed=1 --set steps=2500 --set output_dir=runs/judge

Sounds: label-text classification, a probe on the tower's features, retrieval of photographs, spoken digits, and with
`--zero-shot` classes that were held out of another run of `small_sounds`; with `--other-tower` the same of a run
whose tower is another. Pictures: from every test sound whose class has pictures, three seeds, named by a judge that
has seen other pictures than tower and generator (see `training/recipes/small_world.py`); FID and IS on the judge's
features against pictures whose classes were shuffled; the nearest training picture of each, so that learning by heart
can be seen. Then how much of the best of twenty halving keeps, and seconds on this machine. Writes
`results/embedded_VARIANT.json` and sheets of pictures beside it (`--sheets`).

Shapes: N sounds or pictures, C classes, E and V widths.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from PIL import Image
from tqdm import tqdm
from transformers import ResNetForImageClassification

from unibrivl.metrics import (
    Relevance,
    fid_from_features,
    inception_score,
    mrr,
    ranks,
    recall_at,
    wilson,
)
from unibrivl.modeling import UniBriVLModel, UniBriVLProcessor
from unibrivl.pipelines import UniBriVLPipeline
from unibrivl.pipelines.fingerprint_unibrivl import fingerprint_of
from unibrivl.training.recipes.photos import normalised, processor_for
from unibrivl.training.recipes.small_generator import GUIDANCE, STEPS
from unibrivl.training.recipes.small_sounds import clip
from unibrivl.training.recipes.small_world import (
    CORE,
    DIGITS,
    KINDS,
    SIDE,
    Item,
    SmallWorld,
    SmallWorldData,
    noun,
    pixels_of,
    prompt_of,
)
from unibrivl.training.recipes.sounds import numbers_of, probed
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ

RESULTS = Path(__file__).resolve().parent / "results"
SECONDS = 5.0  # that are heard of a clip
PARTS = ("sounds", *KINDS, "halving", "speed")
AT_ONCE = 32  # sounds or pictures of one forward pass


# ---- sounds


def heard(listener: Any, sounds: Sequence[np.ndarray]) -> torch.Tensor:
    """(N, E) vectors of sounds."""
    starts = range(0, len(sounds), AT_ONCE)
    return torch.cat([listener.encode_audio(list(sounds[start : start + AT_ONCE])) for start in starts])


def named(listener: Any, vectors_NE: torch.Tensor, labels: Sequence[str]) -> np.ndarray:
    """(N,) numbers of the labels whose words are nearest."""
    words_CE = listener.encode_text([noun(label) for label in labels], against="audio")
    return (vectors_NE @ words_CE.T).argmax(1).numpy()


def share(right: Any) -> dict[str, Any]:
    """An accuracy with its interval and the number it stands on."""
    right = np.asarray(right, bool)
    low, high = wilson(int(right.sum()), len(right))
    return {"value": round(float(right.mean()), 4), "n": len(right), "low": round(low, 4), "high": round(high, 4)}


@dataclass
class Ears:
    """What hears: a UniBriVL and its processor."""

    model: Any
    processor: Any

    @classmethod
    def of_run(cls, run: Path) -> Ears:
        model = UniBriVLModel.from_pretrained(run / "model").eval()
        return cls(model, UniBriVLProcessor.from_pretrained(run / "model"))

    @property
    def listener(self) -> Any:
        return self.model.as_matcher(self.processor)


def sound_bars(ears: Ears, world: SmallWorld) -> dict[str, Any]:
    listener = ears.listener
    tests = world.sounds("test")
    vectors_NE = heard(listener, [clip(one, SECONDS) for one in tests])
    things = tuple(label for label in world.labels if label not in DIGITS and any(one.label == label for one in tests))
    taught = tuple(label for label in things if any(one.label == label for one in world.sounds("train")))
    found: dict[str, Any] = {}
    for name, labels in (("esc10_labels", CORE), ("all_labels", taught), ("digits_labels", DIGITS)):
        rows = [row for row, one in enumerate(tests) if one.label in labels]
        right = [labels.index(tests[row].label) for row in rows]
        found[name] = {**share(named(listener, vectors_NE[rows], labels) == right), "classes": len(labels)}
    found["esc10_probe"] = share(probe(ears, world))
    found["photos"] = retrieval(listener, world, tests, vectors_NE)
    return found


def probe(ears: Ears, world: SmallWorld) -> np.ndarray:
    """Which test clips of ESC-10 a logistic regression on the tower's features names right, of augmented views."""
    train, test = (world.sounds(split, CORE) for split in ("train", "test"))
    found_N = probed(ears.model, ears.processor, train, test, lambda one: clip(one, SECONDS))
    return found_N == numbers_of(test)


def retrieval(listener: Any, world: SmallWorld, tests: list[Item], vectors_NE: torch.Tensor) -> dict[str, Any]:
    """Test sounds find test photographs: the first of their class."""
    photos = world.pictures("test", ("photo",))
    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in pixels_of(photos, "photographs")]
    starts = range(0, len(pictures), AT_ONCE)
    gallery_ME = torch.cat([listener.encode_image(pictures[start : start + AT_ONCE]) for start in starts])
    present = {one.label for one in photos}
    rows = [row for row, one in enumerate(tests) if one.label in present]
    relevance = Relevance.from_labels([tests[row].label for row in rows], [one.label for one in photos])
    found = ranks((vectors_NE[rows] @ gallery_ME.T).numpy(), relevance)
    classes = len({tests[row].label for row in rows})
    return {"mrr": round(mrr(found), 4), "r_at_1": round(recall_at(found, 1), 4), "sounds": len(rows),
            "photos": len(photos), "classes": classes}  # fmt: skip


def zero_shot(run: Path, data: str, variant: Any) -> dict[str, Any]:
    """A run of `small_sounds` with `data.held_classes`: sounds of these classes, none of which it has heard, by their
    words among one another. The image tower and the text encoder know them."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    classes = tuple(told["data.held_classes"])
    world = SmallWorld(SmallWorldData(data, variant))
    sounds = [one for split in ("train", "test") for one in world.sounds(split, classes)]
    listener = Ears.of_run(run).listener
    found = named(listener, heard(listener, [clip(one, SECONDS) for one in sounds]), classes)
    right = found == [classes.index(one.label) for one in sounds]
    return {**share(right), "classes": list(classes), "chance": round(1 / len(classes), 4), "steps": told["steps"]}


def other_tower(run: Path, world: SmallWorld) -> dict[str, Any]:
    """The bars of a run of `small_sounds` beside the model's own, and what it was that heard."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    ears = Ears.of_run(run)
    count = sum(weight.numel() for weight in ears.model.audio_model.parameters())
    start = Path(told["model.start"]).parent / "run.json"
    before = json.loads(start.read_text(encoding="utf-8"))["steps"] if told["model.start"] else 0
    return {**sound_bars(ears, world), "tower": told["model.tower"], "parameters": count, "steps": told["steps"],
            "steps_without_labels": before}  # fmt: skip


# ---- pictures


class Judge:
    """Names pictures, and has features of them.

    Args:
        folder: of a `ResNetForImageClassification` that `small_pictures` made with `data.part=judge`.
    """

    def __init__(self, folder: Path):
        self.model = ResNetForImageClassification.from_pretrained(folder).eval()
        self.processor = processor_for(SIDE)
        self.labels = [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]

    @torch.no_grad()
    def __call__(self, pixels_N3HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) logits of all labels and (N, V) features."""
        logits, features = [], []
        for some in torch.from_numpy(pixels_N3HW).split(256):
            output = self.model.resnet(pixel_values=normalised(some.float(), self.processor))
            features.append(output.pooler_output.flatten(1))
            logits.append(self.model.classifier(output.pooler_output))
        known = len(self.labels) - len(KINDS)
        return torch.cat(logits)[:, :known].numpy(), torch.cat(features).numpy()

    def named(self, pixels_N3HW: np.ndarray, among: Sequence[str]) -> list[str]:
        """The best of some labels for each picture."""
        logits_NC, _ = self(pixels_N3HW)
        return [among[place] for place in logits_NC[:, [self.labels.index(label) for label in among]].argmax(1)]


def bank_of_each_kind(world: SmallWorld) -> dict[str, dict[str, str]]:
    """For each kind: what is read -> what is drawn, of classes that are heard and have such pictures."""
    sounds = {one.label for one in world.sounds("train")}
    return {
        kind: {noun(label): prompt_of(kind, label) for of, label in world.named if of == kind and label in sounds}
        for kind in KINDS
    }


def drawn_for(pipe: Any, sounds: Sequence[np.ndarray], bank: dict[str, str], seed: int, **how: Any) -> np.ndarray:
    """(N, 3, 64, 64) bytes: for each sound the picture that the pipeline's default way gives."""
    pictures = []
    for place, sound in enumerate(tqdm(sounds, desc=f"pictures, seed {seed}", disable=None)):
        generator = torch.Generator().manual_seed(1000 * seed + place)
        image = pipe(audio=sound, sampling_rate=RATE_HZ, label_bank=bank, generator=generator,
                     num_inference_steps=STEPS, guidance_scale=GUIDANCE, **how).images[0]  # fmt: skip
        pictures.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    return np.stack(pictures)


def picture_bars(
    pipe: Any,
    judge: Judge,
    world: SmallWorld,
    kinds: Sequence[str],
    seeds: int,
    limit: int | None,
    sheets: Path | None,
    how: dict,
) -> dict[str, Any]:
    """For each kind: the judge on real pictures that it has not seen, and on those of test sounds."""
    found, banks = {}, bank_of_each_kind(world)
    tower_part = {kind: world.pictures("world", (kind,)) for kind in kinds}
    for kind in kinds:
        drawable = {label for of, label in world.named if of == kind}
        among = [label for label in (DIGITS if kind == "digit" else CORE) if label in drawable]
        real = world.pictures("world" if kind == "drawing" else "test", (kind,))
        real = [one for one in real if one.label in among]
        row: dict[str, Any] = {"classes": len(among)}
        if real:
            right = [a == one.label for a, one in zip(judge.named(pixels_of(real), among), real, strict=True)]
            row["judge_on_real"] = share(right)
        sounds = [one for one in world.sounds("test") if one.label in among][:: 6 if kind == "digit" else 1][:limit]
        heard_sounds = [clip(one, SECONDS) for one in sounds]
        bank = {noun(label): banks[kind][noun(label)] for label in among}
        pictures = [drawn_for(pipe, heard_sounds, bank, seed, **how) for seed in range(seeds)]
        each = [np.array(judge.named(some, among)) == np.array([one.label for one in sounds]) for some in pictures]
        row["named"] = {**share(np.concatenate(each)), "each_seed": [round(float(one.mean()), 4) for one in each]}
        everything = np.concatenate(pictures)
        row |= distances(judge, everything, [one.label for one in sounds] * seeds, tower_part[kind], among)
        if sheets is not None:
            draw_sheet(sheets / f"{kind}.png", judge, pictures[0], sounds, tower_part[kind])
        found[kind] = row
    return found


def distances(
    judge: Judge, pixels_N3HW: np.ndarray, labels: Sequence[str], items: list[Item], among: Sequence[str]
) -> dict[str, Any]:
    """FID and IS on the judge's features, beside those of the same pictures with classes shuffled within FID by class;
    and how near the nearest training pictures are, beside how near those are to one another."""
    logits_NC, features_NV = judge(pixels_N3HW)
    items = [one for one in items if one.label in among]
    pixels_M3HW = pixels_of(items)
    _, known_MV = judge(pixels_M3HW)
    known_labels = np.array([one.label for one in items])
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = [
        class_distance(features_NV, np.array(order), known_MV, known_labels)
        for order in (labels, np.array(labels)[shuffled])
    ]
    columns = [judge.labels.index(label) for label in among]
    is_ = inception_score(logits_NC[:, columns], 1)
    nearest = to_nearest(pixels_N3HW, pixels_M3HW)
    others = to_nearest(pixels_M3HW, pixels_M3HW, itself=True)
    return {
        "fid_on_judge": round(fid_from_features(known_MV, features_NV), 3) if len(known_MV) > 1 else None,
        "class_distance_on_judge": {"own": round(by_class[0], 3), "shuffled": round(by_class[1], 3)},
        "is_on_judge": round(is_.mean, 3),
        "pixel_rms_to_nearest_training": round(float(np.median(nearest)), 4),
        "pixel_rms_among_training": round(float(np.median(others)), 4) if len(others) else None,
    }


def class_distance(features_NV: np.ndarray, labels: np.ndarray, known_MV: np.ndarray, known: np.ndarray) -> float:
    """The mean distance of class means, on the judge's features."""
    shared = sorted(set(labels.tolist()) & set(known.tolist()))
    gaps = [np.linalg.norm(features_NV[labels == one].mean(0) - known_MV[known == one].mean(0)) for one in shared]
    return float(np.mean(gaps))


def to_nearest(pixels_N3HW: np.ndarray, others_M3HW: np.ndarray, itself: bool = False) -> np.ndarray:
    """(N,) root mean squared difference, of 1, of each picture to the nearest other, mirrored or not."""
    flat_MP, squares_M = flat(others_M3HW)
    found = []
    for start in range(0, len(pixels_N3HW), AT_ONCE):
        some = pixels_N3HW[start : start + AT_ONCE]
        nearest = []
        for version in (some, some[..., ::-1]):
            flat_NP, squares_N = flat(version)
            gaps_NM = (squares_N[:, None] + squares_M - 2 * flat_NP @ flat_MP.T) / flat_NP.shape[1]
            if itself:
                gaps_NM[np.arange(len(some)), start + np.arange(len(some))] = np.inf
            nearest.append(gaps_NM.min(1, initial=np.inf))
        found.append(np.sqrt(np.minimum(*nearest).clip(min=0)))
    whole = np.concatenate(found)
    return whole[np.isfinite(whole)]


def flat(pixels_N3HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) pictures in 0..1 as rows, and (N,) the squares of their lengths."""
    flat_NP = np.ascontiguousarray(pixels_N3HW).reshape(len(pixels_N3HW), -1).astype(np.float32) / 255
    return flat_NP, np.square(flat_NP).sum(1)


def draw_sheet(path: Path, judge: Judge, pixels_N3HW: np.ndarray, sounds: list[Item], items: list[Item]) -> None:
    """Pairs of rows: pictures of test sounds, one class beside the other, and under each its nearest training picture
    by the judge's features."""
    _, features_NV = judge(pixels_N3HW)
    pixels_M3HW = pixels_of(items)
    _, known_MV = judge(pixels_M3HW)
    nearest = np.linalg.norm(features_NV[:, None] - known_MV[None], axis=2).argmin(1)
    rows = []
    for label in dict.fromkeys(one.label for one in sounds):
        places = [place for place, one in enumerate(sounds) if one.label == label][:12]
        pairs = [np.concatenate([pixels_N3HW[place], pixels_M3HW[nearest[place]]], 1) for place in places]
        pairs += [np.full_like(pairs[0], 255)] * (12 - len(pairs))
        rows.append(np.concatenate(pairs, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0)).save(path)


# ---- strategies and speed


def halving_bar(pipe: Any, world: SmallWorld, count: int) -> dict[str, Any]:
    """(halving - mean candidate) / (best of twenty - mean candidate), by the matching score."""
    drawable = {label for of, label in world.named if of == "photo"}
    sounds = [one for one in world.sounds("test") if one.label in CORE and one.label in drawable]
    order = np.random.default_rng(0).permutation(len(sounds))[:count]
    bank, gains = bank_of_each_kind(world)["photo"], []
    for place in tqdm(order, desc="halving", disable=None):
        sound = clip(sounds[place], SECONDS)
        scores = {}
        for strategy in ("rerank", "halving"):
            output = pipe(
                audio=sound, sampling_rate=RATE_HZ, label_bank=bank, strategy=strategy, num_candidates=20,
                generator=torch.Generator().manual_seed(int(place)), num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
            )  # fmt: skip
            scores[strategy] = [one.score for one in output.candidates if one.score is not None]
        mean, best = float(np.mean(scores["rerank"])), max(scores["rerank"])
        gains.append((max(scores["halving"]) - mean, best - mean))
    kept, possible = (float(np.sum(values)) for values in zip(*gains, strict=True))
    return {"kept": round(kept / possible, 4), "sounds": len(order)}


def speed(model: str, pipe: Any, world: SmallWorld) -> dict[str, float]:
    """Seconds for one sound: one picture, and the best of four; medians of five, after one that is not counted."""
    sound, bank = clip(world.sounds("test", CORE)[0], SECONDS), bank_of_each_kind(world)["photo"]
    found = {}
    for count in (1, 4):
        times = []
        for _ in range(6):
            begun = time.perf_counter()
            pipe(audio=sound, sampling_rate=RATE_HZ, label_bank=bank, num_candidates=count,
                 num_inference_steps=STEPS, guidance_scale=GUIDANCE)  # fmt: skip
            times.append(time.perf_counter() - begun)
        found[f"n{count}_s"] = round(float(np.median(times[1:])), 3)
    begun = time.perf_counter()
    UniBriVLPipeline.from_pretrained(model)
    found["load_s"] = round(time.perf_counter() - begun, 3)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import unibrivl.pipelines"], check=True, capture_output=True)
    found["import_s"] = round(time.perf_counter() - begun, 3)
    return found


def earlier(path: Path, weights: str | None, sampler: dict[str, Any]) -> dict[str, Any]:
    """What was measured of these weights before, so that parts of it can be measured again."""
    if path.is_file():
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("weights") == weights and told.get("sampler") == sampler:
            return told
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the pipeline")
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--variant", choices=("open", "research"), default="open")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="sounds of each kind, to try it")
    parser.add_argument("--halving", type=int, default=50, help="sounds for the halving bar; 0 leaves it out")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--sheets", type=Path, help="folder for sheets of pictures")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="measure these, keep the rest")
    parser.add_argument("--zero-shot", type=Path, help="folder of a run of small_sounds with data.held_classes")
    parser.add_argument("--other-tower", type=Path, help="folder of a run of small_sounds with another model.tower")
    args = parser.parse_args()
    world = SmallWorld(SmallWorldData(args.data, args.variant))
    pipe = UniBriVLPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    how = {"num_candidates": args.candidates}
    path = RESULTS / f"embedded_{args.variant}.json"
    sampler, weights = {"steps": STEPS, "guidance": GUIDANCE, **how}, fingerprint_of(pipe.unet)
    found: dict[str, Any] = {
        **earlier(path, weights, sampler),
        "machine": describe(),
        "variant": args.variant,
        "weights": weights,
        "sampler": sampler,
    }
    judge = Judge(args.judge)

    def keep(**measured: Any) -> None:  # at once: the whole takes a quarter of an hour
        found.update(measured)
        path.write_text(json.dumps(found, indent=2) + "\n")
        print(json.dumps(measured), flush=True)

    if "sounds" in args.only:
        keep(sounds=sound_bars(Ears(pipe.matcher, pipe.matcher_processor), world))
    if args.zero_shot:
        keep(sounds={**found["sounds"], "zero_shot": zero_shot(args.zero_shot, args.data, args.variant)})
    if args.other_tower:
        keep(sounds={**found["sounds"], "other_tower": other_tower(args.other_tower, world)})
    for kind in [one for one in KINDS if one in args.only]:
        measured = picture_bars(pipe, judge, world, (kind,), args.seeds, args.limit, args.sheets, how)
        keep(pictures={**found.get("pictures", {}), **measured})
    if "halving" in args.only and args.halving:
        keep(halving=halving_bar(pipe, world, args.halving))
    if "speed" in args.only:
        keep(speed=speed(args.model, pipe, world))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
