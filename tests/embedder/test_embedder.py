"""The embedder's contract: a sound has one vector, in whatever order, batch and company it comes, with every tower."""

from __future__ import annotations

import io
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_towers import AUDIO, unibrivl_config
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    CLIPImageProcessorPil,
    PeAudioFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from unibrivl.audio import AudioError, Waveform
from unibrivl.data.pictures import PictureError, open_picture
from unibrivl.embedder import NONE_OF_THESE, Calibration, Embedder, FingerprintMismatch, embedder, load, sounds
from unibrivl.modeling import (
    MelEncoderConfig,
    MelEncoderFeatureExtractor,
    SpeechLMFeatureExtractor,
    SpeechLMPhoneTokenizer,
    UniBriVLModel,
    UniBriVLProcessor,
)

RATE = 16000
SECONDS = (0.002, 0.01, 0.03, 0.08, 0.2, 0.35, 0.35, 0.5, 0.55, 0.6)
LEXICON = {"DOG": ["D", "AO1", "G"], "CAT": ["K", "AE1", "T"], "RAIN": ["R", "EY1", "N"]}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
MEL = {key: value for key, value in AUDIO["mel_encoder"].items() if key != "model_type"}
EXTRACTORS = {
    "speechlm": SpeechLMFeatureExtractor,
    "hubert": lambda: Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "mel_encoder": lambda: MelEncoderFeatureExtractor.for_config(MelEncoderConfig(**MEL)),
    "whisper": lambda: WhisperFeatureExtractor(feature_size=16, chunk_length=1),
    "clap": lambda: ClapFeatureExtractor(feature_size=32, sampling_rate=RATE, max_length_s=1, frequency_max=8000,
                                         truncation="rand_trunc", padding="repeatpad"),
    "ast": lambda: ASTFeatureExtractor(num_mel_bins=32, max_length=64),
    "pe_audio": lambda: PeAudioFeatureExtractor(sampling_rate=RATE, hop_length=32),
}  # fmt: skip
TOWERS = [(name, {}) for name in EXTRACTORS] + [("hubert", LAYER_NORM), ("wavlm", {}), ("wavlm", LAYER_NORM)]


def make(tower: str = "speechlm", fields: dict | None = None, seed: int = 0, **settings) -> Embedder:
    torch.manual_seed(seed)
    model = UniBriVLModel(unibrivl_config(tower, "clip", audio_config={**AUDIO[tower], **(fields or {})})).eval()
    processor = UniBriVLProcessor(
        feature_extractor=EXTRACTORS.get(tower, EXTRACTORS["hubert"])(),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        unit_tokenizer=SpeechLMPhoneTokenizer(lexicon=LEXICON) if tower == "speechlm" else None,
    )
    return load(model, processor, **settings)


def noise(seconds: float, seed: int = 0, rate_hz: int = RATE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(max(1, round(seconds * rate_hz)))).astype(np.float32)


@pytest.fixture(scope="module")
def ours() -> Embedder:
    return make(window_s=1.0)


@pytest.mark.parametrize(
    ("tower", "fields"), TOWERS, ids=lambda value: value if isinstance(value, str) else len(value)
)
def test_a_sound_has_one_vector_whatever_its_company(tower, fields):
    ragged = [noise(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    embed = make(tower, fields, window_s=0.6, batch_size=4)
    first = embed.encode_audio(ragged, source_rate_hz=RATE).vectors
    assert np.abs(np.linalg.norm(first, axis=1) - 1).max() < 1e-5
    assert np.abs(first - first[0]).max() > 1e-3  # the towers do hear a difference
    assert np.array_equal(first, embed.encode_audio(ragged, source_rate_hz=RATE).vectors)
    order = np.random.default_rng(1).permutation(len(ragged))
    shuffled = embed.encode_audio([ragged[index] for index in order], source_rate_hz=RATE).vectors
    assert np.array_equal(first[order], shuffled)
    alone = np.concatenate([embed.encode_audio(sound, source_rate_hz=RATE).vectors for sound in ragged])
    assert np.abs(first - alone).max() <= 1e-5
    for batch_size in (1, 7, 32):
        embed.batch_size = batch_size
        assert np.abs(first - embed.encode_audio(ragged, source_rate_hz=RATE).vectors).max() <= 1e-5


def test_towers_in_which_padding_leaks_get_batches_of_one_length():
    ragged = [noise(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    for tower, fields, wanted in (("hubert", {}, "length"), ("hubert", LAYER_NORM, "padding"),
                                  ("pe_audio", {}, "length"), ("whisper", {}, "padding")):  # fmt: skip
        embed = make(tower, fields, window_s=0.6)
        assert embed.matcher.batch_by == wanted
    leaking = make("hubert", window_s=0.6)
    batched = leaking.encode_audio(ragged, source_rate_hz=RATE).vectors
    leaking.matcher.batch_by = "padding"
    assert np.abs(batched - leaking.encode_audio(ragged, source_rate_hz=RATE).vectors).max() > 1e-3


def test_batches_end_at_their_number_their_seconds_and_their_padding():
    def batches(lengths, *limits):
        pieces = [sounds.Piece(0, np.zeros(length), 0, 1) for length in lengths]
        return list(sounds.batches(pieces, *limits))

    assert batches((3, 5, 3, 3, 5), 2, 100, "length") == [[1, 4], [0, 2], [3]]
    assert batches((3, 5, 3, 3, 5), 2, 100, "padding") == [[1, 4], [0, 2], [3]]
    nearly = (100, 80, 70, 50, 40)  # half a second of padding is 50 samples
    assert batches(nearly, 16, 100, "padding") == [[0, 1, 2], [3, 4]]
    assert batches(nearly, 16, 100, "length") == [[0], [1], [2], [3], [4]]
    assert batches((100, 100, 100, 10), 16, 100, "padding", 2.0) == [[0, 1], [2], [3]]


def test_windows_longer_than_the_extractor_hears_are_refused_and_never_the_default():
    assert make("whisper").window_s == 1.0
    assert make("speechlm").window_s == 10.0
    for tower in ("whisper", "clap", "ast"):
        with pytest.raises(ValueError, match="pass window_s of at most"):
            make(tower, window_s=30.0)
    with pytest.raises(ValueError, match="positive"):
        make(window_s=0)


@pytest.mark.parametrize("tower", ["speechlm", "whisper"])
def test_of_a_long_sound_every_second_is_heard(tower):
    embed = make(tower, window_s=1.0)
    sound = noise(3.5)
    windows = embed.encode_audio(sound, source_rate_hz=RATE, timestamps=True)
    assert windows.times == ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 3.5))
    assert windows.ids == ("#0",) * 4
    mean = (windows.vectors * np.array([[1], [1], [1], [0.5]])).sum(0)
    whole = embed.encode_audio(sound, source_rate_hz=RATE).vectors[0]
    assert np.abs(whole - mean / np.linalg.norm(mean)).max() < 1e-6
    for second in range(4):
        changed = sound.copy()
        changed[second * RATE : (second + 1) * RATE] *= -0.3
        changed[second * RATE : (second + 1) * RATE : 7] = 0.5
        assert np.abs(embed.encode_audio(changed, source_rate_hz=RATE).vectors[0] - whole).max() > 1e-4
    overlapping = make(tower, window_s=1.0, hop_s=0.5).encode_audio(sound, source_rate_hz=RATE, timestamps=True)
    assert [begin for begin, _ in overlapping.times] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_whatever_a_sound_comes_in(ours, tmp_path):
    import soundfile

    sound = np.round(noise(0.5) * 32768).clip(-32768, 32767).astype(np.int16)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, RATE)
    floats = sound / np.float32(32768)
    content = path.read_bytes()
    forms = [path, str(path), content, io.BytesIO(content), Waveform(floats, RATE)]
    forms.append({"array": floats, "sampling_rate": RATE})
    wanted = ours.encode_audio(sound, source_rate_hz=RATE).vectors
    for form in forms:
        one = ours.encode_audio(form)
        assert one.vectors.shape == wanted.shape
        assert np.array_equal(one.vectors, wanted)
    assert ours.encode_audio([path, path.read_bytes()]).ids == (str(path), "#1")
    assert ours.encode_audio([path], ids=["dog"]).ids == ("dog",)


def test_what_cannot_be_heard_raises_or_is_collected(ours, tmp_path):
    good = Waveform(noise(0.3), RATE)
    broken = np.array([0.1, np.nan, 0.2], np.float32)
    for source in (b"junk", str(tmp_path / "nowhere.wav")):
        with pytest.raises((AudioError, OSError)):
            ours.encode_audio([good, source])
    with pytest.raises(AudioError):
        ours.encode_audio([broken], source_rate_hz=RATE)
    found = ours.encode_audio([good, b"junk", str(tmp_path / "nowhere.wav")], on_error="collect")
    assert found.ids == ("#0",)
    assert [failure.id for failure in found.failures] == ["#1", str(tmp_path / "nowhere.wav")]
    assert all(failure.error for failure in found.failures)
    nothing = ours.encode_audio([b"junk"], on_error="collect")
    assert len(nothing) == 0
    assert ours.similarity(nothing, found).shape == (0, 1)
    with pytest.raises(ValueError, match="'raise' or 'collect'"):
        ours.encode_audio(good, on_error="ignore")
    with pytest.raises(ValueError, match="the list is empty"):
        ours.encode_audio([])
    with pytest.raises(ValueError, match="2 ids for 1"):
        ours.encode_audio(good, ids=["a", "b"])
    with pytest.raises(AudioError):  # an array has no rate of its own
        ours.encode_audio(noise(0.3))


def test_decoding_runs_beside_the_model(ours, monkeypatch):
    monkeypatch.setattr(sounds, "FIRST_GROUP_SECONDS", 0.3)
    monkeypatch.setattr(sounds, "GROUP_SECONDS", 0.6)
    decoding, overlaps = [0], []
    load_audio, encode = sounds.load_audio, ours.matcher.encode_audio

    def slow_load(*args, **kwargs):
        decoding[0] += 1
        time.sleep(0.02)
        decoding[0] -= 1
        return load_audio(*args, **kwargs)

    def slow_encode(clips):
        time.sleep(0.01)
        overlaps.append(decoding[0])
        return encode(clips)

    monkeypatch.setattr(sounds, "load_audio", slow_load)
    monkeypatch.setattr(ours.matcher, "encode_audio", slow_encode)
    ours.encode_audio([noise(0.3, seed) for seed in range(10)], source_rate_hz=RATE)
    assert max(overlaps) > 0


def test_memory_is_bounded_and_no_thread_outlives_an_error(monkeypatch):
    monkeypatch.setattr(sounds, "GROUP_SECONDS", 2.0)
    begun = []
    load_audio = sounds.load_audio

    def counted(source, **kwargs):
        begun.append(1)
        return load_audio(source, **kwargs)

    monkeypatch.setattr(sounds, "load_audio", counted)
    sources = [noise(1.0, seed) for seed in range(40)]
    groups = sounds.groups(sources, range(40), RATE, 1.0, None, 2, {"source_rate_hz": RATE})
    heard = []
    for pieces, _ in groups:
        heard += [piece.source for piece in pieces]
        time.sleep(0.02)
        assert len(pieces) <= 2
        assert len(begun) <= len(heard) + 2 + 2  # what lies ready, and what the two threads are at
        if len(heard) >= 20:
            break
    assert heard == list(range(20))
    groups.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unibrivl-decode")]


def test_the_bar_shows_only_where_asked(ours, capsys):
    ours.encode_audio([noise(0.1)] * 3, source_rate_hz=RATE)
    assert capsys.readouterr().err == ""
    ours.encode_audio([noise(0.1)] * 3, source_rate_hz=RATE, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_classify(ours):
    clips = [Waveform(noise(0.4, seed), RATE) for seed in range(2)]
    found = ours.classify(clips, ["dog", "cat", "dog"])
    assert [set(row) for row in found] == [{"dog", "cat"}] * 2
    audio, texts = ours.encode_audio(clips), ours.encode_text(["dog", "cat"])
    logits = ours.similarity(audio, texts) / ours.matcher.model.config.temperature
    wanted = torch.from_numpy(logits).double().softmax(1)
    for row, expected in zip(found, wanted, strict=True):
        assert sum(row.values()) == pytest.approx(1, abs=1e-12)
        assert row["dog"] == pytest.approx(float(expected[0]), abs=1e-5)
        assert list(row.values()) == sorted(row.values(), reverse=True)
    assert ours.classify(audio, ["dog", "cat"], template="rain {label}") != found
    for labels, template in (
        (["dog"], "{label}"),
        (["dog", "dog"], "{label}"),
        ("dog", "{label}"),
        (["dog", "cat"], "x"),
    ):
        with pytest.raises(ValueError):
            ours.classify(audio, labels, template=template)


def test_none_of_these(ours):
    audio = ours.encode_audio(noise(0.4), source_rate_hz=RATE)
    calibrated = Embedder(ours.matcher, window_s=1.0, calibration=Calibration(10.0, none_logit=1000.0))
    row = calibrated.classify(audio, ["dog"])[0]
    assert list(row) == [NONE_OF_THESE, "dog"]
    assert row[NONE_OF_THESE] == pytest.approx(1)
    with pytest.raises(ValueError, match="leave that label out"):
        calibrated.classify(audio, ["dog", NONE_OF_THESE])


def test_rank(ours):
    pictures = ours.encode_image(
        [np.full((20, 30, 3), value, np.uint8) for value in (0, 90, 250)], ids=["a", "b", "c"]
    )
    found = ours.rank(Waveform(noise(0.4), RATE), pictures)
    assert {name for name, _ in found[0]} == {"a", "b", "c"}
    assert [score for _, score in found[0]] == sorted((score for _, score in found[0]), reverse=True)
    assert ours.rank(Waveform(noise(0.4), RATE), pictures, top=1) == [found[0][:1]]


def test_texts(ours):
    together = ours.encode_text(["dog", "cat and dog", "rain"]).vectors
    alone = np.concatenate([ours.encode_text(text).vectors for text in ("dog", "cat and dog", "rain")])
    assert np.abs(together - alone).max() <= 1e-5
    for texts in ([], [""], ["dog", 3]):
        with pytest.raises(ValueError):
            ours.encode_text(texts)


def test_pictures_in_every_form(ours, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    picture = Image.fromarray(pixels)
    path = tmp_path / "a.png"
    picture.save(path)
    wanted = ours.encode_image(picture).vectors
    for form in (path, str(path), path.read_bytes(), pixels, torch.from_numpy(pixels), io.BytesIO(path.read_bytes())):
        assert np.array_equal(ours.encode_image(form).vectors, wanted)
    others = [Image.fromarray(np.roll(pixels, shift, 0)) for shift in range(20)]
    several = ours.encode_image(others).vectors
    assert np.array_equal(several[::-1], ours.encode_image(others[::-1]).vectors)
    assert np.abs(several - np.concatenate([ours.encode_image(one).vectors for one in others])).max() <= 1e-5


def test_a_turned_picture_is_set_upright():
    picture = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # a camera held upright: turn by a quarter
    picture.save(file, "PNG", exif=exif)
    assert open_picture(file.getvalue()).size == (4, 6)
    assert np.array_equal(np.asarray(open_picture(file.getvalue())), np.asarray(picture.rotate(-90, expand=True)))


def test_pictures_that_cannot_be_used(ours, tmp_path, monkeypatch):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
    for source in (
        tmp_path / "broken.png",
        b"",
        file.getvalue()[:600],
        np.zeros((3, 4, 4), np.float32),
        torch.rand(4, 4, 3),
    ):
        with pytest.raises(PictureError):
            ours.encode_image([source])
    found = ours.encode_image([file.getvalue(), b"junk", tmp_path / "nowhere.png"], on_error="collect")
    assert (len(found), len(found.failures)) == (1, 2)
    monkeypatch.setattr("unibrivl.data.pictures.MOST_PIXELS", 1000)
    with pytest.raises(PictureError, match="64 x 64 pixels are more"):
        ours.encode_image(file.getvalue())


def test_vectors_of_two_models_do_not_meet(ours):
    other = make(seed=1, window_s=1.0)
    with pytest.raises(FingerprintMismatch):
        ours.similarity(ours.encode_audio(noise(0.2), source_rate_hz=RATE), other.encode_text("dog"))


def test_the_fingerprint_changes_with_what_decides_a_vector(ours):
    def with_part(**parts) -> str:
        processor = ours.matcher.processor
        given = {name: getattr(processor, name) for name in ("feature_extractor", "image_processor", "unit_tokenizer")}
        return load(ours.matcher.model, UniBriVLProcessor(**given | parts), window_s=1.0).fingerprint

    larger = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32})
    found = [
        ours.fingerprint,
        make(seed=1, window_s=1.0).fingerprint,
        with_part(feature_extractor=SpeechLMFeatureExtractor(do_normalize=True)),
        with_part(image_processor=larger),
        with_part(unit_tokenizer=SpeechLMPhoneTokenizer(lexicon={"DOG": ["D", "AO1", "G"]})),
        load(ours.matcher.model, ours.matcher.processor, window_s=2.0).fingerprint,
        load(ours.matcher.model, ours.matcher.processor, window_s=1.0, hop_s=0.5).fingerprint,
        load(ours.matcher.model, ours.matcher.processor, window_s=1.0, space="shared").fingerprint,
    ]
    assert len(set(found)) == len(found)
    assert with_part() == ours.fingerprint
    assert load(ours.matcher.model, ours.matcher.processor, window_s=1, batch_size=3).fingerprint == ours.fingerprint


@pytest.mark.parametrize("tower", ["speechlm", "whisper", "hubert"])
def test_the_fingerprint_stays_through_save_and_load(tower, tmp_path):
    embed = make(tower, window_s=0.5)
    for folder in ("here", "there"):
        embed.matcher.model.save_pretrained(tmp_path / folder)
        embed.matcher.processor.save_pretrained(tmp_path / folder)
        again = load(tmp_path / folder, window_s=0.5)
        assert again.fingerprint == embed.fingerprint
    sound = Waveform(noise(0.4), RATE)
    assert np.array_equal(again.encode_audio(sound).vectors, embed.encode_audio(sound).vectors)


def test_a_model_in_training_mode_is_refused(ours):
    ours.matcher.model.train()
    try:
        with pytest.raises(RuntimeError, match=r"model\.eval"):
            ours.encode_text("dog")
    finally:
        ours.matcher.model.eval()


def test_settings_and_models_that_make_no_sense(ours):
    with pytest.raises(ValueError, match="at least 1"):
        Embedder(ours.matcher, batch_size=0)
    with pytest.raises(ValueError, match="its processor too"):
        load(ours.matcher.model)
    with pytest.raises(ValueError, match="one space"):
        load(SimpleNamespace(config=SimpleNamespace(model_type="bert")))
    assert embedder.WINDOW_S == 10.0
