"""UniBriVL from two checkpoints: towers bit for bit as they were, of every kind, by folder and as models."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_towers import AUDIO, DEEP, HEAD, IMAGE, TEXT, pictures, sounds, tokens, unibrivl_config
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    ClapAudioModel,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from unibrivl.modeling import (
    BriVLConfig,
    BriVLModel,
    BriVLVisionModel,
    MelEncoderConfig,
    MelEncoderModel,
    SpeechLMConfig,
    SpeechLMForCTC,
    SpeechLMModel,
    UniBriVLModel,
)
from unibrivl.modeling.loading_unibrivl import CheckpointMismatch


def build(config, seed=0):
    torch.manual_seed(seed)
    return UniBriVLModel(config).eval()


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def fields(tower):
    return {name: value for name, value in tower.items() if name != "model_type"}


def saved_again(model, folder):
    model.save_pretrained(folder)
    torch.manual_seed(99)  # another seed: anything drawn instead of loaded would show
    return UniBriVLModel.from_pretrained(folder)


def plain(config):
    """A configuration without what loading writes into it."""
    found = {name: value for name, value in config.items() if name not in ("dtype", "_name_or_path")}
    return {name: plain(value) if isinstance(value, dict) else value for name, value in found.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- checkpoints --------------------------------------------------------------------------------------------------


def whole_clap():
    reader = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    config = ClapConfig(
        audio_config=fields(AUDIO["clap"]), text_config={**reader, "vocab_size": 50}, projection_dim=16
    )
    return ClapModel(config)


def clap_ear():
    return ClapAudioModel(whole_clap().config.audio_config)


def whole_clip():
    towers = {"vision_config": fields(IMAGE["clip"]), "text_config": fields(TEXT["clip"])}
    return CLIPModel(CLIPConfig(**towers, projection_dim=20))


def whole_siglip():
    return SiglipModel(SiglipConfig(vision_config=fields(IMAGE["siglip"]), text_config=fields(TEXT["siglip"])))


def whole_brivl():
    return BriVLModel(BriVLConfig(vision_config=fields(IMAGE["brivl"]), text_config=fields(TEXT["brivl"])))


# checkpoint -> how it is made, the tower's name above, where in it the tower is
AUDIO_CHECKPOINTS = {
    "SpeechLM": (lambda: SpeechLMModel(SpeechLMConfig(**fields(AUDIO["speechlm"]))), "speechlm", ""),
    "SpeechLM for CTC": (lambda: SpeechLMForCTC(SpeechLMConfig(**fields(AUDIO["speechlm"]))), "speechlm", "speechlm"),
    "HuBERT": (lambda: HubertModel(HubertConfig(**fields(AUDIO["hubert"]))), "hubert", ""),
    "HuBERT for CTC": (lambda: HubertForCTC(HubertConfig(**fields(AUDIO["hubert"]))), "hubert", "hubert"),
    "Whisper": (lambda: WhisperModel(WhisperConfig(**fields(AUDIO["whisper"]))), "whisper", "encoder"),
    "Whisper that writes": (
        lambda: WhisperForConditionalGeneration(WhisperConfig(**fields(AUDIO["whisper"]))),
        "whisper",
        "model.encoder",
    ),
    "Whisper's encoder": (lambda: WhisperEncoder(WhisperConfig(**fields(AUDIO["whisper"]))), "whisper", ""),
    "CLAP": (whole_clap, "clap", "audio_model"),
    "CLAP's ear": (clap_ear, "clap", ""),
    "mel encoder": (lambda: MelEncoderModel(MelEncoderConfig(**fields(AUDIO["mel_encoder"]))), "mel_encoder", ""),
}
IMAGE_CHECKPOINTS = {
    "CLIP": (whole_clip, "clip", True),
    "CLIP's eye": (lambda: CLIPVisionModelWithProjection(whole_clip().config.vision_config), "clip", False),
    "SigLIP": (whole_siglip, "siglip", True),
    "SigLIP's eye": (lambda: SiglipVisionModel(whole_siglip().config.vision_config), "siglip", False),
    "BriVL": (whole_brivl, "brivl", True),
    "BriVL's eye": (lambda: BriVLVisionModel(whole_brivl().config.vision_config), "brivl", False),
    "ViT": (lambda: ViTModel(ViTConfig(**fields(IMAGE["vit"]))), "vit", False),
    "DINOv2": (lambda: Dinov2Model(Dinov2Config(**fields(IMAGE["dinov2"]))), "dinov2", False),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a checkpoint by its name, made when it is first asked for, and the weights in it."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(len(made) + 1)
            model = {**AUDIO_CHECKPOINTS, **IMAGE_CHECKPOINTS}[name][0]()
            with torch.no_grad():
                for weight in model.parameters():  # nothing that an initialisation would draw
                    weight.add_(0.01 * torch.randn_like(weight))
            folder = tmp_path_factory.mktemp("checkpoint")
            model.save_pretrained(folder)
            made[name] = folder, {key: value.clone() for key, value in model.state_dict().items()}
        return made[name]

    return get


def part_of(state, prefix):
    start = f"{prefix}." if prefix else ""
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


@pytest.mark.parametrize("name", AUDIO_CHECKPOINTS)
@pytest.mark.parametrize("as_model", [False, True])
def test_an_audio_tower_from_a_checkpoint(name, as_model, checkpoint, tmp_path):
    """Bit for bit, by folder and as a model; the head is new; saved and loaded again it is the same."""
    folder, state = checkpoint(name)
    _, audio, prefix = AUDIO_CHECKPOINTS[name]
    source = folder
    if as_model:
        source = AUDIO_CHECKPOINTS[name][0]()
        source.load_state_dict(state)
    model = UniBriVLModel.from_pretrained_towers(source, checkpoint("DINOv2")[0], **HEAD)
    assert same(model.audio_model.tower.state_dict(), part_of(state, prefix)) and not model.training
    assert model.audio_model.attention_pool.layers[0].fc1.weight.std() > 0
    assert model.text_model is None and model.config.text_route == "units"
    assert model.audio_model.tower.config._attn_implementation == ("eager" if audio == "clap" else "sdpa") or (
        audio == "mel_encoder"
    )
    with torch.no_grad():
        output = model(**sounds(audio), pixel_values=pictures("dinov2")).logits_audio_image
        again = saved_again(model, tmp_path)
        assert torch.equal(again(**sounds(audio), pixel_values=pictures("dinov2")).logits_audio_image, output)
    assert plain(again.config.to_dict()) == plain(model.config.to_dict())


@pytest.mark.parametrize("name", IMAGE_CHECKPOINTS)
@pytest.mark.parametrize("text", [False, True])
def test_an_image_tower_from_a_checkpoint(name, text, checkpoint, tmp_path):
    """Frozen, with the text tower that shares its space where there is one and it is wanted."""
    folder, state = checkpoint(name)
    _, image, has_text = IMAGE_CHECKPOINTS[name]
    model = UniBriVLModel.from_pretrained_towers(checkpoint("HuBERT")[0], folder, text=text, **HEAD)
    with torch.no_grad():
        eye = {**state}
        for key, value in model.vision_model.state_dict().items():
            assert torch.equal(value, eye[key if key in eye else f"vision_model.{key}"]), key
        if has_text and text:
            for key, value in model.text_model.state_dict().items():
                assert torch.equal(value, eye[key if key in eye else f"text_model.{key}"]), key
    assert (model.text_model is not None) == (has_text and text) == (model.config.text_config is not None)
    assert model.config.text_route == ("native" if has_text and text else "units")
    assert not any(weight.requires_grad for weight in model.vision_model.parameters())
    assert all(weight.requires_grad for weight in model.image_to_shared.parameters())
    with torch.no_grad():
        seen = pictures(image)
        output = model(pixel_values=seen).image_embeds
        again = saved_again(model, tmp_path)
        assert torch.equal(again(pixel_values=seen).image_embeds, output)
    assert (again.text_model is None) == (model.text_model is None)


def test_clips_own_scores_are_the_native_space(checkpoint):
    """v and the native texts compare as CLIP compares them."""
    clip = CLIPModel.from_pretrained(checkpoint("CLIP")[0])
    model = UniBriVLModel.from_pretrained_towers(checkpoint("HuBERT")[0], checkpoint("CLIP")[0], **HEAD)
    seen, read = pictures(), tokens()
    with torch.no_grad():
        ours = model(pixel_values=seen, **read)
        theirs = clip(read["input_ids"], seen, read["text_attention_mask"])
    close(ours.native_image_embeds, theirs.image_embeds)
    close(ours.native_text_embeds, theirs.text_embeds)
    close(ours.logits_image_text, theirs.logits_per_image / clip.logit_scale.exp())


def test_dtypes_of_the_towers(checkpoint, tmp_path):
    """A tower may be narrower than the head. The file says the widest type, so nothing is lost on the way."""
    narrow = {"dtype": torch.bfloat16}
    model = UniBriVLModel.from_pretrained_towers(
        checkpoint("HuBERT")[0], checkpoint("CLIP")[0], audio_kwargs=narrow, image_kwargs=narrow, **HEAD
    )
    assert {weight.dtype for weight in model.audio_model.tower.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in model.vision_model.parameters()} == {torch.bfloat16}
    assert model.audio_model.projection.fc1.weight.dtype == torch.float32 == model.dtype
    output = model(**sounds("hubert"), pixel_values=pictures(), **tokens())
    assert output.logits_audio_image.dtype == output.audio_embeds.dtype == torch.float32
    wide = UniBriVLModel.from_pretrained_towers(checkpoint("HuBERT")[0], checkpoint("CLIP")[0], **HEAD)
    wide.load_state_dict(model.state_dict())
    with torch.no_grad():
        exact = wide(**sounds("hubert"), pixel_values=pictures())
    close(output.native_image_embeds.float(), exact.native_image_embeds, 0.02)
    close(output.audio_embeds, exact.audio_embeds, 0.05)
    again = saved_again(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    assert all(
        torch.equal(weight.to(model.state_dict()[name].dtype), model.state_dict()[name])
        for name, weight in again.state_dict().items()
    )
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}


def test_attention_of_given_towers_is_kept(checkpoint):
    model = UniBriVLModel.from_pretrained_towers(
        checkpoint("HuBERT")[0],
        checkpoint("CLIP")[0],
        audio_kwargs={"attn_implementation": "eager"},
        **HEAD,
    )
    assert model.audio_model.tower.config._attn_implementation == "eager"
    assert model.vision_model.config._attn_implementation == model.config._attn_implementation == "sdpa"


def test_what_a_user_froze_in_a_tower_stays_frozen(checkpoint):
    tower = HubertModel.from_pretrained(checkpoint("HuBERT")[0])
    tower.feature_extractor._freeze_parameters()
    model = UniBriVLModel.from_pretrained_towers(tower, checkpoint("DINOv2")[0], **HEAD).train()
    assert model.audio_model.tower is tower
    assert not any(weight.requires_grad for weight in tower.feature_extractor.parameters())
    assert all(weight.requires_grad for weight in tower.encoder.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (whole_clip, r"CLIPModel \('clip'\) is a whole model and no image tower"),
        (whole_siglip, r"SiglipModel \('siglip'\) is a whole model"),
        (
            lambda: ViTModel(ViTConfig(**fields(IMAGE["vit"]))),
            "pass ViTModel.from_pretrained.*add_pooling_layer=False",
        ),
        (lambda: torch.nn.Linear(2, 2), r"got Linear. Of a PEFT model pass model.get_base_model\(\)"),
        (lambda: BertModel(BertConfig(**DEEP)), "takes input_ids and no image tower"),
    ],
)
def test_models_that_are_no_image_tower(make, words, checkpoint):
    with pytest.raises(ValueError, match=words):
        UniBriVLModel.from_pretrained_towers(checkpoint("HuBERT")[0], make(), **HEAD)


def test_a_whole_unibrivl_is_no_tower(checkpoint):
    model = build(unibrivl_config("hubert"))
    with pytest.raises(ValueError, match=r"\('unibrivl'\) is a whole model and no audio tower"):
        UniBriVLModel.from_pretrained_towers(model, checkpoint("DINOv2")[0], **HEAD)
    again = UniBriVLModel.from_pretrained_towers(model.audio_model.tower, checkpoint("DINOv2")[0], **HEAD)
    assert again.audio_model.tower is model.audio_model.tower


def test_a_checkpoint_that_lacks_weights_is_no_tower(checkpoint, tmp_path):
    """transformers would draw what is missing at random, and go on."""
    config = HubertConfig(**{**fields(AUDIO["hubert"]), "num_hidden_layers": 4})
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((checkpoint("HuBERT")[0] / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointMismatch, match="lacks 16 weights of HubertModel: encoder.layers.3.*pass the model"):
        UniBriVLModel.from_pretrained_towers(tmp_path, checkpoint("DINOv2")[0], **HEAD)
    with pytest.raises(ValueError, match=r"HubertModel \('hubert'\) takes input_values and no image tower"):
        UniBriVLModel.from_pretrained_towers(checkpoint("HuBERT")[0], checkpoint("HuBERT")[0], **HEAD)


def test_an_audio_tower_from_pe_audio(tmp_path):
    reader = {"model_type": "modernbert", "num_attention_heads": 4, "num_hidden_layers": 1, "hidden_size": 32}
    tokens_of = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    reader |= {"intermediate_size": 40, "vocab_size": 50, **tokens_of}
    try:
        config = AutoConfig.for_model("pe_audio", text_config=reader, audio_config=fields(AUDIO["pe_audio"]))
    except StrictDataclassError:
        pytest.skip("this version of transformers reads no text configuration of PE-A that it does not make itself")
    whole = AutoModel.from_config(config)
    whole.save_pretrained(tmp_path)
    eye = UniBriVLModel(unibrivl_config("hubert")).vision_model
    model = UniBriVLModel.from_pretrained_towers(tmp_path, eye, **HEAD)
    assert same(model.audio_model.tower.state_dict(), whole.audio_encoder.state_dict())
    assert model(**sounds("pe_audio")).audio_embeds.shape == (2, 24)
