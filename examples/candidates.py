"""The best of many: 12 pictures are begun, weaker ones dropped on the way, and what is left is ranked.

`python examples/candidates.py [SOUND]` writes best_1.png, best_2.png and best_3.png.
"""

import sys

import torch

from unibrivl import UniBriVLPipeline, embedded
from unibrivl.cli.demo_sounds import demo_sound
from unibrivl.pipelines.strategy_halving import Halving

sound = sys.argv[1] if len(sys.argv) > 1 else demo_sound("helicopter")
pipe = UniBriVLPipeline.from_pretrained(embedded())
output = pipe(
    audio=sound,
    label_bank="drawing",
    strategy=Halving(num_candidates=12, rounds=((0.25, 0.5), (0.5, 0.25))),
    num_images_per_prompt=3,
    num_inference_steps=20,
    generator=torch.Generator().manual_seed(0),
)
for rank, (image, score) in enumerate(zip(output.images, output.scores, strict=True), 1):
    image.resize((256, 256)).save(f"best_{rank}.png")
    print(f"best_{rank}.png: score {score:+.3f}")
dropped = sum(one.score is None for one in output.candidates)
print(f"{dropped} of {len(output.candidates)} candidates were dropped before they were finished")
