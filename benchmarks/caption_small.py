"""What the recipe `small_captioner` says of sounds that it has not heard; and its card, rendered from that.

    unibrivl train --recipe small_captioner --set data.folder=PACKS --set output_dir=runs/captions/both
    unibrivl train ... --set data.read=1 --set output_dir=runs/captions/read       # and what each half of it does:
    unibrivl train ... --set data.read=0 --set output_dir=runs/captions/heard
    python benchmarks/caption_small.py --data PACKS --runs runs/captions
    python benchmarks/caption_small.py > model_cards/embedded-captioner.md

With `--data` it writes `results/small_captioner.json`, without it prints the card; words that need judgement stand
here. The captions are those of the packs' open test clips, as `unibrivl caption` writes them. The control is the
same captions given to the clips in another order, by many draws: whoever does not listen reaches as much. Nothing was
chosen on these clips, and each run is one seed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from tqdm import tqdm

from unibrivl.embedder.writing import load_captioner
from unibrivl.metrics.captions import caption_scores
from unibrivl.metrics.intervals import wilson
from unibrivl.training.recipes.small_captioner import evenly
from unibrivl.training.recipes.small_captioner_words import named, sentences
from unibrivl.training.recipes.small_world import DIGITS, SmallWorld, SmallWorldData

RESULTS = Path(__file__).resolve().parent / "results" / "small_captioner.json"
EARS = RESULTS.parent / "embedded_open.json"
RUNS = {
    "both": "sentences of sounds, and captions without sounds",
    "heard": "sentences of sounds alone",
    "read": "captions without sounds alone",
}
KINDS = {"things": "things (ESC-10)", "digits": "spoken digits"}
MOST = 100  # clips of things, of which there are 80, and of digits, of which every third is taken
SPEECH = re.compile(r"\b(speak|talk)")
NAMED_DRAWS, CIDER_DRAWS = 1000, 20
KEPT = ("data.read", "data.placed", "data.longest", "data.noise", "batch_size", "precision")  # of a run's settings


# ---- measuring


def measured(said: Sequence[str], right: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Scores of the captions of some clips, and of the same captions in another order."""
    names = [named(text, labels) for text in said]
    taught = {text for label in labels for text in sentences(label)}
    chance = np.random.default_rng(0)
    orders = [chance.permutation(len(said)) for _ in range(NAMED_DRAWS)]
    hits = sum(found == {label} for found, label in zip(names, right, strict=True))
    shuffled = np.mean([[names[at] == {label} for at, label in zip(order, right, strict=True)] for order in orders])
    low, high = wilson(hits, len(said))
    return {
        "clips": len(said),
        "named": {"value": hits / len(said), "low": low, "high": high},
        "named_shuffled": float(shuffled),
        "named_beside_others": sum(label in found for found, label in zip(names, right, strict=True)) / len(said),
        "cider": cider(said, right),
        "cider_shuffled": float(np.mean([cider([said[at] for at in order], right) for order in orders[:CIDER_DRAWS]])),
        "distinct": len(set(said)),
        "word_for_word_as_taught": sum(text in taught for text in said) / len(said),
    }


def cider(said: Sequence[str], right: Sequence[str]) -> float:
    return caption_scores(said, [list(sentences(label)) for label in right], ("cider",)).corpus["cider"]


def of_run(folder: Path, clips: dict[str, list[Any]], labels: Sequence[str]) -> dict[str, Any]:
    """What one run was, and what it says."""
    training = json.loads((folder / "model" / "training.json").read_text(encoding="utf-8"))
    captioner = load_captioner(folder / "model")
    found: dict[str, Any] = {
        "steps": training["steps"],
        "minutes": round(60 * training["hours"], 1),
        "seed": training["seed"],
        "language": training["towers"]["language"]["model"],
        "prefix_parameters": sum(weight.numel() for weight in captioner.model.prefix.parameters()),
        "data": training["data"],
        "settings": {name: training["settings"][name] for name in KEPT},
        "scores": {},
        "samples": [],
    }
    for kind, items in clips.items():
        said = [captioner.caption([one.source])[0] for one in tqdm(items, desc=f"{folder.name} {kind}", disable=None)]
        found["scores"][kind] = measured(said, [one.label for one in items], labels)
        seen = set[str]()
        for one, text in zip(items, said, strict=True):
            if one.label not in seen:  # the first of each class: not chosen
                seen.add(one.label)
                found["samples"].append({"clip": one.id, "label": one.label, "caption": text})
    return found


def measure(data: Path, runs: Path) -> dict[str, Any]:
    world = SmallWorld(SmallWorldData(folder=str(data)))
    labels = tuple(dict.fromkeys(one.label for one in world.sounds("train")))
    tests = sorted(world.sounds("test", labels), key=lambda one: one.id)
    tests = evenly(tests, MOST)
    clips = {
        "things": [one for one in tests if one.label not in DIGITS],
        "digits": [one for one in tests if one.label in DIGITS],
    }
    found = {name: of_run(runs / name, clips, labels) for name in RUNS if (runs / name / "model").is_dir()}
    if "both" not in found:
        raise SystemExit(f"there is no finished run in {runs / 'both'}")
    return {"machine": describe(), "labels": labels, "runs": found}


# ---- the card

CARD = """---
library_name: transformers
pipeline_tag: audio-text-to-text
license: cc-by-sa-4.0
tags:
- unibrivl
- audio
- audio-captioning
---

<!-- rendered by `benchmarks/caption_small.py` from measurements; change those, not this file -->

# unibrivl embedded, captioner

A short sentence about a sound: `UniBriVLForAudioCaptioning` on the ears of the embedded model (variant open), which
stay as they are. The weights are not shipped; the recipe makes them on one core.

```
unibrivl train --recipe small_captioner --set data.folder=PACKS
unibrivl caption dog.wav --model runs/small_captioner/model
```

## The language model

{language}, trained from nothing.
No pre-trained language model is in it. Four vectors before the first word come of the sound, by a prefix of
{prefix_parameters:,} parameters; five beams search for the sentence.

## What it was trained on, and how

- **Heard**: {heard:,} clips of the packs' training part ({labels} classes: ESC-10 and spoken digits), each with one
  of a few sentences of ours for its class, "a dog barks", "the spoken word seven". They say what the pack knows of a
  clip, which is its class: nothing of how many there are, where, or what else is to be heard.
- **Read**: {read:,} captions of AudioCaps' training part of at most {longest} tokens, without their sounds, which are
  not here. A caption begins at the place of the classes that it names, the mean of what was heard of them, or of
  everything where it names none. Noise is added to sounds and places.
- {steps:,} steps of {batch} examples, half of them read, seed {seed}: {minutes} minutes, on a core that had other work
  as well. Nothing was chosen on the test clips; settings were set once.

Learning to write from texts with noise around their place is the way of CapDec (Nukrai et al. 2022) and DeCap (Li et
al. 2023), a prefix for GPT-2 that of ClipCap (Mokady et al. 2021). Here the place of a caption follows from names in
it, not from a text encoder: the embedded model's knows labels and few other words.

## What it can do

All {things} open test clips of things, of recordings that no part of it has heard, and {digits} of the 300 spoken
digits, of speakers that it has heard.
*Named* are captions that name the clip's class and no other of the {labels} (95 % interval). *Shuffled* are the same
captions given to the clips in another order. CIDEr-D is against our own sentences for the class, so it says whether
the right one of them comes, and is comparable to no published figure. *As taught* are captions that are word for word
one of those sentences.

{tables}

{ears}

Ten test clips of things and ten of digits, the first of each class by name:

{samples}

{reading}

## Limits

- Its range is {labels} classes. It answers every sound with one of them: speech becomes a digit, music whatever is
  nearest, and nothing in the sentence says so.
- It says what something is, not how. One sound, one class: of two at once it names one.
- Whatever a caption tells beyond the class (that it is a voice, that something flies) comes of the habits of texts
  and not of the sound.
- The clips' classes are the only truth at hand, so no figure here says how good a sentence is.
- What makes a sentence right is a word in it: a wrong sentence with the right word passes.
- One seed; {things} test clips of things, eight a class.

## Licences

Code: Apache-2.0. Sounds: CC0, CC BY and CC BY-SA, by the packs' own tables. AudioCaps' captions (Kim et al. 2019):
MIT. Weights that the recipe makes: CC BY-SA 4.0, as those of the embedded model they hear with.
"""


def told(row: dict[str, float]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def tables(found: dict[str, Any]) -> str:
    lines = []
    for kind, title in KINDS.items():
        lines += [
            f"| {title}: learned from | named | shuffled | named, beside others too | CIDEr-D | shuffled | "
            "different captions | as taught |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, what in RUNS.items():
            if name in found["runs"]:
                row = found["runs"][name]["scores"][kind]
                lines.append(
                    f"| {what} | {told(row['named'])} | {row['named_shuffled']:.3f} | "
                    f"{row['named_beside_others']:.3f} | {row['cider']:.2f} | {row['cider_shuffled']:.2f} | "
                    f"{row['distinct']} of {row['clips']} | {row['word_for_word_as_taught']:.3f} |"
                )
        lines.append("")
    return "\n".join(lines).strip()


def ears_section(ears: dict[str, Any]) -> str:
    """What the same ears reach without a word of a language model."""
    things, digits = (ears["sounds"][name]["value"] for name in ("esc10_labels", "digits_labels"))
    return (
        f"The same ears, asked which of the labels is nearest, are right about {things:.3f} of the things and "
        f"{digits:.3f} of the digits\n([their card](embedded-open.md)): a captioner on them can know little more."
    )


def samples_table(found: dict[str, Any]) -> str:
    names = [name for name in ("both", "read") if name in found["runs"]]
    lines = ["| clip is of | " + " | ".join(RUNS[name] for name in names) + " |", "| --- |" + " --- |" * len(names)]
    for rows in zip(*(found["runs"][name]["samples"] for name in names), strict=True):
        lines.append(f"| {rows[0]['label']} | " + " | ".join(row["caption"] for row in rows) + " |")
    return "\n".join(lines)


def reading(found: dict[str, Any]) -> str:
    """What the tables say, in words."""
    scores = {name: run["scores"] for name, run in found["runs"].items()}
    taught = [scores["both"][kind] for kind in KINDS]
    share = sum(row["word_for_word_as_taught"] * row["clips"] for row in taught) / sum(row["clips"] for row in taught)
    text = [
        f"Of its captions {share:.3f} are word for word sentences that it was taught: it is a classifier of "
        f"{len(found['labels'])} classes",
        "that answers in sentences.",
    ]
    if "heard" in scores:
        both, heard = ([scores[name][kind]["named"]["value"] for kind in KINDS] for name in ("both", "heard"))
        brought = "Reading brought it no more right names" if both <= heard else "Reading brought it more right names"
        text += [
            f"{brought}: {both[0]:.3f} of the things and {both[1]:.3f} of the digits with it,",
            f"{heard[0]:.3f} and {heard[1]:.3f} without, one seed each.",
        ]
    if "read" in scores:
        row, samples = scores["read"]["things"], found["runs"]["read"]["samples"]
        things = [one["caption"] for one in samples if one["label"] not in DIGITS]
        voices = sum(bool(SPEECH.search(caption)) for caption in things)
        text += [
            "",
            f"Who only read, and was told no sentence of any sound, still names {row['named']['value']:.3f} of the "
            f"things ({row['named_shuffled']:.3f} shuffled),",
            'in words of people; a word counts, so "a fire engine" names a fire. It knows the classes of clips',
            f"by the places alone. It adds what nobody hears: in {voices} of these {len(things)} captions of things",
            "somebody speaks, as in much of AudioCaps. It cannot name digits, for no caption is placed at one.",
        ]
    return "\n".join(text)


def card(found: dict[str, Any], ears: dict[str, Any]) -> str:
    run = found["runs"]["both"]
    heard, read = (row["found"] for row in run["data"])
    scores = run["scores"]
    filled = CARD.format(
        language=run["language"].removeprefix("new, "),
        prefix_parameters=run["prefix_parameters"],
        heard=heard,
        read=read,
        labels=len(found["labels"]),
        longest=run["settings"]["data.longest"],
        steps=run["steps"],
        batch=run["settings"]["batch_size"],
        seed=run["seed"],
        minutes=run["minutes"],
        digits=scores["digits"]["clips"],
        things=scores["things"]["clips"],
        tables=tables(found),
        ears=ears_section(ears),
        samples=samples_table(found),
        reading=reading(found),
    )
    return filled.replace("\n\n\n", "\n\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the packs; without it the card is printed")
    parser.add_argument("--runs", type=Path, default=Path("runs/captions"), help="folder of the runs, by their names")
    args = parser.parse_args()
    if args.data is not None:
        RESULTS.write_text(json.dumps(measure(args.data, args.runs), indent=1) + "\n", encoding="utf-8")
        print(RESULTS)
    else:
        found, ears = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, EARS))
        sys.stdout.write(card(found, ears))
    return 0


if __name__ == "__main__":
    sys.exit(main())
