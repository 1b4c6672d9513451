"""The demo's own sounds: the same on every machine, of sound shape, and heard as what they are."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

import unibrivl
from unibrivl.audio.picture import spectrogram_db
from unibrivl.cli.demo_sounds import DIGITS, RATE_HZ, SECONDS, SOUNDS, demo_sound

BY_NAME = {one.name: one for one in SOUNDS}


@pytest.fixture(scope="module")
def waveforms() -> dict:
    return {one.name: one.waveform() for one in SOUNDS}


@cache
def named() -> dict[str, str]:
    """What the embedded model says first of each sound."""
    try:
        folder = unibrivl.embedded()
    except FileNotFoundError:
        pytest.skip("the embedded model's weights are not in this checkout: make embedded VARIANT=open")
    banks = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["label_banks"]
    labels = list(dict.fromkeys(label for bank in banks.values() for label in bank))
    heard = unibrivl.load("embedded").classify([one.waveform() for one in SOUNDS], labels)
    return {one.name: next(iter(found)) for one, found in zip(SOUNDS, heard, strict=True)}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_model_hears_each_sound_as_what_it_is(name):
    assert named()[name] == BY_NAME[name].label


def test_the_table_has_each_sound_once_and_shows_a_handful():
    assert len(BY_NAME) == len(SOUNDS)
    assert 5 <= sum(one.shown for one in SOUNDS) <= 15
    assert {one.name for one in SOUNDS if one.make is None} <= set(DIGITS)


def test_sounds_are_whole_and_never_clip(waveforms):
    for name, waveform in waveforms.items():
        assert np.isfinite(waveform.samples).all() and 0.1 < np.abs(waveform.samples).max() <= 1, name
        if BY_NAME[name].make is not None:
            assert (waveform.rate_hz, waveform.duration_s) == (RATE_HZ, SECONDS)
        else:
            assert waveform.rate_hz == 8000 and 0.3 < waveform.duration_s < 1.5


def test_a_sound_is_had_by_its_name_and_by_no_other(waveforms):
    for name in ("rain", "zero"):
        assert np.array_equal(demo_sound(name).samples, waveforms[name].samples)
    with pytest.raises(ValueError, match="no demo sound 'unicorn': there are .*rain.*zero"):
        demo_sound("unicorn")


def test_a_recipe_gives_the_same_sound_again(waveforms):
    for name, one in BY_NAME.items():
        assert np.array_equal(one.waveform().samples, waveforms[name].samples), name


def test_recipes_do_what_they_say(waveforms):
    """Thirteen thumps a second, four ticks a second, and a dog that is silent at the end."""
    for name, per_second in (("helicopter", 13), ("ticking clock", 4)):
        samples = waveforms[name].samples
        loud = np.abs(samples).reshape(-1, 80).mean(1)  # 200 a second
        spectrum = np.abs(np.fft.rfft(loud - loud.mean()))
        strongest = np.argmax(spectrum[5 : int(20 * SECONDS)]) + 5
        assert strongest / SECONDS % per_second == pytest.approx(0, abs=0.21), name
    dog = waveforms["barking dog"].samples
    assert np.abs(dog[-RATE_HZ:]).max() < 1e-3 < np.abs(dog[: RATE_HZ // 2]).max()


def test_rain_is_brighter_than_the_sea(waveforms):
    means = {}
    for name in ("rain", "sea waves"):
        power = 10 ** (spectrogram_db(waveforms[name].samples) / 10)
        means[name] = (power.mean(1) * np.arange(len(power))).sum() / power.mean(1).sum()
    assert means["rain"] > 2 * means["sea waves"]


def test_words_take_little_room():
    from pathlib import Path

    import unibrivl.cli

    files = list((Path(unibrivl.cli.__file__).parent / "sounds").glob("*.flac"))
    assert {path.stem for path in files} == {one.name for one in SOUNDS if one.make is None}
    assert sum(path.stat().st_size for path in files) < 200_000
