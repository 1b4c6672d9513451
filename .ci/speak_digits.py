"""Speaks the digits of `unibrivl demo` with eSpeak NG, as FLAC files of 8 kHz.

pip install espeakng-loader==0.2.4 numpy soundfile soxr
python .ci/speak_digits.py src/unibrivl/cli/sounds
"""

from __future__ import annotations

import sys
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from speaker import Speaker  # noqa: E402

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICE, WORDS_PER_MINUTE = "en-us+m1", 140
RATE_HZ = 8000  # of the recordings that the embedded model learned digits from


def main(folder: str) -> None:
    speak = Speaker()
    speak.become(VOICE, WORDS_PER_MINUTE)
    for word in WORDS:
        soundfile.write(Path(folder) / f"{word}.flac", speak(word, RATE_HZ), RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    main(*sys.argv[1:])
