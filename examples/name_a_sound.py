"""What is it? Probabilities of labels for sounds: `python examples/name_a_sound.py [SOUND ...]`."""

import sys

import unibrivl
from unibrivl.cli.demo_sounds import demo_sound

LABELS = ["a rooster", "a dog", "rain", "sea waves", "a helicopter", "a fire", "a clock", "a person sneezing"]
sounds = sys.argv[1:] or [demo_sound("rain"), demo_sound("ticking clock")]
embedder = unibrivl.load("embedded")
for number, chances in enumerate(embedder.classify(sounds, LABELS), 1):
    first = list(chances.items())[:3]
    print(f"sound {number}: " + ", ".join(f"{label} {100 * chance:.0f} %" for label, chance in first))
