"""`unibrivl demo [SOUND]`: hear a sound, draw it, embed it. With no sound given, one is made on the spot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sound", nargs="?", type=Path, help="any sound file; without one, two bells are synthesised")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")


def run(args: argparse.Namespace) -> int:
    from unibrivl.audio import load_audio
    from unibrivl.audio.picture import draw_sound

    if args.sound is None:
        waveform, name = two_bells(), "two_bells"
        print("no sound given: two bells were synthesised on the spot")
    else:
        waveform, name = load_audio(args.sound, rate_hz=16000), args.sound.stem
    args.out.mkdir(parents=True, exist_ok=True)
    picture, vector_path = args.out / f"{name}.png", args.out / f"{name}.npy"
    draw_sound(waveform).save(picture)
    print(f"heard    {waveform.duration_s:.2f} s at {waveform.rate_hz} Hz")
    print(f"picture  {picture}  (waveform and spectrogram)")

    vector = embed_untrained(waveform)
    import numpy as np

    np.save(vector_path, vector)
    print(
        f"vector   {vector_path}  ({vector.shape[0]} numbers, first {', '.join(f'{x:+.3f}' for x in vector[:4])}, ...)"
    )
    print()
    print(
        "The model behind the vector is a small SpeechLM with random weights: UNTRAINED. The same sound always gives"
    )
    print("the same vector, but near vectors do not mean alike sounds yet. The trained embedded model is being built.")
    return 0


def two_bells(rate_hz: int = 16000) -> Any:
    """Two struck bells, a fifth apart: decaying inharmonic partials. Deterministic."""
    import numpy as np

    from unibrivl.audio import Waveform

    time_s = np.arange(int(3.0 * rate_hz)) / rate_hz
    samples = np.zeros_like(time_s)
    for start_s, pitch_hz in ((0.1, 523.25), (1.4, 783.99)):
        since = np.maximum(time_s - start_s, 0)
        for ratio, loudness in (
            (0.5, 0.5),
            (1.0, 1.0),
            (1.19, 0.7),
            (1.5, 0.4),
            (2.0, 0.5),
            (2.74, 0.3),
            (4.07, 0.15),
        ):
            decay = np.exp(-since * (1.2 + ratio)) * (time_s >= start_s)
            samples += loudness * decay * np.sin(2 * np.pi * pitch_hz * ratio * since)
    return Waveform(samples=(0.7 * samples / np.abs(samples).max()).astype(np.float32), rate_hz=rate_hz)


def embed_untrained(waveform: Any) -> Any:
    """The mean last hidden state of a small SpeechLM with fixed random weights, over windows, l2-normalised."""
    import torch

    from unibrivl.audio import split_windows
    from unibrivl.modeling import SpeechLMConfig, SpeechLMFeatureExtractor, SpeechLMModel

    config = SpeechLMConfig(
        hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_speech_layers=2, num_shared_layers=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SpeechLMModel(config).eval()
    total = torch.zeros(config.hidden_size)
    for window in split_windows(waveform, window_s=10.0):
        inputs = SpeechLMFeatureExtractor()([window], return_tensors="pt")
        with torch.inference_mode():
            total += model(inputs.input_values).last_hidden_state.sum(1)[0]
    return torch.nn.functional.normalize(total, dim=0).numpy()
