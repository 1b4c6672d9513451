"""Videos prepared once: what is in them comes out, what cannot is written down, and a kill costs one video."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from unibrivl import data
from unibrivl.cli import main
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.data.prepare import listed, prepare_videos
from unibrivl.data.video import moment, safe_name

FPS = 10
RATE_HZ = 32_000


def write_video(
    path: Path,
    seconds: float = 1.0,
    size: tuple[int, int] = (48, 32),
    sound: bool = True,
    picture: bool = True,
    codec: str = "aac",
    num_frames: int | None = None,
) -> Path:
    """A video whose picture gets brighter by 10 with every frame, and whose tone is an octave higher each second."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as file:
        tracks = []
        if picture:
            video = file.add_stream("mpeg4", rate=FPS)
            video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", 4_000_000
            tracks.append(video)
        if sound:
            audio = file.add_stream(codec, rate=RATE_HZ)
            audio.layout = "mono"
            tracks.append(audio)
        if picture:
            for number in range(round(seconds * FPS) if num_frames is None else num_frames):
                grey = np.full((height, width, 3), 10 * number % 250, np.uint8)
                grey[:, : max(0, width - height) // 2] = (255, 0, 0)  # red on the left: a centre crop has none
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        if sound:
            times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
            tone = 0.5 * np.sin(2 * np.pi * 200 * 2 ** np.floor(times) * times)
            kind = "s16" if codec.startswith("pcm") else "fltp"
            for start in range(0, len(tone), 1024):
                piece = tone[start : start + 1024][None]
                piece = (piece * 32767).astype(np.int16) if kind == "s16" else piece.astype(np.float32)
                frame = av.AudioFrame.from_ndarray(piece, format=kind, layout="mono")
                frame.rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
                file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
    return path


def grey_of(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("RGB"), np.float32).mean())


def pitch_hz(path: Path) -> float:
    samples, rate = soundfile.read(path)
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_of_videos_becomes_a_dataset(tmp_path):
    write_video(tmp_path / "clips/one.mp4")
    write_video(tmp_path / "clips/deep/two.mkv", codec="pcm_s16le", size=(32, 48))
    prepared = prepare_videos([tmp_path / "clips"], tmp_path / "out", frame="middle", picture_format="png")
    assert prepared.summary() == "clips: found 2 of 2, 0 corrupt, 0 missing"
    listing = data.load(tmp_path / "out")
    assert [sample.id for sample in listing] == ["one", "deep/two"]
    for sample in listing:
        info = soundfile.info(sample.audio)
        assert (info.samplerate, info.channels, info.format) == (16_000, 1, "FLAC")
        assert info.duration == pytest.approx(1, abs=0.1)
        assert pitch_hz(Path(sample.audio)) == pytest.approx(200, abs=2)
        picture = Image.open(sample.image)
        assert picture.size == (32, 32)
        assert picture.format == "PNG"
        assert grey_of(Path(sample.image)) == pytest.approx(50, abs=8)  # frame 5 of 10, and none of the red
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_segments_are_kept_to(tmp_path):
    path = str(write_video(tmp_path / "long.mkv", seconds=3.0, codec="pcm_s16le"))
    whole = str(write_video(tmp_path / "tone.mkv", seconds=3.0, codec="pcm_s16le", picture=False))
    parts = Listing(
        "parts",
        (
            Sample("first", video=path, start_s=0.0, end_s=0.9, labels=("low",)),
            Sample("second", video=path, start_s=1.1, end_s=1.9, labels=("high", "odd"), split="test", fold=2),
            Sample("rest", video=path, start_s=2.1),
            Sample("behind", video=path, start_s=30.0, end_s=40.0),
            Sample("blind", video=whole),
        ),
    )
    prepared = prepare_videos(parts, tmp_path / "out", frame="middle")
    listing = data.load(tmp_path / "out")
    sounds = {sample.id: sample for sample in listing}
    lengths = {name: soundfile.info(sample.audio).duration for name, sample in sounds.items()}
    assert lengths == pytest.approx({"first": 0.9, "second": 0.8, "rest": 0.9}, abs=1e-3)
    pitches = [pitch_hz(Path(sounds[name].audio)) for name in ("first", "second", "rest")]
    assert pitches == pytest.approx([200, 400, 800], abs=3)
    greys = [grey_of(Path(sounds[name].image)) for name in ("first", "second", "rest")]
    assert greys == pytest.approx([40, 150, 5], abs=8)  # frames 4, 15 and 25, whose 250 begins again at 0
    assert sounds["second"].labels == ("high", "odd")
    assert (sounds["second"].split, sounds["second"].fold) == ("test", 2)
    reasons = {entry["id"]: entry["reason"] for entry in prepared.corrupt}
    assert "ends before" in reasons["behind"]
    assert "no video track" in reasons["blind"]
    assert [sample.id for sample in listing.missing] == ["behind", "blind"]


def test_the_frame_follows_from_the_id_and_the_seed(tmp_path):
    path = str(write_video(tmp_path / "clip.mp4", seconds=2.0))
    videos = Listing("clips", tuple(Sample(f"clip{number}", video=path) for number in range(6)))
    first = prepare_videos(videos, tmp_path / "first", seed=1)
    again = prepare_videos(replace_order(videos), tmp_path / "again", seed=1)
    other = prepare_videos(videos, tmp_path / "other", seed=2)
    times = {entry["id"]: entry["frame_s"] for entry in first.entries}
    assert times == {entry["id"]: entry["frame_s"] for entry in again.entries}
    assert times != {entry["id"]: entry["frame_s"] for entry in other.entries}
    assert len(set(times.values())) > 3
    for name in times:
        assert (tmp_path / f"first/image/{name}.jpg").read_bytes() == (
            tmp_path / f"again/image/{name}.jpg"
        ).read_bytes()
    drawn = np.array([moment(str(number), 0, "random") for number in range(2000)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)


def replace_order(listing: Listing) -> Listing:
    return Listing(listing.name, listing.samples[::-1])


def test_what_cannot_be_prepared_is_written_down(tmp_path):
    clips = tmp_path / "clips"
    whole = write_video(clips / "whole.mp4", seconds=3.0).read_bytes()
    (clips / "half.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (clips / "head.mp4").write_bytes(whole[:300])
    (clips / "empty.mp4").write_bytes(b"")
    (clips / "text.mp4").write_text("<html>not found</html>")
    write_video(clips / "deaf.mp4", sound=False)
    write_video(clips / "blind.mp4", picture=False)
    write_video(clips / "black.mkv", num_frames=0)
    os.symlink(clips / "gone.mp4", clips / "link.mp4")
    found = Listing("clips", listed([clips]).samples, (Sample("never"),), official=20)
    prepared = prepare_videos(found, tmp_path / "out")
    status = {entry["id"]: entry["status"] for entry in prepared.entries}
    assert {name for name, told in status.items() if told == "found"} == {"whole", "half"}
    assert {name for name, told in status.items() if told == "missing"} == {"link", "never"}
    assert all(entry["reason"] for entry in prepared.entries if entry["status"] != "found")
    assert prepared.summary() == "clips: found 2 of 20 (1 damaged), 6 corrupt, 12 missing"
    reasons = {entry["id"]: entry["reason"] for entry in prepared.corrupt}
    assert reasons["deaf"] == "no sound: it has no sound track"  # and not all that was tried besides
    half = next(entry for entry in prepared.entries if entry["id"] == "half")
    assert half["damage"]
    assert 0.5 < half["seconds"] < 2.9
    assert data.load(tmp_path / "out").summary() == "metadata.jsonl: found 2 of 10"
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_once_more_does_nothing_and_what_changed_is_made_again(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for name in ("a", "b"):
        write_video(clips / f"{name}.mp4")
    (clips / "c.mp4").write_bytes(b"no video")
    assert prepare_videos([clips], out).made == 3
    before = content(out / "audio") | content(out / "image")
    manifest = (out / "manifest.jsonl").read_bytes()
    assert prepare_videos([clips], out).made == 0
    assert before == content(out / "audio") | content(out / "image")
    assert manifest == (out / "manifest.jsonl").read_bytes()

    (out / "image/b.jpg").unlink()
    write_video(clips / "c.mp4", seconds=0.5)
    write_video(clips / "d.mp4", seconds=0.5)
    again = prepare_videos([clips], out)
    assert (again.made, again.found) == (3, 4)
    alone = prepare_videos([clips / "a.mp4"], out)
    assert (alone.made, alone.expected) == (0, 1)
    assert data.load(out).summary() == "metadata.jsonl: found 4 of 4"
    with pytest.raises(DatasetError, match="frame='random'"):
        prepare_videos([clips], out, frame="middle")


def test_a_torn_manifest_is_mended(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for name in ("a", "b"):
        write_video(clips / f"{name}.mp4", seconds=0.5)
    whole = prepare_videos([clips], out)
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text(lines[0] + lines[1][:20])
    mended = prepare_videos([clips], out)
    assert mended.made == 1
    assert mended.entries == whole.entries
    (out / "manifest.jsonl").write_text("nonsense\n" + lines[1])
    with pytest.raises(DatasetError, match="line 1"):
        prepare_videos([clips], out)


def test_names_are_safe_and_differ(tmp_path):
    path = str(write_video(tmp_path / "clip.mp4", seconds=0.3))
    names = ("../../up", "/etc/passwd", "abc", "ABC", "a b", "a_b", "caf\xe9", "x" * 300, ".hidden", "con?")
    videos = Listing("clips", tuple(Sample(name, video=path) for name in names))
    prepared = prepare_videos(videos, tmp_path / "out")
    assert prepared.found == len(names)
    files = [path.name for path in (tmp_path / "out/audio").iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    assert all(name.isascii() and len(name) < 150 and name[0] != "." for name in files)
    assert {sample.id for sample in data.load(tmp_path / "out")} == set(names)
    assert safe_name("dog_1.a") == "dog_1.a"


@pytest.mark.slow
def test_processes_make_the_same(tmp_path):
    clips = tmp_path / "clips"
    for number in range(5):
        write_video(clips / f"{number}.mp4", seconds=0.5)
    (clips / "bad.mp4").write_bytes(b"no video")
    one = prepare_videos([clips], tmp_path / "one")
    two = prepare_videos([clips], tmp_path / "two", workers=2)
    assert one.entries == two.entries
    for name in ("audio", "image"):
        files = {path.name: path.read_bytes() for path in (tmp_path / "one" / name).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "two" / name).iterdir()}


CRASH = """
import os, unibrivl.data.prepare as prepare
whole = prepare.write_sound
prepare.write_sound = lambda video, *rest: os._exit(139) if video.endswith("crash.mp4") else whole(video, *rest)
"""


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_its_video(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    clips = tmp_path / "clips"
    for name in ("a", "b", "crash", "d", "e"):
        write_video(clips / f"{name}.mp4", seconds=0.3)
    prepared = prepare_videos([clips], tmp_path / "out", workers=2)
    assert prepared.found == 4
    assert [(entry["id"], "crashed" in entry["reason"]) for entry in prepared.corrupt] == [("crash", True)]


@pytest.mark.slow
def test_a_kill_costs_one_video(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for number in range(30):
        write_video(clips / f"{number:02}.mp4", seconds=1.0)
    command = [sys.executable, "-m", "unibrivl", "prepare", str(clips), "--out", str(out), "--workers", "1"]
    for made in (3, 12):
        process = subprocess.Popen(command)
        while len(list((out / "audio").glob("*.flac")) if out.exists() else ()) < made:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len((out / "manifest.jsonl").read_text().splitlines())
        assert len(list((out / "audio").glob("*.flac"))) <= done + 1
    assert data.load(out).expected == 30
    subprocess.run(command, check=True)
    prepared = prepare_videos([clips], out)
    assert (prepared.made, prepared.found) == (0, 30)
    other = prepare_videos([clips], tmp_path / "other")
    assert prepared.entries == other.entries


def test_the_command(tmp_path, capsys):
    write_video(tmp_path / "clips/dog/one.mp4", seconds=0.5)
    assert main(["prepare", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "found 1 of 1" in capsys.readouterr().out
    (tmp_path / "clips/dog/two.mp4").write_bytes(b"no video")
    assert main(["prepare", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    told = capsys.readouterr()
    assert "found 1 of 2, 1 corrupt" in told.out
    assert "dog/two" in told.err
    rows = (tmp_path / "out/metadata.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["label"] == ["dog"]
    assert main(["prepare", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "none").mkdir()
    assert main(["prepare", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2


def test_help_imports_no_decoder():
    code = (
        "import sys\nfrom unibrivl.cli import main\n"
        "try:\n    main(['prepare', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'av', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_full_disk_says_what_stays_and_what_to_do(tmp_path, monkeypatch):
    write_video(tmp_path / "clips" / "a.mp4")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unibrivl.data.prepare.write_picture", full)
    with pytest.raises(OSError, match="the disk is full. What is made stays"):
        prepare_videos([tmp_path / "clips"], tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").rglob("*.partial"))
