"""What the embedded model's audio words can do, on the packs' test parts, named by the judge of `bars_embedded.py`.

    python benchmarks/bars_audio_token.py --model runs/embedded/open/pipeline --judge runs/judge/model --data PACKS

Words: from every test sound whose class has pictures, "a photo of <audio>" and "a drawing of <audio>", three seeds,
the best of as many candidates as the pipelines begin by default, in their way. Edits: held-out photographs of one
class become another by a test sound of it, by prompt-to-prompt and by SDEdit at some strengths; how many the judge
then names as the sound, and how far their structure moved (the root mean square difference of the cosines between all
pairs of places, on the judge's third stage, as in the structure distance on self-similarities). Writes
`results/audio_token_VARIANT.json` and, with `--sheets`, a sheet of edits, and one that holds nothing of the packs.

Shapes: N pictures, P places of a feature map, V its channels.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars_embedded import SECONDS, STEPS, Judge, share
from imagenet_judge import SETTINGS, ImageNetJudge
from machine import describe
from PIL import Image
from tqdm import tqdm

from unibrivl.pipelines import AudioTokenPipeline
from unibrivl.pipelines.strategy_halving import Halving
from unibrivl.training.recipes import small_pictures
from unibrivl.training.recipes.photos import normalised
from unibrivl.training.recipes.small_generator import GUIDANCE
from unibrivl.training.recipes.small_sounds import clip
from unibrivl.training.recipes.small_world import CORE, TEMPLATES, SmallWorld, SmallWorldData, pixels_of, prompt_of
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ

RESULTS = Path(__file__).resolve().parent / "results"
BARS = {"photo": 0.60, "drawing": 0.70}
STRENGTHS = (0.5, 0.7, 0.9)
EDITING_STEPS = 50
STYLED = "a drawing of a cat"


def bytes_of(images: list[Image.Image]) -> np.ndarray:
    """(N, 3, 64, 64)."""
    return np.stack([np.asarray(one.convert("RGB")).transpose(2, 0, 1) for one in images])


def heard(items: list[Any]) -> list[np.ndarray]:
    return [clip(one, SECONDS) for one in items]


def told_of(folder: Path) -> str:
    """How a judge was made: what its settings say that differs from judge to judge."""
    told = json.loads((folder.parent / "run.json").read_text(encoding="utf-8"))
    usual = small_pictures.config().data
    moved = [
        f"{name} {told[f'data.{name}']}"
        for name in ("zoom", "turn", "hue")
        if told.get(f"data.{name}", getattr(usual, name)) != getattr(usual, name)
    ]
    return ", ".join([f"drawings {told['data.drawings']}", *moved, f"{told['steps']} steps", f"seed {told['seed']}"])


def judge_of(folder: Path) -> tuple[str, Judge]:
    """What is said of a judge, and the judge."""
    if (folder / SETTINGS).is_file():
        judge = ImageNetJudge(folder)
        return judge.told, judge
    return told_of(folder), Judge(folder)


def words_bar(
    pipe: Any, judges: dict[str, Judge], world: SmallWorld, kind: str, seeds: int, candidates: int
) -> dict[str, Any]:
    """Pictures of words alone, without labels; each judge names the same ones, and real ones that it has not seen.

    `real_in_their_place` is what it would name right if every sound were heard and answered with a real picture.
    """
    drawable = {label for of, label in world.named if of == kind}
    among = [label for label in CORE if label in drawable]
    sounds = [one for one in world.sounds("test") if one.label in among]
    real = [one for one in world.pictures("world" if kind == "drawing" else "test", (kind,)) if one.label in among]
    prompt, drawn = TEMPLATES[kind][0].format("<audio>"), []
    for seed in range(seeds):
        pictures = [
            pipe(prompt, audio=sound, audio_sampling_rate=RATE_HZ, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                 num_candidates=candidates, generator=torch.Generator().manual_seed(1000 * seed + place)).images[0]
            for place, sound in enumerate(tqdm(heard(sounds), desc=f"{kind}s, seed {seed}", disable=None))
        ]  # fmt: skip
        drawn.append(bytes_of(pictures))
    said = {}
    labels = np.array([one.label for one in sounds])
    for name, judge in judges.items():
        each = [np.array(judge.named(some, among)) == labels for some in drawn]
        right = np.array(judge.named(pixels_of(real), among)) == np.array([one.label for one in real])
        rows_of = {label: [one.label == label for one in real] for label in among}  # of some there are none
        known = {label: float(right[rows].mean()) for label, rows in rows_of.items() if any(rows)}
        said[name] = {
            **share(np.concatenate(each)),
            "each_seed": [round(float(one.mean()), 4) for one in each],
            "judge_on_real": share(right),
            "unknown_to_judge": [label for label, share_of in known.items() if not share_of],
            "real_in_their_place": round(float(np.mean([known[label] for label in labels if label in known])), 4),
        }
    first, *others = said
    row = {"judge": first, **said[first], "classes": len(among), "bar": BARS[kind]}
    return {**row, "other_judges": {name: said[name] for name in others}} if others else row


@torch.no_grad()
def structure(judge: Judge, pixels_N3HW: np.ndarray) -> torch.Tensor:
    """(N, P, P), cosines between all places of a picture."""
    pixels = normalised(torch.from_numpy(pixels_N3HW).float(), judge.processor)
    maps = judge.model.resnet(pixel_values=pixels, output_hidden_states=True).hidden_states[3]
    places_NPV = torch.nn.functional.normalize(maps.flatten(2).transpose(1, 2), dim=-1)
    return places_NPV @ places_NPV.transpose(1, 2)


def edits(pipe: Any, judge: Judge, world: SmallWorld, limit: int) -> tuple[dict[str, Any], list[list[Image.Image]]]:
    """Photographs of one class become another; the same pairs for every way."""
    drawable = {label for of, label in world.named if of == "photo"}
    among = [label for label in CORE if label in drawable]
    chance = np.random.default_rng(0)
    photos = [one for one in world.pictures("test", ("photo",)) if one.label in among]
    sounds = [one for one in world.sounds("test") if one.label in among]
    pairs = []
    for place in chance.permutation(len(photos))[:limit]:
        others = [one for one in sounds if one.label != photos[place].label]
        pairs.append((photos[place], others[int(chance.integers(len(others)))]))
    before = pixels_of([photo for photo, _ in pairs])
    shown = [Image.fromarray(one.transpose(1, 2, 0)) for one in before]
    ways: dict[str, dict[str, Any]] = {"p2p": {}, "p2p, blended": {"local_blend": True}}
    ways |= {f"sdedit {strength}": {"edit_method": "sdedit", "strength": strength} for strength in STRENGTHS}
    found, rows = {}, [shown[:12]]
    for name, how in ways.items():
        images = []
        for number, ((photo, sound), image) in enumerate(
            zip(tqdm(pairs, desc=name, disable=None), shown, strict=True)
        ):
            images.append(
                pipe.edit(
                    "a photo of <audio>", image, source_prompt=prompt_of("photo", photo.label),
                    audio=clip(sound, SECONDS), audio_sampling_rate=RATE_HZ, num_inference_steps=EDITING_STEPS,
                    guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(number), **how,
                ).images[0]
            )  # fmt: skip
        after = bytes_of(images)
        named = np.array(judge.named(after, among)) == np.array([sound.label for _, sound in pairs])
        moved = (structure(judge, after) - structure(judge, before)).square().mean((1, 2)).sqrt().numpy()
        found[name] = {"named_as_the_sound": share(named), "structure_distance": round(float(moved.mean()), 4)}
        print(name, json.dumps(found[name]), flush=True)
        rows.append(images[:12])
    return found, rows


def drawn_rows(pipe: Any, world: SmallWorld) -> list[list[Image.Image]]:
    """Without any picture of the packs: photographs and drawings of a sound of each class; pictures of one class, and
    what the sound of the next makes of them; a cat in the style of each."""
    sounds = heard([next(one for one in world.sounds("test") if one.label == label) for label in CORE])
    photos = [label for label in CORE if ("photo", label) in set(world.named)]
    how = {"audio_sampling_rate": RATE_HZ, "num_inference_steps": EDITING_STEPS, "guidance_scale": GUIDANCE}

    def drawn(prompt: str, number: int, sound: np.ndarray, **more: Any) -> Image.Image:
        return pipe(prompt, audio=sound, generator=chance(number), **how, **more).images[0]

    pairs = []
    for number, label in enumerate(photos):
        other = photos[(number + 1) % len(photos)]
        output = pipe.edit(
            "a photo of <audio>", source_prompt=prompt_of("photo", label), audio=sounds[CORE.index(other)],
            height=64, width=64, generator=chance(number), **how,
        )  # fmt: skip
        pairs.append((output.source_images[0], output.images[0]))
    return [
        [drawn("a photo of <audio>", place, one, num_candidates=4) for place, one in enumerate(sounds)],
        [drawn("a drawing of <audio>", place, one, num_candidates=4) for place, one in enumerate(sounds)],
        [before for before, _ in pairs],
        [after for _, after in pairs],
        [pipe.stylize(STYLED, audio=one, generator=chance(0), **how).images[0] for one in sounds],
    ]


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save_sheet(path: Path, rows: list[list[Image.Image]]) -> None:
    """A picture of pictures."""
    side, wide = 64, max(map(len, rows))
    sheet = Image.new("RGB", (wide * side, len(rows) * side), "white")
    for down, row in enumerate(rows):
        for along, image in enumerate(row):
            sheet.paste(image, (along * side, down * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the pipeline, with its audio_adapter")
    parser.add_argument(
        "--judge", type=Path, nargs="+", required=True, help="folders; edits are named by the first, words by each"
    )
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--variant", choices=("open", "research"), default="open")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=Halving().num_candidates)
    parser.add_argument("--only", choices=("words", "edits"), help="measure this, keep the rest")
    parser.add_argument("--edits", type=int, default=24, help="photographs that are edited")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of pictures")
    args = parser.parse_args()
    world = SmallWorld(SmallWorldData(args.data, args.variant))
    if args.only != "words" and (args.judge[0] / SETTINGS).is_file():
        parser.error("edits are named by the first judge, which has to be one that small_pictures made")
    judges = dict(map(judge_of, args.judge))
    pipe = AudioTokenPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    found: dict[str, Any] = {"machine": describe(), "variant": args.variant, "steps": STEPS, "guidance": GUIDANCE}
    path = RESULTS / f"audio_token_{args.variant}.json"
    if args.only and path.is_file():
        found = {**json.loads(path.read_text(encoding="utf-8")), **found}
    if args.only != "edits":
        found["candidates"] = args.candidates
        found["words"] = {kind: words_bar(pipe, judges, world, kind, args.seeds, args.candidates) for kind in BARS}
        print(json.dumps(found["words"]), flush=True)
    if args.only != "words":
        found["edited"] = args.edits
        found["edits"], rows = edits(pipe, next(iter(judges.values())), world, args.edits)
        if args.sheets:
            save_sheet(args.sheets / "edits.png", rows)
            save_sheet(args.sheets / "drawn.png", drawn_rows(pipe, world))
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
