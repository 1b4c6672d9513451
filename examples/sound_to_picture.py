"""A sound becomes a picture: `python examples/sound_to_picture.py [SOUND]` writes picture.png."""

import sys

import torch

from unibrivl import UniBriVLPipeline, embedded
from unibrivl.cli.demo_sounds import demo_sound

sound = sys.argv[1] if len(sys.argv) > 1 else demo_sound("rooster")
pipe = UniBriVLPipeline.from_pretrained(embedded())
output = pipe(audio=sound, num_inference_steps=20, num_candidates=4, generator=torch.Generator().manual_seed(0))
output.images[0].resize((256, 256)).save("picture.png")
print(f"picture.png: {output.candidates[0].prompt}, score {output.scores[0]:.3f}")
