"""What a small BrewCLIP learns here: tone of voice, and spoken captions, channel by channel.

    python benchmarks/learn_brewclip.py --data PACKS --tone runs/tone --spoken runs/spoken --brewclip runs/brewclip

`--tone` holds runs of the recipe `small_tone`, named CLASSES-CHANNELS-SEED, such as `four-text-0`, `four-e2e-0` and
`four-text,e2e-0`. `--brewclip` holds runs of `small_brewclip`: `both-0`, and `text-0` and `e2e-0` of one channel each.
Every part is measured if its folder is given. Writes `results/learn_brewclip.json` and prints two tables.

Accuracies of single runs have Wilson's intervals, differences on the same captions a paired bootstrap's, 95 % both.

Shapes: N captions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from unibrivl import data as datasets
from unibrivl.metrics import mrr, paired_bootstrap, recall_at, wilson, word_error_rate
from unibrivl.metrics.classification import unweighted_average_recall
from unibrivl.modeling import BrewCLIPForSpeechClassification, BrewCLIPModel, BrewCLIPProcessor
from unibrivl.training.recipes import small_brewclip, small_tone
from unibrivl.training.recipes.brewclip import transcripts_for
from unibrivl.training.spoken import said_in

RESULTS = Path(__file__).resolve().parent / "results" / "learn_brewclip.json"


def settled(kind: Any, run: Path, **more: Any) -> Any:
    """The settings of a run's data that decide what is measured."""
    said = json.loads((run / "run.json").read_text(encoding="utf-8"))
    names = {name.removeprefix("data."): value for name, value in said.items() if name.startswith("data.")}
    return kind(**{**{name: names[name] for name in ("seconds",) if name in names}, **more})


# ---- tone of voice


def tone(folder: Path, data: str) -> dict[str, Any]:
    """Classes, then channels -> accuracy and mean recall of each seed on the actors that were not heard."""
    found: dict[str, Any] = {}
    for run in sorted(one for one in folder.iterdir() if (one / "model").is_dir()):
        classes, channels, seed = run.name.split("-")
        settings = settled(small_tone.SmallToneData, run, folder=data, classes=classes)
        _, held, labels = small_tone.clips_of(settings)
        model = BrewCLIPForSpeechClassification.from_pretrained(run / "model").eval()
        processor = BrewCLIPProcessor.from_pretrained(run / "model")
        right_N = np.array([labels.index(small_tone.class_of(one, settings)) for one in held])
        named_N = small_tone.named(model, processor, held, settings)
        low, high = wilson(int((named_N == right_N).sum()), len(held))
        rows = found.setdefault(classes, {"clips": len(held), "commonest": share(np.bincount(right_N).max(), held)})
        rows.setdefault(channels, {})[seed] = {
            "accuracy": share((named_N == right_N).sum(), held),
            "low": round(low, 4),
            "high": round(high, 4),
            "mean_recall": round(unweighted_average_recall(named_N, right_N), 4),
        }
    return found


def share(count: Any, of: Any) -> float:
    return round(float(count) / len(of), 4)


# ---- spoken captions


def spoken(runs: Path, folder: str) -> dict[str, Any]:
    """What the whole and each channel find, of one model and of models of one channel; and by word errors."""
    settings = settled(small_brewclip.SmallBrewCLIPData, runs / "both-0", folder=folder)
    whole = datasets.load(folder)
    listing = whole.filter(lambda one: one.split == "test")
    said = said_in(listing, folder, transcripts_for(settings))
    model, processor, held = opened(runs / "both-0", listing, said, settings)
    ranks = {
        "both": small_brewclip.ranks_of(small_brewclip.heard_by(model, processor, held), held),
        **{
            f"{name} of both": small_brewclip.ranks_of(
                small_brewclip.heard_by(model, processor, held, channels=(name,)), held
            )
            for name in ("text", "e2e")
        },
    }
    for name in ("text", "e2e"):
        if (runs / f"{name}-0" / "model").is_dir():
            alone, prepared, _ = opened(runs / f"{name}-0", listing, said, settings)
            ranks[f"{name} alone"] = small_brewclip.ranks_of(small_brewclip.heard_by(alone, prepared, held), held)
    errors_N = errors([one.texts[0] for one in held.samples], held.texts)
    weight = None if model.fusion.raw_weight is None else round(float(model.fusion.weight.detach()), 4)
    return {
        "train_captions": len(whole) - len(listing),
        "captions": len(held),
        "pictures": len(held.pictures_PE),
        "classes": len(set(held.labels)),
        "word_error_rate": round(word_error_rate([one.texts[0] for one in held.samples], held.texts).rate, 4),
        "fusion_weight": weight,
        "scores": {name: scores(found_N) for name, found_N in ranks.items()},
        "both_minus": {name: difference(ranks["both"], found_N) for name, found_N in ranks.items() if name != "both"},
        "by_errors": by_errors(errors_N, ranks),
    }


def opened(run: Path, listing: Any, said: Any, settings: Any) -> tuple[Any, Any, small_brewclip.Spoken]:
    model = BrewCLIPModel.from_pretrained(run / "model").eval()
    processor = BrewCLIPProcessor.from_pretrained(run / "model")
    return model, processor, small_brewclip.Spoken(listing, said, model, processor, settings)


def scores(ranks_N: np.ndarray) -> dict[str, float]:
    found = {"r1": recall_at(ranks_N, 1), "r5": recall_at(ranks_N, 5), "mrr": mrr(ranks_N)}
    return {name: round(float(value), 4) for name, value in found.items()}


def difference(left_N: np.ndarray, right_N: np.ndarray) -> dict[str, float]:
    """Of R@1, on the same captions."""
    hits = [(ranks_N <= 1).astype(float) for ranks_N in (left_N, right_N)]
    found = paired_bootstrap(*hits)
    return {"r1": round(float(hits[0].mean() - hits[1].mean()), 4), "low": round(found.low, 4),
            "high": round(found.high, 4)}  # fmt: skip


def errors(truth: list[str], written: list[str]) -> np.ndarray:
    """(N,), word errors of each caption by its length."""
    return word_error_rate(truth, written).rates


def by_errors(errors_N: np.ndarray, ranks: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Quarters of the captions, from the best written down to the worst."""
    order = np.argsort(errors_N, kind="stable")
    return [
        {
            "captions": len(rows),
            "word_error_rate": round(float(errors_N[rows].mean()), 4),
            **{name: round(float((found_N[rows] <= 1).mean()), 4) for name, found_N in ranks.items()},
        }
        for rows in np.array_split(order, 4)
    ]


# ---- tables


def tables(found: dict[str, Any]) -> str:
    lines: list[str] = []
    for classes, rows in found.get("tone", {}).items():
        lines += [
            f"Tone of voice, {classes} classes, {rows['clips']} clips of actors that were not heard; the commonest "
            f"class alone: {rows['commonest']:.3f}",
            "",
            "| channels | accuracy by seed | mean | mean recall |",
            "| --- | --- | --- | --- |",
        ]
        for channels, seeds in rows.items():
            if isinstance(seeds, dict):
                each = [row["accuracy"] for row in seeds.values()]
                recall = np.mean([row["mean_recall"] for row in seeds.values()])
                told = ", ".join(f"{one:.3f}" for one in each)
                lines.append(f"| {channels} | {told} | {np.mean(each):.3f} | {recall:.3f} |")
        lines.append("")
    if row := found.get("spoken"):
        lines += [
            f"{row['captions']} spoken captions of {row['classes']} classes, word error rate {row['word_error_rate']}",
            "",
            "| | R@1 | R@5 | MRR | both minus this, R@1 |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, score in row["scores"].items():
            less = row["both_minus"].get(name)
            told = "" if less is None else f"{less['r1']:+.3f} ({less['low']:+.3f} to {less['high']:+.3f})"
            lines.append(f"| {name} | {score['r1']:.3f} | {score['r5']:.3f} | {score['mrr']:.3f} | {told} |")
        names = list(row["scores"])
        lines += ["", "| word error rate | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|"]
        for part in row["by_errors"]:
            cells = " | ".join(f"{part[name]:.3f}" for name in names)
            lines.append(f"| {part['word_error_rate']:.2f} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--tone", type=Path, help="folder of runs of small_tone")
    parser.add_argument("--spoken", help="folder that spoken_captions.py made")
    parser.add_argument("--brewclip", type=Path, help="folder of runs of small_brewclip")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    found["machine"] = describe()
    if args.tone:
        found["tone"] = tone(args.tone, args.data)
    if args.brewclip and args.spoken:
        found["spoken"] = spoken(args.brewclip, args.spoken)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
