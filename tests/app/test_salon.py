"""Spoken sentences that find pictures, without a browser and mostly without Gradio: uploads in, answers out."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import soundfile
import tiny_brewclip
import tiny_page
import tiny_towers

from unibrivl.audio import load_audio
from unibrivl.cli import main, serve
from unibrivl.cli.speech import load_speech
from unibrivl.modeling import BrewCLIPModel, BrewCLIPProcessor

CHANNELS = {"text": "by the words", "e2e": "by the voice"}


def write(clips) -> list[str]:
    return ["a dog & b"] * len(clips)


@pytest.fixture(scope="module")
def salon(tmp_path_factory):
    return tiny_page.salon(tmp_path_factory.mktemp("salon"), write)


@pytest.fixture
def sound(tmp_path):
    return tiny_page.write_sound(tmp_path / "said.wav")


def plain(shown: str) -> str:
    return re.sub(r"<[^>]+>", " ", shown)


def scores(shown: str, what: str) -> list[float]:
    """All numbers of a ranking that stand behind these words."""
    return [float(one) for one in re.findall(rf"{what} ?([+-][0-9.]+)", plain(shown))]


def test_what_is_shown_is_what_rank_explains(salon, sound):
    listening, done = salon.find(sound)
    assert plain(listening.status).strip() == "Listening ..." and listening.found is None
    said = load_audio(sound, rate_hz=16000)
    [told] = salon.embedder.rank([said], salon.folder.vectors, explain=True)
    names = [mark.split("/", 2)[2] for mark in told.ids[:8]]
    assert re.findall(r'alt="Picture \d of the folder: ([^"]*)"', done.found) == names
    whole = [float(one) for one in re.findall(r'class="score">([^<]*)<', done.found)]
    assert whole == pytest.approx(told.scores[:8], abs=6e-4) and whole == sorted(whole, reverse=True)
    for channel, words in CHANNELS.items():
        assert scores(done.found, words) == pytest.approx(told.channels[channel][:8], abs=6e-4)
    assert done.found.count("</span> together<") == 8 and "The nearest 8 of 10 pictures" in done.found
    assert "&ldquo;a dog &amp; b&rdquo;" in done.heard and done.words == "a dog & b"
    assert "Done: 8 pictures. Understood: &quot;a dog &amp; b&quot;" in done.status
    assert str(salon.folder.folder) not in done.found


def test_corrected_words_rank_by_themselves_and_the_voice_stays(salon, sound):
    *_, first = salon.find(sound)
    *_, same = salon.again(sound, "  a dog\n & b ")
    *_, other = salon.again(sound, "x y z")
    assert same.found == first.found and other.found != first.found
    assert "<h2>Your words</h2>" in other.heard and "&ldquo;x y z&rdquo;" in other.heard
    by_voice = [sorted(scores(one.found, "by the voice")) for one in in_full(salon, sound, "a dog & b", "x y z")]
    assert by_voice[0] == by_voice[1]
    *_, nothing = salon.again(sound, " ")
    assert "There are no words to rank by" in nothing.status and nothing.found is None
    *_, much = salon.again(sound, "a" * 1001)
    assert "1001 letters long: 1000 are read" in much.status


def in_full(salon, sound, *sentences):
    """Answers that show all pictures, so that they can be compared picture by picture."""
    from unibrivl.app import salon as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHOWN", len(salon.folder))
        return [list(salon.again(sound, one))[-1] for one in sentences]


def test_what_is_wrong_is_a_sentence(salon, sound, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"this is no sound " * 40)
    soundfile.write(tmp_path / "still.wav", np.zeros(8000, np.float32), 16000)
    tiny_page.write_sound(tmp_path / "large.wav", seconds=10)
    long = np.random.default_rng(0).normal(0, 0.1, 16000 * 31).astype(np.float32)
    soundfile.write(tmp_path / "long.ogg", long[::4], 4000)  # small, and 31 s
    for name, words in {
        "bad.wav": "cannot be read", "still.wav": "is silent", "large.wav": "larger than 0.2 MB",
        "long.ogg": "longer than 30 seconds", "gone.wav": "no longer here",
    }.items():  # fmt: skip
        *_, answer = salon.find(tmp_path / name)
        assert words in answer.status and name in answer.status and str(tmp_path) not in answer.status
        assert (answer.found, answer.heard, answer.words) == (None, None, None)  # what is shown stays
    assert "There is no sound yet" in list(salon.find(None))[-1].status


def test_nothing_understood_is_said(tmp_path, sound):
    *_, done = tiny_page.salon(tmp_path, lambda clips: [" "] * len(clips), count=3).find(sound)
    assert "Nothing was understood." in done.status and "Nothing was understood." in done.heard
    assert "The nearest 3 of 3 pictures" in done.found and done.words == ""


def test_a_picture_that_has_vanished_is_left_out(tmp_path, sound):
    salon = tiny_page.salon(tmp_path, write, count=2)
    next(salon.folder.folder.iterdir()).unlink()
    *_, done = salon.find(sound)
    assert done.found.count("<img") == 1 and "Done: 1 picture." in done.status
    next(salon.folder.folder.iterdir()).unlink()
    *_, none = salon.find(sound)
    assert "None of the pictures can be opened" in none.status


def saved(folder, **fields) -> str:
    """A BrewCLIP that hears with a HuBERT and names no Whisper."""
    from transformers import Wav2Vec2FeatureExtractor

    model = BrewCLIPModel(tiny_brewclip.config(audio_config=tiny_towers.AUDIO["hubert"], **fields))
    model.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    parts = (extractor, tiny_brewclip.image_processor(), tiny_brewclip.processor().tokenizer)
    BrewCLIPProcessor(*parts).save_pretrained(folder)
    return str(folder)


def test_without_a_whisper_the_voice_alone_is_heard(tmp_path, sound):
    from unibrivl.app.folder import PictureFolder
    from unibrivl.app.salon import Salon

    embedder = load_speech(saved(tmp_path / "brew"), "cpu")
    assert embedder.matcher.channels == ("e2e",)
    salon = Salon(
        embedder, PictureFolder(tiny_page.write_pictures(tmp_path / "said", 3), embedder, tmp_path / "cache")
    )
    assert not salon.reads
    *_, done = salon.find(sound)
    assert "Ranked by the voice alone." in done.status and "by the voice alone" in done.heard and done.words is None
    assert done.found.count("<img") == 3 and "by the words" not in done.found


def test_a_model_that_cannot_be_used_is_told(tmp_path):
    with pytest.raises(ValueError, match="does not follow what is said: name a BrewCLIP"):
        load_speech("embedded", "cpu")
    with pytest.raises(ValueError, match="names no Whisper"):
        load_speech(saved(tmp_path / "words", channels=("text",)), "cpu")
    with pytest.raises(ValueError, match="nowhere, which cannot be loaded"):
        load_speech(saved(tmp_path / "lost", asr_name=str(tmp_path / "nowhere")), "cpu")


def test_speech_without_pictures_is_told_before_a_model_is_loaded(capsys):
    assert main(["serve", "--speech", "nowhere"]) == 2
    assert "name a folder of them too, with --pictures" in capsys.readouterr().err


def test_the_tab_is_there_where_both_are_given(tmp_path, salon, monkeypatch, capsys):
    """The whole command; the transcriber is a Whisper that lies beside the model."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from contextlib import contextmanager

    from unibrivl.app import page
    from unibrivl.app.studio import Studio
    from unibrivl.app.uploads import Uploads

    pipe = tiny_page.pipeline()
    pipe.save_pretrained(tmp_path / "model")
    whisper, clip = tiny_brewclip.save_backbones(tmp_path)
    tiny_brewclip.asr_tokenizer().save_pretrained(whisper)
    sizes = {"num_attention_heads": 4, "intermediate_size": 40}
    BrewCLIPModel.from_pretrained_parts(whisper, clip, **sizes).save_pretrained(tmp_path / "brew")
    tiny_brewclip.processor().save_pretrained(tmp_path / "brew")
    tiny_page.write_pictures(tmp_path / "pictures", 2)
    seen = []

    @contextmanager
    def watched(studio, host, port, workshop, salon, archive, witness):
        seen.append(salon)
        yield "http://localhost"

    monkeypatch.setattr(page, "served", watched)
    monkeypatch.setattr(serve, "wait", lambda: None)
    monkeypatch.setenv("UNIBRIVL_CACHE", str(tmp_path / "cache"))
    given = ["serve", "--model", str(tmp_path / "model"), "--device", "cpu", "--pictures", str(tmp_path / "pictures")]
    assert main(given) == 0 and main([*given, "--speech", str(tmp_path / "brew")]) == 0
    assert seen[0] is None and seen[1].reads and len(seen[1].folder) == 2
    assert "writes nothing down" not in capsys.readouterr().out
    built = page.build(Studio(pipe), Uploads("uploads"), salon=salon)
    pressed = [one for one in built.fns.values() if one.name.startswith("press")]
    assert [one.name for one in pressed] == ["press", "press_say", "press_again"]
    assert {(one.concurrency_limit, one.concurrency_id) for one in pressed} == {(1, "model")}
    assert all(one.api_visibility == "private" for one in built.fns.values() if one.targets)
