"""The card of the embedded model, rendered from what `bars_embedded.py` measured.

    python benchmarks/card_embedded.py --model runs/embedded/open/pipeline --out model_cards/embedded-open.md

Numbers come from `results/embedded_VARIANT.json` and `results/tables_VARIANT.json`, which `unibrivl tables --json`
wrote, parameters and licences from the folder of the pipeline; words that need judgement stand here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from unibrivl.hub.facts import local_headers

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = (
    ("matcher", "UniBriVL: a ResNet over log-mel frames, the frozen image tower and the text encoder"),
    ("text_encoder", "CLIP's text encoder, at small size"),
    ("unet", "UNet2DConditionModel on latents of 8 x 8, v-prediction"),
    ("vae", "AutoencoderTiny, 64 x 64 pictures to latents of 8 x 8"),
    ("audio_adapter", "AudioTokenAdapter, from what the matcher hears to a word of the text encoder"),
)
BARS = {
    "open": {"esc10_labels": 0.80, "esc10_probe": 0.85, "digits_labels": 0.95, "mrr": 0.7},
    "research": {"esc10_labels": 0.85, "all_labels": 0.60, "esc10_probe": 0.90, "digits_labels": 0.95, "mrr": 0.7},
}
HEAD = """---
library_name: diffusers
pipeline_tag: text-to-image
license: {licence}
tags:
- unibrivl
- audio-to-image
- audio
---

<!-- rendered by `benchmarks/card_embedded.py` from measurements; change those, not this file -->

# unibrivl embedded, {variant}

A real sound becomes a picture of 64 x 64, on a laptop and without a network. Every part was trained from nothing, by
the recipes of this package, on real sounds and pictures. {shipped}
{picture}"""
USE = {
    "open": """from unibrivl import UniBriVLPipeline, embedded

pipe = UniBriVLPipeline.from_pretrained(embedded())
output = pipe(audio="dog.wav", num_candidates=4, num_inference_steps=20, guidance_scale=3.0)
output.images[0].save("dog.png")""",
    "research": """from unibrivl import UniBriVLPipeline

pipe = UniBriVLPipeline.from_pretrained("runs/embedded/research/pipeline")
output = pipe(audio="dog.wav", num_candidates=4, num_inference_steps=20, guidance_scale=3.0)
output.images[0].save("dog.png")""",
}
# of pictures, as the judge names them; photographs' is that of weights from a CPU, and drawings' holds where the judge
# itself reaches as much on real ones
PICTURE_BARS = {"photo": 0.40, "drawing": 0.80, "digit": 0.90}
KEPT, N1_S, N4_S = 0.9, 3, 10  # of halving; seconds for one picture and for the best of four
TRAINING = """`make embedded VARIANT={variant} DATA=PACKS`: five stages with one seed, which resume; `docs/embedded.md`
says what they are. Pictures are in three parts: what this model learned from, what its judge learned from, and what
neither saw."""
# what of the measured weights was not as the command above has it
AS_MEASURED = {
    "research": """The weights that were measured took a short way, in place of 8,000 steps from nothing. The
autoencoder is the open variant's. The UNet began at the open variant's (`--set generator.model.start=FOLDER`) and went
from run to run: 800 steps; 2,250 of a schedule of 4,000 with digits drawn oftener (`--set
generator.data.digits=0.25`); 1,750 with more of them (0.5), 3,500 (0.8) and 1,600 (2.0); 3,400 with photographs
oftenest again (photos 0.8, digits 0.35), at rates that fell to nothing.
None of its pictures stands here: some photographs that it learned from may not be passed on, and what it draws can be
near to them."""
}
LIMITS = """
- It knows the things in `labels.json` and nothing else, and answers every sound with one of them: speech or music
  become whatever is nearest. Probabilities say which label fits best, not that one fits.
- Pictures are 64 pixels wide. Some photographs cannot be told by eye: look at the sheet before you trust the table.
- The generator has seen each of its few pictures many times. Drawings are near copies of the emoji it learned from,
  one or two a class; the distances above say how near, and of photographs too.
- A chainsaw has no picture in the data: a drawing of a saw stands in.
- Digits were learned from six speakers; synthetic voices are understood less often.
- Sounds were heard at 16 kHz, five seconds at a time."""
BIAS = """
- Photographs of people are of those who stood for Caltech's camera around 2000: a sneeze becomes such a face. It must
  not be used to recognise or judge people.
- Dogs are Dalmatians, because Caltech's dogs are; cars are seen from the side.
- The emoji's people and babies are yellow or of the default skin tone of their set unless another was drawn."""


def share(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def sounds_table(found: dict[str, Any], bars: dict[str, float]) -> list[str]:
    names = {
        "esc10_labels": "ESC-10, by label text",
        "all_labels": "all classes that were taught, by label text",
        "esc10_probe": "ESC-10, probe on the tower's features",
        "digits_labels": "spoken digits, by label text",
    }
    lines = [
        "| sounds of the test parts | top-1 (95 % interval) | clips | classes | bar |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key, name in names.items():
        row = found[key]
        bar = f"{bars[key]:.2f}" if key in bars else ""
        lines.append(f"| {name} | {share(row)} | {row['n']} | {row.get('classes', 10)} | {bar} |")
    if "zero_shot" in found:
        row = found["zero_shot"]
        below = " Fewer than by chance: it takes them for one another." if row["high"] < row["chance"] else ""
        lines += [
            "",
            f"True zero-shot: another run of {row['steps']} steps without the sounds of "
            f"{', '.join(row['classes'])}; these, among one another: {share(row)} of {row['n']}, where chance is "
            f"{row['chance']:.2f}.{below}",
        ]
    photos = found["photos"]
    lines += [
        "",
        f"A sound finds photographs of its class among {photos['photos']}: MRR {photos['mrr']:.3f} "
        f"(bar {bars['mrr']}), R@1 {photos['r_at_1']:.3f}; {photos['sounds']} sounds, {photos['classes']} classes.",
    ]
    if "other_tower" in found:
        lines += ["", *other_tower(found["other_tower"], names)]
    return lines


def other_tower(row: dict[str, Any], names: dict[str, str]) -> list[str]:
    """The same bars with ears that were not taken."""
    towers = {"speechlm": "a small SpeechLM over samples", "mel_encoder": "a ResNet over log-mel frames"}
    before, millions = row["steps_without_labels"], row["parameters"] / 1e6
    steps = f"{row['steps']:,} steps" + (f" after {before:,} on these clips without labels" if before else "")
    told = "; ".join(f"{name} {share(row[key])}" for key, name in names.items())
    return [
        f"In place of this tower {towers[row['tower']]}, {millions:.1f} million parameters with the head, {steps}: "
        f"{told}; MRR {row['photos']['mrr']:.3f}. It is not the one that is taken."
    ]


def pictures_table(found: dict[str, Any]) -> list[str]:
    lines = [
        "| pictures of test sounds | named right by the judge | bar | judge on real ones | classes | FID | IS | gap |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, row in found.items():
        judge = share(row["judge_on_real"]) if "judge_on_real" in row else "no such pictures held out"
        gap, bar = row["class_distance_on_judge"], f"{PICTURE_BARS[kind]:.2f}"
        if "judge_on_real" in row and row["judge_on_real"]["value"] < PICTURE_BARS[kind]:
            bar += ", void: the judge does not reach it"
        lines.append(
            f"| {kind}s | {share(row['named'])} | {bar} | {judge} | {row['classes']} | {row['fid_on_judge']} | "
            f"{row['is_on_judge']} | {gap['own']} / {gap['shuffled']} |"
        )
    lines += [
        "",
        "FID and IS are on the judge's features, and comparable to nothing else. The gap is the mean distance "
        "between the means of a class's pictures and of its training pictures on those features, and the same with "
        "classes shuffled, behind the stroke.",
        "",
        "| learned by heart? | to the nearest training picture | among training pictures |",
        "| --- | --- | --- |",
    ]
    for kind, row in found.items():
        lines.append(f"| {kind}s | {row['pixel_rms_to_nearest_training']} | {row['pixel_rms_among_training']} |")
    lines += ["", "Medians of root mean squared differences of pixels (1 is black against white), mirrored or not."]
    return lines


OTHER_JUDGES = [
    "All judges learned from the same pictures. The bar is asked of the first, which named the pictures above, too; "
    "the others show how far a reading depends on who reads. The first takes what is round for a clock, so others see "
    "drawings four times as often (`--set data.drawings=1.0`) for fewer steps, one in any colour (`data.hue`). The "
    "last has the eyes of a network that ImageNet taught, and learned no more than a linear layer "
    "(`benchmarks/imagenet_judge.py`). `real ones in their place` is what a judge would name right if each sound were "
    "answered with drawings of its class.",
    "",
]


def unknown(said: dict[str, Any]) -> str:
    """Classes of which the judge knows no real picture, so that none can be named right."""
    names = ", ".join(label.replace("_", " ") for label in said["unknown_to_judge"])
    return f", none of {names}" if names else ""


def words_section(told: dict[str, Any]) -> list[str]:
    """What sounds as words do, from `bars_audio_token.py`."""
    lines = [
        "",
        "### Sounds as words",
        "",
        '`AudioTokenPipeline.from_pretrained(embedded())` reads "a photo of `<audio>`" with the sound itself in it: '
        f"no label. Of {told['candidates']} the one that is left, by the matching score and by what most are near to:",
        "",
        "| pictures of words | named right | by a judge with | judge on real ones | real ones in their place "
        "| classes | bar |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {kind}s | {share(said)} | {judge} | {share(said['judge_on_real'])} | "
            f"{said['real_in_their_place']:.3f}{unknown(said)} | {row['classes']} | {row['bar']:.2f} |"
            for kind, row in told["words"].items()
            for judge, said in {row["judge"]: row, **row.get("other_judges", {})}.items()
        ),
        "",
        *(OTHER_JUDGES if any("other_judges" in row for row in told["words"].values()) else []),
        f"Held-out photographs that a sound of another class changes ({told['edited']} of them): how many the judge "
        "then names as the sound, and how far their structure moved (on the judge's third stage; 0 is not at all).",
        "",
        "| way | named as the sound | structure distance |",
        "| --- | --- | --- |",
        *(f"| {way} | {share(row['named_as_the_sound'])} | {row['structure_distance']:.3f} |"
          for way, row in told["edits"].items()),
    ]  # fmt: skip
    return lines


BASELINE = "mel-statistics"


def scores_section(scores: list[dict[str, Any]]) -> list[str]:
    """What `unibrivl eval` found on the packs, and beside it a baseline that has learned nothing."""
    rows: dict[tuple[str, str], dict[bool, dict[str, Any]]] = {}
    for one in scores:
        rows.setdefault((one["benchmark"], one["metric"]), {})[one["model"] == BASELINE] = one
    lines = [
        "",
        "### By this package's benchmarks",
        "",
        "`unibrivl eval BENCHMARK --model MODEL --data PACK`, on the packs' test parts. Beside it a baseline that has",
        "learned nothing: mean and deviation of 64 log-mel bands. Classes that no part of this variant has met are",
        "among `all`.",
        "",
        "| benchmark | metric | value (95 % interval) | chance | clips | baseline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (benchmark, metric), both in rows.items():
        if False not in both:
            continue
        own, other = both[False], both.get(True)
        chance = "" if own["chance"] is None else f"{own['chance']:.3f}"
        lines.append(
            f"| {benchmark} | {metric} | {told_value(own)} | {chance} | {own['n']} | "
            f"{told_value(other) if other else ''} |"
        )
    return lines


def told_value(one: dict[str, Any]) -> str:
    interval = "" if one["low"] is None else f" ({one['low']:.3f} to {one['high']:.3f})"
    return f"{one['value']:.3f}{interval}"


NOT_DRAWN = "The judge has not named pictures of these weights yet."


def pictures_section(found: dict[str, Any]) -> list[str]:
    sampler = found["sampler"]
    return [
        f"From each sound {sampler['num_candidates']} pictures, the best by the matching score; "
        f"{sampler['steps']} steps, guidance {sampler['guidance']}, three seeds. "
        "The judge shares neither data nor weights with the model.",
        "",
        *pictures_table(found["pictures"]),
    ]


NOT_TIMED = "Halving and seconds were measured on the open variant, whose parts are of the same sizes."


def halving_and_speed(found: dict[str, Any]) -> list[str]:
    speed = found["speed"]
    return [
        f"Halving keeps {found['halving']['kept']:.3f} of what the best of twenty gains over the mean candidate "
        f"({found['halving']['sounds']} sounds; bar {KEPT}). "
        f"One picture takes {speed['n1_s']} s (bar {N1_S}) and the best of four {speed['n4_s']} s (bar {N4_S}) "
        f"on {found['machine']['cores']} cores of {found['machine']['cpu']}; importing {speed['import_s']} s before, "
        f"loading {speed['load_s']} s."
    ]


def card(
    model: Path,
    variant: str,
    found: dict[str, Any],
    picture: str | None,
    words: dict[str, Any] | None = None,
    scores: list[dict[str, Any]] | None = None,
) -> str:
    licences = re.findall(r"^(.+) \((\d+) works\)$", (model / "LICENSE-WEIGHTS").read_text(encoding="utf-8"), re.M)
    sizes = [(name, what, sum(one.parameters for one in local_headers(model / name).values())) for name, what in PARTS
             if (model / name).is_dir()]  # fmt: skip
    shipped = "It is in the package." if variant == "open" else "Its weights are not distributed."
    lines = [
        HEAD.format(
            variant=variant,
            licence="cc-by-sa-4.0" if variant == "open" else "other",
            shipped=shipped,
            picture=f"\n![Samples]({picture})\n" if picture else "",
        ),
        "## Use",
        "",
        f"```python\n{USE[variant]}\n```",
        "",
        "## Parts",
        "",
        "| part | what it is | parameters |",
        "| --- | --- | --- |",
        *(f"| {name} | {what} | {count:,} |" for name, what, count in sizes),
        "",
        "## Data and licences",
        "",
        "| licence | works |",
        "| --- | --- |",
        *(f"| {licence} | {count} |" for licence, count in licences),
        "",
        "LICENSE-WEIGHTS beside the weights names their authors and the terms of the weights.",
        "",
        "## Training",
        "",
        TRAINING.format(variant=variant),
        *(["", AS_MEASURED[variant]] if variant in AS_MEASURED else []),
        "",
        "## Results",
        "",
        "The text encoder has read all labels, so this is label-text classification and not zero-shot.",
        "",
        *sounds_table(found["sounds"], BARS[variant]),
        "",
        *(pictures_section(found) if "pictures" in found else [NOT_DRAWN]),
        "",
        *(halving_and_speed(found) if "halving" in found and "speed" in found else [NOT_TIMED]),
        *(words_section(words) if words else []),
        *(scores_section(scores) if scores else []),
        "",
        "## Limits",
        "",
        LIMITS.strip(),
        "",
        "## Bias",
        "",
        BIAS.strip(),
        "",
    ]
    return "\n".join(lines)


def results_of(name: str, variant: str) -> Any:
    """What another script measured of this variant, or None."""
    path = RESULTS / f"{name}_{variant}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--variant", choices=tuple(BARS), default="open")
    parser.add_argument("--picture", help="address of a sheet of samples, as the card should give it")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = json.loads((RESULTS / f"embedded_{args.variant}.json").read_text(encoding="utf-8"))
    args.out.write_text(
        card(
            args.model,
            args.variant,
            found,
            args.picture,
            results_of("audio_token", args.variant),
            results_of("tables", args.variant),
        ),
        encoding="utf-8",
    )
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
