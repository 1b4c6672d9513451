"""eSpeak NG as a voice, by the library that the Python package espeakng-loader brings: texts to samples.

    pip install espeakng-loader==0.2.4 numpy soxr

Nothing of it becomes part of this project but the words it says.
"""

from __future__ import annotations

import ctypes
import importlib

import numpy as np
import soxr

SYNCHRONOUS, RATE, PITCH, RANGE, UTF8 = 2, 1, 3, 4, 1  # of eSpeak's interface
AROUND_S, SILENT = 0.05, 0.01


class Speaker:
    """One library is one voice at a time: call `become` before another speaks."""

    def __init__(self) -> None:
        loader = importlib.import_module("espeakng_loader")
        self.library = ctypes.CDLL(loader.get_library_path())
        self.rate_hz = self.library.espeak_Initialize(SYNCHRONOUS, 0, loader.get_data_path().encode(), 0)
        self.heard: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._hear)  # kept: the library holds no reference to it
        self.library.espeak_SetSynthCallback(self.callback)

    def become(self, voice: str, words_per_minute: int, pitch: int = 50, pitch_range: int = 50) -> None:
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice}: its data are missing")
        for parameter, value in ((RATE, words_per_minute), (PITCH, pitch), (RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)

    def _hear(self, samples, count: int, _events) -> int:
        if samples and count:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, text: str, rate_hz: int) -> np.ndarray:
        """The text at `rate_hz`, with a little silence on either side."""
        self.heard.clear()
        written = text.encode() + b"\0"
        self.library.espeak_Synth(written, ctypes.c_size_t(len(written)), 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate(self.heard).astype(np.float32) / 32768
        loud, around = np.flatnonzero(np.abs(samples) > SILENT), int(AROUND_S * self.rate_hz)
        return soxr.resample(samples[max(0, loud[0] - around) : loud[-1] + around], self.rate_hz, rate_hz)
