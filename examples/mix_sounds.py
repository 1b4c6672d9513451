"""Two sounds heard as one, by shares: `python examples/mix_sounds.py [SOUND SOUND]` writes mix_0.png to mix_4.png."""

import sys

import torch

from unibrivl import UniBriVLPipeline, embedded
from unibrivl.cli.demo_sounds import demo_sound

sounds = sys.argv[1:3] if len(sys.argv) > 2 else [demo_sound("rooster"), demo_sound("sea waves")]
pipe = UniBriVLPipeline.from_pretrained(embedded())
for step in range(5):
    share = step / 4
    output = pipe(
        audio=sounds,
        mix=[1 - share, share],
        num_candidates=4,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(0),
    )
    output.images[0].resize((256, 256)).save(f"mix_{step}.png")
    print(f"{100 * share:3.0f} % of the second: {output.candidates[0].prompt}")
