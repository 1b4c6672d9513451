"""Adapters on every kind of tower: what trains, what is saved, and what loading, switching and merging do."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_towers import pictures, sounds, unibrivl_config, units
from transformers import AutoConfig, HubertModel

from unibrivl.modeling import UniBriVLModel

peft = pytest.importorskip("peft", reason="adapters need peft: pip install peft")

from unibrivl.training.adapters import (  # noqa: E402
    AdapterConfig,
    adapt,
    adapter_bytes,
    load_adapter,
    merged,
    trains,
    unloaded,
)
from unibrivl.training.adapters_prompts import grown, slots_of  # noqa: E402
from unibrivl.training.config import ConfigError  # noqa: E402

SMALL = {"rank": 4, "num_prompts": 3, "last_k": 1}
HEADS = ("layer_mix", "frame_projection", "attention_pool", "projection", "image_to_shared", "audio_to_native")


def build(audio: str = "speechlm", image: str = "clip", seed: int = 0, **fields) -> UniBriVLModel:
    torch.manual_seed(seed)
    return UniBriVLModel(unibrivl_config(audio, image, **fields)).eval()


@torch.no_grad()
def scores(model, audio: str = "speechlm", image: str = "clip") -> torch.Tensor:
    return model.eval()(**sounds(audio), pixel_values=pictures(image)).logits_audio_image


def teach(model, audio: str = "speechlm", image: str = "clip", steps: int = 2):
    """A few steps of whatever trains. No draws: LayerDrop would leave layers without gradients."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(steps):
        model.eval()(**sounds(audio), pixel_values=pictures(image)).logits_audio_image.sum().backward()
        optimizer.step()
    return model


def trained(model) -> list[str]:
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def adapter(folder, audio: str = "speechlm", seed: int = 0, **fields):
    """The base that an adapter was trained on, the model with it, and the folder it is saved in."""
    base = build(audio, seed=seed)
    torch.manual_seed(seed + 1)
    model = teach(adapt(copy.deepcopy(base), AdapterConfig(**{**SMALL, **fields})), audio)
    model.save_pretrained(folder, save_embedding_layers=False)
    return base, model, folder


# ---- what trains ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "prompt", "last_k", "head"])
@pytest.mark.parametrize("audio", ["speechlm", "hubert", "whisper"])
def test_what_is_saved_is_all_that_changes(audio, method, tmp_path):
    """The base's bits stay in the adapted model; off, loaded again, unloaded and merged it is what it should be."""
    base, model, folder = adapter(tmp_path / "adapter", audio, method=method)
    before, after = scores(base, audio), scores(model, audio)
    assert (after - before).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(scores(model, audio), before)
    assert adapter_bytes(model) < sum(weight.numel() * 4 for weight in base.parameters()) / 2
    assert adapter_bytes(model) == pytest.approx((folder / "adapter_model.safetensors").stat().st_size, rel=0.3)
    assert trains(model).trained == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)

    again = load_adapter(copy.deepcopy(base), folder)
    assert torch.equal(scores(again, audio), after) and not trained(again)
    if method == "prompt":
        with pytest.raises(ValueError, match="prompt_frames_3"):  # PEFT alone would have to leave them out
            peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
        with pytest.raises(ValueError, match="cannot be merged"):
            merged(copy.deepcopy(again))
    else:
        assert torch.equal(scores(peft.PeftModel.from_pretrained(copy.deepcopy(base), folder), audio), after)
        whole = merged(copy.deepcopy(again))
        assert type(whole) is UniBriVLModel and whole.state_dict().keys() == base.state_dict().keys()
        torch.testing.assert_close(scores(whole, audio), after, atol=1e-5, rtol=0)
    bare = unloaded(again)
    assert type(bare) is UniBriVLModel and torch.equal(scores(bare, audio), before)
    assert all(torch.equal(bare.state_dict()[name], value) for name, value in base.state_dict().items())
    assert bare.state_dict().keys() == base.state_dict().keys() and not list(slots_of(bare))


@pytest.mark.parametrize("method", ["lora", "prompt", "last_k", "head"])
def test_heads_train_and_towers_do_as_the_method_says(method):
    model = adapt(build().train(), AdapterConfig(method=method, **SMALL))
    names = trained(model)
    for head in HEADS:
        assert any(f".{head}.modules_to_save." in name for name in names), head
    in_tower = [name for name in names if ".tower." in name]
    assert not [name for name in names if "vision_model" in name]
    marks = {"lora": "lora_", "prompt": "prompt_frames_3", "last_k": "shared_encoder.layers.1.modules_to_save"}
    assert bool(in_tower) == (method in marks)
    assert all(marks[method] in name for name in in_tower)
    inside = model.get_base_model()
    assert not inside.vision_model.training and inside.audio_model.tower.training == (method in marks)
    if method == "lora":
        layers = "attention.k_proj attention.out_proj feed_forward.output_dense".split()
        assert all(any(f"{layer}.lora_A" in name for name in in_tower) for layer in layers) and len(in_tower) == 4 * 12
    teach(model, steps=1)
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_full_is_the_model_and_heads_stay_out_when_asked():
    model = build()
    assert adapt(model, AdapterConfig()) is model
    names = trained(adapt(model, AdapterConfig(method="lora", heads="none", targets=("q_proj", "v_proj"))))
    assert len(names) == 4 * 4 and all(".q_proj.lora_" in name or ".v_proj.lora_" in name for name in names)


def test_heads_with_lora_are_small(tmp_path):
    base, model, folder = adapter(tmp_path, method="lora", heads="lora")
    names = trained(model)
    assert all("lora_" in name or ".layer_mix.modules_to_save." in name for name in names)
    for head in HEADS:
        assert any(f".{head}." in name for name in names), head
    after, whole = scores(model), adapt(copy.deepcopy(base), AdapterConfig(method="lora", rank=4))
    assert adapter_bytes(model) < 0.6 * adapter_bytes(whole)
    torch.testing.assert_close(scores(merged(load_adapter(base, folder))), after, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="goes with adapter.method=lora"):
        AdapterConfig(method="head", heads="lora")


def test_heads_that_were_loaded_stay_small_and_new_ones_train_whole(tmp_path):
    build().save_pretrained(tmp_path)
    loaded = UniBriVLModel.from_pretrained(tmp_path)
    assert any(
        ".projection.modules_to_save." in name for name in trained(adapt(build(), AdapterConfig(method="lora")))
    )
    names = trained(adapt(copy.deepcopy(loaded), AdapterConfig(method="lora")))
    assert any(".projection." in name for name in names)
    assert all("lora_" in name or ".layer_mix." in name for name in names)
    names = trained(adapt(copy.deepcopy(loaded), AdapterConfig(method="prompt")))
    assert names and all(".tower." in name for name in names)
    assert any(".projection.modules_to_save." in name for name in trained(adapt(loaded, AdapterConfig(method="head"))))


def test_the_image_tower_is_adapted_where_it_is_named():
    base = build("hubert", "vit")
    assert base.config.freeze_vision_model
    model = adapt(copy.deepcopy(base), AdapterConfig(method="lora", towers=("vision",), rank=2)).train()
    inside = model.get_base_model()
    assert any("vision_model" in name for name in trained(model))
    assert not any(".tower." in name for name in trained(model))
    assert inside.vision_model.training and not inside.audio_model.tower.training
    assert not inside.config.freeze_vision_model and inside.config.freeze_audio_tower, "objectives ask the config"
    bare = unloaded(model)
    assert bare.config.freeze_vision_model and not bare.config.freeze_audio_tower
    both = adapt(base, AdapterConfig(method="prompt", towers=("audio", "vision"), num_prompts=2))
    assert sum("prompt_frames_2" in name for name in trained(both)) == 2
    before = scores(both, "hubert", "vit")
    teach(both, "hubert", "vit")
    assert (scores(both, "hubert", "vit") - before).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("audio", ["wav2vec2", "wavlm", "ast", "clap", "pe_audio", "mel_encoder"])
@pytest.mark.parametrize("method", ["lora", "prompt", "last_k", "head"])
def test_other_towers_are_adapted_or_refused(audio, method, tmp_path):
    refused = {
        ("clap", "prompt"): "takes input_dimensions",
        ("pe_audio", "prompt"): "position_embeddings",
        ("mel_encoder", "prompt"): "no transformer",
        ("mel_encoder", "lora"): "adapter.method=last_k",
    }
    if said := refused.get((audio, method)):
        with pytest.raises(ValueError, match=said):
            adapt(build(audio), AdapterConfig(method=method, **SMALL))
        return
    base, model, folder = adapter(tmp_path, audio, method=method)
    assert torch.equal(scores(load_adapter(base, folder), audio), scores(model, audio))
    # every weight has a say: WavLM takes the weights of its projections without calling them
    quiet = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert quiet == []


def test_a_tower_of_its_own_and_what_is_refused():
    torch.manual_seed(0)
    tower = HubertModel(AutoConfig.for_model(**{**unibrivl_config("hubert").audio_config.to_dict()}))
    names = trained(adapt(tower, AdapterConfig(method="lora", rank=2)))
    assert names and all(".encoder.layers." in name and "lora_" in name for name in names)
    with pytest.raises(ConfigError, match="this model has audio, vision"):
        adapt(build(), AdapterConfig(method="lora", towers=("text",)))
    with pytest.raises(ConfigError, match="no layer named nothing"):
        adapt(build(), AdapterConfig(method="lora", targets=("nothing",)))
    with pytest.raises(ConfigError, match="has 4 layers"):
        adapt(build(), AdapterConfig(method="last_k", last_k=5))
    with pytest.raises(ConfigError, match="adapter.heads=all"):
        adapt(build(), AdapterConfig(method="head", heads="none"))
    with pytest.raises(ValueError, match="has an adapter already"):
        adapt(adapt(build(), AdapterConfig(method="head")), AdapterConfig(method="head"))
    with pytest.raises(ConfigError, match="adapter.rank must be at least 1"):
        AdapterConfig(rank=0)


def test_a_tower_at_rest_is_as_it_was_built():
    model = adapt(build(image="brivl").train(), AdapterConfig(method="head"))
    tower = model.get_base_model().vision_model
    assert not any(module.training or module._forward_pre_hooks for module in tower.modules())


def test_statistics_of_frozen_batch_norms_stay():
    """An adapter does not save them."""
    model = adapt(build("mel_encoder").train(), AdapterConfig(method="last_k", last_k=1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running_" in name}
    model(**sounds("mel_encoder"), pixel_values=pictures())
    moved = [name for name, value in model.state_dict().items() if name in before and not value.equal(before[name])]
    assert moved and all("modules_to_save" in name for name in moved)


# ---- prompt frames --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_prompt_frames_are_frames_before_the_others():
    """The transformer with frames in its input gives the same: no frame of its own is lost, none is a prompt."""
    torch.manual_seed(0)
    model = adapt(build(), AdapterConfig(method="prompt", num_prompts=3)).eval()
    encoder = model.get_base_model().audio_model.tower.encoder
    prompts = encoder.prompt_frames_3.token_adapter.trainable_tokens_delta["default"]
    states = torch.randn(2, 9, 32)
    seen = []
    hook = encoder.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    through = encoder(states)
    hook.remove()
    with model.disable_adapter():
        wide = torch.cat([prompts.expand(2, -1, -1), seen[0]], dim=1)
        for layer in encoder.layers:
            wide = layer(wide, encoder.relative_positions.pe_k.weight)
    torch.testing.assert_close(through, wide[:, 3:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("audio", ["speechlm", "hubert"])
def test_prompt_frames_know_padding(audio, tmp_path):
    """A clip in a batch, padded, is the clip alone; with and without the ways that gradients open."""
    _, model, _ = adapter(tmp_path, audio, method="prompt")
    model.eval()
    batch = sounds(audio)
    with torch.no_grad():
        together = model.get_audio_features(**batch)
        alone = model.get_audio_features(batch["input_values"][1:, :2500])
    assert together.last_hidden_state.shape[1] == together.frame_mask.shape[1] == 12
    torch.testing.assert_close(together.pooler_output[1:], alone.pooler_output, atol=1e-5, rtol=1e-4)
    recorded = model.get_audio_features(**batch)
    torch.testing.assert_close(recorded.pooler_output, together.pooler_output, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_prompt_frames_before_read_texts():
    model = adapt(build(), AdapterConfig(method="prompt", num_prompts=3)).eval()
    read = model.get_text_features(**units()).pooler_output
    with model.disable_adapter():
        assert (model.get_text_features(**units()).pooler_output - read).abs().max() > 1e-6


def test_prompt_frames_under_layer_drop_and_after_an_error():
    model = adapt(build("hubert"), AdapterConfig(method="prompt", num_prompts=3))
    before = scores(model, "hubert")
    model.get_base_model().audio_model.tower.config.layerdrop = 0.5
    model.train()
    for _ in range(6):
        assert model(**sounds("hubert"), pixel_values=pictures()).logits_audio_image.shape == (2, 3)
    layer = model.get_base_model().audio_model.tower.encoder.layers[1]
    broken = layer.register_forward_pre_hook(lambda layer, inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scores(model, "hubert")
    broken.remove()
    assert torch.equal(scores(model, "hubert"), before)
    model.train().gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient_checkpointing=false"):
        for _ in range(8):  # unless it drops all layers
            model(**sounds("hubert"), pixel_values=pictures())


def test_masks_grow():
    additive = torch.zeros(2, 1, 4, 4).masked_fill(torch.tensor([False, False, False, True]), -9.0)
    wide = grown(additive, "attention_mask", 2, 4)
    assert wide.shape == (2, 1, 6, 6) and wide[..., :2].eq(0).all() and wide[..., -1].eq(-9).all()
    assert grown(torch.tensor([[True, False]]), "attention_mask", 1, 2).tolist() == [[True, True, False]]
    assert grown(torch.tensor([[False, True]]), "padding_BT", 1, 2).tolist() == [[False, False, True]]
    assert grown([3, 5], "lengths", 2, 5) == [5, 7]
    with pytest.raises(ValueError, match="eager or sdpa"):
        grown(torch.ones(2, 7), "attention_mask", 1, 4)


# ---- several --------------------------------------------------------------------------------------------------------


def test_adapters_are_switched_and_switching_back_changes_nothing(tmp_path):
    """Of unlike kinds on one base: where one has a copy of a module or frames, the other must not hear them."""
    kinds = {
        "lora": {"method": "lora"},
        "few": {"method": "prompt"},
        "many": {"method": "prompt", "num_prompts": 5},
        "head": {"method": "head"},
    }
    expected, model = {}, build()
    base = scores(model)
    for name, fields in kinds.items():
        _, taught, folder = adapter(tmp_path / name, **fields)
        expected[name] = scores(taught)
        model = load_adapter(model, folder, name)
    for name in (*kinds, *reversed(kinds)):
        model.set_adapter(name)
        assert torch.equal(scores(model), expected[name]), name
    with model.disable_adapter():
        assert torch.equal(scores(model), base)
    with pytest.raises(ValueError, match="another name"):
        load_adapter(model, tmp_path / "lora", "lora")
    model.set_adapter("lora")
    torch.testing.assert_close(scores(merged(model)), expected["lora"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", [("lora", "last_k"), ("last_k", "lora")])
def test_a_layer_is_copied_or_has_lora(order, tmp_path):
    model = build()
    for name in order:
        adapter(tmp_path / name, method=name)
    model = load_adapter(model, tmp_path / order[0], order[0])
    with pytest.raises(ValueError, match="a base of its own"):
        load_adapter(model, tmp_path / order[1], order[1])
    assert set(model.peft_config) == {order[0]}


def test_transformers_finds_the_base_of_an_adapter(tmp_path):
    """from_pretrained of an adapter's folder: the base that it names, and the adapter in it."""
    base, model, _ = adapter(tmp_path / "unused", method="lora")
    base.save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    found = peft.PeftConfig.from_pretrained(tmp_path / "adapter").base_model_name_or_path
    again = load_adapter(UniBriVLModel.from_pretrained(found), tmp_path / "adapter", trainable=True)
    assert torch.equal(scores(again), scores(model)) and trained(again) == trained(model)
