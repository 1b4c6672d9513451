"""What is wrong with the sounds of a folder, found before it wastes a training run.

Every file is decoded once, block by block, and looked at as it is: before channels are averaged, before resampling.
The findings of one file come from `examine`; `examine_all` adds what only shows among many: copies, and a rate that
differs from the others'. A sound's `digest` is of its decoded samples, so a WAV and its FLAC are the same sound.

Shapes: N frames of a block, C channels.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unibrivl.audio.decode import open_encoded
from unibrivl.audio.errors import AudioError
from unibrivl.audio.files import open_path
from unibrivl.audio.io import DAY_S
from unibrivl.audio.mono import CANCELLED, UNSCALED_PEAK
from unibrivl.audio.sound import Sound

# the files a folder is searched for; a file that is named is always examined
_PLAIN = (".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".flac")
_LOSSY = (".ogg", ".oga", ".opus", ".mp3", ".mp2", ".m4a", ".aac", ".wma", ".amr", ".ac3", ".mka", ".weba")
SUFFIXES = frozenset(_PLAIN + _LOSSY)

COMMON_RATES_HZ = frozenset(
    (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
)
TOO_SHORT_S = 0.05
SILENT_PEAK = 1e-4  # -80 dB: the last bit or two of 16
CLIP_LEVEL = 0.9999  # the largest 16-bit value is 0.99997
CLIP_LEVELS = {"PCM_S8": 0.99, "PCM_U8": 0.99, "ULAW": 0.98, "ALAW": 0.98}  # their largest values are lower
CLIP_RUN = 3  # one sample may touch full scale; this many in a row were cut flat
CLIPPED_SHARE = 1e-4  # of all samples
DC_OFFSET = 0.02  # 2 % of full scale


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a word for programs, a sentence for people."""

    kind: str
    detail: str


@dataclass
class FileReport:
    """One file as it was found; what could not be learnt is None.

    Args:
        peak, rms (`float`): of all channels, full scale is 1.
        digest (`str`): equal for equal samples at equal rates, whatever the container.
    """

    path: str
    container: str | None = None
    coding: str | None = None
    rate_hz: int | None = None
    channels: int | None = None
    duration_s: float | None = None
    peak: float | None = None
    rms: float | None = None
    digest: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def readable(self) -> bool:
        return self.duration_s is not None

    def add(self, kind: str, detail: str) -> None:
        self.findings.append(Finding(kind, detail))


class _Statistics:
    """What is added up over the blocks of one sound."""

    def __init__(self, sound: Sound) -> None:
        self.num_frames = 0
        self.num_wrong = 0  # NaN or infinite
        self.num_clipped = 0
        self.peak = 0.0
        self.lowest_C = np.full(sound.channels, np.inf)
        self.highest_C = np.full(sound.channels, -np.inf)
        self.sum_C = np.zeros(sound.channels)
        self.energy = self.mixed_energy = 0.0
        self.digest = hashlib.blake2b(f"{sound.rate_hz} {sound.channels}".encode(), digest_size=16)
        self._clip_level = CLIP_LEVELS.get(sound.coding, CLIP_LEVEL)
        self._clip_before_NC: np.ndarray = np.zeros((CLIP_RUN - 1, sound.channels), bool)

    def add(self, block_NC: np.ndarray) -> None:
        self.digest.update(np.ascontiguousarray(block_NC).data)
        self.num_frames += len(block_NC)
        lowest_C, highest_C = block_NC.min(axis=0), block_NC.max(axis=0)
        if not (np.isfinite(lowest_C).all() and np.isfinite(highest_C).all()):
            wrong_NC = ~np.isfinite(block_NC)
            self.num_wrong += int(wrong_NC.sum())
            block_NC = np.where(wrong_NC, np.float32(0), block_NC)
            lowest_C, highest_C = block_NC.min(axis=0), block_NC.max(axis=0)
        self.lowest_C = np.minimum(self.lowest_C, lowest_C)
        self.highest_C = np.maximum(self.highest_C, highest_C)
        peak = max(float(highest_C.max()), -float(lowest_C.min()))
        self.peak = max(self.peak, peak)
        self._count_clipped(block_NC, peak)
        if peak > 2.0**31:  # squares would overflow; it is reported as unscaled whatever they are
            return
        ones_N: np.ndarray = np.ones(len(block_NC), np.float32)
        self.sum_C += ones_N @ block_NC
        self.energy += float(np.vdot(block_NC, block_NC))
        if block_NC.shape[1] > 1:
            mixed_N = block_NC @ np.full(block_NC.shape[1], 1 / block_NC.shape[1], np.float32)
            self.mixed_energy += float(np.vdot(mixed_N, mixed_N))

    def _count_clipped(self, block_NC: np.ndarray, peak: float) -> None:
        """Samples at full scale that follow at least `CLIP_RUN - 1` others, also across blocks."""
        keep = CLIP_RUN - 1
        if peak < self._clip_level:
            self._clip_before_NC[:] = False
            return
        at_top_NC = np.concatenate([self._clip_before_NC, np.abs(block_NC) >= self._clip_level])
        run_NC = at_top_NC[keep:].copy()
        for back in range(1, CLIP_RUN):
            run_NC &= at_top_NC[keep - back : len(at_top_NC) - back]
        self.num_clipped += int(run_NC.sum())
        self._clip_before_NC = at_top_NC[-keep:].copy()


def examine(path: str, max_duration_s: float = DAY_S) -> FileReport:
    """Decode one file and report what is wrong with it; nothing about a sound raises."""
    report = FileReport(path)
    try:
        with closing(open_encoded(open_path(path))) as sound:
            statistics = _Statistics(sound)
            if sound.claimed_frames is not None and sound.claimed_frames > max_duration_s * sound.rate_hz:
                hours = sound.claimed_frames / sound.rate_hz / 3600
                raise AudioError(f"it says it lasts {hours:.0f} hours, which nobody will hear", sound.name)
            for block_NC in sound.blocks(sound.block_frames):
                statistics.add(block_NC)
                if statistics.num_frames > max_duration_s * sound.rate_hz:
                    raise AudioError(f"it goes on after {max_duration_s / 3600:.0f} hours", sound.name)
            if not statistics.num_frames:
                raise AudioError(f"it holds no samples{f' ({sound.damage})' if sound.damage else ''}", sound.name)
    except AudioError as error:
        report.add("unreadable", error.reason)
        return report
    except OSError as error:
        report.add("unreadable", error.strerror or str(error))
        return report
    report.container, report.coding = sound.container, sound.coding
    report.rate_hz, report.channels = sound.rate_hz, sound.channels
    _conclude(report, statistics, sound.damage)
    return report


def _conclude(report: FileReport, statistics: _Statistics, damage: str) -> None:
    num_frames, channels = statistics.num_frames, len(statistics.sum_C)
    report.duration_s = num_frames / (report.rate_hz or 1)
    report.peak = statistics.peak
    report.rms = math.sqrt(statistics.energy / (num_frames * channels))
    report.digest = statistics.digest.hexdigest()
    swing = float((statistics.highest_C - statistics.lowest_C).max()) / 2
    offset = float(np.abs(statistics.sum_C / num_frames).max())
    if damage:
        report.add("damaged", damage)
    if statistics.num_wrong:
        report.add("nan", f"NaN or infinite samples: {statistics.num_wrong}")
    if report.duration_s < TOO_SHORT_S:
        report.add("too_short", f"{1000 * report.duration_s:.1f} ms")
    if swing < SILENT_PEAK:
        level = f"below {20 * math.log10(SILENT_PEAK):.0f} dB" if swing else "nothing but one value"
        report.add("silent", f"{level} throughout")
    if statistics.num_clipped > CLIPPED_SHARE * num_frames * channels:
        report.add("clipped", f"{100 * statistics.num_clipped / (num_frames * channels):.2g} % of it at full scale")
    if statistics.peak > UNSCALED_PEAK:
        report.add("unscaled", f"peaks at {statistics.peak:.4g} where full scale is 1")
    elif offset > DC_OFFSET:
        report.add("dc_offset", f"its mean is {100 * offset:.1f} % of full scale away from zero")
    if channels > 1 and swing >= SILENT_PEAK and statistics.mixed_energy < CANCELLED * statistics.energy / channels:
        report.add("cancelling", f"its {channels} channels mirror each other: mixed to mono it is silent")
    if report.rate_hz not in COMMON_RATES_HZ:
        report.add("odd_rate", f"{report.rate_hz} Hz")


def examine_all(
    paths: Iterable[str], workers: int | None = None, progress: Callable[[Iterable, int], Iterable] | None = None
) -> list[FileReport]:
    """Examine files in threads (decoding lets go of the interpreter), and compare them; reports in the given order.

    Args:
        workers (`int`, *optional*): threads; one per processor if None.
        progress (*optional*): wraps the iterator of reports and is told how many there will be, as `tqdm` is.
    """
    paths = list(paths)
    with ThreadPoolExecutor(max(1, workers or os.cpu_count() or 1)) as pool:
        found: Iterable[FileReport] = pool.map(examine, paths)
        try:
            reports = list(progress(found, len(paths)) if progress is not None else found)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _compare(reports)
    return reports


def _compare(reports: list[FileReport]) -> None:
    readable = [report for report in reports if report.readable]
    rates = Counter(report.rate_hz for report in readable)
    usual_hz, count = rates.most_common(1)[0] if rates else (None, 0)
    first_with: dict[str, str] = {}
    for report in readable:
        if 2 * count > len(readable) and report.rate_hz != usual_hz and report.rate_hz in COMMON_RATES_HZ:
            report.add("odd_rate", f"{report.rate_hz} Hz, most others have {usual_hz} Hz")
        if any(finding.kind == "silent" for finding in report.findings) or report.digest is None:
            continue
        first = first_with.setdefault(report.digest, report.path)
        if first != report.path:
            report.add("duplicate", f"the same sound as {first}")


def find_sounds(paths: Iterable[str]) -> Iterator[str]:
    """The files to examine: those named, and those in named folders whose suffix is a sound's; sorted, each once.

    Hidden folders are skipped and links to folders are not followed. A path that does not exist raises.
    """
    seen: set[str] = set()
    for path in paths:
        os.stat(path)
        found = _walk(path) if os.path.isdir(path) else iter([path])
        for file in found:
            key = os.path.normpath(file)
            if key not in seen:
                seen.add(key)
                yield file


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)


def _raise(error: OSError) -> None:
    raise error


def summarize(reports: list[FileReport]) -> dict[str, Any]:
    """The whole folder in one dict of plain values, ready for JSON."""
    readable = [report for report in reports if report.readable]
    return {
        "files": len(reports),
        "files_with_findings": sum(bool(report.findings) for report in reports),
        "unreadable": len(reports) - len(readable),
        "hours": sum(report.duration_s or 0.0 for report in readable) / 3600,
        "rates_hz": _count(str(report.rate_hz) for report in readable),
        "formats": _count(f"{report.container}/{report.coding}" for report in readable),
        "channels": _count(str(report.channels) for report in readable),
        "findings": _count(finding.kind for report in reports for finding in report.findings),
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    """Values and how often they occur, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
