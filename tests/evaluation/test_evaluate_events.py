"""DESED in miniature: windows, thresholds, and segments and events against the metrics asked directly."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import soundfile
import tiny_datasets

from unibrivl.audio import load_audio
from unibrivl.data.desed import LABELS
from unibrivl.evaluation import evaluate, load_benchmark
from unibrivl.evaluation.benchmarks import desed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.metrics import Event, MLPProbe, segment_scores

RATE_HZ = 8000
PITCHES_HZ = {"Dog": 500, "Speech": 1000, "Frying": 2000}
BANDS_HZ = sorted(PITCHES_HZ.values())


class Bands:
    """How much of a window lies at each label's pitch, and words that point there."""

    name, fingerprint = "bands", "v1"

    def __init__(self):
        self.asked = 0

    def encode_audio(self, paths):
        self.asked += len(paths)
        heard = [load_audio(path, rate_hz=RATE_HZ).samples for path in paths]
        assert {len(one) for one in heard} == {RATE_HZ}
        spectra = np.abs(np.fft.rfft(np.stack(heard), axis=1))
        return np.column_stack([spectra[:, BANDS_HZ], np.full(len(heard), 300.0)])

    def encode_text(self, texts):
        pitches = {name.lower(): pitch for name, pitch in PITCHES_HZ.items()}
        rows = [[pitch == pitches.get(text.lower()) for pitch in BANDS_HZ] + [text.lower() not in pitches]
                for text in texts]  # fmt: skip
        return np.array(rows, dtype=float)


def clip(path, events, seconds=4):
    times = np.arange(seconds * RATE_HZ) / RATE_HZ
    made = np.zeros(len(times))
    for begin, end, label in events:
        made += 0.2 * np.sin(2 * np.pi * PITCHES_HZ[label] * times) * ((times >= begin) & (times < end))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, made, RATE_HZ)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips to train on and eight to score, each of one or two events in whole seconds; the last has none."""
    root = tmp_path_factory.mktemp("desed")
    chance = np.random.default_rng(0)
    for part, count in (("train/synthetic21_train", 30), ("validation/synthetic21_validation", 8)):
        rows = []
        for number in range(count):
            events = [(begin, end, str(chance.choice(list(PITCHES_HZ)))) for begin, end in ((0, 2), (3, 4))]
            events = events[: 1 + number % 2]
            events = [] if number == count - 1 else events
            rows += [(f"{number}.wav", *one) for one in events] or [(f"{number}.wav", "", "", "")]
            clip(root / "dataset/audio" / part / f"{number}.wav", events)
        table = root / "dataset/metadata" / f"{part}.tsv"
        tiny_datasets.table(table, "filename onset offset event_label".split(), rows, tabs=True)
    return root


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    bands, out = Bands(), tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desed, "MLPProbe", partial(MLPProbe, max_epochs=12, batch_size=32))
        scores = evaluate("desed", bands, folder, out, progress=False)
        assert bands.asked == 38 * 4
        evaluate("desed", bands, folder, out, progress=False, restart=True)
    assert bands.asked == 38 * 4  # windows are kept as well
    return {one.metric: one for one in scores}


def test_events_that_can_be_heard_are_found(found):
    assert len(found) == 3 * 7
    for way in ("probe", "probe_tuned", "text"):
        assert found[f"{way}_segment_macro_f_zero_score"].value == 1.0
        assert found[f"{way}_event_macro_f_zero_score"].value == 1.0
    headline = found["probe_segment_macro_f_zero_score"]
    assert (headline.n, headline.expected, headline.seed) == (8, 2500, 2021)
    assert headline.protocol == "desed-v1, probe-v1" and headline.extra["test"] == "synthetic21_validation"
    assert 0 < headline.chance < 0.7 and headline.low <= 1.0 == headline.high
    assert headline.extra["labels"]["Cat"] is None  # nothing of it was there


def test_the_headline_is_the_metrics_own(folder):
    """From counts of single clips, and from all clips at once; a label that is never said counts nothing."""
    listing = desed.load(folder)
    clips = [one for one in listing if one.split != desed.TRAIN]
    windows = desed.Windows(clips, [4] * len(clips), np.zeros((4 * len(clips), 1)))
    active = windows.right_WL.copy()
    active[::3] = False
    active[:, LABELS.index("Frying")] = False
    rows = {one.metric: one for one in desed.judged("x", active, windows, "p-v1", None, {})}
    truth = {one.id: one.events for one in clips}
    said = {one.id: [Event(place, place + 1, label) for place in range(4) for label in LABELS
                     if active[4 * number + place, LABELS.index(label)]]
            for number, one in enumerate(clips)}  # fmt: skip
    alone = segment_scores(truth, said, durations=dict.fromkeys(truth, 4.0))
    headline = rows["x_segment_macro_f_zero_score"]
    assert headline.value == pytest.approx(alone.macro_f_zero_score) and headline.low < headline.value < headline.high
    assert rows["x_segment_macro_f"].value == pytest.approx(alone.macro_f) and alone.macro_f > headline.value
    assert rows["x_segment_micro_f"].value == pytest.approx(alone.micro.f)


def test_silence_is_scored_and_has_no_mean_of_its_own(folder):
    clips = [one for one in desed.load(folder) if one.split != desed.TRAIN]
    windows = desed.Windows(clips, [4] * len(clips), np.zeros((4 * len(clips), 1)))
    rows = desed.judged("x", np.zeros_like(windows.right_WL), windows, "p-v1", None, {})
    assert {one.metric: one.value for one in rows} == {
        f"x_{name}_macro_f_zero_score": 0.0 for name in ("segment", "event", "event_sed_eval")
    }


def test_the_threshold_is_the_best_of_all():
    chance = np.random.default_rng(1)
    scores, right = chance.integers(0, 6, (30, 4)).astype(float), chance.random((30, 4)) < 0.4
    right[:, 3] = False
    found = desed.best_thresholds(scores, right)

    def f_of(label, threshold):
        said = scores[:, label] >= threshold
        return 2 * (said & right[:, label]).sum() / (said.sum() + right[:, label].sum())

    for label in range(3):
        assert f_of(label, found[label]) == max(f_of(label, one) for one in range(6))
    assert found[3] == np.inf


def test_windows_of_a_short_clip_end_in_silence(tmp_path):
    path = tiny_datasets.sound(tmp_path / "a.wav", duration_s=1.3)
    with desed.as_files([desed.Window(str(path), 0.0), desed.Window(str(path), 1.0)]) as (first, last):
        whole, half = (load_audio(one) for one in (first, last))
    assert whole.rate_hz == tiny_datasets.RATE_HZ and len(whole.samples) == len(half.samples) == whole.rate_hz
    assert np.array_equal(half.samples[: int(0.29 * 16000)], load_audio(path).samples[16000:][: int(0.29 * 16000)])
    assert not half.samples[int(0.31 * 16000) :].any()
    windows = desed.windows_of(Vectors(Short()), [desed.Sample("a", audio=str(path))])
    assert windows.counts == [2]
    events = (Event(0.2, 0.6, "Dog"), Event(0.7, 1.3, "Dog"), Event(1.0, 1.4, "Cat"))
    heard = desed.overlaps(events, 2)
    assert np.allclose(heard[:, LABELS.index("Dog")], [0.7, 0.3])
    assert np.allclose(heard[:, LABELS.index("Cat")], [0.0, 0.4])


class Short:
    def encode_audio(self, paths):
        return np.ones((len(paths), 2))


def test_both_parts_are_needed(tmp_path):
    folder = tiny_datasets.make_desed(tmp_path)
    with pytest.raises(ValueError, match="learns on synthetic21_train"):
        load_benchmark("desed").load(folder)


def test_missing_clips_are_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "dataset/audio/validation/synthetic21_validation/3.wav").unlink()
    listing = desed.load(copy)
    assert (len(listing), listing.expected) == (37, 2500)
    assert [one.id for one in listing.missing] == ["synthetic21_validation/3"]
