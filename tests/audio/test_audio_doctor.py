"""unibrivl doctor: finds what is wrong with a folder of sounds, says it to people and to programs."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from unibrivl.audio.doctor import FileReport, examine, examine_all, find_sounds
from unibrivl.cli import main

RATE_HZ = 16_000


@pytest.fixture
def save(tmp_path, encode):
    """Write a sound (or bytes) into the folder and return its path as a string."""

    def save_as(name: str, samples, rate_hz: int = RATE_HZ, container: str = "WAV", coding: str | None = None) -> str:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = samples if isinstance(samples, bytes) else encode(samples, rate_hz, container, coding)
        file.write_bytes(content)
        return str(file)

    return save_as


def kinds(report: FileReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def test_a_healthy_sound_has_no_findings(save, tone):
    report = examine(save("a.wav", tone(1.0)))
    assert report.findings == []
    assert (report.container, report.coding, report.rate_hz, report.channels) == ("WAV", "PCM_16", RATE_HZ, 1)
    assert report.duration_s == 1.0
    assert report.peak == pytest.approx(0.5, abs=1e-3)
    assert report.rms == pytest.approx(0.5 / np.sqrt(2), abs=1e-3)


@pytest.mark.parametrize("level", [1.0, 0.99999])
def test_a_full_scale_tone_is_not_clipped(save, tone, level):
    assert examine(save("a.wav", tone(1.0, level=level))).findings == []


def findings_table(tone):
    """name -> (samples, rate, coding, what must be found)"""
    mirror = np.stack([tone(1.0), -tone(1.0)], axis=1)
    holes = tone(1.0)
    holes[[5, 7_000]] = np.nan
    holes[9_000] = np.inf
    return {
        "silent": (np.zeros(RATE_HZ, np.float32), RATE_HZ, "PCM_16", ["silent"]),
        "nearly silent": (1e-5 * tone(1.0), RATE_HZ, "FLOAT", ["silent"]),
        "constant": (np.full(RATE_HZ, 0.3, np.float32), RATE_HZ, "PCM_16", ["silent", "dc_offset"]),
        "clipped": (np.clip(tone(1.0, level=2.0), -1, 1), RATE_HZ, "PCM_16", ["clipped"]),
        "clipped 8 bit": (np.clip(tone(1.0, level=2.0), -1, 1), RATE_HZ, "PCM_U8", ["clipped"]),
        "clipped mu-law": (np.clip(tone(1.0, level=2.0), -1, 1), RATE_HZ, "ULAW", ["clipped"]),
        "offset": (tone(1.0) * 0.5 + np.float32(0.2), RATE_HZ, "PCM_16", ["dc_offset"]),
        "unscaled": (tone(1.0) * 32_768, RATE_HZ, "FLOAT", ["clipped", "unscaled"]),
        "holes": (holes, RATE_HZ, "FLOAT", ["nan"]),
        "mirror": (mirror, RATE_HZ, "PCM_16", ["cancelling"]),
        "one channel silent": (mirror * np.array([1, 0], np.float32), RATE_HZ, "PCM_16", []),
        "short": (tone(0.04), RATE_HZ, "PCM_16", ["too_short"]),
        "odd": (tone(1.0, 17_000), 17_000, "PCM_16", ["odd_rate"]),
    }


@pytest.mark.parametrize("name", sorted(findings_table(lambda *a, **k: np.zeros(RATE_HZ, np.float32))))
def test_each_finding(save, tone, name):
    samples, rate_hz, coding, expected = findings_table(tone)[name]
    assert kinds(examine(save("a.wav", samples, rate_hz, coding=coding))) == expected


def test_clipping_is_found_across_blocks(save, monkeypatch):
    from unibrivl.audio import sound

    samples = np.tile(np.r_[np.zeros(7), np.ones(3)], 1_000).astype(np.float32)
    whole = examine(save("a.wav", samples)).findings
    for block in (1, 2, 3, 10, 64):
        monkeypatch.setattr(sound, "BLOCK_FRAMES", block)
        assert examine(save("a.wav", samples)).findings == whole


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"no sound at all, sorry", "it is not a sound but text"),
        (
            b"RIFF\x24\x00\x00\x00WAVEfmt "
            + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
            + b"data"
            + bytes(4),
            "no samples",
        ),
    ],
)
def test_unreadable_files_are_reported_with_the_reason(save, content, reason):
    report = examine(save("a.wav", content))
    assert kinds(report) == ["unreadable"] and reason in report.findings[0].detail
    assert not report.readable and report.rate_hz is None


def test_a_truncated_file_is_damaged(save, tone, encode):
    report = examine(save("a.wav", encode(tone(1.0), RATE_HZ)[:20_000]))
    assert kinds(report) == ["damaged"] and "cut off" in report.findings[0].detail


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_a_missing_link_and_a_pipe_are_reported(tmp_path):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    reports = examine_all(find_sounds([str(tmp_path)]))
    assert [kinds(report) for report in reports] == [["unreadable"], ["unreadable"]]


def test_the_same_sound_in_another_container_is_a_duplicate(save, tone, tmp_path):
    # integers, because libsndfile rounds floats differently for WAV and for FLAC
    noise = np.random.default_rng(0).integers(-20_000, 20_000, RATE_HZ).astype(np.int16)
    save("a.wav", noise)
    save("b.flac", noise, container="FLAC")
    save("c.aiff", noise, container="AIFF")
    save("d.wav", noise, 8_000)  # the same numbers at another rate are another sound
    save("e.wav", noise // 2)
    save("silent 1.wav", np.zeros(RATE_HZ, np.float32))
    save("silent 2.wav", np.zeros(RATE_HZ, np.float32))
    found = {Path(report.path).name: kinds(report) for report in examine_all(find_sounds([str(tmp_path)]))}
    assert {name for name, words in found.items() if "duplicate" in words} == {"b.flac", "c.aiff"}


def test_a_rate_that_differs_from_most_is_reported(save, tone, tmp_path):
    for index in range(4):
        save(f"{index}.wav", tone(0.1, frequency_hz=100.0 * (index + 1)))
    save("other.wav", tone(0.1, 44_100), 44_100)
    reports = examine_all(find_sounds([str(tmp_path)]))
    assert [kinds(report) for report in reports] == [[]] * 4 + [["odd_rate"]]
    assert reports[-1].findings[0].detail == "44100 Hz, most others have 16000 Hz"


def test_which_files_are_examined_and_in_which_order(save, tone, tmp_path):
    for name in ("b/2.WAV", "b/10.flac", "a/x.ogg", "notes.txt", "a/cover.jpg", ".hidden/y.wav", "z.mp3"):
        save(name, b"x")
    folder = str(tmp_path)
    found = [os.path.relpath(path, folder) for path in find_sounds([folder])]
    assert found == ["z.mp3", "a/x.ogg", "b/10.flac", "b/2.WAV"]
    named = os.path.join(folder, "notes.txt")
    assert list(find_sounds([named, folder, folder]))[0] == named  # a named file whatever its suffix
    assert len(list(find_sounds([folder, os.path.join(folder, "b"), named, named]))) == 5  # each once


def test_the_report_does_not_depend_on_the_number_of_threads(save, tone, tmp_path):
    for index in range(12):
        save(f"{index}.wav", tone(0.1 * (index % 4), level=0.4 * (index % 5)))
    paths = list(find_sounds([str(tmp_path)]))
    assert examine_all(paths, workers=1) == examine_all(paths, workers=8)


def test_a_clean_folder_ends_with_0(save, tone, tmp_path, capsys):
    save("a.wav", tone(1.0))
    save("b.ogg", tone(2.0), container="OGG")
    assert main(["doctor", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "2 files, 0.1 minutes",
        "rates:    16000 Hz (2)",
        "formats:  OGG/VORBIS (1), WAV/PCM_16 (1)",
        "channels: 1 (2)",
        "nothing is wrong",
    ]
    assert err == ""


def test_a_table_of_files_with_findings_ends_with_1(save, tone, tmp_path, capsys):
    save("fine.wav", tone(1.0))
    save("quiet.wav", np.zeros(RATE_HZ, np.float32))
    save("two\nlines.wav", b"text")
    assert main(["doctor", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == f"{tmp_path}/quiet.wav silent nothing but one value throughout".split()
    assert lines[1].split() == f"{tmp_path}/two\\nlines.wav unreadable it is not a sound but text".split()
    assert not any("fine.wav" in line for line in lines)
    assert lines[3] == "3 files, 0.0 minutes, 1 unreadable"
    assert lines[-1] == "findings: silent (1), unreadable (1), in 2 of 3 files"


def test_json_is_one_object_with_a_version_and_every_file(save, tone, tmp_path, capsys):
    save("a.wav", tone(1.0))
    save("b.wav", b"text")
    holes = tone(1.0)
    holes[3] = np.nan
    save("c.wav", holes, coding="FLOAT")
    assert main(["doctor", "--json", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert err == ""
    assert sorted(report) == ["files", "summary", "version"] and report["version"] == 1
    assert sorted(report["summary"]) == [
        "channels", "files", "files_with_findings", "findings", "formats", "hours", "rates_hz", "unreadable",
    ]  # fmt: skip
    assert [sorted(file) for file in report["files"]] == [
        ["channels", "coding", "container", "digest", "duration_s", "findings", "path", "peak", "rate_hz", "rms"]
    ] * 3
    assert report["files"][1]["findings"] == [{"kind": "unreadable", "detail": "it is not a sound but text"}]
    assert report["files"][2]["findings"] == [{"kind": "nan", "detail": "NaN or infinite samples: 1"}]


@pytest.mark.parametrize("arguments", [["nowhere"], ["--workers", "0", "."], []])
def test_a_wrong_question_ends_with_2(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["doctor", *arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err


def test_a_folder_without_sounds_ends_with_2(save, tmp_path, capsys):
    save("notes.txt", b"text")
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no sound files in" in capsys.readouterr().err


def test_what_decoders_write_to_stderr_stays_out_of_the_terminal(save, tone, tmp_path):
    import subprocess
    import sys

    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE_HZ).astype(np.float32)
    path = save("a.mp3", noise, container="MP3")
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    done = subprocess.run([sys.executable, "-m", "unibrivl", "doctor", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "damaged" in done.stdout


def test_the_shared_clips_take_seconds(capsys):
    shared = Path(os.environ.get("UNIBRIVL_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
    folder = shared / "data" / "sounds_and_pictures" / "audio"
    if not folder.is_dir():
        pytest.skip("the shared clips are not here (set UNIBRIVL_SHARED to their folder)")
    started = time.perf_counter()
    assert main(["doctor", "--json", str(folder)]) in (0, 1)
    assert time.perf_counter() - started < 30
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["files"] > 100 and summary["unreadable"] == 0
