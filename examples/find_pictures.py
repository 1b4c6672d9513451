"""Which picture of a folder does a sound belong to? `python examples/find_pictures.py [SOUND FOLDER]`.

Without arguments the model draws itself a folder of pictures first.
"""

import sys
from pathlib import Path

import torch

import unibrivl
from unibrivl.cli.demo_sounds import demo_sound

if len(sys.argv) > 2:
    sound, folder = sys.argv[1], Path(sys.argv[2])
else:
    sound, folder = demo_sound("barking dog"), Path("gallery")
    folder.mkdir(exist_ok=True)
    pipe = unibrivl.UniBriVLPipeline.from_pretrained(unibrivl.embedded())
    for thing in ("a dog", "a rooster", "a helicopter", "a clock"):
        prompt = f"a drawing of {thing}"
        image = pipe(prompt, num_inference_steps=20, generator=torch.Generator().manual_seed(0)).images[0]
        image.save(folder / f"{thing.split()[1]}.png")

paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".jpeg", ".webp"))
embedder = unibrivl.load("embedded")
pictures = embedder.encode_image(paths, ids=[path.name for path in paths])
for name, score in embedder.rank(sound, pictures, top=3)[0]:
    print(f"{score:+.3f}  {name}")
