"""From an audio file to a waveform: the first arrow of the package, and the only place that sees a sound's container.

`load_audio` reads anything whole, `load_part` what lies between two moments, `read_blocks` and `read_windows` read it
in constant memory, `split_windows` cuts what was read so that every second is heard. No torch here: tensors are
recognised by what they can do.
"""

from unibrivl.audio.errors import AudioError
from unibrivl.audio.io import load_audio, read_blocks, read_windows
from unibrivl.audio.part import duration_s, load_part
from unibrivl.audio.waveform import Waveform, Window
from unibrivl.audio.windows import split_windows

__all__ = [
    "AudioError",
    "Waveform",
    "Window",
    "duration_s",
    "load_audio",
    "load_part",
    "read_blocks",
    "read_windows",
    "split_windows",
]
