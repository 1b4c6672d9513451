"""SpeechLM Base against transformers' HuBERT of the same width and depth, and against the dense T x T x d positions.

Both models run in one process in turn, ratios are taken pair by pair and the median counts. Peak memory is that of a
fresh process for each model. Writes `results/speechlm.json` and fails if a limit is missed.

The floor: at 10 s Base needs 49 GFLOP in the convolutions and 102 in the transformers; the matrix product's own speed
on this machine is measured in the same run, and `share_of_matmul_speed` is how much of it the whole model reaches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import describe
from transformers import HubertConfig, HubertModel
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

from unibrivl.modeling import SpeechLMConfig, SpeechLMModel, attention_speechlm, front_end_speechlm, modeling_speechlm

RESULTS = Path(__file__).resolve().parent / "results" / "speechlm.json"
SPEED_LIMIT, DENSE_LIMIT, MEMORY_LIMIT = 1.0, 1.7, 1.1
CASES = ("10s", "ragged")
GFLOP_10S = 151


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return (HubertModel(HubertConfig()) if name == "hubert" else SpeechLMModel(SpeechLMConfig())).eval()


def inputs(case: str) -> dict[str, torch.Tensor]:
    """One clip of 10 s, or eight of 2 to 15 s with their mask."""
    generator = torch.Generator().manual_seed(0)
    if case == "10s":
        return {"input_values": 0.1 * torch.randn(1, 160000, generator=generator)}
    lengths = torch.linspace(2, 15, 8).mul(16000).long()
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return {"input_values": 0.1 * torch.randn(mask.shape, generator=generator) * mask, "attention_mask": mask}


class DensePositions:
    """Relative positions as a T x T x d tensor that multiplies every query.

    Made in every layer, as a model reads that keeps the term inside its attention, or once a transformer and kept, as
    the original arranges it.
    """

    def __init__(self, keep: bool):
        self.keep = keep
        self.made: dict[int, torch.Tensor] = {}

    def __call__(self, query_BHQd, table_Rd, first, frames):
        batch, heads, count, size = query_BHQd.shape
        positions_TTd = self.made.get(table_Rd.data_ptr())
        if positions_TTd is None:
            half = table_Rd.shape[0] // 2
            index_T = torch.arange(frames)
            index_TT = (index_T[:, None] - index_T).clamp(-half, half - 1) + half
            positions_TTd = table_Rd[index_TT]
            if self.keep:
                self.made[table_Rd.data_ptr()] = positions_TTd
        flat = query_BHQd.permute(2, 0, 1, 3).reshape(count, batch * heads, size)
        return (flat @ positions_TTd.mT).reshape(count, batch, heads, frames).permute(1, 2, 0, 3)


def dense_seconds(ours, batch, *, keep: bool, attention: str, literal_convolutions: bool = False) -> float:
    """Our model with the relative term in its dense form, and on request with Hubert's convolutions layer by layer."""

    def hubert_convolutions(samples, _):
        return HubertFeatureEncoder.forward(ours.feature_extractor, samples).transpose(1, 2)

    ours.set_attn_implementation(attention)
    if literal_convolutions:
        ours.feature_extractor.forward = hubert_convolutions
    try:
        with replaced(attention_speechlm, relative_bias=DensePositions(keep), QUERY_BLOCK=10**6):
            return seconds(ours, batch)
    finally:
        ours.set_attn_implementation("sdpa")
        ours.feature_extractor.__dict__.pop("forward", None)


# name -> how the dense form is run; the limit is on the first
DENSE_FORMS = {
    "in_every_layer_eager": {"keep": False, "attention": "eager"},
    "in_every_layer_sdpa": {"keep": False, "attention": "sdpa"},
    "once_a_transformer_eager": {"keep": True, "attention": "eager"},
    "once_a_transformer_eager_literal_convolutions": {
        "keep": True,
        "attention": "eager",
        "literal_convolutions": True,
    },
}


@contextlib.contextmanager
def replaced(module, **attributes):
    before = {name: getattr(module, name) for name in attributes}
    for name, value in attributes.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def seconds(model, batch) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        model(**batch)
    return time.perf_counter() - start


def paired(first, second, runs: int) -> dict[str, float]:
    """Median seconds of both, and the median of second / first pair by pair; in turn, after two rounds of warm-up."""
    pairs = [(first(), second()) for _ in range(runs + 2)][2:]
    return {
        "ours_s": round(statistics.median(ours for ours, _ in pairs), 4),
        "other_s": round(statistics.median(other for _, other in pairs), 4),
        "ratio": round(statistics.median(other / ours for ours, other in pairs), 3),
        "ratio_min": round(min(other / ours for ours, other in pairs), 3),
        "ratio_max": round(max(other / ours for ours, other in pairs), 3),
    }


def padding_forms(ours, runs: int) -> dict[str, float]:
    """The ragged batch padded and masked, in buckets of two alike clips, and at each clip's own length (default)."""
    batch = inputs("ragged")
    lengths = batch["attention_mask"].sum(1).tolist()
    order = sorted(range(len(lengths)), key=lengths.__getitem__)

    def padded() -> float:
        whole = replaced(modeling_speechlm, clip_frames=lambda mask, config: None)
        convs = replaced(front_end_speechlm, each_clip=lambda function, clips, _: function(clips))
        with whole, convs:
            return seconds(ours, batch)

    def buckets() -> float:
        start = time.perf_counter()
        for pair in zip(order[::2], order[1::2], strict=True):
            longest = max(lengths[row] for row in pair)
            piece = {name: tensor[list(pair), :longest] for name, tensor in batch.items()}
            with replaced(modeling_speechlm, clip_frames=lambda mask, config: None), torch.inference_mode():
                ours(**piece)
        return time.perf_counter() - start

    rounds = [(padded(), buckets(), seconds(ours, batch)) for _ in range(runs + 1)][1:]
    names = ("padded_s", "buckets_of_two_s", "own_length_s")
    found = {name: round(statistics.median(row[i] for row in rounds), 3) for i, name in enumerate(names)}
    found["own_length_over_padded"] = round(statistics.median(row[0] / row[2] for row in rounds), 3)
    return found


def matmul_gflops() -> float:
    left, right = torch.randn(499, 3072), torch.randn(3072, 768)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return round(2 * 499 * 3072 * 768 / min(times) / 1e9, 1)


def peak_mib(name: str, case: str, threads: int) -> float:
    """Peak resident memory of a fresh process that builds the model and runs the case once."""
    command = [sys.executable, __file__, "--peak", name, case, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="counted pairs of each comparison (default: 9)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads of both models")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "CASE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        seconds(build(args.peak[0]), inputs(args.peak[1]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0

    memory = {}
    for case in CASES:
        peaks = {name: peak_mib(name, case, args.threads) for name in ("ours", "hubert")}
        memory[case] = {f"{name}_mib": round(value) for name, value in peaks.items()}
        memory[case]["ratio"] = round(peaks["ours"] / peaks["hubert"], 3)
    ours, hubert = build("ours"), build("hubert")
    speed = {}
    for case in CASES:
        batch, runs = inputs(case), args.runs if case == "10s" else max(3, args.runs // 2)
        speed[case] = paired(lambda b=batch: seconds(ours, b), lambda b=batch: seconds(hubert, b), runs)
    clip = inputs("10s")

    against_dense = {
        name: paired(lambda: seconds(ours, clip), lambda f=form: dense_seconds(ours, clip, **f), args.runs)
        for name, form in DENSE_FORMS.items()
    }
    matmul = matmul_gflops()
    found = {
        "machine": describe(),
        "threads": args.threads,
        "matmul_gflops": matmul,
        "share_of_matmul_speed": round(GFLOP_10S / speed["10s"]["ours_s"] / matmul, 3),
        "speed_vs_hubert": speed,
        "speed_vs_dense_positions": against_dense,
        "peak_memory_vs_hubert": memory,
        "ragged_batch": padding_forms(ours, max(3, args.runs // 3)),
        "limits": {"speed": SPEED_LIMIT, "dense": DENSE_LIMIT, "memory": MEMORY_LIMIT},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = (
        all(row["ratio"] >= SPEED_LIMIT for row in speed.values())
        and next(iter(against_dense.values()))["ratio"] >= DENSE_LIMIT
    )
    good = good and all(row["ratio"] <= MEMORY_LIMIT for row in memory.values())
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
