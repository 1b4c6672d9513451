"""Hostile places: odd names, things that are no files, and file objects that fail, lie or never end."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest

from unibrivl.audio import AudioError, load_audio


def refused(source, match: str, **arguments) -> str:
    """The message of the AudioError that loading `source` raises."""
    with pytest.raises(AudioError, match=match) as told:
        load_audio(source, **arguments)
    return str(told.value)


@pytest.mark.parametrize(
    "name", ["ein Ton.wav", "\u97f3 \u00e9\U0001f50a.wav", "two\nlines.wav", "-rf.wav", "a\x1b[31m.wav", "%s.wav"]
)
def test_any_name_is_a_name(save, wav, name):
    assert load_audio(save(name, wav)).duration_s == 1.0
    message = refused(save("bad " + name, b"x"), "not a sound")
    assert "\n" not in message and "\x1b" not in message


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_utf8(tmp_path, wav):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    with open(name, "wb") as file:
        file.write(wav)
    assert load_audio(os.fsdecode(name)).duration_s == 1.0

    class BytesPath:
        def __fspath__(self):
            return name

    assert load_audio(BytesPath()).duration_s == 1.0


def test_the_operating_systems_errors_stay_its_own(tmp_path, save, wav):
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "missing.wav")
    with pytest.raises(IsADirectoryError):
        load_audio(tmp_path)
    refused("a\0b.wav", "not a usable path")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(save, wav):
    file = save("a.wav", wav)
    file.chmod(0)
    with pytest.raises(PermissionError):
        load_audio(file)


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_a_pipe_or_a_device_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "pipe.wav: it is not a regular file")
    refused("/dev/zero", "not a regular file")


@pytest.mark.parametrize(
    "source", ["file:///etc/passwd", "ftp://host/a.wav", "zip://a.wav::b.zip", "s3://bucket/a.wav"]
)
def test_other_schemes_are_not_followed(source):
    refused(source, "only paths, http:// and https:// are followed")
    refused(source, "only paths, http:// and https:// are followed", allow_url=True)


class Stream:
    """A file object with nothing but read."""

    def __init__(self, content: bytes):
        self._file = io.BytesIO(content)

    def read(self, size=-1):
        return self._file.read(size)


class Failing(io.BytesIO):
    """A file object that breaks after a while."""

    def __init__(self, content: bytes, good_reads: int):
        super().__init__(content)
        self.good_reads = good_reads

    def read(self, size=-1):
        self.good_reads -= 1
        if self.good_reads < 0:
            raise RuntimeError("disk on fire")
        return super().read(size)


def test_a_file_object_that_cannot_seek_is_read_up_to_the_limit(wav):
    assert load_audio(Stream(wav)).duration_s == 1.0
    with pytest.raises(AudioError, match="sends more than 1000 bytes; raise max_bytes"):
        load_audio(Stream(wav), max_bytes=1_000)


def test_an_endless_stream(wav):
    class Endless:
        def read(self, size=-1):
            return bytes(1 << 20)

    with pytest.raises(AudioError, match="raise max_bytes"):
        load_audio(Endless(), max_bytes=10_000_000)


def test_a_pipe_object(wav):
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, wav), os.close(writing)))
    writer.start()
    with os.fdopen(reading, "rb") as file:
        assert load_audio(file).duration_s == 1.0
    writer.join()


@pytest.mark.parametrize("good_reads", [0, 1, 2, 5, 8, 12])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_object_that_raises(capfd, encode, good_reads, container):
    noise = np.random.default_rng(0).normal(0, 0.1, 200_000).astype(np.float32)
    source = Failing(encode(noise, 44_100, container), good_reads)
    with pytest.raises(AudioError, match="the file object failed: disk on fire"):
        load_audio(source)
    assert "Traceback" not in capfd.readouterr().err


def test_a_stream_that_raises():
    class Broken:
        def read(self, size=-1):
            raise RuntimeError("disk on fire")

    with pytest.raises(AudioError, match="disk on fire"):
        load_audio(Broken())


def test_an_interrupt_while_reading_is_not_swallowed(wav):
    class Interrupted(io.BytesIO):
        def read(self, size=-1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_audio(Interrupted(wav))


def test_a_file_object_that_returns_nonsense(wav):
    for answer in ("text", None, 7, bytes(1 << 20)):

        class Nonsense(io.BytesIO):
            def read(self, size=-1, answer=answer):
                return answer

        with pytest.raises(AudioError, match="open the file in binary mode"):
            load_audio(Nonsense(wav))


def test_a_closed_file_object_and_a_text_file(save, wav):
    file = io.BytesIO(wav)
    file.close()
    refused(file, "the file object is closed")
    with open(save("a.wav", wav), encoding="latin-1") as text:
        refused(text, "binary mode|cannot be read")
    refused(io.StringIO("RIFF"), "binary mode|cannot be read")


def test_a_file_object_is_read_from_its_beginning_and_left_open(wav):
    file = io.BytesIO(wav)
    file.seek(1_000)
    assert load_audio(file).duration_s == 1.0
    assert not file.closed
