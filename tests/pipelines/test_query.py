"""What a pipeline listens to: every kind of source, long sounds, mixtures, texts, windows and loudness."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion
from tiny_towers import unibrivl_config

import unibrivl
from unibrivl.modeling import MelEncoderConfig, MelEncoderFeatureExtractor, UniBriVLMatcher, UniBriVLModel
from unibrivl.pipelines.hearing_unibrivl import as_sounds, embed_sounds
from unibrivl.pipelines.query_unibrivl import encode_query

RATE_HZ = 16000


@pytest.fixture(scope="module")
def matcher() -> UniBriVLMatcher:
    return UniBriVLMatcher(*tiny_diffusion.matcher(reads="native"))


@pytest.fixture
def counted(matcher, monkeypatch) -> dict[str, int]:
    """How many clips and texts the matcher was asked for."""
    asked = {"audio": 0, "text": 0}
    for kind in asked:
        original = getattr(matcher, f"encode_{kind}")

        def encode(things, *, _kind=kind, _original=original, **kwargs):
            asked[_kind] += len(things)
            return _original(things, **kwargs)

        monkeypatch.setattr(matcher, f"encode_{kind}", encode)
    return asked


def sound(seed: int = 0, seconds: float = 0.5) -> np.ndarray:
    return tiny_diffusion.sound(seed, seconds)


def wav(samples: np.ndarray, rate_hz: int = RATE_HZ) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def heard(matcher, samples: np.ndarray) -> torch.Tensor:
    return encode_query(matcher, samples, sampling_rate=RATE_HZ).embeds


# ---- sources


def test_every_kind_of_source_is_the_same_sound(matcher, tmp_path):
    samples = sound()
    path = tmp_path / "dog.wav"
    path.write_bytes(wav(samples))
    sources = [
        path,
        str(path),
        wav(samples),
        io.BytesIO(wav(samples)),
        (RATE_HZ, samples),
        (RATE_HZ, samples.tolist()),
    ]
    sources += [unibrivl.load_audio(path), {"array": samples, "sampling_rate": RATE_HZ}]
    expected = encode_query(matcher, torch.from_numpy(samples), sampling_rate=RATE_HZ)
    for source in sources:
        found = encode_query(matcher, source)
        assert torch.equal(found.embeds, expected.embeds), type(source)
        assert found.hashes == expected.hashes
    assert torch.equal(encode_query(matcher, samples.tolist(), sampling_rate=RATE_HZ).embeds, expected.embeds)


def test_a_pair_may_have_time_first_as_gradio_has_it(matcher):
    stereo = np.stack([sound(1), sound(1)], axis=1)
    found = encode_query(matcher, (RATE_HZ, stereo))
    torch.testing.assert_close(found.embeds, heard(matcher, sound(1)))


def test_other_rates_are_resampled(matcher):
    fast = unibrivl.load_audio(wav(sound()), rate_hz=24000)
    found = encode_query(matcher, (24000, fast.samples))
    assert found.told["sounds"][0]["rate_hz"] == RATE_HZ
    assert float((found.embeds * heard(matcher, sound())).sum()) > 0.99


def test_a_list_is_as_each_alone(matcher):
    together = encode_query(matcher, [sound(1), sound(2, 0.7), sound(3)], sampling_rate=RATE_HZ)
    alone = torch.cat([heard(matcher, one) for one in (sound(1), sound(2, 0.7), sound(3))])
    torch.testing.assert_close(together.embeds, alone, atol=1e-6, rtol=0)
    assert len(set(together.hashes)) == len(together) == 3


def test_a_long_sound_is_what_the_embedder_makes_of_it(matcher):
    long = sound(4, 23.0)
    embedder = unibrivl.load(matcher.model, matcher.processor)
    expected = embedder.encode_audio(long, source_rate_hz=RATE_HZ).vectors
    np.testing.assert_allclose(heard(matcher, long).numpy(), expected, atol=1e-6)


def test_a_sound_is_encoded_once_and_so_is_a_text(matcher, counted):
    encode_query(matcher, [sound(1), sound(2)], sampling_rate=RATE_HZ, text=["night", "night"], mix=None)
    assert counted == {"audio": 2, "text": 1}


def test_receipts_get_names_and_digests_and_no_folders(matcher, tmp_path):
    path = tmp_path / "dog.wav"
    path.write_bytes(wav(sound()))
    query = encode_query(matcher, path)
    assert query.told["sounds"][0]["name"] == "dog.wav"
    assert query.told["sounds"][0]["sha256"] == query.hashes[0]
    assert str(tmp_path) not in repr(query.told)


# ---- embeddings instead of sounds


def test_embeddings_stand_for_sounds(matcher):
    embeds = heard(matcher, sound())
    raw = 3 * embeds[0]
    for given in (raw, raw.numpy(), raw.tolist(), raw[None]):
        torch.testing.assert_close(encode_query(matcher, audio_embeds=given).embeds, embeds)
    own = unibrivl.load(matcher.model, matcher.processor).encode_audio(sound(), source_rate_hz=RATE_HZ)
    torch.testing.assert_close(encode_query(matcher, audio_embeds=own).embeds, embeds)


# ---- combinations


def test_a_mixture_is_the_weighted_sum_of_unit_vectors(matcher):
    query = encode_query(matcher, [sound(1), sound(2)], sampling_rate=RATE_HZ, mix=[1, -0.5])
    expected = torch.nn.functional.normalize(heard(matcher, sound(1)) - 0.5 * heard(matcher, sound(2)), dim=-1)
    torch.testing.assert_close(query.embeds, expected)
    assert len(query) == len(query.hashes) == 1
    assert query.told["mix"] == [1, -0.5]


def test_a_text_moves_a_sound_by_its_share(matcher):
    text = torch.nn.functional.normalize(matcher.encode_text(["at night"], against="image"), dim=-1).detach()
    plain = heard(matcher, sound())
    for weight, expected in ((0.5, plain + text), (0.0, plain), (1.0, text), (-0.5, 3 * plain - text)):
        query = encode_query(matcher, sound(), sampling_rate=RATE_HZ, text="at night", text_weight=weight)
        torch.testing.assert_close(query.embeds, torch.nn.functional.normalize(expected, dim=-1))


def test_texts_and_weights_may_differ_by_sound(matcher):
    query = encode_query(
        matcher, [sound(1), sound(2)], sampling_rate=RATE_HZ, text=["snow", "night"], text_weight=[0.2, 0.8]
    )
    for row, (seed, text, weight) in enumerate(((1, "snow", 0.2), (2, "night", 0.8))):
        alone = encode_query(matcher, sound(seed), sampling_rate=RATE_HZ, text=text, text_weight=weight)
        torch.testing.assert_close(query.embeds[row : row + 1], alone.embeds, atol=1e-6, rtol=0)


# ---- windows


def test_a_storyboard_has_a_query_for_each_window_that_sounds(matcher):
    samples = np.concatenate([sound(1, 10.0), np.zeros(10 * RATE_HZ, np.float32), sound(2, 3.0)])
    query = encode_query(matcher, samples, sampling_rate=RATE_HZ, windows=True)
    assert query.times == [(0.0, 10.0), (20.0, 23.0)]
    expected = torch.cat([heard(matcher, sound(1, 10.0)), heard(matcher, sound(2, 3.0))])
    torch.testing.assert_close(query.embeds, expected, atol=1e-6, rtol=0)


def test_windows_are_as_long_as_the_matcher_hears(matcher, monkeypatch):
    monkeypatch.setattr(matcher, "longest_s", 2.0)
    query = encode_query(matcher, sound(1, 5.0), sampling_rate=RATE_HZ, windows=True)
    assert query.times == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]


# ---- loudness


def loud_matcher(normalises: bool) -> UniBriVLMatcher:
    """A matcher that hears loudness: a mel encoder, or SpeechLM in the form of Large with or without normalising."""
    if not normalises:
        torch.manual_seed(5)
        model = UniBriVLModel(unibrivl_config("mel_encoder", "clip")).eval()
        _, processor = tiny_diffusion.matcher()
        settings = MelEncoderConfig(**{**model.config.audio_config.to_dict()})
        processor.feature_extractor = MelEncoderFeatureExtractor.for_config(settings)
        return UniBriVLMatcher(model, processor)
    model, processor = tiny_diffusion.matcher()
    processor.feature_extractor.do_normalize = True
    return UniBriVLMatcher(model, processor)


@pytest.mark.parametrize("normalises", [False, True])
def test_a_sweep_of_gains_reaches_the_network(normalises):
    matcher = loud_matcher(normalises)
    fed = []
    original = matcher.model.get_audio_features
    matcher.model.get_audio_features = lambda **batch: fed.extend(batch.values()) or original(**batch)
    query = encode_query(matcher, sound(), sampling_rate=RATE_HZ, volume=[-20, 0, 10])
    assert query.labels == ["-20 dB", "0 dB", "+10 dB"]
    assert query.told["volume"] == [-20, 0, 10]
    assert len(set(query.hashes)) == 3
    plain = encode_query(matcher, sound(), sampling_rate=RATE_HZ)
    torch.testing.assert_close(query.embeds[1:2], plain.embeds)
    if normalises:  # by its own loudness first, and then turned
        waves = {
            round(float(one.square().mean().sqrt()), 2) for value in fed if value.is_floating_point() for one in value
        }
        assert waves == {0.1, 1.0, 3.16}
    naive = encode_query(matcher, (10 * sound()).astype(np.float32), sampling_rate=RATE_HZ)
    kept = float((naive.embeds * plain.embeds).sum())
    assert kept > 0.999999 if normalises else kept < 0.9999  # the sweep is real where turning the file up is not


def test_nothing_of_the_matcher_changes_by_a_sweep():
    matcher = loud_matcher(normalises=True)
    encode_query(matcher, sound(), sampling_rate=RATE_HZ, volume=[-6, 6])
    assert matcher.processor.feature_extractor.do_normalize


def test_a_matcher_that_hears_no_loudness_is_told_of(matcher, caplog):
    encode_query(matcher, 0.2 * sound(), sampling_rate=RATE_HZ, volume=[0, 6])
    assert "hardly hears loudness" in caplog.text


def test_an_extractor_with_a_fixed_shift_is_left_alone():
    """AST's do_normalize subtracts one number from every spectrogram: there is nothing to undo."""
    from transformers import ASTFeatureExtractor

    from unibrivl.pipelines.hearing_unibrivl import normaliser

    matcher = loud_matcher(normalises=True)
    assert normaliser(matcher) is matcher.processor.feature_extractor
    matcher.processor.feature_extractor = ASTFeatureExtractor()
    assert normaliser(matcher) is None


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({}, "pass audio= or audio_embeds="),
        ({"audio": sound(), "audio_embeds": torch.ones(44)}, "one of the two"),
        ({"audio": sound()}, "pass sampling_rate="),
        ({"audio": []}, "empty list"),
        ({"audio": np.zeros(0, np.float32), "sampling_rate": RATE_HZ}, "no samples"),
        ({"audio": np.zeros(8000, np.float32), "sampling_rate": RATE_HZ}, "silent"),
        ({"audio": np.full(8000, np.nan, np.float32), "sampling_rate": RATE_HZ}, "NaN"),
        ({"audio": b"not a sound", "sampling_rate": RATE_HZ}, "not a sound"),
        ({"audio": wav(sound()), "sampling_rate": 8000}, "contradicts"),
        ({"audio": [sound(1), sound(2)], "mix": [1]}, "1 weights for 2 sounds"),
        ({"audio": [sound(1), sound(2)], "mix": [0, 0]}, "only zeros"),
        ({"audio": [sound(1), sound(1)], "mix": [1, -1]}, "cancel"),
        ({"audio": [sound(1), sound(2)], "mix": [1, float("inf")]}, "finite"),
        ({"audio": sound(), "mix": [1], "windows": True}, "together"),
        ({"audio": [sound(1), sound(2)], "windows": True}, "storyboard of one sound"),
        ({"audio": [sound(1), sound(2)], "volume": [0, 6]}, "sweeps one sound"),
        ({"audio": sound(), "volume": []}, "decibels"),
        ({"audio": sound(), "volume": [0, float("nan")]}, "decibels"),
        ({"audio": sound(), "volume": [-3000]}, "120 dB"),
        ({"audio": sound(), "text": "  "}, "something in it"),
        ({"audio": sound(), "text": "night", "text_weight": 2}, "between -1 and 1"),
        ({"audio": [sound(1), sound(2)], "text": ["a", "b", "c"]}, "3 of text for 2"),
        ({"audio_embeds": torch.ones(7)}, "7 numbers"),
        ({"audio_embeds": torch.zeros(44)}, "zeros"),
        ({"audio_embeds": torch.full((44,), torch.nan)}, "NaN"),
        ({"audio_embeds": torch.ones(44), "volume": [0]}, "needs samples"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_cannot_be_heard_is_refused_with_the_fix(matcher, arguments, what):
    if "audio" in arguments and arguments.get("audio") is not None and what != "pass sampling_rate=":
        arguments = {"sampling_rate": RATE_HZ, **arguments}
    with pytest.raises(ValueError, match=what):
        encode_query(matcher, **arguments)


def test_text_needs_a_matcher_that_reads(matcher, monkeypatch):
    monkeypatch.setattr(matcher, "kinds", ("audio", "image"))
    with pytest.raises(ValueError, match="cannot read"):
        encode_query(matcher, sound(), sampling_rate=RATE_HZ, text="night")


# ---- where only the files are


def test_without_the_package_arrays_at_the_right_rate_are_heard(matcher, monkeypatch):
    expected = heard(matcher, sound())
    monkeypatch.setitem(sys.modules, "unibrivl.audio", None)
    torch.testing.assert_close(encode_query(matcher, (RATE_HZ, sound())).embeds, expected)
    tensor = torch.from_numpy(sound())
    torch.testing.assert_close(encode_query(matcher, [tensor], sampling_rate=RATE_HZ).embeds, expected)
    for source in ("dog.wav", (8000, sound())):
        with pytest.raises(ImportError, match="pip install"):
            encode_query(matcher, source)
    with pytest.raises(ValueError, match="finite"):
        encode_query(matcher, (RATE_HZ, np.full(100, np.nan, np.float32)))


def test_pieces_of_unlike_length_share_no_batch(matcher):
    """Whatever company a sound comes in, it is the same sound."""
    sounds = as_sounds(matcher, [sound(seed, 0.3 + 0.1 * seed) for seed in range(4)], RATE_HZ)
    together = embed_sounds(matcher, sounds)
    alone = torch.cat([embed_sounds(matcher, [one]) for one in sounds])
    assert torch.equal(together, alone)
