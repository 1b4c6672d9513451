"""Does it learn? A small UniBriVL on real sounds and pictures, against what is told the classes and what is not.

One command trains everything from nothing, on the CPU, and goes on where it was stopped:

* `photos`: the image tower, once; it stays frozen;
* for each seed `sounds_and_pictures`: UniBriVL, by a logistic regression on its features (the probe), by the nearest
  picture, by the nearest text;
* for each seed `sounds`: the same tower from scratch, told the classes of ESC-10, with as many steps and batches;
* for each seed `sounds` with `data.classes=all`: the same, told all labels that UniBriVL hears, and the same probe. It
  shows what more sounds give without a picture;
* log-mel statistics with a support vector machine and with a logistic regression, for which fold 3 chooses.

The bar is that UniBriVL's probe beats the same tower from scratch. Differences are paired by seed (t interval over the
seeds) and by clip (bootstrap over the clips, of the mean over the seeds). Recipes' defaults were chosen on fold 3
(`--validation-fold 3`), with the test part unheard. Writes `results/learn_esc10.json`; `--page` puts it into
docs/learning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from unibrivl.convert.lexicon import load_lexicon
from unibrivl.metrics import bootstrap, paired_bootstrap
from unibrivl.modeling import (
    SpeechLMPhoneTokenizer,
    UniBriVLForAudioClassification,
    UniBriVLModel,
    UniBriVLProcessor,
)
from unibrivl.training.recipes import sounds
from unibrivl.training.recipes.sounds_and_pictures import Evaluation
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ, Clips, Division, SoundsData, division
from unibrivl.training.run import without_bars
from unibrivl.training.target_cache import TargetCache, picture_tower

RESULTS = Path(__file__).resolve().parent / "results" / "learn_esc10.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "learning.md"
BEGIN, END = "<!-- results/learn_esc10.json -->", "<!-- end -->"  # around the table in the page
SYSTEMS = ("unibrivl", "scratch", "told_all")
NAMES = {
    "unibrivl_probe": "UniBriVL, probe",
    "unibrivl_zero_shot_picture": "UniBriVL, nearest picture",
    "unibrivl_zero_shot_label": "UniBriVL, nearest label",
    "scratch": "the same tower told ESC-10",
    "scratch_probe": "the same tower told ESC-10, probe",
    "told_all": "the same tower told all classes",
    "told_all_probe": "the same tower told all classes, probe",
    "log_mel_svm": "statistics of log-mel frames, support vector machine",
    "log_mel_logistic": "statistics of log-mel frames, logistic regression",
}
# what is compared with what: the bar first
DIFFERENCES = (
    ("unibrivl_probe", "scratch"),
    ("unibrivl_probe", "scratch_probe"),
    ("unibrivl_probe", "told_all_probe"),
)


# ---- training -------------------------------------------------------------------------------------------------------


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name of a run -> its command; the image tower has to be there before the others."""
    common = [f"data.validation_fold={args.validation_fold or 'none'}", f"model.tower={args.tower}", *args.set]
    towers = {
        "photos": train(args, "photos", "photos", [] if args.photo_steps is None else [f"steps={args.photo_steps}"])
    }
    for seed in args.seeds:
        seeded = [*common, f"seed={seed}"]
        pictures = [f"model.image={args.work / 'photos' / 'model'}", f"data.cache={args.work / 'targets'}"]
        if args.tower == "speechlm":
            pictures.append(f"data.lexicon={args.work / 'lexicon'}")
        more = {"unibrivl": ("sounds_and_pictures", pictures), "scratch": ("sounds", []),
                "told_all": ("sounds", ["data.classes=all"])}  # fmt: skip
        for system in args.systems:
            recipe, settings = more[system]
            name = f"{system}_{args.tower}_{seed}"
            towers[name] = train(args, recipe, name, [*seeded, *settings])
    return towers


def train(args: argparse.Namespace, recipe: str, name: str, settings: list[str]) -> list[str]:
    settings = [f"data.folder={args.data}", f"output_dir={args.work / name}", *settings]
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "unibrivl", "train", "--recipe", recipe, "--resume", *words]


def run(name: str, command: list[str], work: Path) -> None:
    """One process of one thread; its output goes to a file beside its folder. What is finished is not run again."""
    if (work / name / "model").exists():
        return
    log = work / f"{name}.log"
    with log.open("a") as file:
        code = subprocess.run(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if code:
        raise SystemExit(f"{name} ended with {code}: see {log}, then run this command again, which goes on from there")


def train_all(args: argparse.Namespace) -> None:
    """As many at a time as there are jobs; those that look at pictures come last, and wait for the image tower."""
    everything = commands(args)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "lexicon").exists():
        SpeechLMPhoneTokenizer(lexicon=load_lexicon()[0]).save_pretrained(args.work / "lexicon")
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(everything), desc="runs", unit="run") as bar:
        photos = pool.submit(run, "photos", everything.pop("photos"), args.work)
        photos.add_done_callback(lambda _: bar.update())

        def run_after(name: str, command: list[str]) -> None:
            if name.startswith("unibrivl"):
                photos.result()
            run(name, command, args.work)

        last = sorted(everything.items(), key=lambda item: item[0].startswith("unibrivl"))
        waiting = [pool.submit(run_after, name, command) for name, command in last]
        for one in waiting:
            one.add_done_callback(lambda _: bar.update())
        for one in [photos, *waiting]:
            one.result()


# ---- what each of them says of the held-out clips -------------------------------------------------------------------


def said_by_unibrivl(folder: Path, parts: Division, clips: Clips, cache: Path) -> dict[str, np.ndarray]:
    with without_bars():
        model = UniBriVLModel.from_pretrained(folder).eval()
    processor = UniBriVLProcessor.from_pretrained(folder)
    targets = TargetCache(cache, picture_tower(model, processor.image_processor))
    targets.prepare([one.image for one in parts.train if one.image and one.labels[0] in sounds.ESC10])
    return Evaluation(parts, clips, processor, targets).predictions(model)


def said_by_classes(folder: Path, parts: Division, clips: Clips) -> dict[str, np.ndarray]:
    """By its own classifier, and by the probe on its features."""
    with without_bars():
        model = UniBriVLForAudioClassification.from_pretrained(folder).eval()
    processor = UniBriVLProcessor.from_pretrained(folder)
    probe_N = sounds.probed(model, processor, parts.esc10_train, parts.esc10_held, clips)
    return {"": sounds.predictions(model, processor, parts.esc10_held, clips), "probe": probe_N}


def said_by_statistics(parts: Division, clips: Clips) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Mean, deviation, extremes and movement of each mel bin; how strong the penalty is, the last fold decides."""
    extractor = sounds.extractor_for("mel_encoder")

    def statistics(samples) -> np.ndarray:
        rows = []
        for one in samples:
            mel_TF = extractor(clips(one), sampling_rate=RATE_HZ, return_tensors="np")["input_features"][0]
            moved_TF = np.diff(mel_TF, axis=0)
            rows.append(np.concatenate([mel_TF.mean(0), mel_TF.std(0), mel_TF.max(0), mel_TF.min(0), moved_TF.std(0)]))
        return np.stack(rows)

    train_NF, held_NF = statistics(parts.esc10_train), statistics(parts.esc10_held)
    label_N = sounds.numbers_of(parts.esc10_train)
    last = np.array([one.fold for one in parts.esc10_train]) == max(one.fold or 0 for one in parts.esc10_train)
    kinds = {
        "log_mel_svm": [SVC(C=strength) for strength in (1, 10, 100)],
        "log_mel_logistic": [LogisticRegression(C=strength, max_iter=5000) for strength in (0.01, 0.1, 1)],
    }
    found, chosen = {}, {}
    for name, kind in kinds.items():

        def score(model) -> float:
            scaling = StandardScaler().fit(train_NF[~last])
            model.fit(scaling.transform(train_NF[~last]), label_N[~last])
            return model.score(scaling.transform(train_NF[last]), label_N[last])

        best = max(kind, key=score)
        scaling = StandardScaler().fit(train_NF)
        found[name] = best.fit(scaling.transform(train_NF), label_N).predict(scaling.transform(held_NF))
        chosen[name] = {"C": best.C}
    return found, chosen


def seconds_of(folder: Path) -> float:
    """Of training, as the run's own rows of timings say."""
    rows = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    return sum(row.get("seconds", 0.0) for row in rows)


# ---- the table ------------------------------------------------------------------------------------------------------


def collect(args: argparse.Namespace) -> dict[str, Any]:
    parts = division(SoundsData(folder=str(args.data), validation_fold=args.validation_fold))
    clips, right_N = Clips(SoundsData().seconds), sounds.numbers_of(parts.esc10_held)
    correct: dict[str, list[np.ndarray]] = {}  # system -> for each seed (N,) whether a clip was right
    seconds: dict[str, list[float]] = {"photos": [seconds_of(args.work / "photos")]}
    for seed in tqdm(args.seeds, desc="seeds"):
        for system in args.systems:
            folder = args.work / f"{system}_{args.tower}_{seed}"
            if system == "unibrivl":
                said = said_by_unibrivl(folder / "model", parts, clips, args.work / "targets")
            else:
                said = said_by_classes(folder / "model", parts, clips)
            for name, said_N in said.items():
                correct.setdefault("_".join(filter(None, (system, name))), []).append(said_N == right_N)
            seconds.setdefault(system, []).append(seconds_of(folder))
    classical, chosen = said_by_statistics(parts, clips)
    for name, said_N in classical.items():
        correct[name] = [said_N == right_N]
    return {
        "machine": describe(),
        "command": " ".join(["python benchmarks/learn_esc10.py", *map(without_place, sys.argv[1:])]),
        "data": parts.listing.summary(),
        "clips": {"train": len(parts.esc10_train), "held_out": len(right_N)},
        "held_out": "the test part, fold 4" if args.validation_fold is None else f"fold {args.validation_fold}",
        "tower": args.tower,
        "seeds": args.seeds,
        "accuracy": {name: described(rows) for name, rows in correct.items()},
        "chosen": chosen,
        "differences": {
            f"{one} - {other}": compared(correct[one], correct[other])
            for one, other in DIFFERENCES
            if one in correct and other in correct
        },
        "training_s": {name: [round(one, 1) for one in found] for name, found in seconds.items()},
        "configurations": configurations(args),
    }


def described(rows: list[np.ndarray]) -> dict[str, Any]:
    each = bootstrap(np.mean(rows, axis=0))
    return {
        "seeds": [round(float(row.mean()), 4) for row in rows],
        "mean": round(each.value, 4),
        "clips_95": [round(bound, 4) for bound in each.bounds],
    }


def compared(one: list[np.ndarray], other: list[np.ndarray]) -> dict[str, Any]:
    """The difference of each seed, and both intervals of its mean."""
    by_seed = np.array([first.mean() - second.mean() for first, second in zip(one, other, strict=True)])
    by_clip = paired_bootstrap(np.mean(one, axis=0), np.mean(other, axis=0), num_resamples=10_000)
    found = {
        "seeds": by_seed.round(4).tolist(),
        "mean": round(float(by_seed.mean()), 4),
        "clips_95": [round(bound, 4) for bound in by_clip.bounds],
        "clips_p": round(by_clip.p_value, 4),
    }
    if len(by_seed) > 1:
        half = student.ppf(0.975, len(by_seed) - 1) * by_seed.std(ddof=1) / np.sqrt(len(by_seed))
        found["seeds_95"] = [round(float(by_seed.mean() + sign * half), 4) for sign in (-1, 1)]
    return found


def configurations(args: argparse.Namespace) -> dict[str, Any]:
    """What each kind of run was, as its own file says; without the paths of this disk."""
    found = {}
    for name in ("photos", *(f"{system}_{args.tower}_{args.seeds[0]}" for system in args.systems)):
        said = json.loads((args.work / name / "run.json").read_text())
        hidden = ("output_dir", "data.folder", "data.cache", "data.lexicon", "model.image")
        found[name] = {key: value for key, value in said.items() if key not in hidden}
    return found


def table(found: dict[str, Any]) -> str:
    """The results as they stand in docs/learning.md."""
    lines = ["| | accuracy | each seed | 95 % over clips |", "| --- | --- | --- | --- |"]
    for name, one in found["accuracy"].items():
        each = ", ".join(f"{value:.3f}" for value in one["seeds"])
        low, high = one["clips_95"]
        lines.append(f"| {NAMES[name]} | {one['mean']:.3f} | {each} | {low:.3f} to {high:.3f} |")
    lines += [
        "",
        "| difference, paired | mean | each seed | 95 % over seeds | 95 % over clips |",
        "| --- |" + " --- |" * 4,
    ]
    for name, one in found["differences"].items():
        first, _, second = name.partition(" - ")
        each = ", ".join(f"{value:+.3f}" for value in one["seeds"])
        spans = [" to ".join(f"{bound:+.3f}" for bound in one.get(kind, ())) for kind in ("seeds_95", "clips_95")]
        lines.append(
            f"| {NAMES[first]}, over {NAMES[second]} | {one['mean']:+.3f} | {each} | {spans[0]} | {spans[1]} |"
        )
    return "\n".join(lines)


def write_page(found: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    minutes, seeds = found["wall_s"] / 60, len(found["seeds"])
    told = (
        f"Held out: {found['held_out']}, {found['clips']['held_out']} clips; {seeds} seeds; {minutes:.0f} "
        f"minutes on {found['machine']['cores']} cores for all of it; commit {found['machine']['commit']}."
    )
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n\n{told}\n{END}{after}", encoding="utf-8")


def without_place(argument: str) -> str:
    """A folder by its name alone: where it lies is this machine's business."""
    return Path(argument).name if "/" in argument else argument


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the pack sounds_and_pictures")
    parser.add_argument("--work", type=Path, default=Path("runs/learn_esc10"), help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tower", choices=sorted(sounds.TOWERS), default="speechlm")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument(
        "--set", action="append", default=[], help="KEY=VALUE for every run of sounds; see unibrivl train"
    )
    parser.add_argument("--photo-steps", type=int, help="of the image tower; the recipe's own by default")
    parser.add_argument("--validation-fold", type=int, help="hold this fold out in place of the test part")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write the results that are there into docs/learning.md")
    args = parser.parse_args()
    if args.page:
        write_page(json.loads(args.results.read_text()))
        return 0
    if args.data is None:
        parser.error("--data: which folder holds the pack sounds_and_pictures?")
    torch.set_num_threads(1)
    begun = time.monotonic()
    train_all(args)
    found = collect(args)
    found["wall_s"] = round(time.monotonic() - begun, 1)
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(found, indent=2) + "\n")
    for name, accuracy in found["accuracy"].items():
        print(f"{name:28s} {accuracy['mean']:.3f}  seeds {accuracy['seeds']}  clips {accuracy['clips_95']}")
    for name, difference in found["differences"].items():
        print(f"{name:48s} {difference['mean']:+.3f}  {difference}")
    bar = found["differences"].get("unibrivl_probe - scratch")
    good = bar is not None and bar["mean"] > 0 and bar.get("seeds_95", [0])[0] > 0
    print("the bar is met" if good else "THE BAR IS MISSED: the interval over the seeds does not lie above zero")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
