"""Matchers: UniBriVL, PE-AV of the real class at tiny size, and CLIP, behind one protocol; pictures with gradients."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_towers import AUDIO, WIDE, unibrivl_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    PeAudioFeatureExtractor,
    PreTrainedTokenizerFast,
    ViTConfig,
)

from unibrivl.embedder import Embeddings, FingerprintMismatch, load
from unibrivl.modeling import (
    BriVLImageProcessor,
    FramePreparation,
    Matcher,
    SpeechLMFeatureExtractor,
    UniBriVLMatcher,
    UniBriVLModel,
    UniBriVLProcessor,
)
from unibrivl.modeling.matcher_unibrivl import fewest_samples
from unibrivl.modeling.pictures_unibrivl import as_pixel_values

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "dog", "barks", "rain"]


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[SEP]", **names)


def clip_pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def photo(seed: int = 0, height: int = 40, width: int = 50) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pe_av():
    """The real class; its vision tower is a ViT, since the one of the published models needs timm."""
    towers = {**WIDE, "num_hidden_layers": 2, "num_key_value_heads": 4, "head_dim": 8}
    vision = ViTConfig(**WIDE, num_hidden_layers=1, image_size=32, patch_size=8, num_labels=20)
    try:
        config = transformers.PeAudioVideoConfig(
            text_config={"model_type": "modernbert", **WIDE, "num_hidden_layers": 2, "vocab_size": 64, **TOKENS},
            audio_video_config=transformers.PeAudioVideoEncoderConfig(
                audio_config=AUDIO["pe_audio"],
                video_config=transformers.PeVideoEncoderConfig(vision_config=vision, **towers),
                **towers,
            ),
        )
    except ImportError as error:
        pytest.skip(f"this transformers builds no PE-AV configuration without timm: {error}")
    torch.manual_seed(0)
    model = transformers.PeAudioVideoModel(config).eval()
    with torch.no_grad():
        model.audio_model.text_audio_logit_scale.fill_(10.0)
    parts = SimpleNamespace(feature_extractor=PeAudioFeatureExtractor(hop_length=32), tokenizer=tokenizer())
    return load(model, parts, window_s=0.5)


def test_pe_av_gives_the_vectors_of_its_own_forward(pe_av):
    clip = (0.1 * np.random.default_rng(0).standard_normal(4800)).astype(np.float32)
    model, parts = pe_av.matcher.model, pe_av.matcher.processor
    frames = as_pixel_values(photo(), parts.image_processor)
    texts = parts.tokenizer(["a dog"], return_tensors="pt")
    with torch.no_grad():
        wanted = model(
            input_ids=texts.input_ids,
            attention_mask=texts.attention_mask,
            pixel_values_videos=frames[:, None],
            **parts.feature_extractor([clip], sampling_rate=48000, return_tensors="pt"),
        )
    found = {
        "audio_embeds": pe_av.encode_audio(clip, source_rate_hz=48000),
        "video_embeds": pe_av.encode_image(photo()),
        "text_audio_embeds": pe_av.encode_text("a dog"),
        "text_video_embeds": pe_av.encode_text("a dog", against="image"),
    }
    for name, embeddings in found.items():
        expected = torch.nn.functional.normalize(getattr(wanted, name), dim=-1).numpy()
        assert np.abs(embeddings.vectors - expected).max() <= 1e-5, name
    assert frames.shape == (1, 3, 32, 32)


def test_pe_av_keeps_the_contract(pe_av):
    generator = np.random.default_rng(0)
    lengths = (1, 40, 400, 4800, 4800, 9000, 24000, 50000)
    clips = [(0.1 * generator.standard_normal(length)).astype(np.float32) for length in lengths]
    together = pe_av.encode_audio(clips, source_rate_hz=48000).vectors
    assert np.array_equal(together[::-1], pe_av.encode_audio(clips[::-1], source_rate_hz=48000).vectors)
    alone = np.concatenate([pe_av.encode_audio(clip, source_rate_hz=48000).vectors for clip in clips])
    assert np.abs(together - alone).max() <= 1e-5
    texts = ["a dog", "rain", "a dog barks"]
    assert np.abs(pe_av.encode_text(texts).vectors
                  - np.concatenate([pe_av.encode_text(text).vectors for text in texts])).max() <= 1e-5  # fmt: skip
    assert pe_av.calibration.scale == 10.0
    assert sum(pe_av.classify(pe_av.encode_audio(clips[3], source_rate_hz=48000), ["dog", "rain"])[0].values()) == (
        pytest.approx(1)
    )
    with pytest.raises(ValueError, match="against must be"):
        pe_av.encode_text("a dog", against="smell")


def test_a_call_of_the_tokenizer_leaves_the_fingerprint_alone(pe_av):
    """Fast tokenizers remember how they last padded, also in the file they would save."""
    before = load(pe_av.matcher.model, pe_av.matcher.processor, window_s=0.5).fingerprint
    pe_av.matcher.processor.tokenizer(["a dog", "rain"], padding="max_length", max_length=9, truncation=True)
    assert load(pe_av.matcher.model, pe_av.matcher.processor, window_s=0.5).fingerprint == before


def test_texts_with_two_vectors_meet_only_what_they_were_made_for(pe_av, tmp_path):
    sound = pe_av.encode_audio(np.zeros(8000, np.float32), source_rate_hz=16000)
    picture = pe_av.encode_image(photo())
    for_sounds, for_pictures = pe_av.encode_text("a dog"), pe_av.encode_text("a dog", against="image")
    assert pe_av.similarity(for_sounds, sound).shape == pe_av.similarity(picture, for_pictures).shape == (1, 1)
    assert pe_av.similarity(sound, picture).shape == (1, 1)
    for_pictures.save(tmp_path / "texts.safetensors")
    for texts in (for_pictures, Embeddings.load(tmp_path / "texts.safetensors")):
        with pytest.raises(FingerprintMismatch, match="against='audio'"):
            pe_av.similarity(sound, texts)
    with pytest.raises(FingerprintMismatch, match="against='image'"):
        pe_av.similarity(for_sounds, picture)
    with pytest.raises(FingerprintMismatch):
        pe_av.similarity(for_sounds, for_pictures)
    with pytest.raises(ValueError, match="different kinds"):
        Embeddings.join([for_sounds, for_pictures])


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    tower = {**WIDE, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **tower,
                "vocab_size": 64,
                "max_position_embeddings": 16,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            projection_dim=20,
        )
    ).eval()
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    clip_pictures().save_pretrained(folder)
    return folder, model


def test_clip_matches_texts_and_pictures(clip_folder):
    folder, model = clip_folder
    words = tokenizer()
    embed = load(model, SimpleNamespace(tokenizer=words, image_processor=clip_pictures()))
    pictures, texts = embed.encode_image([photo(0), photo(1)]), embed.encode_text(["a dog", "rain"], against="image")
    batch = words(["a dog", "rain"], padding=True, return_tensors="pt")
    pixels = clip_pictures()([photo(0), photo(1)], return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, pixel_values=pixels)
    assert np.abs(pictures.vectors - wanted.image_embeds.numpy()).max() <= 1e-5
    assert np.abs(texts.vectors - wanted.text_embeds.numpy()).max() <= 1e-5
    scores = embed.similarity(pictures, texts) * embed.matcher.logit_scale
    assert np.abs(scores - wanted.logits_per_image.numpy()).max() <= 1e-4
    with pytest.raises(ValueError, match="hears nothing"):
        embed.encode_audio(np.zeros(10, np.float32), source_rate_hz=16000)


def test_clip_from_a_folder(clip_folder):
    folder, model = clip_folder
    processor = CLIPProcessor(image_processor=clip_pictures(), tokenizer=tokenizer())
    processor.save_pretrained(folder)
    embed = load(folder)
    assert np.array_equal(embed.encode_image(photo()).vectors, load(model, processor).encode_image(photo()).vectors)


def test_all_keep_the_protocol(pe_av, clip_folder):
    torch.manual_seed(0)
    model = UniBriVLModel(unibrivl_config("speechlm", "clip")).eval()
    ours = UniBriVLMatcher(model, UniBriVLProcessor(SpeechLMFeatureExtractor(), clip_pictures()))
    clip = load(clip_folder[1], SimpleNamespace(tokenizer=tokenizer(), image_processor=clip_pictures()))
    for matcher in (ours, pe_av.matcher, clip.matcher):
        assert isinstance(matcher, Matcher)
        pixels = torch.rand(2, 3, 40, 50, requires_grad=True)
        matcher.encode_image(pixels, gradients=True)[:, 0].sum().backward()
        assert pixels.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="encodes audio, image, not text"):
        ours.encode_text("a dog")
    with pytest.raises(ValueError, match="not of one space"):
        ours.similarity(torch.ones(1, 3), torch.ones(1, 4))


def test_the_dot_product_of_the_match_space_is_the_mean_cosine():
    torch.manual_seed(0)
    model = UniBriVLModel(unibrivl_config("speechlm", "clip")).eval()
    processor = UniBriVLProcessor(SpeechLMFeatureExtractor(), clip_pictures())
    clip = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    scores = {}
    for space in ("match", "shared", "native"):
        matcher = UniBriVLMatcher(model, processor, space)
        scores[space] = float(matcher.similarity(matcher.encode_audio(clip), matcher.encode_image(photo())))
    assert scores["match"] == pytest.approx((scores["shared"] + scores["native"]) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("processor", "tolerance"),
    [
        (BriVLImageProcessor(size={"height": 48, "width": 48}), 1e-5),
        (
            clip_pictures(),
            0.05,
        ),  # Pillow rounds to bytes after each of its two passes: up to 3 of 255, over 0.26
    ],
    ids=["brivl", "clip"],
)
def test_tensors_become_what_the_image_processor_makes(processor, tolerance):
    picture = photo(3, 70, 90)
    wanted = as_pixel_values([picture], processor)
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    found = as_pixel_values(tensor, processor)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance


def test_frames_of_pe_av():
    frames = FramePreparation(32)
    grey = Image.new("RGB", (50, 40), (255, 255, 255))
    assert torch.allclose(as_pixel_values(grey, frames), torch.ones(1, 3, 32, 32))
    assert as_pixel_values([grey, photo()], frames).shape == (2, 3, 32, 32)
    saved = SimpleNamespace(size={"height": 24, "width": 24}, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    assert FramePreparation.from_processor(saved, 32).side == 24


def test_the_shortest_clip_a_tower_makes_a_frame_of():
    assert fewest_samples(unibrivl_config("hubert", "clip").audio_config) == 400
    assert fewest_samples(unibrivl_config("clap", "clip").audio_config) == 1
