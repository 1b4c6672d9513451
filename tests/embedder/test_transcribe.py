"""Sounds of a folder written down: once, in batches, in a run that goes on, and by the command."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import tiny_brewclip as tiny

from unibrivl.cli import main
from unibrivl.data.transcripts import files_in, read_transcripts, the_transcripts
from unibrivl.embedder.transcribe import transcribe_files


class Writer:
    """Says how long each clip is, and what it was asked."""

    sampling_rate, batch_size = 16_000, 3
    settings = {"asr_model": "ruler"}

    def __init__(self, most: int | None = None):
        self.asked, self.most = list[int](), most

    def __call__(self, clips):
        if self.most is not None and len(self.asked) + len(clips) > self.most:
            raise KeyboardInterrupt
        self.asked += [len(clip) for clip in clips]
        return ["" if len(clip) < 2000 else f"{len(clip)} long" for clip in clips]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for place in range(7):
        samples = np.full(1000 * (place + 1), 0.1, np.float32)
        soundfile.write(tmp_path / ("in" if place % 2 else ".") / f"{place}.wav", samples, 16_000)
    return tmp_path


def test_every_sound_is_heard_once(folder):
    writer = Writer()
    report = transcribe_files(writer, folder, progress=False)
    settings, found = read_transcripts(report.path)
    assert settings == writer.settings and report.path.parent == folder
    assert found["in/3.wav"].text == "4000 long" and found["0.wav"].text == ""
    assert (report.written, report.unchanged, report.empty, report.failures) == (7, 0, 1, ())
    again = Writer()
    assert transcribe_files(again, folder, progress=False).unchanged == 7 and not again.asked


def test_a_stopped_run_goes_on_and_what_changed_is_heard_anew(folder):
    with pytest.raises(KeyboardInterrupt):
        transcribe_files(Writer(most=5), folder, progress=False)
    [path] = files_in(folder)
    assert len(read_transcripts(path)[1]) == 3
    rest = Writer()
    transcribe_files(rest, folder, progress=False)
    assert len(rest.asked) == 4 and len(read_transcripts(path)[1]) == 7
    soundfile.write(folder / "2.wav", np.full(9000, 0.1, np.float32), 16_000)
    changed = Writer()
    transcribe_files(changed, folder, progress=False)
    assert changed.asked == [9000]


def test_what_cannot_be_read_is_listed_and_tried_again(folder):
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    report = transcribe_files(Writer(), folder, progress=False)
    assert [one.id for one in report.failures] == ["broken.wav"] and report.written == 7
    assert "broken.wav" in report.errors_path.read_text()
    assert the_transcripts(folder)[0] == Writer.settings
    (folder / "broken.wav").unlink()
    assert not transcribe_files(Writer(), folder, progress=False).errors_path.exists()


def test_transcripts_may_lie_elsewhere(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "mine.jsonl"
    assert (
        transcribe_files(Writer(), folder, out=out, progress=False).path == out and len(read_transcripts(out)[1]) == 7
    )


def test_folders_without_sounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no sound below"):
        transcribe_files(Writer(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="no folder"):
        transcribe_files(Writer(), tmp_path / "gone", progress=False)


def test_the_command_writes_them_down(folder, tmp_path_factory, capsys):
    model = tmp_path_factory.mktemp("whisper")
    tiny.whisper().save_pretrained(model)
    tiny.asr_tokenizer().save_pretrained(model)
    tiny.feature_extractor().save_pretrained(model)
    assert main(["transcribe", str(folder), "--model", str(model)]) == 0
    assert "7 sounds written down" in capsys.readouterr().out
    settings, found = read_transcripts(files_in(folder)[0])
    assert settings["asr_model"] == str(model) and len(found) == 7
    assert all(one.text for one in found.values())
    (folder / "broken.wav").write_bytes(b"")
    assert main(["transcribe", str(folder), "--model", str(model)]) == 1
    assert "broken.wav" in capsys.readouterr().err
    assert main(["transcribe", str(folder / "gone"), "--model", str(model)]) == 2
