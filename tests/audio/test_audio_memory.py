"""Ten hours cost what ten seconds cost: memory is bounded by the block, not by the file or by what its header claims.

Each measurement is a process of its own, because libraries allocate where Python does not see it. On Linux it is read
from /proc: `ru_maxrss` of a child begins with what its parent had.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

pytest.importorskip("resource")

HOUR_S = 3_600
GROWTH_MIB = 12  # allowed beyond what importing and reading a short sound takes

PROGRAM = """
import os, resource, sys
from unibrivl.audio import AudioError, load_audio, read_blocks, read_windows
from unibrivl.audio.doctor import examine
warm_up, path = sys.argv[1:]
def peak_mib():
    if os.path.exists("/proc/self/status"):
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
def hear(path):
    {body}
hear(warm_up)
before = peak_mib()
print(hear(path), peak_mib() - before)
"""

BLOCKS = "return sum(block.duration_s for block in read_blocks(path, 5.0, rate_hz=4_000))"
WINDOWS = "return sum(1 for window in read_windows(path, 10.0, 5.0))"
DOCTOR = "return examine(path).duration_s"
REFUSED = """
    try:
        return load_audio(path, max_duration_s=60).duration_s
    except AudioError as error:
        return -1 if "max_duration_s" in str(error) else -2
"""


def write_long(path, hours: float, rate_hz: int = 1_000) -> None:
    """A long, very compressible sound; written piece by piece."""
    piece = (0.1 * np.sin(np.arange(100 * rate_hz) * 0.1)).astype(np.float32).round(2)
    with soundfile.SoundFile(path, "w", rate_hz, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(hours * HOUR_S / 100)):
            file.write(piece)


def measure(body: str, warm_up, path) -> tuple[float, float]:
    """What the program found, and by how many MiB its memory grew on the long file."""
    code = PROGRAM.format(body=body.strip())
    done = subprocess.run([sys.executable, "-c", code, str(warm_up), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, growth = done.stdout.split()
    return float(found), float(growth)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    write_long(folder / "short.flac", 100 / HOUR_S)
    write_long(folder / "ten_hours.flac", 10)
    return folder


@pytest.mark.parametrize(
    ("body", "found"), [(BLOCKS, 10 * HOUR_S), (WINDOWS, 2 * HOUR_S - 1), (DOCTOR, 10 * HOUR_S), (REFUSED, -1)]
)
def test_ten_hours_in_constant_memory(sounds, body, found):
    heard, growth_mib = measure(body, sounds / "short.flac", sounds / "ten_hours.flac")
    assert heard == pytest.approx(found)
    assert growth_mib < GROWTH_MIB  # all samples would be 137 MiB, and 549 MiB at 4 kHz


def test_the_measurement_sees_what_is_held(sounds):
    whole = "return load_audio(path, max_duration_s=float('inf')).duration_s"
    assert measure(whole, sounds / "short.flac", sounds / "ten_hours.flac")[1] > 137


def test_memory_is_not_taken_by_the_claim_of_a_header(tmp_path, sounds, flac_total, encode, tone):
    liar = tmp_path / "liar.flac"
    liar.write_bytes(flac_total(encode(tone(1.0), 16_000, "FLAC"), 2**36 - 1))
    heard, growth_mib = measure(
        "return load_audio(path, max_duration_s=float('inf')).duration_s", sounds / "short.flac", liar
    )
    assert heard == 1.0
    assert growth_mib < GROWTH_MIB


def test_a_bomb_without_a_claim_is_stopped_while_it_is_read(tmp_path, sounds, flac_total):
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_total((sounds / "ten_hours.flac").read_bytes(), 0))
    heard, growth_mib = measure(REFUSED.replace("=60", "=3600"), sounds / "short.flac", bomb)
    assert heard == -1
    assert growth_mib < GROWTH_MIB + 2 * HOUR_S * 1_000 * 4 / (1 << 20)  # an hour may be held before it is refused


def test_a_six_channel_file_never_exists_whole(tmp_path, sounds):
    file = tmp_path / "six.wav"
    with soundfile.SoundFile(file, "w", 48_000, 6, "PCM_16") as sound:
        for _ in range(60):
            sound.write(np.full((48_000, 6), 0.1, np.float32))
    heard, growth_mib = measure("return load_audio(path, rate_hz=16_000).duration_s", sounds / "short.flac", file)
    assert heard == pytest.approx(60)
    assert growth_mib < GROWTH_MIB  # 66 MiB of frames


@pytest.mark.slow
def test_ten_hours_at_44_khz(tmp_path, sounds):
    write_long(tmp_path / "long.flac", 10, 44_100)
    heard, growth_mib = measure(BLOCKS, sounds / "short.flac", tmp_path / "long.flac")
    assert heard == pytest.approx(10 * HOUR_S)
    assert growth_mib < GROWTH_MIB
