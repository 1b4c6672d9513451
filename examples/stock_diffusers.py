"""The embedded model is plain Stable Diffusion without its ears: diffusers' own pipeline draws with it.

`python examples/stock_diffusers.py [TEXT ...]` writes drawn.png.
"""

import sys

import torch
from diffusers import StableDiffusionPipeline

from unibrivl import embedded

texts = sys.argv[1:] or ["a photo of a rooster", "a drawing of a dog", "a handwritten seven"]
pipe = StableDiffusionPipeline.from_pretrained(
    embedded(), matcher=None, matcher_processor=None, dtype=torch.float32, safety_checker=None
)
images = pipe(texts, num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(0)).images
images[0].resize((256, 256)).save("drawn.png")
print(f"drawn.png: {texts[0]}, {images[0].size[0]} pixels wide")
