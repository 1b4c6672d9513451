"""The stages' models as one folder of `UniBriVLPipeline`: what is shipped as the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from unibrivl.modeling import AudioTokenAdapter, UniBriVLModel, UniBriVLProcessor
from unibrivl.pipelines import UniBriVLPipeline
from unibrivl.training.checkpoint import publish
from unibrivl.training.embedded import PIPELINE, STAGES
from unibrivl.training.recipes.small_generator import SCHEDULER
from unibrivl.training.recipes.small_world import SmallWorld, SmallWorldData, Variant, banks_of, noun


def assemble(variant: Variant, data: Path, out: Path) -> Path:
    """The stages' models as one folder of `UniBriVLPipeline`, weights in half precision."""
    world = SmallWorld(SmallWorldData(str(data), variant))
    folder, half = out / variant, torch.float16
    models = {stage.name: folder / stage.name / "model" for stage in STAGES}
    pipe = UniBriVLPipeline(
        vae=AutoencoderTiny.from_pretrained(models["latents"]).to(half),
        text_encoder=CLIPTextModel.from_pretrained(models["words"]).to(half),
        tokenizer=CLIPTokenizer.from_pretrained(models["words"]),
        unet=UNet2DConditionModel.from_pretrained(models["generator"]).to(half),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        matcher=UniBriVLModel.from_pretrained(models["sounds"]).to(half),
        matcher_processor=UniBriVLProcessor.from_pretrained(models["sounds"]),
        label_banks=banks_of(world),
    )
    partial, target = folder / f"{PIPELINE}.partial", folder / PIPELINE
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial)
    drop(partial / "vae" / "config.json", "block_out_channels")  # diffusers writes it, and warns when it reads it
    for part in ("vae", "unet"):
        drop(partial / part / "config.json", "_name_or_path")  # where it lay while it was trained
    (partial / "labels.json").write_text(json.dumps(labels_of(world), indent=1) + "\n", encoding="utf-8")
    (partial / "LICENSE-WEIGHTS").write_text(licence_text(world), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    publish(partial, target)
    return target


def add_adapter(adapter: Path, folder: Path) -> Path:
    """What makes words of sounds, in half precision, into the pipeline of a folder; see `LoadsAdapter`."""
    target = folder / PIPELINE / "audio_adapter"
    words = AudioTokenAdapter.from_pretrained(adapter).to(torch.float16)
    words.config.base_name = f"unibrivl embedded, {folder.name}"
    words.save_pretrained(target)
    return target


def drop(path: Path, key: str) -> None:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields.pop(key, None)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def labels_of(world: SmallWorld) -> dict[str, Any]:
    """What was taught: label -> what it is called, and whether it was heard, photographed, drawn, written."""
    heard = {one.label for one in world.sounds("train")}
    seen = {kind: {label for of, label in world.named if of == kind} for kind in ("photo", "drawing", "digit")}
    return {
        label: {"noun": noun(label), "sound": label in heard, **{kind: label in found for kind, found in seen.items()}}
        for label in world.labels
    }


def licence_text(world: SmallWorld) -> str:
    """Under which terms the weights were learned, and whom to thank."""
    lines = [
        f"Weights of unibrivl's embedded model, variant {world.variant}",
        "",
        "They were trained from nothing on the works below, by recipes of this package, and are licensed under",
        "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), the strictest of the terms of these works."
        if world.variant == "open"
        else "They may be used for non-commercial research only, as some of these works may.",
        "",
    ]
    by_licence: dict[str, dict[str, int]] = {}
    for one in world.learned:
        thanks, name = by_licence.setdefault(one.licence, {}), one.attribution.strip()
        thanks[name] = thanks.get(name, 0) + 1
    for licence, thanks in sorted(by_licence.items()):
        lines += [f"{licence} ({sum(thanks.values())} works)", ""]
        lines += [f"  {name or 'no author named'}" + (f" ({count})" if count > 1 else "")
                  for name, count in sorted(thanks.items())]  # fmt: skip
        lines.append("")
    return "\n".join(lines)
