"""A picture says how it was made, and is made again: `python examples/replay_a_picture.py [SOUND]`."""

import sys

import torch

from unibrivl import UniBriVLPipeline, embedded
from unibrivl.cli.demo_sounds import demo_sound
from unibrivl.pipelines.receipt_unibrivl import pixel_difference, read_receipt, replay, save_png

sound = sys.argv[1] if len(sys.argv) > 1 else demo_sound("seven")
pipe = UniBriVLPipeline.from_pretrained(embedded())
output = pipe(
    audio=sound,
    num_candidates=2,
    num_inference_steps=20,
    generator=torch.Generator().manual_seed(0),
)
save_png(output.images[0], output.receipts[0], "picture.png")

receipt = read_receipt("picture.png")
again, _, different = replay(pipe, receipt, sound)
print(f"prompt: {receipt['picture']['prompt']}; torch {receipt['versions']['torch']}")
print(f"what is not the same here: {different or 'nothing'}")
print(f"pixels: {pixel_difference(output.images[0], again) or 'equal, bit for bit'}")
