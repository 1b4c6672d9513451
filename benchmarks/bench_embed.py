"""The embedder against a plain loop over single files, on clips of unlike length.

The loop is what one would write: model loaded, inference mode, load_audio and the processor on one file after another,
with the same threads. Sounds are every n-th recording of `../shared/data` (spoken digits of half a second, sentences
of three to four, sounds of five), else noise of the same spread of lengths. Two sizes: SpeechLM Base with the paper's
head, and a small one of the same kind; the image tower is tiny in both. The ratio is taken pair by pair, ours and
theirs in turn, and the median counts. Vectors must agree within 1e-5. Peak
memory is that of the whole process, loop first, so that what the embedder adds can be seen.

Writes `results/embed.json` and fails if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from machine import ROOT, describe
from transformers import CLIPImageProcessorPil

import unibrivl
from unibrivl.modeling import (
    SPEECHLM_PRESETS,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    UniBriVLConfig,
    UniBriVLModel,
    UniBriVLProcessor,
)

RESULTS = Path(__file__).resolve().parent / "results" / "embed.json"
LIMITS = {"base": 1.3, "small": 2.0}
DIFFERENCE_LIMIT = 1e-5
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_speech_layers": 2,
    "num_shared_layers": 2,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SMALL_HEAD = {"embed_dim": 64, "num_sa_layers": 1, "sa_intermediate_size": 128}


def build(size: str) -> tuple[UniBriVLModel, UniBriVLProcessor]:
    torch.manual_seed(0)
    preset = SPEECHLM_PRESETS["base-p"]
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "image_size": 32,
        "patch_size": 8,
    }
    speech = SpeechLMConfig(**(preset if size == "base" else {**preset, **SMALL}))
    head = {} if size == "base" else SMALL_HEAD
    model = UniBriVLModel(UniBriVLConfig(audio_config=speech, vision_config=vision, **head)).eval()
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return model, UniBriVLProcessor(feature_extractor=SpeechLMFeatureExtractor(), image_processor=images)


def sound_files(number: int, folder: Path) -> tuple[list[Path], str]:
    """Recordings where they are, spread evenly over all of them; else noise: two thirds short, the rest 3 to 5 s."""
    data = ROOT.parent / "shared" / "data"
    real = sorted(path for path in data.glob("*/audio/**/*") if path.suffix in (".wav", ".flac", ".ogg"))
    if len(real) >= number:
        return [real[index * len(real) // number] for index in range(number)], "recordings"
    generator = np.random.default_rng(0)
    for index in range(number):
        seconds = generator.uniform(0.2, 0.7) if index % 3 else generator.uniform(3, 5)
        samples = 0.1 * generator.standard_normal(int(16000 * seconds))
        soundfile.write(folder / f"{index:04}.wav", samples, 16000)
    return sorted(folder.glob("*.wav")), "noise"


def plain_loop(model, processor, files: list[Path]) -> np.ndarray:
    vectors = []
    with torch.inference_mode():
        for path in files:
            batch = processor(audio=unibrivl.load_audio(path, rate_hz=16000))
            shared = model.get_audio_features(**batch).pooler_output
            both = (shared, model.project_audio(shared))
            vectors.append(torch.cat([torch.nn.functional.normalize(one, dim=-1) for one in both], -1) / 2**0.5)
    return torch.cat(vectors).numpy()


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def compare(size: str, files: list[Path], runs: int) -> dict:
    model, processor = build(size)
    embedder = unibrivl.load(model, processor)
    longest = max(soundfile.info(path).duration for path in files)
    if longest > embedder.window_s:  # the loop takes each file whole, so that both do the same work
        embedder = unibrivl.load(model, processor, window_s=longest + 1)
    embedder.encode_audio(files[:2])  # computes the fingerprint
    wanted = plain_loop(model, processor, files)
    loop_peak = peak_mib()
    found = embedder.encode_audio(files).vectors
    ours_peak = peak_mib()
    pairs = []
    for _ in range(runs):
        mine, _ = timed(embedder.encode_audio, files)
        theirs, _ = timed(plain_loop, model, processor, files)
        pairs.append((mine, theirs))
    ratios = [theirs / mine for mine, theirs in pairs]
    return {
        "ours_clips_per_s": round(len(files) / statistics.median(mine for mine, _ in pairs), 2),
        "loop_clips_per_s": round(len(files) / statistics.median(theirs for _, theirs in pairs), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "decoding_s": round(timed(lambda: [unibrivl.load_audio(path, rate_hz=16000) for path in files])[0], 3),
        "difference": float(np.abs(found - wanted).max()),
        "loop_peak_mib": loop_peak,
        "ours_peak_mib": ours_peak,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=218, help="sounds (default: 218, of 4360)")
    parser.add_argument("--runs", type=int, default=5, help="counted pairs (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads of both")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        files, kind = sound_files(args.files, Path(folder))
        seconds = [soundfile.info(path).duration for path in files]
        spread = [round(float(value), 2) for value in np.percentile(seconds, [0, 50, 100])]
        sizes = {size: compare(size, files, args.runs) for size in ("small", "base")}  # so that peaks only grow
    found = {
        "machine": describe(),
        "threads": args.threads,
        "files": len(files),
        "sounds": kind,
        "seconds_min_median_max": spread,
        "sizes": sizes,
        "limits": {"ratio": LIMITS, "difference": DIFFERENCE_LIMIT},
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    missed = [size for size in LIMITS if sizes[size]["ratio"] < LIMITS[size]]
    missed += [f"{size} vectors" for size in sizes if sizes[size]["difference"] > DIFFERENCE_LIMIT]
    print("missed: " + ", ".join(missed) if missed else "all limits kept")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
