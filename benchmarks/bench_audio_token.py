"""What a sound as a word costs: its injection against plain diffusers, and the memory of editing.

Runs in turns in one process, as in `bench_rerank.py`, whose components these are: a UNet whose step takes at least
50 ms. The injected word is encoded before, as `audio_embeds`; what hearing a second of sound takes stands beside it.
Memory is the growth of a process of its own: two pictures by the plain pipeline against a pair by prompt-to-prompt, at
a size where a layer has four times as many places as those whose maps are computed openly. Writes
`results/audio_token.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from bench_rerank import SIDE, STEP_S, STEPS_ALONE, compared, components, matcher, seconds, sound, step_seconds
from diffusers import StableDiffusionPipeline
from machine import describe

from unibrivl.modeling import AudioTokenAdapter
from unibrivl.modeling.features_audio_token import sound_features
from unibrivl.pipelines import AudioTokenEditPipeline, AudioTokenPipeline
from unibrivl.pipelines.attention_audio_token import MOST_PLACES

RESULTS = Path(__file__).resolve().parent / "results" / "audio_token.json"
LIMIT = 1.02  # of the plain pipeline's time
LARGE = 512  # pixels: 64 x 64 places in the first level
HEADS = 4
EDITED = ("plain", "edit")


def speaking(channels: int, kind: type = AudioTokenPipeline):
    """Plain diffusers, and the same with an adapter that hears through a matcher."""
    parts, ears = components(channels), matcher()
    width = sound_features(ears["matcher"], ears["matcher_processor"]).width
    adapter = AudioTokenAdapter.for_base({"text_encoder": parts["text_encoder"]}, audio_width=width).eval()
    both = StableDiffusionPipeline(**parts), kind(**parts, **ears, audio_adapter=adapter)
    for pipe in both:
        pipe.set_progress_bar_config(disable=True)
    return both


def slow_enough():
    """The narrowest UNet whose step takes STEP_S on this machine."""
    for channels in (32, 64, 96, 128, 192, 256, 320, 448, 640):
        both = speaking(channels)
        if step_seconds(both[0]) >= 1.3 * STEP_S:  # so that it stays above when the machine is at its best
            return channels, both
    raise RuntimeError(f"no UNet of this benchmark takes {STEP_S} s a step here: use fewer threads")


def injection(rounds: int) -> dict:
    channels, (stock, pipe) = slow_enough()
    words = pipe.encode_audio(sound(), 16000)
    size = {"height": SIDE, "width": SIDE, "num_inference_steps": STEPS_ALONE}

    def drawn(which, prompt, **more):
        which(prompt, **size, **more, generator=torch.Generator().manual_seed(0))

    timed = compared(
        lambda: drawn(pipe, "a cat, with <audio>", audio_embeds=words),
        lambda: drawn(stock, "a cat, with sound"),
        rounds,
    )
    hearing = min(seconds(lambda: pipe.encode_audio(sound(), 16000)) for _ in range(7))
    return {
        "channels": channels,
        "steps": STEPS_ALONE,
        "step_s": round(step_seconds(stock), 4),
        **timed,
        "limit": LIMIT,
        "hearing_one_second_s": round(hearing, 4),
    }


def memory() -> dict:
    grown = {}
    for name in EDITED:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", name, "--threads", str(torch.get_num_threads())],
            text=True, capture_output=True, check=True,
        )  # fmt: skip
        grown[name] = int(done.stdout)
    rows = 4  # of a pair, without text and with
    return {
        "pixels": LARGE,
        "grown_mib": grown,
        "most_of_a_map_mib": rows * HEADS * MOST_PLACES**2 * 4 // 2**20,
        "whole_map_mib": rows * HEADS * (LARGE // 8) ** 4 * 4 // 2**20,
    }


def peak(name: str) -> None:
    """Growth of this process in MiB; the decoder's share is the same in both and comes first."""
    stock, pipe = speaking(32, AudioTokenEditPipeline)
    words = pipe.encode_audio(sound(), 16000)
    size = {"height": LARGE, "width": LARGE, "num_inference_steps": 2, "output_type": "latent"}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: imports had one of their own
    before = resident("VmRSS")
    if name == "plain":
        stock(["a cat"] * 2, **size)
    else:
        pipe("a <audio>", source_prompt="a cat", audio_embeds=words, **size)
    print((resident("VmHWM") - before) // 1024)


def resident(name: str) -> int:
    """Of this process, now or at most, in KiB; Linux's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--peak", choices=EDITED, help="only print the growth in MiB of one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak is not None:
        peak(args.peak)
        return 0
    found = {"machine": describe(), "threads": args.threads, "injection": injection(args.rounds), "memory": memory()}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    timed, grown = found["injection"], found["memory"]
    good = timed["ratio"] <= LIMIT and timed["step_s"] >= STEP_S and timed["pairs"] >= 15
    good = good and grown["grown_mib"]["edit"] - grown["grown_mib"]["plain"] < grown["whole_map_mib"]
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
