"""Soundtracks, with the extra `video`: the rules of sound files hold, and nothing but the file itself is opened."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from unibrivl.audio import AudioError, load_audio, read_blocks, read_windows, split_windows

RATE_HZ = 48_000


def write_soundtrack(container: str, codec: str, seconds: float = 3.0, with_picture: bool = False, channels: int = 2):
    """The bytes of a container with a 440 Hz soundtrack, and a few black pictures if asked for."""
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo"}[channels]
    buffer = io.BytesIO()
    file = av.open(buffer, "w", format=container)
    if with_picture:
        video = file.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
    stream = file.add_stream(codec, rate=RATE_HZ)
    stream.layout = layout
    if with_picture:
        for _ in range(round(5 * seconds)):
            black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            file.mux(video.encode(black))
        file.mux(video.encode(None))
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    for start in range(0, len(samples), 1_024):
        piece = np.tile(samples[start : start + 1_024].astype(np.float32), (channels, 1))
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.rate = RATE_HZ
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
    file.close()
    return buffer.getvalue()


def peak_frequency_hz(waveform) -> float:
    samples = waveform.samples[: waveform.rate_hz]
    return float(np.abs(np.fft.rfft(samples)).argmax() * waveform.rate_hz / len(samples))


@pytest.mark.parametrize(
    ("container", "codec", "with_picture"),
    [
        ("mp4", "aac", False),
        ("mp4", "aac", True),
        ("webm", "libopus", False),
        ("matroska", "aac", True),
        ("adts", "aac", False),
    ],
)
def test_soundtracks_are_heard(tmp_path, container, codec, with_picture):
    file = tmp_path / "clip.m4a"
    file.write_bytes(write_soundtrack(container, codec, with_picture=with_picture))
    for source in (file, file.read_bytes(), io.BytesIO(file.read_bytes())):
        waveform = load_audio(source, rate_hz=16_000)
        assert abs(waveform.duration_s - 3.0) < 0.1
        assert abs(peak_frequency_hz(waveform) - 440) <= 1
        assert abs(np.abs(waveform.samples).max() - 0.5) < 0.05
        assert not waveform.damage


def test_sixteen_channels_are_sixteen():
    """PyAV finds the planes of a planar frame by a null pointer, which is missing from eight channels on."""
    av = pytest.importorskip("av")
    values_C = np.arange(16, dtype=np.int16) * 1_000
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("wavpack", rate=16_000)
        stream.layout, stream.format = "hexadecagonal", "s16p"
        for _ in range(20):
            packed = av.AudioFrame.from_ndarray(np.tile(values_C, 800)[None], format="s16", layout="hexadecagonal")
            packed.rate = 16_000
            file.mux(stream.encode(packed))
        file.mux(stream.encode(None))
    heard = [load_audio(buffer.getvalue(), channel=channel).samples for channel in range(16)]
    assert all(np.ptp(samples) == 0 for samples in heard)
    levels = sorted(float(samples[0]) * 32_768 for samples in heard)  # the codec has an order of its own
    assert levels == values_C.tolist()
    np.testing.assert_allclose(load_audio(buffer.getvalue()).samples, 7_500 / 32_768, atol=1e-6)


def test_a_rate_that_changes_in_the_middle_is_said(tone, encode):
    pytest.importorskip("av")
    content = encode(tone(2.0), 16_000, "OGG") + encode(tone(3.0, 22_050), 22_050, "OGG")
    waveform = load_audio(content)
    assert waveform.rate_hz == 16_000 and abs(waveform.duration_s - 2.0) < 0.1
    assert "broke off" in waveform.damage


def test_blocks_and_windows_of_a_soundtrack(tmp_path):
    file = tmp_path / "clip.mp4"
    file.write_bytes(write_soundtrack("mp4", "aac"))
    whole = load_audio(file, rate_hz=16_000)
    blocks = list(read_blocks(file, 0.7, rate_hz=16_000))
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), whole.samples)
    windows = list(read_windows(file, 1.0, 0.5, rate_hz=16_000))
    assert [w.start_s for w in windows] == [w.start_s for w in split_windows(whole, 1.0, 0.5)]


def test_without_av_the_error_carries_the_pip_line(tmp_path, without_av):
    file = tmp_path / "clip.m4a"
    file.write_bytes(b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00" + bytes(200))
    with pytest.raises(AudioError, match=r'clip.m4a: it cannot be decoded .*pip install "unibrivl\[video\]"'):
        load_audio(file)
    with pytest.raises(AudioError, match=r'pip install "unibrivl\[video\]"'):
        next(read_blocks(file, 1.0))


def test_without_av_everything_else_works(without_av, tone, encode):
    for container in ("WAV", "FLAC", "OGG", "MP3"):
        assert load_audio(encode(tone(1.0), 16_000, container)).duration_s >= 1.0


def test_limits_hold_for_soundtracks():
    content = write_soundtrack("mp4", "aac")
    with pytest.raises(AudioError, match="max_duration_s is 1. Raise"):
        load_audio(content, max_duration_s=1.0)
    with pytest.raises(AudioError, match="max_duration_s is 1. Raise"):
        list(read_blocks(write_soundtrack("adts", "aac"), 0.1, max_duration_s=1.0))
    with pytest.raises(AudioError, match="Raise max_bytes"):
        load_audio(content, max_bytes=10_000)
    with pytest.raises(AudioError, match="contradicts it"):
        load_audio(content, source_rate_hz=16_000)
    with pytest.raises(AudioError, match="channels 0 to 1"):
        load_audio(content, channel=2)


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("adts", "aac")])
def test_a_truncated_soundtrack_says_so(container, codec):
    content = write_soundtrack(container, codec)
    waveform = load_audio(content[: len(content) // 2])
    assert 1.0 < waveform.duration_s < 2.0
    assert waveform.damage


def test_an_mp4_without_its_index_is_refused(tmp_path):
    file = tmp_path / "cut.m4a"
    file.write_bytes(write_soundtrack("mp4", "aac")[:-2_000])
    with pytest.raises(AudioError, match="cut.m4a: it cannot be decoded"):
        load_audio(file)


def test_a_video_without_sound_is_refused():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    with pytest.raises(AudioError, match="it has no sound track"):
        load_audio(buffer.getvalue())


@pytest.mark.parametrize("first_line", ["#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,", "ffconcat version 1.0\nfile"])
@pytest.mark.parametrize("padding", ["", "\n#\x01\x02"])
def test_a_playlist_opens_no_other_file(tmp_path, tone, encode, first_line, padding):
    (tmp_path / "secret.wav").write_bytes(encode(tone(1.0), 16_000))
    playlist = tmp_path / "song.mp4"
    playlist.write_text(f"{first_line} {tmp_path}/secret.wav\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n{padding}")
    with pytest.raises(AudioError, match="song.mp4: it (is not a sound|cannot be decoded)"):
        load_audio(playlist)


@pytest.mark.parametrize("good_reads", [0, 1, 2, 3])
def test_a_file_object_that_raises_inside_ffmpeg(capfd, good_reads):
    class Failing(io.BytesIO):
        left = good_reads

        def read(self, size=-1):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("disk on fire")
            return super().read(size)

    with pytest.raises(AudioError, match="the file object failed: disk on fire"):
        load_audio(Failing(write_soundtrack("adts", "aac", seconds=10.0)))
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_soundtracks_never_raise_anything_foreign():
    content = write_soundtrack("mp4", "aac", seconds=1.0)
    generator = np.random.default_rng(0)
    for _ in range(60):
        mutated = bytearray(content)
        for at in generator.integers(0, len(mutated), 8):
            mutated[at] = generator.integers(0, 256)
        with contextlib.suppress(AudioError):
            assert np.isfinite(load_audio(bytes(mutated)).samples).all()
