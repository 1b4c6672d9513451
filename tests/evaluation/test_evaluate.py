"""Benchmarks on official layouts in miniature: kept vectors, scores that say where they are from, any encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_datasets

from unibrivl.cli import main
from unibrivl.evaluation import (
    BENCHMARKS,
    Score,
    ScoreError,
    Settings,
    evaluate,
    load_benchmark,
    markdown,
    read_scores,
)
from unibrivl.evaluation.encoders import KINDS, WRITTEN, Vectors
from unibrivl.evaluation.prompts import PROMPTS, Prompts
from unibrivl.evaluation.reported import REPORTED


class Ears:
    """Hears the class from the file's name, dogs as (1, 0) and clapping as (0, 1), with a little of its own."""

    name, fingerprint = "my ears", "v1"

    def __init__(self):
        self.asked = 0

    def encode_audio(self, paths):
        self.asked += len(paths)
        return np.array([[1.0, 0.01 * place] if path.endswith("-0.wav") else [0.02 * place, 1.0]
                         for place, path in enumerate(paths)])  # fmt: skip

    def encode_text(self, texts):
        return np.array([[1.0, 0.0] if "dog" in text else [0.0, 1.0] for text in texts])


@pytest.fixture
def esc50(tmp_path):
    return tiny_datasets.make_esc50(tmp_path / "esc50")


def test_an_outsiders_encoder_is_scored(esc50, tmp_path):
    probe, words = evaluate("esc50", Ears(), esc50, tmp_path / "out", command="tried", progress=False)
    assert (words.metric, words.value, words.n, words.expected) == ("zero_shot_accuracy", 1.0, 10, 2000)
    assert words.low < 1.0 == words.high and words.chance == 0.5
    assert probe.protocol == "probe-v1" and len(probe.extra["folds"]) == 5 and probe.seed == 2021
    assert (probe.model, probe.fingerprint, probe.command) == ("my ears", "v1", "tried") and probe.commit


def test_nothing_is_heard_or_scored_twice(esc50, tmp_path):
    ears = Ears()
    first = evaluate("esc50", ears, esc50, tmp_path / "out", progress=False)
    assert evaluate("esc50", ears, esc50, tmp_path / "out", progress=False) == first and ears.asked == 10
    evaluate("esc50", ears, esc50, tmp_path / "out", Settings(prompts="sound"), progress=False)
    assert ears.asked == 10
    ears.fingerprint = "v2"
    evaluate("esc50", ears, esc50, tmp_path / "out", progress=False)
    assert ears.asked == 20
    assert len(list((tmp_path / "out" / "esc50").glob("*.json"))) == 3


def test_an_encoder_without_a_fingerprint_is_asked_every_time(esc50, tmp_path):
    ears = Ears()
    ears.fingerprint = ""
    for _ in range(2):
        scores = evaluate("esc10", ears, esc50, tmp_path / "out", Settings(limit=2), progress=False)
    assert ears.asked == 10 and scores[0].expected == 400
    assert not (tmp_path / "out" / "esc10" / "vectors").exists()


def test_missing_clips_are_named(esc50, tmp_path):
    gone = next((esc50 / "audio").iterdir())
    gone.unlink()
    scores = evaluate("esc50", Ears(), esc50, tmp_path / "out", progress=False)
    assert scores[0].n == 9 and scores[0].missing == (gone.stem,)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_is(name):
    module = load_benchmark(name)
    assert module.TITLE and module.PROTOCOL.rpartition("-v")[2].isdigit() and set(module.NEEDS) <= {*KINDS, *WRITTEN}
    with pytest.raises(ValueError, match="did you mean"):
        load_benchmark(name + "x")


def test_ten_folds_of_a_city(tmp_path):
    folder = tiny_datasets.make_urbansound8k(tmp_path / "city")
    probe, words = evaluate("urbansound8k", Ears(), folder, tmp_path / "out", progress=False)
    assert len(probe.extra["folds"]) == 10 and words.expected == 8732


class Pairs:
    """Sounds and pictures by a number in their names; sounds of the number 2 are heard as 1."""

    name, fingerprint = "pairs", "v1"

    def encode_audio(self, paths):
        return np.eye(4)[[{"1": 1, "2": 1, "3": 3}[path[-7]] for path in paths]]

    def encode_image(self, paths):
        return np.eye(4)[[int(path[-5]) for path in paths]]


def test_spoken_captions_look_for_pictures_and_pictures_for_captions(tmp_path):
    from unibrivl.data import Sample
    from unibrivl.evaluation.benchmarks.pairs import both_ways, of_split

    samples = [Sample(f"{n}_{take}", audio=f"{n}_{take}.wav", image=f"{n}.png", split="test")
               for n in (1, 2, 3) for take in (0, 1)]  # fmt: skip
    found = {one.metric: one for one in both_ways(Vectors(Pairs()), samples, "p-v1")}
    assert found["audio_to_image_R@1"].value == pytest.approx(4 / 6) and found["audio_to_image_R@1"].n == 6
    # picture 1 is as near to sounds of 2, and ties count against whoever is measured
    assert found["image_to_audio_R@1"].n == 3 and found["image_to_audio_R@1"].value == pytest.approx(1 / 3)
    assert found["audio_to_image_R@1"].chance == pytest.approx(1 / 3)
    assert found["audio_to_image_MRR"].low <= found["audio_to_image_MRR"].value
    with pytest.raises(ValueError, match="fewer than two"):
        of_split(tiny_listing(), "test")


def test_any_picture_of_the_class_may_be_right(tmp_path):
    from unibrivl.data import Sample
    from unibrivl.evaluation.benchmarks.pairs import both_ways

    samples = [Sample(f"{n}_0", audio=f"{n}_0.wav", image=f"{n}.png", labels=("ab"[n > 2],)) for n in (1, 2, 3)]
    found = {one.metric: one.value for one in both_ways(Vectors(Pairs()), samples, "p", by_label=True)}
    assert found["class_audio_to_image_R@1"] == 1.0


class Voices:
    """Hears the emotion in the file's name, and the actor a little."""

    name, fingerprint = "voices", "v1"

    def encode_audio(self, paths):
        parts = [path.rpartition("/")[2][:-4].split("-") for path in paths]
        return np.array([[*np.eye(9)[int(one[2])], 0.01 * int(one[6])] for one in parts])


def test_emotions_of_actors_that_were_not_heard(tmp_path):
    pytest.importorskip("sklearn", reason="the linear probe needs scikit-learn")
    folder = tiny_datasets.make_ravdess(tmp_path / "speech")
    for actor in (3, 8, 14, 16, 20):
        for emotion in range(1, 9):
            name = f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav"
            tiny_datasets.sound(folder / f"Audio_Speech_Actors_01-24/Actor_{actor:02d}" / name, emotion)
    found = {one.metric: one for one in evaluate("ravdess", Voices(), folder, tmp_path / "out", progress=False)}
    assert found["four_accuracy"].value == 1.0 and found["four_mean_recall"].value == 1.0
    assert found["four_accuracy"].n == 5 + 2 and found["eight_accuracy"].n == 46
    assert found["eight_accuracy"].value > 0.8


class Films:
    """Every sound is a dog's."""

    name, fingerprint = "films", "v1"

    def encode_audio(self, paths):
        return np.array([[1.0, 0.1 * ("bbb" in path)] for path in paths])

    def encode_text(self, texts):
        return np.array([[1.0, 0.0] if "dog" in text else [0.0, 1.0] for text in texts])


def test_classes_of_videos_that_are_still_there(tmp_path):
    folder = tiny_datasets.make_vggsound(tmp_path / "vgg")
    found = {one.metric: one for one in evaluate("vggsound", Films(), folder, tmp_path / "out", progress=False)}
    assert found["audio_text_accuracy"].value == 1.0 and found["audio_text_accuracy"].n == 2
    assert found["zero_shot_map"].value == 1.0 and found["zero_shot_map"].extra["classes_without_clips"] == 2
    assert "ddddddddddd" in found["zero_shot_map"].missing[0]


class Spectrum:
    """How loud each of eight bands is, and how loud all: a vector that gain turns a little."""

    name, fingerprint = "spectrum", "v1"

    def encode_audio(self, paths):
        from unibrivl.audio import load_audio

        bands = [np.abs(np.fft.rfft(load_audio(path, rate_hz=8000).samples, 2048))[:1024] for path in paths]
        return np.array([[*np.log10(1e-3 + one.reshape(8, -1).mean(1)), 1.0] for one in bands])


def test_vectors_move_the_further_the_more_is_changed(tmp_path):
    folder = tiny_datasets.make_esc50(tmp_path / "esc50") / "audio"
    given = {"settings": Settings(limit=None), "progress": False}
    found = {one.metric: one for one in evaluate("robustness", Spectrum(), folder, tmp_path / "out", **given)}
    assert found["cosine_noise_30_dB"].value > found["cosine_noise_0_dB"].value
    assert found["cosine_rate_44100_Hz"].value > 0.999 and found["cosine_gain_-20_dB"].value < 0.999
    assert found["cosine_echo_0.2_s"].n == 10 and len(found) == 16
    again = evaluate("robustness", Spectrum(), folder, tmp_path / "other", **given)
    assert [one.value for one in again] == [one.value for one in found.values()]


def tiny_listing():
    from unibrivl.data import Listing

    return Listing("nothing", ())


@pytest.mark.parametrize("name", ["flickr8k", "spoken_coco", "localized_narratives"])
def test_spoken_benchmarks_take_their_split_alone(name, tmp_path):
    maker = {"flickr8k": "make_flickr8k_audio"}.get(name, f"make_{name}")
    module = load_benchmark(name)
    (tmp_path / name).mkdir()
    listing = module.load(getattr(tiny_datasets, maker)(tmp_path / name))
    assert len(listing) and {one.split for one in listing} == {module.SPLIT} and listing.name == module.TITLE


def test_unfit_encoders_are_refused_before_anything_is_computed(esc50, tmp_path):
    class Mute:
        name = "mute"

        def encode_audio(self, paths):
            raise AssertionError("asked")

    with pytest.raises(ValueError, match="no encode_text"):
        evaluate("esc50", Mute(), esc50, tmp_path / "out")
    ears = Ears()
    ears.encode_audio = lambda paths: np.full((len(paths), 2), np.nan)
    with pytest.raises(ValueError, match="one finite row"):
        evaluate("esc50", ears, esc50, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="prompts is one of"):
        Settings(prompts="shout")


def test_vectors_are_of_length_one_and_come_back_bit_for_bit(tmp_path):
    ears = Ears()
    first = Vectors(ears, tmp_path, False).of("text", ["a dog", "rain"])
    assert np.allclose(np.linalg.norm(first, axis=1), 1)
    assert np.array_equal(Vectors(ears, tmp_path, False).of("text", ["a dog", "rain"]), first)


def test_a_score_says_where_it_is_from_or_is_none(tmp_path):
    whole = {"benchmark": "b", "metric": "m", "value": 0.5, "n": 3, "expected": 4, "protocol": "p-v1", "model": "o",
             "fingerprint": "f", "command": "c", "commit": "123"}  # fmt: skip
    assert "3 / 4" in markdown([Score(**whole)])
    for name in ("command", "commit", "model", "protocol"):
        with pytest.raises(ScoreError, match=name):
            Score(**{**whole, name: ""})
    with pytest.raises(ScoreError):
        Score(**{**whole, "value": float("nan")})
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ScoreError, match="holds no scores"):
        read_scores(tmp_path / "x.json")


def test_what_papers_report_stands_in_a_column_of_its_own(esc50, tmp_path):
    table = markdown(evaluate("esc50", Ears(), esc50, tmp_path / "out", progress=False), REPORTED)
    row = next(line for line in table.splitlines() if "zero_shot" in line).split(" | ")
    assert "0.4120 UniBriVL (UniBriVL)" in row[2] and row[3] == "1.0000"


def test_prompts_are_data_with_a_version():
    assert PROMPTS["sound"].texts(["car_horn"]) == [["This is a sound of car horn."]]
    assert Prompts("x", names=(("dog", "hound"),)).texts(["dog", "a_b"]) == [["hound", "a b"]]
    assert len({one.version for one in PROMPTS.values()}) == len(PROMPTS)


def test_the_commands(esc50, tmp_path, capsys):
    given = ["eval", "esc10", "--model", "embedded", "--data", str(esc50), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    assert "| esc10 | zero_shot_accuracy |" in capsys.readouterr().out
    assert main(["tables", str(tmp_path / "out")]) == 0
    assert "| esc10 | probe_accuracy |" in capsys.readouterr().out
    [path] = (tmp_path / "out" / "esc10").glob("*.json")
    assert json.loads(path.read_text())["scores"][0]["command"]
    assert main(["tables", str(tmp_path)]) == 2
    assert "unibrivl eval" in capsys.readouterr().err
