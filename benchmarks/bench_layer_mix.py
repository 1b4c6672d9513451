"""Peak memory of UniBriVL's layer mix against stacking all layers, and against no mix at all.

SpeechLM Base with its head on clips of 10 s, embedding (no gradients) and one training step (forward, backward).
`running` is the model as it is; `stacked` asks the tower for all hidden states, stacks them and sums with the same
weights; `last` uses the last layer alone, which is the floor. The first two give equal features.

Counted is what torch allocates over what lived before the pass, from its profiler: the same number on every run.
Resident memory of a fresh process is reported beside it. Writes `results/layer_mix.json` and fails if the running mix
costs more than a few states over the floor; one float32 state is clips x 499 x 768 numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import torch
from machine import describe
from torch.profiler import ProfilerActivity, profile

from unibrivl.modeling import UniBriVLAudioModel, UniBriVLConfig

RESULTS = Path(__file__).resolve().parent / "results" / "layer_mix.json"
FORMS = ("running", "stacked", "last")
CLIPS = {"embed": 8, "train": 2}
FRAMES, WIDTH, SAMPLES = 499, 768, 160000
LIMIT_STATES = 3  # that the running mix may cost over the last layer alone: the sum, the product, the dtype's copy


class StackedMix:
    """The mix as one writes it first: every layer kept, stacked, weighted and summed."""

    def __init__(self, model: UniBriVLAudioModel):
        self.model, self.layer_mix = model, model.layer_mix
        model.layer_mix = None
        self.hear = model._hear
        model._hear = self

    def __call__(self, sound, mask, **kwargs):
        output, _, frame_mask = self.hear(sound, mask, output_hidden_states=True, **kwargs)
        layers_LBTD = torch.stack(output.hidden_states[1:])
        weights_L = self.layer_mix.logits.softmax(0)
        return output, (weights_L[:, None, None, None] * layers_LBTD).sum(0), frame_mask


def build(form: str) -> UniBriVLAudioModel:
    torch.manual_seed(0)
    model = UniBriVLAudioModel(UniBriVLConfig(use_layer_mix=form != "last"))
    if form == "stacked":
        StackedMix(model)
    return model.eval()


def features(model: UniBriVLAudioModel, clips: int, samples: int = SAMPLES) -> torch.Tensor:
    sound = 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))
    return model(sound).features


def allocated_mib(form: str, mode: str) -> float:
    """The most that was allocated at one time during the pass, in MiB."""
    model = build(form)
    counting = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with counting as profiler, torch.set_grad_enabled(mode == "train"):
        found = features(model, CLIPS[mode])
        if mode == "train":
            found.square().sum().backward()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes)) / 2**20


def resident_mib(form: str, threads: int) -> float:
    """Peak resident memory of a fresh process that embeds the clips."""
    command = [sys.executable, __file__, "--resident", form, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--resident", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.resident:
        with torch.inference_mode():
            features(build(args.resident), CLIPS["embed"])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0

    found: dict = {"machine": describe(), "threads": args.threads, "limit_states": LIMIT_STATES, "allocated": {}}
    # first, while this process is small: Linux hands a parent's peak on to its children
    found["resident_embedding_mib"] = {form: round(resident_mib(form, args.threads)) for form in FORMS}
    good = True
    for mode, clips in CLIPS.items():
        state_mib = clips * FRAMES * WIDTH * 4 / 2**20
        peaks = {form: allocated_mib(form, mode) for form in FORMS}
        row = {f"{form}_mib": round(peak) for form, peak in peaks.items()}
        row["clips"], row["state_mib"] = clips, round(state_mib, 1)
        for form in ("running", "stacked"):
            row[f"{form}_costs_states"] = round((peaks[form] - peaks["last"]) / state_mib, 1)
        found["allocated"][mode] = row
        good = good and row["running_costs_states"] <= LIMIT_STATES
    with torch.inference_mode():
        running, stacked = (features(build(form), 2, 32000) for form in ("running", "stacked"))
    found["features_running_minus_stacked"] = float((running - stacked).abs().max())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = good and found["features_running_minus_stacked"] < 1e-5
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
