"""A picture for each part of a long recording: `python examples/storyboard.py [SOUND]` writes storyboard.png."""

import sys

import numpy as np
import torch
from PIL import Image

from unibrivl import UniBriVLPipeline, embedded, load_audio
from unibrivl.cli.demo_sounds import demo_sound

if len(sys.argv) > 1:
    samples = load_audio(sys.argv[1], rate_hz=16000).samples
else:
    samples = np.concatenate([demo_sound(name).samples for name in ("sea waves", "rooster", "rain")])
pipe = UniBriVLPipeline.from_pretrained(embedded())
story = pipe(
    audio=(16000, samples),
    windows=True,
    num_candidates=2,
    num_inference_steps=20,
    generator=torch.Generator().manual_seed(0),
)
page = Image.new("RGB", (256 * len(story.images), 256))
for place, (image, (begin_s, end_s)) in enumerate(zip(story.images, story.times, strict=True)):
    page.paste(image.resize((256, 256)), (256 * place, 0))
    print(f"{begin_s:5.1f} s to {end_s:5.1f} s")
page.save("storyboard.png")
