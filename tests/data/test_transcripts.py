"""Files of transcripts: what is kept, what is passed over, and runs that were killed."""

from __future__ import annotations

import json

import pytest

from unibrivl.data import DatasetError
from unibrivl.data.transcripts import (
    Transcript,
    TranscriptFile,
    file_for,
    files_in,
    read_transcripts,
    the_transcripts,
)

SETTINGS = {"asr_model": "org/ears", "asr_revision": None, "language": "en"}
ONE = Transcript("a/1.wav", 'said "#', 10, 20)
NOTHING = Transcript("b.wav", "", 5, 6)


def test_what_is_written_is_read(tmp_path):
    path = file_for(tmp_path, SETTINGS)
    TranscriptFile(path, SETTINGS).add([ONE, NOTHING])
    assert read_transcripts(path) == (SETTINGS, {"a/1.wav": ONE, "b.wav": NOTHING})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("asr_empty") for line in lines] == [None, False, True]


def test_a_file_grows_and_the_last_line_counts(tmp_path):
    path = file_for(tmp_path, SETTINGS)
    TranscriptFile(path, SETTINGS).add([ONE])
    again = TranscriptFile(path, SETTINGS)
    assert again.has("a/1.wav", 10, 20) and not again.has("a/1.wav", 11, 20) and not again.has("c.wav", 1, 1)
    changed = Transcript("a/1.wav", "other words", 11, 21)
    again.add([changed])
    assert read_transcripts(path)[1] == {"a/1.wav": changed}
    TranscriptFile(path, SETTINGS, restart=True)
    assert read_transcripts(path)[1] == {}


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_line_of_a_killed_run_is_passed_over_and_dropped(tmp_path, cut):
    path = file_for(tmp_path, SETTINGS)
    TranscriptFile(path, SETTINGS).add([ONE, NOTHING])
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(read_transcripts(path)[1]) == {"a/1.wav"} if cut > 1 else {"a/1.wav", "b.wav"}
    again = TranscriptFile(path, SETTINGS)
    again.add([Transcript("c.wav", "c", 1, 1)])
    assert {"a/1.wav", "c.wav"} <= set(read_transcripts(path)[1])


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    path = file_for(tmp_path, SETTINGS)
    TranscriptFile(path, SETTINGS).add([ONE, NOTHING])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:30], lines[2], ""]))
    with pytest.raises(DatasetError, match="line 2"):
        read_transcripts(path)
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(DatasetError):
        read_transcripts(path)


def test_a_whole_last_line_without_its_end_stays(tmp_path):
    path = file_for(tmp_path, SETTINGS)
    TranscriptFile(path, SETTINGS).add([ONE])
    path.write_bytes(path.read_bytes()[:-1])
    TranscriptFile(path, SETTINGS).add([NOTHING])
    assert read_transcripts(path)[1] == {"a/1.wav": ONE, "b.wav": NOTHING}
    path.write_bytes(path.read_bytes().split(b"\n")[0])
    assert TranscriptFile(path, SETTINGS).found == {} and read_transcripts(path)[0] == SETTINGS


def test_other_settings_are_another_file(tmp_path):
    other = {**SETTINGS, "language": "de"}
    assert file_for(tmp_path, SETTINGS) != file_for(tmp_path, other)
    path = tmp_path / "mine.jsonl"
    TranscriptFile(path, SETTINGS)
    with pytest.raises(DatasetError, match="other settings"):
        TranscriptFile(path, other)


def test_of_several_files_one_has_to_be_meant(tmp_path):
    with pytest.raises(DatasetError, match="unibrivl transcribe"):
        the_transcripts(tmp_path)
    TranscriptFile(file_for(tmp_path, SETTINGS), SETTINGS).add([ONE])
    assert the_transcripts(tmp_path)[1] == {"a/1.wav": ONE}
    other = {**SETTINGS, "asr_model": "org/better"}
    TranscriptFile(file_for(tmp_path, other), other)
    assert len(files_in(tmp_path)) == 2
    with pytest.raises(DatasetError, match="say which"):
        the_transcripts(tmp_path)
    assert the_transcripts(tmp_path, "org/ears")[0] == SETTINGS
    assert the_transcripts(tmp_path, file_for(tmp_path, other).name)[0] == other
