"""`unibrivl demo`: a handful of sounds, or yours, become pictures: one page, `demo.png`, and a table.

It takes the embedded model, and needs no network. Where its weights are missing, a sound is drawn as it is heard and
embedded by a network with random weights, and the text says so.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

CANDIDATES, KEPT, STEPS = 4, 3, 20  # of each sound and bank
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="sound files of yours; without any, sounds that the project has made",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")


def run(args: argparse.Namespace) -> int:
    from unibrivl.audio import load_audio
    from unibrivl.cli.demo_sounds import SOUNDS

    folder, missing = find_model()
    if folder is None:
        print(f"{missing}\n")
        return draw_and_embed(args)
    if args.audio:
        sounds = [(path.name, load_audio(path, rate_hz=16000)) for path in args.audio]
    else:
        sounds = [(one.name, one.waveform()) for one in SOUNDS if one.shown]
    return draw_all(folder, sounds, args.out)


def find_model() -> tuple[Path | None, str]:
    """The embedded model's folder, or why there is none."""
    from unibrivl.embedded import OVERRIDE, embedded

    try:
        return embedded(), ""
    except FileNotFoundError as error:
        if os.environ.get(OVERRIDE):
            raise  # somebody has asked for one
        return None, str(error)


# ---- with the model


def draw_all(folder: Path, sounds: list[tuple[str, Any]], out: Path) -> int:
    from tqdm.auto import tqdm

    from unibrivl.audio.errors import printable
    from unibrivl.cli.demo_page import Heard, demo_page
    from unibrivl.cli.generate import load_pipeline, quiet_libraries
    from unibrivl.embedder import Embedder

    begun = time.monotonic()
    quiet_libraries()
    pipe = load_pipeline(str(folder), None, None, None)
    pipe.set_progress_bar_config(disable=True)
    embedder = Embedder(pipe.listener)
    print(f"model    {folder}  (loaded in {time.monotonic() - begun:.1f} s)\n")
    labels = labels_of(pipe)
    banks = list(pipe.label_banks) or [None]
    wide = max(len(printable(name)) for name, _ in sounds)
    shown_banks = "  ".join(f"{bank or 'picture':>8}" for bank in banks)
    print(f"{'sound':{wide}}  {'heard':20} {'probability':>11}  {shown_banks}  {'seconds':>7}")
    rows = []
    for name, waveform in tqdm(sounds, unit=" sounds", leave=False, disable=None):
        begun = time.monotonic()
        heard = embedder.classify([waveform], labels)[0]
        drawn = {bank or "picture": draw(pipe, waveform, bank) for bank in banks}
        rows.append(Heard(printable(name), waveform, heard, drawn))
        first = next(iter(heard))
        best = "  ".join(f"{pictures[0].score:>+8.3f}" for pictures in drawn.values())
        tqdm.write(
            f"{printable(name):{wide}}  {first:20} {heard[first]:>11.2f}  {best}  {time.monotonic() - begun:>7.1f}"
        )
    out.mkdir(parents=True, exist_ok=True)
    demo_page(rows).save(out / "demo.png")
    print(f"\npage     {out / 'demo.png'}  (each sound, what was heard, and its pictures, best first)")
    return 0


def labels_of(pipe: Any) -> list[str]:
    """What may be heard: the labels of all banks."""
    from unibrivl.pipelines.prompts_unibrivl import read_bank

    return list(dict.fromkeys(label for bank in pipe.label_banks.values() for label in bank)) or list(read_bank())


def draw(pipe: Any, waveform: Any, bank: str | None) -> list[Any]:
    """The best pictures of the label that is nearest to a sound."""
    import torch

    from unibrivl.cli.contact_sheet import Shown
    from unibrivl.pipelines.strategy_rerank import Rerank

    output = pipe(
        audio=waveform,
        label_bank=bank,
        strategy=Rerank(num_candidates=CANDIDATES, num_prompts=1),
        num_images_per_prompt=KEPT,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(SEED),
    )
    prompt = output.candidates[0].prompt
    return [Shown(image, score, prompt) for image, score in zip(output.images, output.scores, strict=True)]


# ---- without it


def draw_and_embed(args: argparse.Namespace) -> int:
    """A sound's waveform and spectrogram, and what a network with random weights makes of it."""
    import numpy as np

    from unibrivl.audio import load_audio
    from unibrivl.audio.picture import draw_sound

    sounds = [(path.stem, load_audio(path, rate_hz=16000)) for path in args.audio]
    if not sounds:
        sounds = [("two_bells", two_bells())]
        print("no sound given: two bells were synthesised on the spot")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, waveform in sounds:
        picture, vector_path = args.out / f"{name}.png", args.out / f"{name}.npy"
        draw_sound(waveform).save(picture)
        print(f"heard    {waveform.duration_s:.2f} s at {waveform.rate_hz} Hz")
        print(f"picture  {picture}  (waveform and spectrogram)")
        vector = embed_untrained(waveform)
        np.save(vector_path, vector)
        first = ", ".join(f"{number:+.3f}" for number in vector[:4])
        print(f"vector   {vector_path}  ({vector.shape[0]} numbers, first {first}, ...)\n")
    print(
        "The model behind the vector is a small SpeechLM with random weights: UNTRAINED. The same sound always gives\n"
        "the same vector, but near vectors do not mean alike sounds."
    )
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
