"""One sound as a word: what it learns, from which pictures, the same word again, and nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="diffusers is not installed")
import tiny_diffusion
import tiny_words

from unibrivl.cli import main
from unibrivl.modeling import AudioCue
from unibrivl.modeling.features_audio_token import sound_features
from unibrivl.modeling.token_table_audio_token import table_of
from unibrivl.training.adapt_audio import adapt_audio

QUICK = {"steps": 3, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("a_word")
    tiny_words.sound(root / "dog.wav")
    tiny_words.pictures(root / "photos")
    return root


def weights(pipe) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipe.text_encoder.state_dict().items()}


def test_a_word_is_learned_and_the_pipeline_is_as_it_was(folder):
    pipe = tiny_words.stock()
    before, vocabulary = weights(pipe), len(pipe.tokenizer)
    cue = adapt_audio(pipe, folder / "dog.wav", folder / "photos", num_words=2, **QUICK)
    assert cue.vectors["text_encoder"].shape == (2, 32)
    ids = pipe.tokenizer("sound", add_special_tokens=False).input_ids
    start = table_of(pipe.text_encoder)[torch.tensor(ids)].mean(0)
    moved = (cue.vectors["text_encoder"] - start).abs()
    assert 0 < moved.max() <= 3 * 5e-3 * 1.01  # Adam's steps are at most about the rate
    assert all(torch.equal(value, before[name]) for name, value in weights(pipe).items())
    assert len(pipe.tokenizer) == vocabulary and all(one.requires_grad for one in pipe.unet.parameters())
    assert cue.about["pictures"] == ["seen_0.png", "seen_1.png", "seen_2.png"]
    assert cue.about["sound"]["name"] == "dog.wav" and len(cue.about["sound"]["sha256"]) == 64
    cue.check_base({"text_encoder": pipe.text_encoder})


def test_the_same_seed_learns_the_same_word(folder):
    words = [
        adapt_audio(tiny_words.stock(), folder / "dog.wav", [tiny_words.red()], seed=seed, **QUICK).vectors
        for seed in (0, 0, 1)
    ]
    assert torch.equal(words[0]["text_encoder"], words[1]["text_encoder"])
    assert not torch.equal(words[0]["text_encoder"], words[2]["text_encoder"])


def test_the_error_falls(folder):
    """On the average over noise that is the same before and after."""
    pipe = tiny_words.stock()
    cue = adapt_audio(pipe, folder / "dog.wav", [tiny_words.red()], steps=40, batch_size=4, learning_rate=0.05,
                      progress=False)  # fmt: skip
    start = adapt_audio(pipe, folder / "dog.wav", [tiny_words.red()], steps=1, learning_rate=1e-9, progress=False)
    base = tiny_words.base()
    latents = base.latents(base.pixels([tiny_words.red()])).expand(24, -1, -1, -1)
    chance = torch.Generator().manual_seed(9)
    noise = torch.randn(latents.shape, generator=chance)
    step = torch.randint(1000, (24,), generator=chance)
    prompts = {name: one(["a photo of <audio>"] * 24) for name, one in base.prompts(1).items()}
    errors = []
    with torch.no_grad():
        for one in (start, cue):
            told = base.condition(prompts, {name: vector[None] for name, vector in one.vectors.items()})
            noisy = base.scheduler.add_noise(latents, noise, step)
            errors.append(float((base.predict(noisy, step, told) - noise).square().mean()))
    assert errors[1] < errors[0]


class Ruler:
    """A matcher to which a sound is red."""

    sampling_rate, longest_s, kinds = 16_000, None, ("audio", "image")

    def encode_audio(self, clips):
        return torch.tensor([[1.0, 0.0, 0.0]])

    def encode_image(self, pictures):
        means = [np.asarray(one.convert("RGB"), np.float32).mean((0, 1)) for one in pictures]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(means)), dim=-1)


def test_of_a_bank_the_pictures_that_fit_the_sound_are_taken(folder):
    bank = [Image.new("RGB", (20, 20), colour) for colour in ((0, 0, 250), (250, 0, 0), (0, 250, 0), (250, 90, 0))]
    cue = adapt_audio(tiny_words.stock(), folder / "dog.wav", image_bank=bank, matcher=Ruler(), top_k=2, **QUICK)
    assert cue.about["pictures"] == ["picture 1", "picture 3"]
    assert cue.about["scores"][0] == 1.0 > cue.about["scores"][1] > 0.9


def test_a_pipeline_that_hears_chooses_by_itself(folder):
    cue = adapt_audio(tiny_diffusion.pipeline(), folder / "dog.wav", image_bank=folder / "photos", top_k=2, **QUICK)
    assert len(cue.about["pictures"]) == 2
    with pytest.raises(ValueError, match="no matcher to choose pictures by"):
        adapt_audio(tiny_words.stock(), folder / "dog.wav", image_bank=folder / "photos", **QUICK)


@pytest.mark.parametrize("mode", ["residual", "resampler"])
def test_it_begins_where_an_adapter_puts_the_sound(folder, mode):
    pipe = tiny_words.stock()
    ears = sound_features(*tiny_diffusion.matcher())
    adapter = tiny_words.adapter(tiny_words.base(), mode=mode, num_words=2).eval()
    with torch.no_grad():
        wanted = adapter(ears.tokens(tiny_words_clip(folder))[0]).words["text_encoder"][0]
    quick = {**QUICK, "steps": 1, "learning_rate": 1e-9}
    cue = adapt_audio(pipe, folder / "dog.wav", [tiny_words.red()], adapter=adapter, ears=ears, **quick)
    torch.testing.assert_close(cue.vectors["text_encoder"], wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="pass ears"):
        adapt_audio(pipe, folder / "dog.wav", [tiny_words.red()], adapter=adapter, **quick)
    with pytest.raises(ValueError, match="made for tiny"):
        adapt_audio(tiny_words.stock(seed=3), folder / "dog.wav", [tiny_words.red()], adapter=adapter, ears=ears)


def tiny_words_clip(folder):
    from unibrivl.audio import load_audio

    return load_audio(folder / "dog.wav", rate_hz=16_000)


def test_xl_learns_for_both_text_encoders(folder):
    cue = adapt_audio(tiny_words.stock_xl(), folder / "dog.wav", folder / "photos", **QUICK)
    assert sorted(cue.vectors) == ["text_encoder", "text_encoder_2"]


def test_what_cannot_be_is_said(folder, tmp_path):
    pipe, sound = tiny_words.stock(), folder / "dog.wav"
    for given, why in (
        ({}, "pass images, which all count, or image_bank"),
        ({"images": [], **QUICK}, "empty list"),
        ({"images": tmp_path}, "holds no picture"),
        ({"images": [tiny_words.red()], "steps": 0}, "counts from 1"),
        ({"images": [tiny_words.red()], "texts": ["a photo"]}, "holds <audio>"),
        ({"images": [tiny_words.red()], "start": ""}, "has no token"),
    ):
        with pytest.raises(ValueError, match=why):
            adapt_audio(pipe, sound, **given)
    with pytest.raises(FileNotFoundError, match="name a picture, or a folder"):
        adapt_audio(pipe, sound, tmp_path / "nowhere")


def test_the_command_writes_a_word_that_plain_diffusers_draws(folder, tmp_path, capsys):
    tiny_words.stock().save_pretrained(tmp_path / "base")
    out = tmp_path / "word.safetensors"
    words = ["adapt", str(folder / "dog.wav"), "--images", str(folder / "photos"), "--model", str(tmp_path / "base")]
    quick = ["--steps", "2", "--batch-size", "2", "--device", "cpu"]
    assert main([*words, "--out", str(out), "--words", "2", *quick]) == 0
    assert "<audio>, 2 x 32 numbers, from 3 pictures" in capsys.readouterr().out
    pipe = tiny_words.stock()
    pipe.load_textual_inversion(str(out))
    assert pipe("a photo of <audio>", num_inference_steps=1).images[0].size == (32, 32)
    cue = AudioCue.load(out)
    assert cue.about["steps"] == 2 and cue.base_name == "base"
    assert str(tmp_path).encode() not in out.read_bytes()
    assert main([*words, "--out", str(tmp_path / "word.bin"), *quick]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
