"""Evidence is found where it was planted, and not by random weights; the map is what all pairs would give."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from tiny_towers import AUDIO, unibrivl_config
from transformers import CLIPImageProcessorPil

import unibrivl
from unibrivl.audio import Waveform, load_audio
from unibrivl.embedded import HERE
from unibrivl.embedder import Embedder, Evidence, load
from unibrivl.embedder.evidence_picture import round_moments
from unibrivl.embedder.hidden import hide_regions, hide_stretches, regions_of, stretches_of, surroundings
from unibrivl.modeling import MelEncoderConfig, MelEncoderFeatureExtractor, UniBriVLModel, UniBriVLProcessor

RATE, SECONDS, PLACES, SIDE = 16000, 2.5, 5, 64
SPOKEN = Path(unibrivl.__file__).parent / "cli" / "sounds"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MEL = {key: value for key, value in AUDIO["mel_encoder"].items() if key != "model_type"}
needs_weights = pytest.mark.skipif(
    not (HERE / "open" / "model_index.json").is_file(), reason="the embedded model's weights are not in this checkout"
)


@pytest.fixture(scope="module")
def tiny() -> Embedder:
    torch.manual_seed(0)
    model = UniBriVLModel(unibrivl_config("mel_encoder", "clip", audio_config=AUDIO["mel_encoder"])).eval()
    processor = UniBriVLProcessor(
        feature_extractor=MelEncoderFeatureExtractor.for_config(MelEncoderConfig(**MEL)),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    return load(model, processor, batch_size=5)


@functools.cache
def spoken(digit: int) -> np.ndarray:
    return load_audio(SPOKEN / f"{DIGITS[digit]}.flac", rate_hz=RATE).samples


def planted(digit: int, place: int) -> tuple[Waveform, float, float]:
    """A spoken digit in one of five places of quiet noise, and when it begins and ends."""
    word = spoken(digit)
    samples = np.random.default_rng(digit).normal(0, 0.002, round(SECONDS * RATE)).astype(np.float32)
    begin = min(round(place * len(samples) / PLACES), len(samples) - len(word))
    samples[begin : begin + len(word)] += word
    return Waveform(samples, RATE), begin / RATE, (begin + len(word)) / RATE


def written(digit: int, half: int, other: int | None = None) -> Image.Image:
    """A digit in the left half (0) or the right half (1) of a white picture; the other half is empty, or another's."""
    page = Image.new("L", (SIDE, SIDE), 255)
    for number, side in ((digit, half), (other, 1 - half)):
        if number is not None:
            ImageDraw.Draw(page).text(
                (SIDE // 4 + side * SIDE // 2, SIDE // 2), str(number), fill=0, font=ImageFont.load_default(44),
                anchor="mm", stroke_width=1,
            )  # fmt: skip
    return page.convert("RGB")


def in_time(found: Evidence, begin_s: float, end_s: float) -> bool:
    return found.best_seconds[0] < end_s and found.best_seconds[1] > begin_s


def in_half(box: tuple[int, int, int, int], half: int) -> bool:
    middle = (box[0] + box[2]) / 2
    return middle < SIDE / 2 if half == 0 else middle > SIDE / 2


def rates(embedder: Embedder, cases, regions: int = 5, distract: bool = False) -> tuple[float, float, float]:
    """Shares of the cases in which the seconds, the half of the picture, and both by the map are the planted ones."""
    right = []
    for digit, place, half in cases:
        sound, begin_s, end_s = planted(digit, place)
        found = embedder.evidence(sound, written(digit, half, (digit + 3) % 10 if distract else None), regions=regions)
        (begin, end), box = found.best_pair
        right.append((
            in_time(found, begin_s, end_s),
            in_half(found.best_region, half),
            begin < end_s and end > begin_s and in_half(box, half),
        ))  # fmt: skip
    return tuple(np.mean(right, axis=0))


@pytest.fixture(scope="module")
def ours() -> Embedder:
    return load("embedded")


@needs_weights
def test_planted_evidence_is_found(ours):
    in_seconds, in_regions, in_both = rates(ours, [(digit, digit % PLACES, digit // 5) for digit in range(10)])
    assert in_seconds >= 0.9
    assert in_regions >= 0.9
    assert in_both >= 0.9


@needs_weights
@pytest.mark.slow
def test_planted_evidence_is_found_everywhere(ours):
    in_seconds, in_regions, in_both = rates(ours, itertools.product(range(10), range(PLACES), (0, 1)))
    assert in_seconds >= 0.9
    assert in_regions >= 0.9
    assert in_both >= 0.9


def at_random(embedder: Embedder, seed: int) -> Embedder:
    """The same towers, their weights drawn anew."""
    torch.manual_seed(seed)
    return load(UniBriVLModel(embedder.matcher.model.config).eval(), embedder.matcher.processor)


def of_two(embedder: Embedder, digit: int, first: int) -> list[bool]:
    """Two words in one sound: asked about each of them, is the most important stretch nearer to that one?

    In a sound with one word any network does well, since nothing else is there to be hidden. With two, whoever does
    not know what they mean gives one answer to both questions, and is right once.
    """
    digits = (digit, (digit + 3) % 10)
    samples = np.random.default_rng(digit).normal(0, 0.002, round(SECONDS * RATE)).astype(np.float32)
    middles_s = []
    for one, place in zip(digits, (first, first + 2 if first < 3 else first - 2), strict=True):
        word = spoken(one)
        begin = min(round(place * len(samples) / PLACES), len(samples) - len(word))
        samples[begin : begin + len(word)] += word
        middles_s.append((begin + len(word) / 2) / RATE)
    right = []
    for own, one in enumerate(digits):
        found = embedder.evidence(Waveform(samples, RATE), text=DIGITS[one])
        away = [abs(np.mean(found.best_seconds) - middle) for middle in middles_s]
        right.append(bool(away[own] < away[1 - own] and away[own] < 0.5))
    return right


@needs_weights
def test_of_two_words_the_one_that_is_asked_about_is_found(ours):
    assert np.mean([of_two(ours, digit, digit % PLACES) for digit in range(5, 10)]) >= 0.9


@needs_weights
@pytest.mark.slow
def test_of_any_two_words_the_one_that_is_asked_about_is_found(ours):
    found = [of_two(ours, digit, place) for digit in range(10) for place in range(PLACES)]
    assert np.mean(found) >= 0.9


@needs_weights
def test_random_weights_do_not_know_which_word_is_meant(ours):
    assert np.mean([of_two(at_random(ours, seed), seed, seed % PLACES) for seed in range(5)]) < 0.6


def test_the_map_is_what_all_pairs_would_give(tiny):
    """T + R x R encodings against one score for each pair of a hidden stretch and a hidden region."""
    sound = Waveform(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32), RATE)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32, 3), dtype=np.uint8))
    found = tiny.evidence(sound, image, stretch_s=0.4, regions=2)
    clips = [sound, *hide_stretches(sound, stretches_of(16000, RATE, 0.4))]
    pictures = [image, *hide_regions(image, regions_of(32, 40, 2))]
    scores = tiny.similarity(tiny.encode_audio(clips), tiny.encode_image(pictures))
    assert found.score == pytest.approx(scores[0, 0], abs=1e-6)
    assert np.abs(found.seconds_T - (scores[0, 0] - scores[1:, 0])).max() < 1e-5
    assert np.abs(found.regions_RR.reshape(-1) - (scores[0, 0] - scores[0, 1:])).max() < 1e-5
    pairs = scores[0, 0] - scores[1:, :1] - scores[:1, 1:] + scores[1:, 1:]
    assert np.abs(found.map_TRR.reshape(len(clips) - 1, -1) - pairs).max() < 1e-5
    assert np.abs(found.map_TRR).max() > 1e-6
    assert found.map_TRR.shape == (4, 2, 2)


def test_it_is_the_same_twice_and_whatever_the_batches(tiny):
    sound, *_ = planted(3, 1)
    first, again = (tiny.evidence(sound, written(3, 0), regions=3) for _ in range(2))
    assert np.array_equal(first.map_TRR, again.map_TRR)
    assert first.to_json() == again.to_json()
    assert np.array_equal(np.asarray(first.picture()), np.asarray(again.picture()))
    other = load(tiny.matcher.model, tiny.matcher.processor, batch_size=1).evidence(sound, written(3, 0), regions=3)
    assert np.abs(first.map_TRR - other.map_TRR).max() < 1e-5


def test_a_long_sound_is_heard_again_only_where_it_was_changed(tiny, monkeypatch):
    sound, *_ = planted(3, 1)
    embedder = load(tiny.matcher.model, tiny.matcher.processor, window_s=0.5)
    spans = stretches_of(len(sound.samples), RATE, 0.5)
    naive = embedder.encode_audio([sound, *hide_stretches(sound, spans)]).vectors
    heard, encode = [], embedder.matcher.encode_audio
    monkeypatch.setattr(embedder.matcher, "encode_audio", lambda clips: heard.extend(clips) or encode(clips))
    found = embedder.evidence(sound, written(3, 0), stretch_s=0.5, regions=1)
    assert len(heard) < 5 + 2 * len(spans) < 5 * (1 + len(spans))
    thing = embedder.encode_image(written(3, 0)).vectors[0]
    assert np.abs(found.seconds_T - (naive[0] - naive[1:]) @ thing).max() < 1e-5


@pytest.mark.parametrize(
    ("samples", "stretch_s", "length", "count"),
    [
        (80000, None, 8000, 19),
        (6400, None, 1600, 7),
        (100 * RATE, None, None, 80),
        (800, 10.0, 800, 1),
        (1, None, 1, 1),
    ],
)
def test_stretches_cover_every_sample(samples, stretch_s, length, count):
    spans = stretches_of(samples, RATE, stretch_s)
    assert len(spans) == pytest.approx(count, abs=1 if length is None else 0)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == samples
    assert (spans[1:, 0] <= spans[:-1, 1]).all()
    assert len(set(np.diff(spans)[:, 0])) == 1
    assert length in (None, np.diff(spans[0])[0])


def test_regions_cover_every_pixel():
    for width, height, regions in ((64, 64, 7), (33, 20, 3), (5, 4, 1), (640, 480, 10)):
        boxes = regions_of(width, height, regions)
        covered = np.zeros((height, width), int)
        for left, top, right, bottom in boxes.reshape(-1, 4):
            covered[top:bottom, left:right] += 1
        assert boxes.shape == (regions, regions, 4)
        assert covered.min() >= 1
        assert covered.max() <= 4


def test_what_is_hidden_becomes_what_is_around_it():
    """A blank page stays blank, a slope stays near itself, and nothing outside the box is touched."""
    blank = np.full((40, 60, 3), 200, np.float32)
    assert np.allclose(surroundings(blank, 10, 10, 30, 20), 200)
    slope = np.broadcast_to(np.arange(60, dtype=np.float32)[None, :, None], (40, 60, 3))
    inside = surroundings(slope, 20, 10, 40, 20)
    assert np.abs(inside - slope[10:20, 20:40]).max() < 10
    assert (np.diff(inside[..., 0], axis=1) > 0).all()
    picture = written(8, 0)
    (hidden,) = hide_regions(picture, np.array([[[0, 0, 32, 64]]]))
    changed = np.asarray(hidden).astype(int) != np.asarray(picture)
    assert changed[:, :32].any() and not changed[:, 32:].any()
    (whole,) = hide_regions(picture, regions_of(SIDE, SIDE, 1))
    assert len(np.unique(np.asarray(whole))) == 1


def test_a_hidden_stretch_is_the_quietest_or_silence():
    sound, begin_s, _ = planted(5, 2)
    spans = stretches_of(len(sound.samples), RATE)
    for fill, most in (("quietest", 0.02), ("silence", 0.0)):
        for (begin, end), clip in zip(spans, hide_stretches(sound, spans, fill), strict=True):
            assert np.abs(clip.samples[begin + 200 : end - 200]).max() <= most
            assert np.array_equal(clip.samples[:begin], sound.samples[:begin])
            assert np.array_equal(clip.samples[end:], sound.samples[end:])


@needs_weights
def test_a_text_has_seconds_alone(ours):
    sound, begin_s, end_s = planted(7, 3)
    found = unibrivl.explain(sound, text="a handwritten seven", model=ours)
    assert in_time(found, begin_s, end_s)
    assert found.regions_RR is found.map_TRR is found.best_pair is found.best_region is None
    told = json.loads(found.to_json())
    assert told["text"] == "a handwritten seven" and told["map"] is None
    scores = ours.similarity(ours.encode_audio(sound), ours.encode_text("a handwritten seven"))
    assert found.score == pytest.approx(scores[0, 0], abs=1e-6)
    assert found.picture().width == 1200


def test_the_picture_shows_heat_where_there_is_heat(tiny, tmp_path):
    sound, *_ = planted(3, 1)
    found = tiny.evidence(sound, written(3, 0), regions=3)
    hot = np.zeros((3, 3))
    hot[2, 2] = 1.0
    shown = Evidence(**{**vars(found), "regions_RR": hot, "seconds_T": np.eye(len(found.seconds_T))[0]})
    page = np.asarray(shown.picture(900)).astype(int)
    red = (page[..., 0] - page[..., 1] > 60) & (page[..., 0] > 180)
    strip, picture = red[:400, 40:580], red[:400, 640:870]
    assert strip.any() and np.nonzero(strip)[1].mean() < 540 / 3
    assert np.nonzero(picture)[1].mean() > 230 / 2
    assert shown.to_json(tmp_path / "why.json") == (tmp_path / "why.json").read_text()
    for size in ((8, 200), (300, 10), (2, 40)):  # whatever the picture's shape
        assert tiny.evidence(sound, written(3, 0).resize(size), regions=min(7, min(size) - 1)).picture(480)


def test_wrong_questions_are_answered_in_words(tiny):
    sound, *_ = planted(3, 1)
    image = written(3, 0)
    with pytest.raises(ValueError, match="pass an image, or text="):
        tiny.evidence(sound)
    with pytest.raises(ValueError, match="not both"):
        tiny.evidence(sound, image, text="a dog")
    with pytest.raises(ValueError, match="takes audio and text"):
        tiny.evidence(sound, text="a dog")
    with pytest.raises(ValueError, match="stretch_s must be"):
        tiny.evidence(sound, image, stretch_s=0)
    with pytest.raises(ValueError, match="set less"):
        tiny.evidence(sound, image, regions=64)
    with pytest.raises(ValueError, match="quietest, silence"):
        tiny.evidence(sound, image, fill="noise")
    with pytest.raises(ValueError, match="at least 480"):
        tiny.evidence(sound, image, regions=1).picture(100)


@pytest.mark.parametrize("duration_s", [0.003, 0.44, 1.0, 5.0, 6.99, 7.0, 59.0, 3600.0])
def test_moments_of_the_drawing_are_round(duration_s):
    moments = round_moments(duration_s)
    assert moments[0] == 0 and 3 <= len(moments) <= 7 and moments[-1] <= duration_s
    assert all(len(f"{moment:g}".strip("0.").replace(".", "")) <= 2 for moment in moments)
