"""Training steps of BrewCLIP with kept states and pictures against steps with live, frozen towers.

Towers have the sizes of Whisper base and CLIP ViT-B/32 and random weights; captions last 4 s, as Flickr8k's do, and
have 12 tokens. The live form runs Whisper's encoder over its 30 s windows and CLIP's image tower in every step; the
kept form reads what they said before, of the sounds the mean of every four frames. Both run CLIP's text tower with the
prompts, the end-to-end channel, the objective, backward and AdamW. Sounds and pictures lie ready in both, so decoding,
which keeping also saves, is not counted, nor is transcription, which is never part of a step. Forms run in turns, and
the median of the ratios of neighbours counts. Writes `results/brewclip.json` and fails below the goal.

    python benchmarks/bench_brewclip.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe

from unibrivl.modeling import BrewCLIPConfig, BrewCLIPModel
from unibrivl.training.objectives.brewclip import BrewCLIPLoss

RESULTS = Path(__file__).resolve().parent / "results" / "brewclip.json"
GOAL = 20.0  # steps of kept states in the time of one with live towers
CAPTION_S, TOKENS, POOL = 4, 12, 4
CAPTIONS = 40_000  # Flickr8k's
WHISPER = {"model_type": "whisper", "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8,
           "encoder_ffn_dim": 2048, "decoder_layers": 1}  # fmt: skip


def build() -> BrewCLIPModel:
    torch.manual_seed(0)
    vision = {"model_type": "clip_vision_model", "patch_size": 32, "projection_dim": 512}
    text = {"model_type": "clip_text_model", "projection_dim": 512, "bos_token_id": 49406, "eos_token_id": 49407}
    config = BrewCLIPConfig(audio_config=WHISPER, vision_config=vision, text_config=text)
    return BrewCLIPModel(config).train()


def batches(model: BrewCLIPModel, batch: int) -> dict[str, dict[str, torch.Tensor]]:
    """The same captions for both forms."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.zeros(batch, 3000, dtype=torch.long)
    mask[:, : 100 * CAPTION_S] = 1
    ids = torch.randint(1000, 40_000, (batch, TOKENS), generator=draw)
    ids[:, 0], ids[:, -1] = 49406, 49407
    common = {"input_ids": ids, "sample_id": torch.arange(batch)}
    frames = 50 * CAPTION_S // POOL
    return {
        "live": {
            **common,
            "input_features": torch.randn(batch, 80, 3000, generator=draw),
            "attention_mask": mask,
            "pixel_values": torch.randn(batch, 3, 224, 224, generator=draw),
        },
        "kept": {
            **common,
            "audio_states": torch.randn(batch, frames, 512, generator=draw).half().float(),
            "frame_mask": torch.ones(batch, frames, dtype=torch.long),
            "image_embeds": torch.randn(batch, 512, generator=draw),
        },
    }


def stepper(model: BrewCLIPModel, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    objective = BrewCLIPLoss(model)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)

    def step() -> None:
        sum(objective(model, batch).values()).backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = build()
    steps = {name: stepper(model, batch) for name, batch in batches(model, args.batch).items()}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.turns):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    ratios = sorted(live / kept for live, kept in zip(seconds["live"], seconds["kept"], strict=True))
    ratio, middle = statistics.median(ratios), {name: statistics.median(one) for name, one in seconds.items()}
    found: dict[str, Any] = {
        "machine": describe(),
        "threads": args.threads,
        "batch": args.batch,
        "seconds_a_step": {name: round(one, 4) for name, one in middle.items()},
        "steps_a_second": {name: round(1 / one, 3) for name, one in middle.items()},
        "ratio": {"median": round(ratio, 2), "least": round(ratios[0], 2), "most": round(ratios[-1], 2)},
        "minutes_an_epoch_of_40000": {
            name: round(one / args.batch * CAPTIONS / 60, 1) for name, one in middle.items()
        },
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
