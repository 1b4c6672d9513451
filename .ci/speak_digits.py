"""Speaks the digits of `unibrivl demo` with eSpeak NG, as FLAC files of 8 kHz.

    pip install espeakng-loader==0.2.4 numpy soundfile soxr
    python .ci/speak_digits.py src/unibrivl/cli/sounds

The package brings eSpeak NG as a library; nothing of it becomes part of this project but the words it says.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICE, WORDS_PER_MINUTE = b"en-us+m1", 140
RATE_HZ = 8000  # of the recordings that the embedded model learned digits from
SYNCHRONOUS, RATE, UTF8 = 2, 1, 1  # of eSpeak's interface
AROUND_S, SILENT = 0.05, 0.01


class Speaker:
    def __init__(self) -> None:
        loader = importlib.import_module("espeakng_loader")
        self.library = ctypes.CDLL(loader.get_library_path())
        self.rate_hz = self.library.espeak_Initialize(SYNCHRONOUS, 0, loader.get_data_path().encode(), 0)
        self.heard: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._hear)  # kept: the library holds no reference to it
        self.library.espeak_SetSynthCallback(self.callback)
        if self.library.espeak_SetVoiceByName(VOICE) != 0:
            raise ValueError(f"eSpeak NG has no voice {VOICE.decode()}: its data are missing")
        self.library.espeak_SetParameter(RATE, WORDS_PER_MINUTE, 0)

    def _hear(self, samples, count: int, _events) -> int:
        if samples and count:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, word: str) -> np.ndarray:
        """The word at `RATE_HZ`, with a little silence on either side."""
        self.heard.clear()
        text = word.encode() + b"\0"
        self.library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate(self.heard).astype(np.float32) / 32768
        loud, around = np.flatnonzero(np.abs(samples) > SILENT), int(AROUND_S * self.rate_hz)
        return soxr.resample(samples[max(0, loud[0] - around) : loud[-1] + around], self.rate_hz, RATE_HZ)


def main(folder: str) -> None:
    speak = Speaker()
    for word in WORDS:
        soundfile.write(Path(folder) / f"{word}.flac", speak(word), RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    main(*sys.argv[1:])
