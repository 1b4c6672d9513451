"""CLAP and CAV-MAE as matchers, by transformers' own forward and by our model's; and all families in one benchmark."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_brewclip
import tiny_cavmae
import tiny_cavtmae
import tiny_datasets
import torch
from PIL import Image
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from unibrivl.cli.encoders import named_encoder
from unibrivl.embedded import embedded
from unibrivl.embedder import load
from unibrivl.evaluation import evaluate
from unibrivl.modeling import (
    CAVMAEFeatureExtractor,
    CAVMAEImageProcessor,
    CAVMAEMatcher,
    CAVMAEModel,
    CLAPMatcher,
    Matcher,
    UniBriVLProcessor,
)

RATE_HZ = 16_000


def clap() -> tuple[ClapModel, ClapProcessor]:
    torch.manual_seed(0)
    words = tiny_cavtmae.tokenizer()
    text = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 40}  # fmt: skip
    audio = {"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4],
             "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "hidden_size": 16,
             "projection_dim": 12, "num_hidden_layers": 2}  # fmt: skip
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).eval()
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=RATE_HZ, max_length_s=1, fft_window_size=256,
                                     hop_length=250, frequency_max=8000, truncation="rand_trunc")  # fmt: skip
    return model, ClapProcessor(extractor, words)


def cavmae() -> tuple[CAVMAEModel, UniBriVLProcessor]:
    processor = UniBriVLProcessor(
        feature_extractor=CAVMAEFeatureExtractor(num_mel_bins=32, max_length=64),
        image_processor=CAVMAEImageProcessor(size=32, crop_size=32),
    )
    return tiny_cavmae.build(CAVMAEModel), processor


@pytest.fixture
def clips() -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [0.1 * chance.standard_normal(size).astype(np.float32) for size in (16000, 9000, 5000)]


def test_clap_gives_the_vectors_of_transformers(clips):
    model, processor = clap()
    embedder = load(model, processor)
    assert isinstance(embedder.matcher, CLAPMatcher) and isinstance(embedder.matcher, Matcher)
    assert embedder.window_s == 1.0 and embedder.matcher.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    inputs = processor.feature_extractor(clips, sampling_rate=RATE_HZ, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]), dtype=torch.bool)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(model.get_audio_features(**inputs).pooler_output, dim=-1)
        words = processor.tokenizer(["dog", "a dog barks"], padding=True, return_tensors="pt")
        read = torch.nn.functional.normalize(model.get_text_features(**words).pooler_output, dim=-1)
    found = embedder.encode_audio(clips, source_rate_hz=RATE_HZ)
    assert np.allclose(found.vectors, wanted.numpy(), atol=1e-5)
    assert np.allclose(embedder.encode_text(["dog", "a dog barks"]).vectors, read.numpy(), atol=1e-5)
    alone = embedder.encode_audio(clips[1], source_rate_hz=RATE_HZ)
    assert np.allclose(alone.vectors[0], found.vectors[1], atol=1e-6)
    with pytest.raises(ValueError, match="encodes audio, text, not image"):
        embedder.encode_image([Image.new("RGB", (32, 32))])


def test_a_long_sound_is_heard_in_windows_and_not_by_chance(clips):
    embedder = load(*clap())
    long = np.concatenate([clips[0], clips[1]])
    first, again = (embedder.encode_audio(long, source_rate_hz=RATE_HZ).vectors for _ in range(2))
    assert np.array_equal(first, again)
    with pytest.raises(ValueError, match="longer"):
        load(*clap(), window_s=2.0)


def test_cavmae_compares_the_means_of_its_tokens(clips):
    model, processor = cavmae()
    embedder = load(model, processor)
    assert isinstance(embedder.matcher, CAVMAEMatcher) and embedder.matcher.logit_scale == pytest.approx(20)
    pictures = [Image.new("RGB", (40, 36), shade) for shade in ((200, 0, 0), (0, 0, 200))]
    heard = embedder.encode_audio(clips[2], source_rate_hz=RATE_HZ)
    seen = embedder.encode_image(pictures)
    with torch.no_grad():
        batch = processor(audio=[clips[2]], sampling_rate=RATE_HZ, images=pictures[:1], return_tensors="pt")
        tokens = model(batch["input_values"], batch["pixel_values"])
    unit = torch.nn.functional.normalize
    assert np.allclose(heard.vectors, unit(tokens.audio_embeds, dim=-1).numpy(), atol=1e-5)
    assert np.allclose(seen.vectors[:1], unit(tokens.image_embeds, dim=-1).numpy(), atol=1e-5)
    assert embedder.similarity(heard, seen).shape == (1, 2)
    with pytest.raises(ValueError, match="encodes audio, image, not text"):
        embedder.encode_text(["dog"])


def saved(name: str, folder) -> str:
    """A tiny model of a family and what prepares its input, in a folder."""
    if name == "embedded":
        return str(embedded())
    if name == "brewclip":
        whisper, _ = tiny_brewclip.save_backbones(folder.parent)
        things = (tiny_brewclip.build(asr_name=whisper), tiny_brewclip.processor())
    else:
        things = {"clap": clap, "cavmae": cavmae, "cavtmae": lambda: (tiny_cavtmae.build(), tiny_cavtmae.processor())}[
            name
        ]()
    for one in things:
        one.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["clap", "cavmae", "cavtmae", "brewclip", "embedded"])
def test_every_family_is_scored_by_the_same_command(name, tmp_path):
    root = tmp_path / "rain"
    for place in range(2):
        tiny_datasets.sound(root / "rain" / f"{place}.wav", place)
    encoder = named_encoder(saved(name, tmp_path / "model"), "cpu")
    scores = evaluate("robustness", encoder, root, tmp_path / "out", progress=False)
    assert len(scores) == 16 and all(-1 <= one.value <= 1.0001 for one in scores)
    assert scores[0].fingerprint == encoder.fingerprint
