"""Words as files: plain diffusers reads them and draws what the injected words draw; anybody's come back."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers", reason="diffusers is not installed")
import tiny_diffusion
import tiny_words

from unibrivl.modeling import AudioCue
from unibrivl.modeling.injection_audio_token import AudioPrompts, injected


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cue(words: int = 2, **fields) -> AudioCue:
    pipe = tiny_words.stock()
    about = {"sound": {"name": "dog.wav"}, "pictures": ["one.png"]}
    encoders = {"text_encoder": pipe.text_encoder}
    return AudioCue.for_base({"text_encoder": vectors(words, 32)}, encoders, base_name="tiny", about=about, **fields)


def draw(pipe, **call):
    call = {"num_inference_steps": 2, "output_type": "pt", "generator": tiny_diffusion.generator(), **call}
    return pipe(**call).images


@pytest.mark.parametrize("words", [1, 3])
def test_plain_diffusers_draws_what_the_injected_words_draw(words, tmp_path):
    saved = cue(words)
    saved.save(tmp_path / "word.safetensors")
    pipe = tiny_words.stock()
    prompt = AudioPrompts(pipe.tokenizer, words)("a photo of <audio> at night")
    with torch.no_grad(), injected(pipe.text_encoder, prompt, saved.words["text_encoder"]):
        states = pipe.text_encoder(prompt.input_ids).last_hidden_state
    ours = draw(pipe, prompt_embeds=states, negative_prompt="")
    other = tiny_words.stock()
    other.load_textual_inversion(str(tmp_path / "word.safetensors"))
    theirs = draw(other, prompt="a photo of <audio> at night", negative_prompt="")
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, draw(tiny_words.stock(), prompt="a photo of sound at night", negative_prompt=""))


def test_a_folder_is_enough_and_a_token_of_its_own_too(tmp_path):
    place = cue(token="<dog>").save(tmp_path)
    assert place.endswith("learned_embeds.safetensors")
    pipe = tiny_words.stock()
    pipe.load_textual_inversion(str(tmp_path))
    assert "<dog>_1" in pipe.tokenizer.get_vocab()


def test_saved_and_loaded_it_is_the_same(tmp_path):
    before = cue()
    after = AudioCue.load(before.save(tmp_path / "word.safetensors"))
    assert torch.equal(before.vectors["text_encoder"], after.vectors["text_encoder"])
    for name in ("token", "base_name", "fingerprints", "about"):
        assert getattr(before, name) == getattr(after, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["word.safetensors"]


def test_xl_has_a_tensor_for_each_text_encoder(tmp_path):
    pipe = tiny_words.stock_xl()
    both = {"text_encoder": vectors(2, 32), "text_encoder_2": vectors(2, 32, seed=1)}
    encoders = {name: getattr(pipe, name) for name in both}
    place = AudioCue.for_base(both, encoders).save(tmp_path / "word.safetensors")
    tensors = load_file(place)
    assert sorted(tensors) == ["clip_g", "clip_l"]
    for name, key, tokenizer in (("text_encoder", "clip_l", "tokenizer"), ("text_encoder_2", "clip_g", "tokenizer_2")):
        pipe.load_textual_inversion(
            tensors[key], token="<audio>", text_encoder=encoders[name], tokenizer=getattr(pipe, tokenizer)
        )
    after = AudioCue.load(place)
    assert all(torch.equal(after.vectors[name], both[name]) for name in both)
    after.check_base(encoders)


def test_a_textual_inversion_of_anybodys_is_a_cue(tmp_path):
    save_file({"<cat-toy>": vectors(32)}, tmp_path / "learned_embeds.safetensors")
    found = AudioCue.load(tmp_path)
    assert found.token == "<cat-toy>" and found.num_words == 1 and found.about == {}
    found.check_base({"text_encoder": tiny_words.stock().text_encoder})  # of its width, and more it does not say


def test_another_base_is_refused_by_both_names():
    with pytest.raises(ValueError, match="learned for tiny .*org/other reads words by another table"):
        cue().check_base({"text_encoder": tiny_words.stock(seed=5).text_encoder}, "org/other")
    with pytest.raises(ValueError, match="does not have"):
        cue().check_base({})


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"clip_l": vectors(2, 8), "something": vectors(2, 8)}, "no textual inversion"),
        ({"clip_l": vectors(2, 8), "clip_g": vectors(3, 8)}, "as many words"),
        ({"<a>": vectors(2, 2, 8)}, "as many words"),
        ({"<a>": torch.full((1, 8), float("nan"))}, "not finite"),
    ],
)
def test_a_file_that_is_none_is_refused(tensors, why, tmp_path):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=why):
        AudioCue.load(tmp_path / "x.safetensors")


def test_what_is_no_file_of_words_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="no safetensors file"):
        AudioCue.load(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not end in"):
        AudioCue.load(tmp_path / "learned_embeds.bin")
    with pytest.raises(FileNotFoundError, match="name a file of words"):
        AudioCue.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match="one word without spaces"):
        cue(token="a dog")
