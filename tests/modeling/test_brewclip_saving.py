"""BrewCLIP on the disk: frozen towers are fetched from where they are named, all else is in a small file."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_brewclip as tiny
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor

from unibrivl.modeling import BrewCLIPForSpeechClassification, BrewCLIPModel, BrewCLIPProcessor


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    return tiny.save_backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture
def model(backbones):
    torch.manual_seed(0)
    return BrewCLIPModel.from_pretrained_parts(*backbones, num_attention_heads=4, intermediate_size=40)


def keys(folder) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as opened:
        return set(opened.keys())


def parts_of(folder) -> set[str]:
    return {key.split(".")[0] for key in keys(folder)}


def embeds(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.batch(0.5, 1.0), pixel_values=tiny.pixels(2)).logits_per_audio


def test_only_what_learned_is_saved_and_comes_back(model, backbones, tmp_path):
    expected = embeds(model)
    model.save_pretrained(tmp_path)
    assert parts_of(tmp_path) == {"shared_prompts", "e2e", "fusion", "temperature"}
    for loaded in (BrewCLIPModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert torch.equal(embeds(loaded), expected)
        assert (loaded.config.audio_name, loaded.config.image_name) == backbones
        assert loaded.name_or_path == str(tmp_path)
        assert not any(one.requires_grad for one in loaded.text_model.parameters())
        assert loaded.prompts.requires_grad and not loaded.training


def test_a_whole_folder_needs_no_other(model, tmp_path):
    expected = embeds(model)
    model.config.audio_name = model.config.image_name = model.config.text_name = "nobody/has-this"
    model.save_pretrained(tmp_path, save_backbones=True)
    assert {"audio_model", "vision_model", "text_model"} <= parts_of(tmp_path)
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path)), expected)


def test_towers_without_a_name_and_towers_that_train_are_saved(model, tmp_path):
    model.config.audio_name = None
    with torch.no_grad():
        model.text_model.requires_grad_(True).text_projection.weight.mul_(-1)
    model.save_pretrained(tmp_path)
    assert {"audio_model", "text_model"} <= parts_of(tmp_path) and "vision_model" not in parts_of(tmp_path)
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path)), embeds(model))


def test_a_tower_that_was_changed_is_never_fetched_again(backbones, tmp_path):
    """Not one that was passed as a model, nor one that an earlier stage trained and a later one froze."""
    from transformers import CLIPTextModelWithProjection

    tuned = CLIPTextModelWithProjection.from_pretrained(backbones[1])
    with torch.no_grad():
        tuned.text_projection.weight.mul_(-1)
    model = BrewCLIPModel.from_pretrained_parts(*backbones, tuned, num_attention_heads=4)
    model.save_pretrained(tmp_path / "one")
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path / "one")), embeds(model))
    first = BrewCLIPModel.from_pretrained_parts(*backbones, num_attention_heads=4, freeze_text_model=False)
    with torch.no_grad():
        first.text_model.text_projection.weight.mul_(-1)
    first.save_pretrained(tmp_path / "first")
    second = BrewCLIPModel.from_pretrained(tmp_path / "first", freeze_text_model=True)
    second.save_pretrained(tmp_path / "second")
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path / "second")), embeds(first))


def test_a_local_tower_is_found_from_elsewhere(backbones, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(backbones[0]).parent)
    model = BrewCLIPModel.from_pretrained_parts("whisper", "clip", num_attention_heads=4)
    model.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path)), embeds(model))


def test_a_whole_folder_still_knows_who_writes(model, backbones, tmp_path):
    model.save_pretrained(tmp_path, save_backbones=True)
    again = BrewCLIPModel.from_pretrained(tmp_path)
    assert again.config.audio_name is None and again.config.asr_name == backbones[0]


def test_what_cannot_be_fetched_is_said_with_a_way_out(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = model.config.from_pretrained(tmp_path)
    config.audio_name = str(tmp_path / "gone")
    with pytest.raises(OSError, match="save_backbones=True"):
        BrewCLIPModel.from_pretrained(tmp_path, config=config)
    config.audio_name = None
    with pytest.raises(ValueError, match="audio_name"):
        BrewCLIPModel.from_pretrained(tmp_path, config=config)


def test_fields_and_types_are_taken_in_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = BrewCLIPModel.from_pretrained(tmp_path, dtype=torch.bfloat16, channels=["e2e"])
    assert {one.dtype for one in loaded.parameters()} == {torch.bfloat16}
    assert loaded.config.channels == ["e2e"]
    loaded, info = BrewCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_a_head_begins_with_a_trunk_and_comes_back(model, tmp_path):
    model.save_pretrained(tmp_path / "trunk")
    head = BrewCLIPForSpeechClassification.from_pretrained(tmp_path / "trunk", num_labels=4)
    assert torch.equal(head.brewclip.prompts, model.prompts) and head.classifier.out_features == 4
    head.save_pretrained(tmp_path / "head")
    assert parts_of(tmp_path / "head") == {"brewclip", "classifier"}
    assert not any(".audio_model." in f".{key}" for key in keys(tmp_path / "head"))
    batch = tiny.batch(0.5)
    expected = head.eval()(**batch).logits
    assert torch.equal(AutoModelForAudioClassification.from_pretrained(tmp_path / "head")(**batch).logits, expected)
    trunk = BrewCLIPModel.from_pretrained(tmp_path / "head")
    assert torch.equal(trunk.prompts, model.prompts)


def test_a_damaged_file_is_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("shared_prompts.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="prompts"):
        BrewCLIPModel.from_pretrained(tmp_path)


def test_stretched_positions_are_stretched_again(backbones, tmp_path):
    model = BrewCLIPModel.from_pretrained_parts(*backbones, num_attention_heads=4, text_positions=120)
    assert (
        model.config.text_capacity == 114
        and model.text_model.text_model.embeddings.position_embedding.weight.requires_grad
    )
    model.config.freeze_text_model = True
    model.apply_freezing()
    model.save_pretrained(tmp_path)
    assert "text_model" not in parts_of(tmp_path)
    assert torch.equal(embeds(BrewCLIPModel.from_pretrained(tmp_path)), embeds(model))


def test_the_processor_comes_back(backbones, tmp_path):
    processor = BrewCLIPProcessor.from_pretrained_parts(*backbones, long_audio="truncate")
    processor.save_pretrained(tmp_path)
    again = BrewCLIPProcessor.from_pretrained(tmp_path)
    assert again.long_audio == "truncate"
    given = {"audio": tiny.clips(0.5), "text": ["a b"], "sampling_rate": tiny.RATE_HZ}
    first, second = processor(**given), again(**given)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    tiny.build().save_pretrained(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), BrewCLIPProcessor)
