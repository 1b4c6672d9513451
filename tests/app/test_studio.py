"""The page without a browser and without Gradio: sounds and wishes in, answers out, whatever comes."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import soundfile
import tiny_diffusion
import tiny_page
import torch
from tiny_page import LABELS, QUICK

from unibrivl.app import markup, studio
from unibrivl.app.drawing import Wishes, draw
from unibrivl.app.folder import PictureFolder
from unibrivl.app.hearing import Ear, known_labels
from unibrivl.app.limits import Limits, Refusal, read_upload, shown_name
from unibrivl.app.studio import Studio
from unibrivl.app.uploads import Uploads
from unibrivl.audio import load_audio
from unibrivl.pipelines.receipt_unibrivl import read_receipt
from unibrivl.pipelines.strategy_rerank import Rerank


@pytest.fixture(scope="module")
def pipe():
    return tiny_page.pipeline()


@pytest.fixture
def sound(tmp_path):
    return tiny_page.write_sound(tmp_path / "dog.wav")


def told(answers) -> list[str]:
    """The status of each answer, without its markup."""
    return [re.sub(r"<[^>]+>", "", one.status) for one in answers]


def test_a_press_says_what_was_heard_and_then_shows_pictures(pipe, sound):
    steps = []
    _, heard, done = Studio(pipe).answer(sound, watch=lambda step, of: steps.append((step, of)), **QUICK)
    assert steps == [(1, 2), (2, 2)]
    assert heard.best is None and heard.heard.count("<tr>") == 1 + len(LABELS)
    assert done.best.count("<img") == 1 and done.candidates.count("<img") == 2
    assert 'alt="Generated picture, the best of 2, asked for as: a photo of ' in done.best
    assert 'download="dog.png"' in done.best
    assert told([heard])[0].startswith("Heard: ") and told([done])[0].startswith("Done: 2 pictures. ")


def test_what_is_shown_is_what_the_pipeline_draws(pipe, sound):
    heard = Ear(pipe).listen(read_upload(sound, Limits(), 16000))
    drawn = draw(pipe, heard.embeds_1E, Wishes(bank="drawing", candidates=2, steps=2, seed=5))
    theirs = pipe(
        audio=str(sound), label_bank="drawing", strategy=Rerank(num_candidates=2, num_prompts=1),
        num_images_per_prompt=2, num_inference_steps=2, generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    assert [one.prompt for one in drawn] == [one["picture"]["prompt"] for one in theirs.receipts]
    assert all(one.prompt.startswith("a drawing of a") for one in drawn)
    assert [one.score for one in drawn] == pytest.approx(theirs.scores, abs=1e-5)
    assert [one.score for one in drawn] == sorted((one.score for one in drawn), reverse=True)
    for one, image in zip(drawn, theirs.images, strict=True):
        assert np.abs(np.asarray(one.image, int) - np.asarray(image, int)).max() <= 1


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(pipe, sound):
    def best(seed):
        return list(Studio(pipe).answer(sound, seed=seed, **QUICK))[-1].best

    assert best(3) == best(3) != best(4)


def test_a_saved_picture_carries_its_receipt(pipe, sound, tmp_path):
    heard = Ear(pipe).listen(read_upload(sound, Limits(), 16000))
    (drawn,) = draw(pipe, heard.embeds_1E, Wishes(candidates=1, steps=2))
    (tmp_path / "saved.png").write_bytes(drawn.png())
    assert read_receipt(tmp_path / "saved.png")["picture"]["prompt"] == drawn.prompt


def test_probabilities_are_the_softmax_of_scaled_cosines(pipe, sound):
    ear = Ear(pipe)
    heard = ear.listen(read_upload(sound, Limits(), 16000))
    from unibrivl.embedder import Embedder

    theirs = Embedder(pipe.listener).classify(load_audio(sound, rate_hz=16000), LABELS)[0]
    assert dict(heard.labels) == pytest.approx(theirs, abs=1e-4)
    assert [label for label, _ in heard.labels] == list(theirs)


def test_mixing_and_volume_move_what_is_heard(pipe, tmp_path):
    first, second = (load_audio(tiny_page.write_sound(tmp_path / f"{n}.wav", n)) for n in (1, 2))
    ear = Ear(pipe)
    one, other = ear.listen(first).embeds_1E, ear.listen(second).embeds_1E
    assert torch.allclose(ear.listen(first, second, share=0.0).embeds_1E, one, atol=1e-5)
    assert torch.allclose(ear.listen(first, second, share=1.0).embeds_1E, other, atol=1e-5)
    half = torch.nn.functional.normalize(one + other, dim=-1)
    assert torch.allclose(ear.listen(first, second, share=0.5).embeds_1E, half, atol=1e-5)
    quiet = pipe.encode_query(first, volume=[-20.0]).embeds
    assert torch.equal(ear.listen(first, gain_db=-20.0).embeds_1E, quiet) and not torch.equal(quiet, one)


def test_labels_are_of_the_banks_and_of_what_the_folder_says(pipe, tmp_path):
    assert known_labels(pipe) == LABELS == Ear(pipe).labels
    (tmp_path / "labels.json").write_text(
        '{"saw": {"noun": "a saw", "sound": true}, "bee": {"noun": "a bee", "sound": false}}'
    )
    assert known_labels(pipe, tmp_path) == [*LABELS, "a saw"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.wav", b"this is no sound " * 40, "cannot be read"),
        ("empty.wav", b"", "cannot be read"),
        ("big.wav", bytes(70_000), "larger than 0.06 MB"),
        ("gone.wav", None, "no longer here"),
    ],
)
def test_a_bad_file_is_a_sentence_without_folders(pipe, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    _, answer = Studio(pipe, Limits(megabytes=0.06)).answer(tmp_path / name)
    (sentence,) = told([answer])
    assert words in sentence and name in sentence and str(tmp_path) not in sentence and "Traceback" not in sentence
    assert (answer.best, answer.heard, answer.candidates) == (None, None, None)  # what is shown stays


def test_long_and_silent_sounds_are_refused(pipe, tmp_path):
    long = tiny_page.write_sound(tmp_path / "long.wav", seconds=2.2)
    with pytest.raises(Refusal, match="longer than 2 seconds: cut it"):
        read_upload(long, Limits(seconds=2), 16000)
    assert read_upload(long, Limits(seconds=2.2), 16000).duration_s == pytest.approx(2.2)
    soundfile.write(tmp_path / "still.wav", np.zeros(8000, np.float32), 16000)
    _, answer = Studio(pipe).answer(tmp_path / "still.wav")
    assert "is silent" in answer.status


def test_an_upload_is_read_as_load_audio_reads_it(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.random.default_rng(0).normal(0, 0.1, (100_000, 2)), 44100)
    ours, theirs = (
        read_upload(tmp_path / "stereo.wav", Limits(), 16000),
        load_audio(tmp_path / "stereo.wav", rate_hz=16000),
    )
    assert ours.rate_hz == theirs.rate_hz and np.array_equal(ours.samples, theirs.samples)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"seed": -1}, "Seed must be a whole number from 0"),
        ({"seed": None}, "Seed must be"),
        ({"seed": 1.5}, "Seed must be"),
        ({"steps": 1000}, "Steps must be"),
        ({"candidates": 0}, "Candidates must be"),
        ({"gain_db": 999}, "Volume must be"),
        ({"gain_db": None}, "Volume must be"),
        ({"percent": -5}, "share of the second sound must be"),
        ({"bank": "etching"}, "choose one of photo, drawing"),
    ],
)
def test_wishes_out_of_range_are_told(pipe, sound, wish, words):
    *_, answer = Studio(pipe).answer(sound, **{**QUICK, **wish})
    assert words in answer.status and answer.best is None


def test_no_sound_is_told_and_a_fault_of_ours_hides_its_traceback(pipe, sound, monkeypatch, caplog):
    assert "There is no sound yet" in told(Studio(pipe).answer(None))[1]

    def broken(*args):
        raise RuntimeError("secret of /srv")

    monkeypatch.setattr(studio, "draw", broken)
    *_, answer = Studio(pipe).answer(sound, **QUICK)
    assert "on our side" in answer.status and "secret" not in answer.status
    assert "secret of /srv" in caplog.text


def test_nothing_reaches_the_page_unescaped():
    shown = markup.status("<script>") + markup.heard([("<b>", 0.5), ("a & b", 0.004)])
    assert "<script>" not in shown and "<b>" not in shown and "&lt;b&gt;" in shown and "under 1 %" in shown
    assert shown_name("/tmp/a\nb.wav") == "a\\nb.wav" and len(shown_name("x" * 300)) < 70


def test_the_nearest_pictures_are_those_of_rank(pipe, sound, tmp_path):
    from unibrivl.embedder import Embedder

    folder = tiny_page.write_pictures(tmp_path / "pictures")
    (folder / "broken.png").write_bytes(b"no picture")
    pictures = PictureFolder(folder, pipe, tmp_path / "cache")
    assert len(pictures) == 5
    found = pictures.nearest(pipe.encode_query(str(sound)).embeds, top=3)
    paths = sorted(folder.glob("picture*.png"))
    ranked = Embedder(pipe.listener).rank(str(sound), [str(path) for path in paths], top=3)[0]
    assert [(str(folder / one.name), pytest.approx(one.score, abs=1e-5)) for one in found] == ranked
    assert max(found[0].thumbnail.size) <= 192
    _, heard, _ = Studio(pipe, folder=pictures).answer(sound, **QUICK)
    assert heard.found.count("<img") == 5 and str(tmp_path) not in heard.found


def test_pictures_are_embedded_once_and_again_when_they_change(pipe, tmp_path, monkeypatch):
    from unibrivl.embedder import Embedder

    folder, asked = tiny_page.write_pictures(tmp_path / "pictures"), []
    encode = Embedder.encode_image

    def counted(self, sources, **how):
        asked.append(len(sources))
        return encode(self, sources, **how)

    monkeypatch.setattr(Embedder, "encode_image", counted)
    first = PictureFolder(folder, pipe, tmp_path / "cache")
    again = PictureFolder(folder, pipe, tmp_path / "cache")
    assert asked == [5] and np.array_equal(first.vectors.vectors, again.vectors.vectors)
    (folder / "picture 0.png").unlink()
    tiny_page.write_pictures(tmp_path / "more", 7)
    (tmp_path / "more" / "picture 6.png").rename(folder / "new.png")
    changed = PictureFolder(folder, pipe, tmp_path / "cache")
    assert asked == [5, 1] and len(changed) == 5
    with pytest.raises(ValueError, match="is no folder"):
        PictureFolder(tmp_path / "nowhere", pipe)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no picture in it"):
        PictureFolder(tmp_path / "bare", pipe)


def test_uploads_go_when_no_page_holds_them(tmp_path):
    def upload(name):
        (tmp_path / "up" / name).mkdir(parents=True)
        path = tmp_path / "up" / name / "dog.wav"
        path.write_bytes(b"x")
        return path

    (tmp_path / "mine.wav").write_bytes(b"x")
    uploads, one, two = Uploads(tmp_path / "up"), upload("1"), upload("2")
    uploads.hold("anna", [one, None])
    uploads.hold("ben", [one, tmp_path / "mine.wav"])
    uploads.hold("anna", [two])
    assert one.exists()  # ben holds it too
    uploads.leave("ben")
    assert not one.parent.exists() and two.exists() and (tmp_path / "mine.wav").exists()
    uploads.hold("anna", [None])
    assert not two.exists() and (tmp_path / "up").is_dir()


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"megabytes": float("nan")}, {"queue": -1}])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ValueError, match="must be a number above 0"):
        Limits(**limits)


def test_a_matcher_that_cannot_read_still_draws(sound):
    pipe = tiny_diffusion.pipeline(reads="native", label_banks=tiny_page.BANKS)
    ear = Ear(pipe, labels=[])
    assert ear.listen(load_audio(sound)).labels == []
    assert "no words for what it hears" in markup.heard([])
