"""Words put into a prompt: the same as rows of a longer table, right where these are wrong, and nothing stays."""

from __future__ import annotations

import copy

import pytest
import tiny_text
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from unibrivl.modeling.injection_audio_token import AudioPrompts, injected

WIDTH = 32


def encoder(seed: int = 0, cls=CLIPTextModel, **fields):
    torch.manual_seed(seed)
    return cls(tiny_text.text_config(**fields)).eval()


def words(*shape: int, seed: int = 3) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def with_longer_table(model, vectors: list[torch.Tensor]):
    """Textual inversion's way: a tokenizer and a text encoder in which sounds are new rows."""
    tokenizer, longer = tiny_text.tokenizer(), copy.deepcopy(model)
    names = [f"<new{number}>" for number in range(len(vectors))]
    tokenizer.add_tokens(names)
    longer.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        for name, vector in zip(names, vectors, strict=True):
            longer.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(name)] = vector
    return tokenizer, longer


def read(tokenizer, texts):
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def test_the_same_as_rows_of_a_longer_table_to_the_bit():
    model, heard = encoder(), words(2, 2)  # two sounds of two words
    prompt = AudioPrompts(tiny_text.tokenizer(), num_words=2)(
        ["a photo of <audio> in the rain", "<audio:1>, then <audio:0>", "no sound at all"]
    )
    with injected(model, prompt, heard):
        ours = model(prompt.input_ids)
    tokenizer, longer = with_longer_table(model, [*heard[0], *heard[1]])
    texts = ["a photo of <new0> <new1> in the rain", "<new2> <new3>, then <new0> <new1>", "no sound at all"]
    theirs = longer(read(tokenizer, texts))
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    assert torch.equal(ours.pooler_output, theirs.pooler_output)


@torch.no_grad()
def test_each_text_may_have_sounds_of_its_own():
    model, heard = encoder(), words(2, 1, 1)
    prompts = AudioPrompts(tiny_text.tokenizer())
    prompt = prompts(["a photo of <audio>"] * 2)
    with injected(model, prompt, heard):
        both = model(prompt.input_ids).last_hidden_state
    for row in range(2):
        single = prompts("a photo of <audio>")
        with injected(model, single, heard[row]):
            torch.testing.assert_close(both[row : row + 1], model(single.input_ids).last_hidden_state)
    assert not torch.equal(both[0], both[1])


@torch.no_grad()
@pytest.mark.parametrize("eos_token_id", [2, 63])
@pytest.mark.parametrize("cls", [CLIPTextModel, CLIPTextModelWithProjection])
def test_the_vector_of_the_text_is_right_for_old_encoders_too(cls, eos_token_id):
    """With eos_token_id 2 it is taken at the highest id, which a new row would be, and an ordinary word is not."""
    config = {"eos_token_id": eos_token_id, "projection_dim": 16}
    model, heard = encoder(cls=cls, **config), words(1, 1)
    prompts = AudioPrompts(tiny_text.tokenizer())
    prompt = prompts("<audio> by the lake")
    with injected(model, prompt, heard):
        ours = model(prompt.input_ids)
    changed = copy.deepcopy(model)  # another way to know: the row of the ordinary word itself
    changed.get_input_embeddings().weight[prompts.neutral_id] = heard[0, 0]
    right = changed(prompt.input_ids)[0 if cls is CLIPTextModelWithProjection else 1]
    assert torch.equal(ours[0 if cls is CLIPTextModelWithProjection else 1], right)
    tokenizer, longer = with_longer_table(model, [heard[0, 0]])
    theirs = longer(read(tokenizer, ["<new0> by the lake"]))[0 if cls is CLIPTextModelWithProjection else 1]
    assert torch.equal(theirs, right) is (eos_token_id == 63)


@torch.no_grad()
def test_t5_reads_them_by_the_module_it_looks_words_up_with():
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(d_model=WIDTH, d_ff=16, d_kv=4, num_layers=1, num_heads=2, vocab_size=64)).eval()
    prompts = AudioPrompts(tiny_text.tokenizer(16))
    prompt, heard = prompts("rain, <audio>"), words(1, 1)
    with injected(t5, prompt, heard):
        ours = t5(prompt.input_ids, attention_mask=prompt.attention_mask).last_hidden_state
    rows = t5.encoder.embed_tokens(prompt.input_ids)
    rows[0, prompt.positions[0]] = heard[0, 0]
    theirs = t5.encoder(inputs_embeds=rows, attention_mask=prompt.attention_mask).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_gradients_reach_the_words_and_not_the_encoder():
    model = encoder().requires_grad_(False)
    heard = words(1, 2).requires_grad_()
    prompt = AudioPrompts(tiny_text.tokenizer(), num_words=2)("a photo of <audio>")
    with injected(model, prompt, heard):
        model(prompt.input_ids).last_hidden_state.square().sum().backward()
    assert heard.grad.abs().sum(-1).min() > 0
    assert all(weight.grad is None for weight in model.parameters())


@torch.no_grad()
def test_nothing_is_left_behind_whatever_happens():
    model, tokenizer = encoder(), tiny_text.tokenizer()
    before, table = len(tokenizer), model.get_input_embeddings().weight.clone()
    prompt = AudioPrompts(tokenizer)("a photo of <audio>")
    plain = model(prompt.input_ids).last_hidden_state
    with pytest.raises(KeyboardInterrupt), injected(model, prompt, words(1, 1)):
        raise KeyboardInterrupt
    assert torch.equal(model(prompt.input_ids).last_hidden_state, plain)
    assert torch.equal(model.get_input_embeddings().weight, table) and len(tokenizer) == before
    assert not model.get_input_embeddings()._forward_hooks


def test_ids_are_those_of_the_tokenizer_but_for_the_sounds():
    tokenizer = tiny_text.tokenizer()
    prompts = AudioPrompts(tokenizer, num_words=3)
    prompt = prompts(["a dog <audio> barks", "a dog barks"])
    assert prompt.input_ids[1].tolist() == read(tokenizer, ["a dog barks"])[0].tolist()
    assert prompt.input_ids.max() < len(tokenizer)
    assert prompt.attention_mask.sum(1).tolist() == [14, 11]
    assert prompt.positions.tolist() == [5, 6, 7] and prompt.words.tolist() == [0, 1, 2]
    assert prompts("<audio> and <audio:0>").sounds.tolist() == [0] * 6


def test_a_long_text_loses_its_end_and_never_a_sound():
    prompts = AudioPrompts(tiny_text.tokenizer(16))
    long = "a dog barks in the rain at night"
    assert prompts(f"<audio> {long}").input_ids.shape == (1, 16)
    with pytest.raises(ValueError, match="a sound would be cut off: shorten"):
        prompts(f"{long} {long} <audio>")
    with pytest.raises(ValueError, match="cut off"):  # nor a part of one
        AudioPrompts(tiny_text.tokenizer(16), num_words=14)("a <audio>")


def test_what_cannot_be_is_refused():
    model, prompts = encoder(), AudioPrompts(tiny_text.tokenizer())
    prompt = prompts("<audio:1> and <audio:0>")
    for given, why in (
        (words(1, 1), r"speaks of <audio:1> and 1 sounds"),
        (words(2, 2), "a sound is 2 words and its place has room for 1"),
        (words(3, 2, 1), "of 1 texts"),
    ):
        with pytest.raises(ValueError, match=why), injected(model, prompt, given):
            model(prompt.input_ids)
    with pytest.raises(ValueError, match="made for another base"), injected(model, prompt, torch.zeros(2, 1, 8)):
        model(prompt.input_ids)
    with pytest.raises(ValueError, match="encode other texts outside"), injected(model, prompt, words(2, 1)):
        model(prompts("something else").input_ids)
    with pytest.raises(ValueError, match="did not look up a word"), injected(model, prompt, words(2, 1)):
        pass


@pytest.mark.parametrize("mark", ["_orig_mod", "_compiled_call_impl"])
def test_what_torch_compile_has_marked_is_refused(mark):
    """By both its ways: around a module, and inside it."""
    model = encoder()
    object.__setattr__(model.get_input_embeddings(), mark, model.forward)
    prompt = AudioPrompts(tiny_text.tokenizer())("<audio>")
    with pytest.raises(ValueError, match="leave it out of torch.compile"), injected(model, prompt, words(1, 1)):
        raise AssertionError("it must not come so far")


@pytest.mark.slow
def test_a_compiled_encoder_is_refused():
    prompt = AudioPrompts(tiny_text.tokenizer())("<audio>")
    inside = encoder()
    inside.compile()
    for model in (torch.compile(encoder()), inside):
        with pytest.raises(ValueError, match="leave it out of torch.compile"), injected(model, prompt, words(1, 1)):
            model(prompt.input_ids)
