"""BrewCLIP's transcripts: where prompts stand, what they change, and texts that are longer than CLIP's tower."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_brewclip as tiny
import torch
from torch.nn.functional import cosine_similarity

from unibrivl.modeling.text_brewclip import balanced, stretch_positions, text_parts, weighted_mean

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["clip_prompt_layout"]
CASES = list(zip(GOLDEN["input"]["cases"], GOLDEN["expected"], strict=True))


def ids_of(*texts: str) -> torch.Tensor:
    return tiny.processor()(text=list(texts))["input_ids"]


def embeds(model, input_ids, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model.get_text_features(input_ids, **kwargs).pooler_output


@pytest.mark.parametrize(("case", "expected"), CASES, ids=[str(case) for case, _ in CASES])
def test_layout_is_the_golden_one(case, expected):
    length, num_prompts = case
    config = tiny.config(num_prompts=num_prompts).text_config
    words = [[7] * length]
    assert config.max_position_embeddings - 2 - num_prompts == expected["max_content"]
    cut = text_parts(words, config, num_prompts, "truncate")
    assert (cut.input_ids == tiny.EOS).long().argmax(1).tolist() == [expected["truncate"]["eos_index"]]
    assert (cut.input_ids == 7).sum() == expected["truncate"]["kept"]
    parts = text_parts(words, config, num_prompts, "chunk")
    assert (parts.input_ids == 7).sum(1).tolist() == expected["chunk_balanced"]["lengths"]
    assert (parts.input_ids == tiny.EOS).long().argmax(1).tolist() == expected["chunk_balanced"]["eos_indices"]
    assert parts.rows.tolist() == [0] * len(parts.rows)


def test_without_prompts_the_channel_is_clip(tmp_path):
    whisper, clip = tiny.save_backbones(tmp_path)
    from unibrivl.modeling import BrewCLIPModel

    model = BrewCLIPModel.from_pretrained_parts(whisper, clip, num_prompts=0, num_attention_heads=4)
    input_ids = ids_of("a b c", "d", "a long one of words")
    heard = model.get_audio_features(input_ids=input_ids, channels=("text",)).pooler_output
    with torch.no_grad():
        theirs = tiny.clip().get_text_features(input_ids)
    theirs = getattr(theirs, "pooler_output", theirs)
    assert (1 - cosine_similarity(heard, theirs)).abs().max() < 1e-6
    assert torch.allclose(heard, torch.nn.functional.normalize(theirs, dim=-1), atol=1e-6)


def test_what_stands_behind_the_end_changes_nothing():
    model = tiny.build()
    input_ids = ids_of("a b c")
    behind = torch.cat([input_ids, torch.full((1, 9), 5)], dim=1)
    assert (embeds(model, behind) - embeds(model, input_ids)).abs().max() <= 5e-7


def test_a_prompt_that_is_a_word_is_that_word():
    model = tiny.build(num_prompts=1)
    word = ids_of("q")[0, 1]
    with torch.no_grad():
        model.prompts.copy_(model.get_input_embeddings().weight[word][None])
    apart = embeds(model, ids_of("q a b c"), prompted=False) - embeds(model, ids_of("a b c"))
    assert apart.abs().max() <= 4e-7


def test_prompts_change_every_text_and_learn():
    model = tiny.build()
    input_ids = ids_of("a b c", "")
    plain, prompted = embeds(model, input_ids, prompted=False), embeds(model, input_ids)
    assert (cosine_similarity(plain, prompted) < 0.999).all()
    model.get_text_features(input_ids).pooler_output.sum().backward()
    assert model.prompts.grad.abs().min(1).values.gt(0).all()


def test_the_hook_is_gone_after_an_error():
    model = tiny.build()
    broken = model.text_model.text_model.encoder
    handle = broken.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("stopped")))
    with pytest.raises(RuntimeError, match="stopped"):
        model.get_text_features(ids_of("a"))
    handle.remove()
    assert not model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("long_text", ["chunk", "chunk_max", "truncate"])
def test_a_text_that_fits_is_read_the_same_in_every_mode(long_text):
    input_ids = ids_of(*tiny.transcripts(3, 71))
    assert torch.equal(embeds(tiny.build(long_text=long_text), input_ids), embeds(tiny.build(), input_ids))


def test_a_long_text_is_the_mean_of_its_parts():
    model = tiny.build()
    [long] = tiny.transcripts(72)
    words = long.split()
    halves = torch.nn.functional.normalize(embeds(model, ids_of(" ".join(words[:36]), " ".join(words[36:]))), dim=-1)
    expected = torch.nn.functional.normalize(halves.mean(0), dim=-1)
    found = embeds(model, ids_of(long))[0]
    assert torch.allclose(torch.nn.functional.normalize(found, dim=-1), expected, atol=1e-6)
    lengths = embeds(model, ids_of(" ".join(words[:36]), " ".join(words[36:]))).norm(dim=-1)
    assert found.norm() == pytest.approx(float(lengths.mean()), rel=1e-5)
    cut = tiny.build(long_text="truncate")
    assert torch.allclose(embeds(cut, ids_of(long)), embeds(model, ids_of(" ".join(words[:71]))), atol=1e-6)


def test_the_best_part_makes_the_score():
    model = tiny.build(long_text="chunk_max")
    input_ids = ids_of(*tiny.transcripts(150, 5))
    found = model(input_ids=input_ids, image_embeds=torch.randn(3, 24), channels=("text",))
    heard = model.get_audio_features(input_ids=input_ids, channels=("text",))
    assert heard.chunk_rows.tolist() == [0, 0, 0, 1]
    cosines = heard.chunk_embeds @ found.image_embeds.t() / found.temperature
    expected = torch.stack([cosines[:3].max(0).values, cosines[3]])
    assert torch.allclose(found.logits_per_audio, expected, atol=1e-5)


def test_parts_are_even_and_whole():
    for length in (0, 1, 71, 72, 300):
        parts = balanced(length, 71)
        assert sum(parts) == length and max(parts) <= 71 and max(parts) - min(parts) <= 1


def test_the_mean_of_parts_counts_their_weight():
    vectors = torch.eye(3)
    found = weighted_mean(vectors, torch.tensor([3.0, 1.0, 5.0]), torch.tensor([0, 0, 1]), 2)
    assert torch.allclose(found[0], torch.tensor([3.0, 1.0, 0.0]) / 10**0.5)
    assert torch.equal(found[1], vectors[2])


def test_a_stretched_tower_reads_longer_texts():
    model = tiny.build(long_text="truncate")
    short = embeds(model, ids_of(*tiny.transcripts(10)))
    stretch_positions(model.text_model, 120)
    assert model.config.text_capacity == 114
    assert torch.allclose(embeds(model, ids_of(*tiny.transcripts(10))), short, atol=1e-6)
    [long] = tiny.transcripts(100)
    cut = " ".join(long.split()[:71])
    assert not torch.allclose(embeds(model, ids_of(long)), embeds(model, ids_of(cut)), atol=1e-3)
    with pytest.raises(ValueError, match="stretched, not cut"):
        stretch_positions(model.text_model, 60)
