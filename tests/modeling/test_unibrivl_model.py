"""UniBriVL at toy size: its scores by hand, what trains and what does not, and how it is saved, loaded and asked."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_towers import AUDIO, IMAGE, pictures, sounds, tokens, unibrivl_config, units
from torch.nn.functional import cosine_similarity, normalize
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, HubertConfig, HubertModel

from unibrivl.modeling import (
    UNIBRIVL_PRESETS,
    SpeechLMConfig,
    UniBriVLAudioModel,
    UniBriVLConfig,
    UniBriVLForAudioClassification,
    UniBriVLModel,
)
from unibrivl.modeling.configuration_brivl import BriVLTextConfig, BriVLVisionConfig
from unibrivl.modeling.loading_unibrivl import CheckpointMismatch


def build(config, cls=UniBriVLModel, seed=0):
    torch.manual_seed(seed)
    return cls(config).eval()


def close(ours, other, atol=1e-6):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def trained(module):
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def names_under(model, *parts):
    return {name for name, _ in model.named_parameters() if name.startswith(parts)}


@pytest.fixture(scope="module")
def speech_clip():
    """SpeechLM and CLIP with its text tower: all that can be asked, in one model. Not to be changed."""
    return build(unibrivl_config("speechlm", "clip", "clip"))


# ---- the configuration ----------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers():
    config = UniBriVLConfig()
    assert config.audio_config.to_dict() == SpeechLMConfig().to_dict()
    assert config.vision_config.to_dict() == BriVLVisionConfig().to_dict() and config.text_config is None
    assert (config.embed_dim, config.image_embed_dim, config.num_sa_layers, config.num_sa_heads) == (512, 2048, 4, 4)
    assert config.freeze_vision_model and not config.freeze_audio_model and config.use_layer_mix
    paper = UniBriVLConfig(**UNIBRIVL_PRESETS["paper"])
    assert paper.audio_config.num_hidden_layers == 24 and paper.vision_config.image_size == 360
    assert UniBriVLConfig(**UNIBRIVL_PRESETS["base"]).to_dict() == config.to_dict()


def test_text_configs_by_default_are_brivls():
    config = UniBriVLConfig(text_config={})
    assert config.text_config.to_dict() == BriVLTextConfig().to_dict()


@pytest.mark.parametrize("as_object", [False, True])
def test_towers_by_fields_or_by_configuration(as_object, tmp_path):
    towers = {"audio_config": AUDIO["hubert"], "vision_config": IMAGE["clip"]}
    if as_object:
        towers = {name: AutoConfig.for_model(**tower) for name, tower in towers.items()}
    config = UniBriVLConfig(**towers, embed_dim=24, num_sa_heads=2)
    assert type(config.audio_config) is HubertConfig and type(config.vision_config) is CLIPVisionConfig
    assert config.image_embed_dim == 20 and config.vision_config.hidden_size == 32
    assert not as_object or config.audio_config is towers["audio_config"]
    config.save_pretrained(tmp_path)
    for cls in (UniBriVLConfig, AutoConfig):
        again = cls.from_pretrained(tmp_path)
        assert type(again) is UniBriVLConfig
        assert {**again.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 1
    other = UniBriVLConfig.from_pretrained(tmp_path, audio_config={"hidden_size": 64}, num_sa_layers=1)
    assert other.audio_config.hidden_size == 64 and other.audio_config.num_hidden_layers == 3
    assert other.num_sa_layers == 1 and other.vision_config.hidden_size == 32


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"embed_dim": 25}, r"embed_dim \(25\) must be a multiple of num_sa_heads \(2\)"),
        ({"text_route": "phones"}, "text_route must be 'units' or 'native', got 'phones'"),
        ({"embed_dim": "wide"}, "embed_dim"),
        ({"format_version": 2}, "pip install --upgrade unibrivl"),
        ({"vision_config": {"model_type": "timm_wrapper"}}, "width of a 'timm_wrapper' is not known.*image_embed_dim"),
        ({"text_config": {"projection_dim": 7, "num_attention_heads": 4}}, "text tower gives 7 numbers and the image"),
    ],
)
def test_what_does_not_fit_together(given, words):
    with pytest.raises(StrictDataclassError, match=words):
        unibrivl_config(**given)


def test_a_newer_file_is_refused(speech_clip, tmp_path):
    speech_clip.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2, "num_sa_heads": "many"}))
    for cls in (UniBriVLModel, UniBriVLAudioModel, AutoModel):
        with pytest.raises(ValueError, match="format_version 2 .* pip install --upgrade unibrivl"):
            cls.from_pretrained(tmp_path)


# ---- scores -----------------------------------------------------------------------------------------------------


def test_scores_by_hand(speech_clip):
    """a, v, f and g of the paper, from the parts, with the cosines of torch."""
    model = speech_clip
    with torch.no_grad():
        output = model(**sounds(), pixel_values=pictures())
        heard = model.audio_model(**sounds())
        a = model.audio_model.projection(heard.features)
        v = model.vision_model(pictures()).image_embeds
        f_v = model.image_to_shared(normalize(v, dim=-1))
        g_a = model.audio_to_native(normalize(a, dim=-1))
    shared = cosine_similarity(a[:, None], f_v[None], dim=-1)
    native = cosine_similarity(g_a[:, None], v[None], dim=-1)
    close(output.shared_scores, shared)
    close(output.native_scores, native)
    close(output.logits_audio_image, (shared + native) / 2)
    close(output.audio_embeds, normalize(a, dim=-1))
    close(output.image_embeds, normalize(f_v, dim=-1))
    close(output.native_audio_embeds, normalize(g_a, dim=-1))
    close(output.native_image_embeds, normalize(v, dim=-1))


def test_every_embedding_has_length_one(speech_clip):
    output = speech_clip(**sounds(), pixel_values=pictures(), **units(), **tokens())
    embeds = {name: value for name, value in output.items() if name.endswith("embeds")}
    assert len(embeds) == 6
    for name, value in embeds.items():
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(len(value)), msg=name)


def test_scale_means_nothing_to_f_and_g(speech_clip):
    """A raw v and a normalised v are the same picture."""
    v, a = 40 * torch.randn(3, 20), 0.01 * torch.randn(3, 24)
    close(speech_clip.project_image(v), speech_clip.project_image(normalize(v, dim=-1)))
    close(speech_clip.project_audio(a), speech_clip.project_audio(normalize(a, dim=-1)))


def test_sound_and_text_are_averaged(speech_clip):
    both = speech_clip.get_audio_text_features(sounds()["input_values"], units()["unit_ids"]).pooler_output
    a = speech_clip.get_audio_features(sounds()["input_values"]).pooler_output
    t = speech_clip.get_text_features(units()["unit_ids"]).pooler_output
    close(both, normalize((a + t) / 2, dim=-1))


def test_both_text_routes(speech_clip):
    """By units in the shared space, by the image tower's own text tower in its space; the config chooses."""
    model = copy.deepcopy(speech_clip)
    asked = {**sounds(), "pixel_values": pictures(), **units(), **tokens()}
    by_units, by_tower = model(**{**asked, "input_ids": None}), model(**{**asked, "unit_ids": None})
    close(by_units.logits_audio_text, by_units.audio_embeds @ by_units.text_embeds.T)
    text = model.project_audio(by_units.text_embeds)
    image_text = by_units.image_embeds @ by_units.text_embeds.T + by_units.native_image_embeds @ text.T
    close(by_units.logits_image_text, image_text / 2)
    close(by_tower.logits_audio_text, by_tower.native_audio_embeds @ by_tower.native_text_embeds.T)
    close(by_tower.logits_image_text, by_tower.native_image_embeds @ by_tower.native_text_embeds.T)
    for route, wanted in (("units", by_units), ("native", by_tower)):
        model.config.text_route = route
        output = model(**asked)
        close(output.logits_audio_text, wanted.logits_audio_text)
        close(output.logits_image_text, wanted.logits_image_text)


def test_brivls_text_tower_reads_too():
    model = build(unibrivl_config("hubert", "brivl", "brivl", text_route="native"))
    output = model(**sounds("hubert"), pixel_values=pictures("brivl"), **tokens("brivl"))
    assert output.native_text_embeds.shape == (2, 320) and output.logits_audio_text.shape == (2, 2)
    read = model.text_model(tokens("brivl")["input_ids"], tokens("brivl")["text_attention_mask"])
    close(output.native_text_embeds, read.pooler_output)


def test_detector_boxes_go_to_the_image_tower_alone():
    model = build(unibrivl_config("ast", "brivl"))
    boxes = torch.tensor([[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 64.0, 64.0]])
    output = model(**sounds("ast"), pixel_values=pictures("brivl"), boxes=boxes)
    v = model.vision_model(pictures("brivl"), boxes=boxes).pooler_output
    close(output.native_image_embeds, v)
    assert (model(pixel_values=pictures("brivl")).native_image_embeds - v).abs().max() > 1e-4


# ---- what is asked and what is given --------------------------------------------------------------------------------


def test_get_features_give_outputs_or_tuples(speech_clip):
    """transformers' contract: `pooler_output`, and tuples on request."""
    samples, ids = sounds()["input_values"], units()["unit_ids"]
    calls = {
        "get_audio_features": ((samples,), 24),
        "get_text_features": ((ids,), 24),
        "get_audio_text_features": ((samples, ids), 24),
        "get_image_features": ((pictures(),), 24),
        "get_native_image_features": ((pictures(),), 20),
        "get_native_audio_features": ((samples,), 20),
        "get_native_text_features": ((tokens()["input_ids"],), 20),
    }
    for name, (arguments, width) in calls.items():
        method = getattr(speech_clip, name)
        output = method(*arguments)
        assert output.pooler_output.shape[1] == width, name
        plain = method(*arguments, return_dict=False)
        assert type(plain) is tuple and any(torch.equal(one, output.pooler_output) for one in plain), name
        hidden = method(*arguments, output_hidden_states=True)
        assert name == "get_audio_text_features" or len(hidden.hidden_states) > 2, name
    whole = speech_clip(**sounds(), pixel_values=pictures())
    plain = speech_clip(**sounds(), pixel_values=pictures(), return_dict=False)
    assert type(plain) is tuple and torch.equal(plain[0], whole.audio_embeds)
    assert len(plain) == len(whole.to_tuple())


def test_the_same_embeddings_from_forward_and_from_the_methods(speech_clip):
    output = speech_clip(**sounds(), pixel_values=pictures(), **units(), **tokens())
    close(output.audio_embeds, speech_clip.get_audio_features(**sounds()).pooler_output)
    close(output.native_audio_embeds, speech_clip.get_native_audio_features(**sounds()).pooler_output)
    close(output.image_embeds, speech_clip.get_image_features(pictures()).pooler_output)
    close(output.native_image_embeds, speech_clip.get_native_image_features(pictures()).pooler_output)
    close(output.text_embeds, speech_clip.get_text_features(**units()).pooler_output)
    close(output.native_text_embeds, speech_clip.get_native_text_features(**tokens()).pooler_output)


def test_whatever_is_passed_is_embedded(speech_clip):
    sound = speech_clip(**sounds())
    assert set(sound.keys()) == {"audio_embeds", "native_audio_embeds", "audio_model_output"}
    assert speech_clip(pixel_values=pictures()).logits_audio_image is None
    assert speech_clip(**units(), pixel_values=pictures()).logits_image_text.shape == (3, 2)


def test_names_of_other_feature_extractors_are_understood():
    """`input_features` and `padding_mask`, in every method."""
    for audio in ("whisper", "pe_audio"):
        model, sound = build(unibrivl_config(audio)), sounds(audio)
        values, mask = sound.values()
        wanted = model.get_audio_features(values, mask).pooler_output
        for method in (model, model.get_audio_features, model.audio_model):
            output = method(**sound)
            close(wanted, output.audio_embeds if method is model else output.pooler_output, 0)
        close(model.get_native_audio_features(**sound).pooler_output, model.project_audio(wanted), 0)


def test_clap_hears_of_long_clips():
    model = build(unibrivl_config("clap", audio_config={**AUDIO["clap"], "enable_fusion": True}))
    batch = {"input_features": torch.randn(2, 4, 512, 32), "is_longer": torch.tensor([[True], [False]])}
    output = model(**batch).audio_embeds
    assert (output - model(**{**batch, "is_longer": ~batch["is_longer"]}).audio_embeds).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model(), "nothing to embed: pass input_values .sound., pixel_values, unit_ids or input_ids"),
        (lambda model: model.audio_model(), "pass sound .input_values. or a text .unit_ids., one of the two"),
        (lambda model: model.audio_model(**sounds(), **units()), "one of the two"),
        (lambda model: model(**units()), "a hubert tower hears and does not read.*pass input_ids"),
        (
            lambda model: model(**tokens()),
            "no native text tower. Pass unit_ids.*text_config, or from_pretrained_towers",
        ),
        (lambda model: model(**{**sounds(), "attention_mask": torch.zeros(2, 4000)}), "nothing to pool"),
    ],
)
def test_what_cannot_be_asked_says_what_can(call, words):
    with pytest.raises(ValueError, match=words):
        call(build(unibrivl_config("hubert")))


# ---- saving and loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_to_the_bit(tied, speech_clip, tmp_path):
    model = copy.deepcopy(speech_clip)
    model.config.tie_word_embeddings = tied
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(7)
    again, report = UniBriVLModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for ours, theirs in ((again.state_dict(), model.state_dict()), (buffers(again), buffers(model))):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def buffers(model):
    """With those that are not saved: a model is first built without memory, and they must be made again."""
    return dict(model.named_buffers())


@pytest.mark.parametrize(
    "place", [{"device_map": {"": "cpu"}}, {"device_map": "auto"}, {"low_cpu_mem_usage": True}, {"max_shard_size": 1}]
)
def test_placed_and_sharded(place, speech_clip, tmp_path):
    if "device_map" in place:
        pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    size = {"max_shard_size": "50KB"} if place.pop("max_shard_size", None) else {}
    speech_clip.save_pretrained(tmp_path, **size)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(size)
    model = UniBriVLModel.from_pretrained(tmp_path, **place)
    asked = {**sounds(), "pixel_values": pictures(), **units(), **tokens()}
    with torch.no_grad():
        ours, theirs = model(**asked), speech_clip(**asked)
    assert model.device.type == theirs.audio_embeds.device.type or place.get("device_map") == "auto"
    close(ours.logits_audio_image.cpu(), theirs.logits_audio_image, 0 if model.device.type == "cpu" else 1e-4)
    assert trained(model) == trained(speech_clip)


@pytest.mark.parametrize("image", ["clip", "brivl"])
def test_bfloat16(image, tmp_path):
    model = build(unibrivl_config("speechlm", image))
    model.save_pretrained(tmp_path)
    half = UniBriVLModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16} == {half.dtype}
    with torch.no_grad():
        exact = model(**sounds(), pixel_values=pictures(image))
        output = half(**sounds(), pixel_values=pictures(image))
    assert output.logits_audio_image.dtype == torch.bfloat16
    assert cosine_similarity(output.audio_embeds.float(), exact.audio_embeds, dim=-1).min() > 0.98
    assert cosine_similarity(output.native_image_embeds.float(), exact.native_image_embeds, dim=-1).min() > 0.98
    half.save_pretrained(tmp_path / "half")
    assert UniBriVLModel.from_pretrained(tmp_path / "half").dtype == torch.bfloat16


def test_autocast_runs_forward_and_backward():
    model = build(unibrivl_config("speechlm", "clip")).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = (1 - model(**sounds(), pixel_values=pictures()).logits_audio_image.float()).mean()
    loss.backward()
    assert loss.isfinite() and all(w.grad.isfinite().all() for w in model.parameters() if w.grad is not None)


def test_families_of_checkpoints(speech_clip, tmp_path):
    """The language tower from the whole, the whole from no part, nothing from another model."""
    speech_clip.save_pretrained(tmp_path / "whole")
    alone = UniBriVLAudioModel.from_pretrained(tmp_path / "whole")
    alone.save_pretrained(tmp_path / "alone")
    again = UniBriVLAudioModel.from_pretrained(tmp_path / "alone")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in alone.state_dict().items())
    head = UniBriVLForAudioClassification.from_pretrained(tmp_path / "alone")
    head.save_pretrained(tmp_path / "head")
    back = UniBriVLAudioModel.from_pretrained(tmp_path / "head")
    assert all(torch.equal(back.state_dict()[name], value) for name, value in alone.state_dict().items())
    for part in ("alone", "head"):
        with pytest.raises(CheckpointMismatch, match=r"does not fit UniBriVLModel|holds none of the"):
            UniBriVLModel.from_pretrained(tmp_path / part)
    HubertModel(HubertConfig(**{k: v for k, v in AUDIO["hubert"].items() if k != "model_type"})).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="of a 'hubert' model and UniBriVLConfig reads 'unibrivl'"):
        UniBriVLModel.from_pretrained(tmp_path)


# ---- attention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("audio", "image"), [("speechlm", "clip"), ("hubert", "brivl"), ("whisper", "siglip")])
def test_sdpa_equals_eager(audio, image, tmp_path):
    text = image if image != "vit" else None
    model = build(unibrivl_config(audio, image, text))
    asked = {**sounds(audio), "pixel_values": pictures(image), **tokens(image)}
    assert implementations(model) == {"": "sdpa", "audio": "sdpa", "vision": "sdpa", "text": "sdpa"}
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        sdpa = model(**asked)
        model.set_attn_implementation("eager")
        assert set(implementations(model).values()) == {"eager"}
        loaded = UniBriVLModel.from_pretrained(tmp_path, attn_implementation="eager")
        assert set(implementations(loaded).values()) == {"eager"}
        for one in (model, loaded):
            eager = one(**asked, output_attentions=True)
            close(eager.logits_audio_image, sdpa.logits_audio_image, 1e-5)
            close(eager.logits_audio_text, sdpa.logits_audio_text, 1e-5)
    layers = len(model.audio_model.layer_mix.logits)
    assert len(eager.audio_model_output.attentions) == layers
    assert eager.audio_model_output.attentions[0].shape[:2] == (2, 4)
    assert len(eager.vision_model_output.attentions) > 0 and len(eager.native_text_model_output.attentions) > 0


def implementations(model):
    parts = {"": model, "audio": model.audio_model.tower, "vision": model.vision_model, "text": model.text_model}
    return {name: part.config._attn_implementation for name, part in parts.items() if part is not None}


def test_attention_of_one_tower(speech_clip, tmp_path):
    speech_clip.save_pretrained(tmp_path)
    wanted = {"": "sdpa", "audio": "eager", "vision": "sdpa", "text": "sdpa"}
    model = UniBriVLModel.from_pretrained(tmp_path, attn_implementation={"audio_config": "eager"})
    assert implementations(model) == wanted
    again = copy.deepcopy(speech_clip)
    again.set_attn_implementation({"audio_config": "eager"})
    assert implementations(again) == wanted
    output = model.get_audio_features(**sounds(), output_attentions=True)
    assert len(output.attentions) == 4
    close(output.pooler_output, speech_clip.get_audio_features(**sounds()).pooler_output, 1e-5)


@pytest.mark.parametrize(("audio", "image", "without"), [("wavlm", "clip", "audio"), ("clap", "resnet", "vision")])
def test_towers_without_sdpa_run_eager_in_a_model_that_has_it(audio, image, without, tmp_path):
    """Asked for in the configuration, at loading, or later."""
    model = build(unibrivl_config(audio, image, attn_implementation="sdpa"))
    model.save_pretrained(tmp_path)
    for one in (model, UniBriVLModel.from_pretrained(tmp_path, attn_implementation="sdpa")):
        found = implementations(one)
        assert found[without] == "eager" and found[""] == "sdpa"
        assert one(**sounds(audio), pixel_values=pictures(image)).logits_audio_image.shape == (2, 3)
    close(one(**sounds(audio)).audio_embeds, model(**sounds(audio)).audio_embeds, 0)
