"""Benchmarks of pictures on synthetic sounds: kept pictures, judges, diversity, loudness; subsets and long texts."""

from __future__ import annotations

import numpy as np
import pytest
import small_packs
import tiny_datasets
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from unibrivl.evaluation import Settings, evaluate
from unibrivl.evaluation.baselines import MelStatistics
from unibrivl.evaluation.benchmarks import long_texts, vggsound_subsets, volume
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.judges import ClassJudge, TextJudge, distances, hits_of
from unibrivl.evaluation.pictures import Pictures

COLOURS = {"dog": (200, 0, 0), "fireworks": (0, 0, 200)}


class Painter:
    """Paints the class in its folder's name, a little lighter by the seed and by the sound."""

    name, fingerprint = "painter", "v1"

    def __init__(self, by_sound=10):
        self.asked, self.by_sound = 0, by_sound

    def generate(self, paths, seeds):
        self.asked += len(paths)
        return [self.painted(path, seed) for path, seed in zip(paths, seeds, strict=True)]

    def painted(self, path, seed):
        colour = next((shade for name, shade in COLOURS.items() if name in path), (0, 200, 0))
        lighter = self.by_sound * (sum(path.encode()) % 5) + seed % 7
        return Image.new("RGB", (16, 16), tuple(min(255, shade + lighter) for shade in colour))


class Eye:
    """Sees the mean colour; reads "dog" as red, all else as blue."""

    name, fingerprint = "eye", "eye-v1"

    def encode_image(self, images):
        return np.array([np.asarray(one, dtype=float).mean((0, 1)) + 1 for one in images])

    def encode_text(self, texts):
        return np.array([[1.0, 0, 0] if "dog" in text or "large" in text else [0, 0, 1.0] for text in texts])


@pytest.fixture
def vegas(tmp_path):
    root = tmp_path / "vegas"
    for label, number in (("dog", 3), ("fireworks", 2)):
        for place in range(number):
            tiny_datasets.sound(root / label / f"{label}{place}.wav", place)
            Image.new("RGB", (16, 16), COLOURS[label]).save(root / label / f"{label}{place}.jpg")
    return root


def test_pictures_are_named_and_measured_by_a_judge(vegas, tmp_path):
    painter, how = Painter(), Settings(judge=TextJudge(Eye()), repeats=2)
    found = {one.metric: one for one in evaluate("vegas", painter, vegas, tmp_path / "out", how, progress=False)}
    assert found["R@1"].value == 1.0 and found["R@1"].n == 10 and found["R@1"].chance == 0.5
    assert found["FID"].value > 0 and 1 <= found["IS"].value <= 2 and found["R@1"].extra["judge"] == "eye"
    assert found["R@1"].extra["judge_on_real"] == 1.0 and found["R@1"].extra["seeds"] == [2021, 2022]
    with Image.open(found["R@1"].extra["sheet"]) as sheet:
        assert sheet.size == (3 * 16, 2 * 16)
    # another way to be scored draws nothing anew, and one seed more draws that seed alone
    evaluate("vegas", painter, vegas, tmp_path / "out", Settings(judge=TextJudge(Eye())), progress=False)
    assert painter.asked == 10
    evaluate("vegas", painter, vegas, tmp_path / "out", Settings(judge=TextJudge(Eye()), repeats=3), progress=False)
    assert painter.asked == 15


def test_a_picture_that_is_wrong_is_counted(vegas, tmp_path):
    class Blind(Painter):
        def painted(self, path, seed):
            return Image.new("RGB", (16, 16), COLOURS["dog"])

    found = evaluate("vegas", Blind(), vegas, tmp_path / "out", Settings(judge=TextJudge(Eye())), progress=False)
    assert found[0].value == pytest.approx(3 / 5)


def test_pictures_need_a_judge_who_is_somebody_else(vegas, tmp_path):
    with pytest.raises(ValueError, match="--judge"):
        evaluate("vegas", Painter(), vegas, tmp_path / "out", progress=False)
    own = TextJudge(Eye())
    own.fingerprint = "v1"
    with pytest.raises(ValueError, match="cannot judge its own"):
        evaluate("vegas", Painter(), vegas, tmp_path / "out", Settings(judge=own), progress=False)
    with pytest.raises(ValueError, match="no generate"):
        evaluate("vegas", Eye(), vegas, tmp_path / "out", progress=False)


def test_a_painter_gives_a_picture_for_each_sound(tmp_path):
    class Few(Painter):
        def generate(self, paths, seeds):
            return []

    with pytest.raises(ValueError, match="one Pillow picture"):
        Pictures(Vectors(Few(), None, False)).of(["a.wav"], ["a"], [0])


def test_a_killed_run_keeps_what_was_drawn(tmp_path):
    class Dies(Painter):
        def generate(self, paths, seeds):
            if self.asked:
                raise KeyboardInterrupt
            return super().generate(paths, seeds)

    names = [f"{place}.wav" for place in range(12)]
    dying, painter = Dies(), Painter()
    with pytest.raises(KeyboardInterrupt):
        Pictures(Vectors(dying, tmp_path / "vectors", False)).of(names, names, [0] * 12)
    found = Pictures(Vectors(painter, tmp_path / "vectors", False)).of(names, names, [0] * 12)
    assert painter.asked == 4 and len(found) == 12


def test_a_classifier_judges_by_its_labels(tmp_path):
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic",
        id2label={0: "dog", 1: "Sea_waves", 2: "rain"}, label2id={"dog": 0, "Sea_waves": 1, "rain": 2},
    )  # fmt: skip
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    judge = ClassJudge(tmp_path)
    images = [Image.new("RGB", (20, 20), shade) for shade in ((9, 9, 9), (200, 10, 10), (0, 200, 0))]
    seen = judge.look(images)
    logits = judge.names(seen, ["rain", "sea waves"])
    whole = judge.model(**judge.processor(images=images, return_tensors="pt")).logits.detach().numpy()
    assert np.allclose(logits, whole[:, [2, 1]], atol=1e-5) and seen.features_ND.shape == (3, 12)
    with pytest.raises(ValueError, match="does not know cat"):
        judge.names(seen, ["cat", "rain"])
    assert hits_of(judge, seen, ["rain"] * 3, ["rain", "dog"]) == int((whole[:, 2] > whole[:, 0]).sum())
    assert set(distances(judge, seen, ["rain", "dog"], judge.look(images[:1]))) == {"IS"}  # one has no covariance


@pytest.mark.parametrize("by_sound", [0, 12])
def test_diversity_is_of_sounds_and_not_of_chance(vegas, tmp_path, by_sound):
    how = Settings(judge=TextJudge(Eye()), repeats=2)
    found = {one.metric: one for one in evaluate("diversity", Painter(by_sound), vegas, tmp_path, how, progress=False)}
    assert (found["by_sound"].value > 1e-6) == (by_sound > 0) and found["by_chance"].value > 1e-6
    assert found["R@1"].value == 1.0


class Loud(Painter):
    """Hears nothing but loudness, and paints louder things more red."""

    def encode_audio(self, paths):
        return np.array([[1.0, self.level(path)] for path in paths])

    def level(self, path):
        from unibrivl.audio import load_audio

        return float(np.abs(load_audio(path, rate_hz=16000).samples).mean())

    def painted(self, path, seed):
        return Image.new("RGB", (16, 16), (min(255, int(300 * self.level(path))), 0, 100))


def test_loudness_moves_vectors_and_pictures(tmp_path):
    root = tmp_path / "rain"
    tiny_datasets.sound(root / "rain" / "a.wav", 1)
    tiny_datasets.sound(root / "rain" / "b.wav", 2)
    eye = Eye()
    eye.encode_text = lambda texts: np.array([[1.0, 0, 0] if "downpour" in text else [0, 0, 1.0] for text in texts])
    scores = evaluate("volume", Loud(), root, tmp_path / "out", Settings(judge=TextJudge(eye)), progress=False)
    found = {one.metric: one for one in scores}
    assert found["cosine_-6_dB"].value > found["cosine_-20_dB"].value
    assert found["most_moved"].value > 0 and found["rho"].value == pytest.approx(1.0)
    assert found["picture_+6_dB"].value > found["picture_-20_dB"].value
    with Image.open(found["rho"].extra["sheet"]) as sheet:
        assert sheet.size == (16 * len(volume.GAINS_DB), 16 * 2)
    # without a judge the vectors alone
    alone = evaluate("volume", Loud(), root, tmp_path / "alone", progress=False)
    assert {one.metric for one in alone} == {"most_moved", *(f"cosine_{g:+d}_dB" for g in volume.GAINS_DB if g)}


def test_subsets_are_nested_and_of_every_class_alike():
    from unibrivl.data import Sample

    samples = [Sample(f"{label}{n}", audio="a", image=f"{label}{n}", labels=(label,), split="test")
               for label in "ab" for n in range(21)]  # fmt: skip
    small, middle, whole = (vggsound_subsets.share_of(samples, share) for share in vggsound_subsets.SHARES.values())
    assert (len(small), len(middle), len(whole)) == (6, 10, 42)
    assert set(small) < set(middle) < set(whole) and sum(one.label == "a" for one in small) == 3
    assert vggsound_subsets.share_of(samples[::-1], 0.1) == small
    assert len(vggsound_subsets.first_of_each(samples, 5)) == 10


def test_subsets_are_scored_both_ways_and_by_their_mean():
    from unibrivl.data import Listing, Sample

    class Same:
        name = "same"

        def encode_audio(self, paths):
            return np.eye(24)[[int(path) for path in paths]]

        encode_image = encode_audio

    samples = tuple(Sample(str(n), audio=str(n), image=str(n), labels=("ab"[n % 2],), split="test") for n in range(24))
    found = {one.metric: one for one in
             vggsound_subsets.run(Vectors(Same(), None, False), Listing("v", samples), Settings())}  # fmt: skip
    assert found["14K_mean_R@1"].value == 1.0 and found["14K_mean_R@1"].n == 24
    assert found["1.4K_audio_to_image_R@1"].n == 4 and found["five_mean_R@1"].n == 10
    assert found["14K_mean_R@1"].chance == pytest.approx(1 / 24)


class Reader:
    """Knows a picture by the last word of its text, as a tower that stops early does not."""

    name, fingerprint = "reader", "v1"

    def encode_text(self, texts):
        return np.eye(4)[[int(text.split()[-1]) if text.split()[-1].isdigit() else 3 for text in texts]]

    def encode_image(self, paths):
        return np.eye(4)[[int(path[-5]) for path in paths]]


def test_what_cutting_long_transcripts_costs():
    from unibrivl.data import Listing, Sample

    texts = ["a short one 0", "b " * 60 + "1", "c " * 60 + "2"]
    samples = tuple(Sample(str(n), image=f"{n}.png", texts=(text,)) for n, text in enumerate(texts))
    found = {
        one.metric: one for one in long_texts.run(Vectors(Reader(), None, False), Listing("l", samples), Settings())
    }
    assert found["whole_R@1"].value == 1.0 and found["cut_R@1"].value == pytest.approx(1 / 3)
    assert found["long_whole_R@1"].value == 1.0 and found["long_cut_R@1"].value == 0.0
    assert found["long_cut_R@1"].n == 2 and found["cut_R@1"].extra["cut"] == "40 words"

    class Own(Reader):
        def encode_text_cut(self, texts):
            return self.encode_text(texts)

    found = {
        one.metric: one.value for one in long_texts.run(Vectors(Own(), None, False), Listing("l", samples), Settings())
    }
    assert found["long_cut_R@1"] == 1.0


def test_packs_in_miniature(tmp_path):
    pytest.importorskip("sklearn", reason="the linear probe needs scikit-learn")
    tiny_datasets.make_speech_emotion(tmp_path / "speech_emotion")
    with pytest.raises(ValueError, match="too few clips"):
        evaluate("pack_emotion", MelStatistics(), tmp_path / "speech_emotion", tmp_path / "out", progress=False)


def test_a_baseline_hears_colour_and_loudness():
    times = np.arange(16000) / 16000
    told = MelStatistics()
    low, high, soft = (told.told((level * np.sin(2 * np.pi * hz * times)).astype(np.float32))
                       for hz, level in ((200, 0.5), (2000, 0.5), (200, 0.05)))  # fmt: skip
    assert low[:64].argmax() < high[:64].argmax() and soft[:64].max() < low[:64].max()
    assert np.isfinite(told.told(np.zeros(10, np.float32))).all()


def test_the_packs_are_scored_by_any_encoder(tmp_path):
    pytest.importorskip("sklearn", reason="the linear probe needs scikit-learn")
    small_packs.write_packs(tmp_path)
    rows = [(one, one.replace("_", " ")) for one in (*small_packs.CLASSES, "cat")]
    tiny_datasets.table(tmp_path / "sounds_and_pictures" / "classes.csv", ("label", "text"), rows)

    class Ears(MelStatistics):
        """Hears colour, and reads and sees every other class as the first."""

        def encode_text(self, texts):
            return np.eye(128)[[sum(text.encode()) % 128 for text in texts]]

        encode_image = encode_text

    given = {"out": tmp_path / "out", "progress": False}
    found = {one.metric: one for one in evaluate("pack_sounds", Ears(), tmp_path / "sounds_and_pictures", **given)}
    assert found["esc10_probe_accuracy"].value == 1.0 and found["all_probe_accuracy"].value == 1.0
    assert found["all_probe_accuracy"].n == found["all_probe_accuracy"].expected
    assert found["esc10_class_audio_to_image_MRR"].n < found["esc10_probe_accuracy"].n  # chainsaws have no picture
    # one that only hears is scored by the probe alone
    [only] = evaluate("pack_digits", MelStatistics(), tmp_path / "spoken_digits", **given) or [None]
    assert only is not None and only.metric == "probe_accuracy"
