"""A model of your own from a folder of sounds and pictures: `python examples/train_on_a_folder.py [FOLDER]`.

Without a folder it makes one: tones and the colours that belong to them. A few steps on toy sizes; `docs/training.md`
says what to change for more.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

import unibrivl
from unibrivl.training.config import override
from unibrivl.training.loop import train
from unibrivl.training.recipes import pairs

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:
    folder = Path("tones")
    folder.mkdir(exist_ok=True)
    for number in range(12):
        tone = 0.1 * np.sin(np.arange(16000) * (number + 1) / 25)
        soundfile.write(folder / f"tone_{number}.wav", tone, 16000)
        Image.new("RGB", (64, 64), (20 * number, 99, 250 - 20 * number)).save(folder / f"tone_{number}.png")

settings = ["model.audio=tiny", "model.image=tiny", "batch_size=4", "steps=4", "output_dir=run"]
outcome = train(override(pairs.config(), [f"data.folder={folder}", *settings]), pairs.build)
print(f"recall on held-out pairs: {outcome.metrics['recall']:.3f}")

embedder = unibrivl.load(str(outcome.model))
found = embedder.rank(sorted(folder.glob("*.wav"))[0], sorted(folder.glob("*.png")), top=1)[0]
print(f"the model in {outcome.model} finds {found[0][0]} for the first sound")
