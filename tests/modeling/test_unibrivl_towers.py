"""Every kind of tower inside UniBriVL: run, masked, saved, loaded, taken from checkpoints, refused."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_towers import AUDIO, DEEP, HEAD, IMAGE, PATCHES, TEXT, pictures, sounds, tokens, unibrivl_config
from transformers import (
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
    UniBriVLAudioModel,
    UniBriVLModel,
)
from unibrivl.modeling.loading_unibrivl import CheckpointMismatch


def build(config, cls=UniBriVLModel, seed=0):
    torch.manual_seed(seed)
    return cls(config).eval()


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


# ---- every tower --------------------------------------------------------------------------------------------------

# tower -> layers in the mix (0: the last hidden state), frames of the two sounds that `sounds` gives
HEARD = {
    "speechlm": (4, [12, 7]),
    "hubert": (3, [12, 7]),
    "wav2vec2": (3, [12, 7]),
    "wavlm": (3, [12, 7]),
    "ast": (3, [10, 10]),
    "whisper": (3, [50, 30]),
    "clap": (0, [16, 16]),
    "pe_audio": (3, [20, 10]),
    "mel_encoder": (0, [8, 5]),
}
WIDTHS = {"clip": 20, "siglip": 32, "dinov2": 32, "vit": 32, "resnet": 16, "brivl": 320}
PAIRS = [(audio, "clip") for audio in AUDIO] + [("hubert", image) for image in IMAGE if image != "clip"]


@pytest.mark.parametrize(("audio", "image"), PAIRS)
def test_a_pair_of_towers(audio, image, tmp_path):
    """Runs, says which frames are real, saves, loads to the bit, whole and the language tower alone."""
    text = image if image in TEXT else None
    model = build(unibrivl_config(audio, image, text))
    num_mixed, num_frames = HEARD[audio]
    sound, seen, read = sounds(audio), pictures(image), tokens(image) if text else {}
    with torch.no_grad():
        output = model(**sound, pixel_values=seen, **read)
        heard = model.audio_model(**sound)
    assert output.logits_audio_image.shape == (2, 3) and output.audio_embeds.shape == (2, 24)
    assert output.native_image_embeds.shape == (3, WIDTHS[image]) == (3, model.config.image_embed_dim)
    assert output.native_audio_embeds.shape == (2, WIDTHS[image])
    assert text is None or output.logits_audio_text.shape == (2, 2)
    assert heard.last_hidden_state.shape == (2, max(num_frames), 24) and heard.features.shape == (2, 24)
    assert (0 if model.audio_model.layer_mix is None else len(model.audio_model.layer_mix.logits)) == num_mixed
    frames = [max(num_frames)] * 2 if heard.frame_mask is None else heard.frame_mask.sum(1).tolist()
    assert frames == num_frames and (heard.frame_mask is None) == (audio in ("ast", "clap"))

    again = saved_again(model, tmp_path)
    with torch.no_grad():
        assert same(again.state_dict(), model.state_dict()) and not again.training
        assert torch.equal(again(**sound, pixel_values=seen).logits_audio_image, output.logits_audio_image)
        alone = UniBriVLAudioModel.from_pretrained(tmp_path)
        assert torch.equal(alone(**sound).pooler_output, output.audio_embeds)
    assert type(AutoModel.from_pretrained(tmp_path)) is UniBriVLModel


LAYER_NORM = {"feat_extract_norm": "layer"}
EXACT = [
    ("speechlm", {}),
    ("speechlm", {"do_stable_layer_norm": True, **LAYER_NORM}),
    ("mel_encoder", {}),
    *((name, LAYER_NORM) for name in ("hubert", "wav2vec2", "wavlm")),
    *((name, {"do_stable_layer_norm": True, **LAYER_NORM}) for name in ("hubert", "wav2vec2", "wavlm")),
]


@pytest.mark.parametrize(("audio", "more"), EXACT)
@pytest.mark.parametrize("gradients", [False, True])
def test_a_padded_clip_is_the_clip_alone(audio, more, gradients):
    """Where the tower's own mask makes it so. Not so: GroupNorm front ends of HuBERT's kin take their statistics over
    the padding, PE's convolutions look a few samples into it, Whisper, CLAP and AST know one length only."""
    model = build(unibrivl_config(audio, audio_config={**AUDIO[audio], **more}), UniBriVLAudioModel)
    sound = sounds(audio)
    length = int(sound["attention_mask"][1].sum())
    values = next(value for name, value in sound.items() if name.startswith("input"))[1:, :length]
    with torch.set_grad_enabled(gradients):
        together, alone = model(**sound), model(values)
    frames = alone.last_hidden_state.shape[1]
    assert together.frame_mask[1].sum() == frames < together.last_hidden_state.shape[1]
    close(together.last_hidden_state[1, :frames], alone.last_hidden_state[0])
    close(together.features[1:], alone.features)
    close(together.pooler_output[1:], alone.pooler_output)


@pytest.mark.parametrize("audio", ["speechlm", "hubert", "whisper", "pe_audio", "mel_encoder"])
def test_what_stands_behind_the_end_counts_nothing(audio):
    """Whatever the tower makes of it, masked frames have no part in the features."""
    model = build(unibrivl_config(audio), UniBriVLAudioModel)
    sound = sounds(audio)
    output = model(**sound)
    lengths = output.frame_mask.sum(1)
    means = [output.last_hidden_state[row, : lengths[row]].mean(0) for row in range(2)]
    close(output.features, torch.stack(means))
    if audio == "whisper":  # its mask rules over pooling alone
        del sound["attention_mask"]
        close(model(**sound).features[:1], output.features[:1])
        assert (model(**sound).features[1] - output.features[1]).abs().max() > 1e-3


BY_RULE = {
    "audio": {
        "unispeech-sat": ({**AUDIO["hubert"], "model_type": "unispeech-sat"}, sounds("hubert"), 3, [12, 7]),
        "data2vec-audio": (
            {**AUDIO["hubert"], "model_type": "data2vec-audio", "conv_pos_kernel_size": 5},
            sounds("hubert"),
            3,
            [12, 7],
        ),
        "wav2vec2-conformer": ({**AUDIO["hubert"], "model_type": "wav2vec2-conformer"}, sounds("hubert"), 3, [12, 7]),
        "wav2vec2 with adapter": (
            {**AUDIO["wav2vec2"], "add_adapter": True, "output_hidden_size": 40},
            sounds("hubert"),
            0,
            [2, 1],
        ),
        "sew": (
            {
                **AUDIO["hubert"],
                "model_type": "sew",
                "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
                "conv_stride": [5, 2, 2, 2, 2, 2, 2],
            },
            sounds("hubert"),
            0,
            [12, 7],
        ),
        "wav2vec2-bert": (
            {"model_type": "wav2vec2-bert", **DEEP, "feature_projection_input_dim": 32},
            sounds("mel_encoder"),
            3,
            [64, 40],
        ),
        "parakeet_encoder": (
            {"model_type": "parakeet_encoder", **DEEP, "num_mel_bins": 32, "subsampling_conv_channels": 8},
            sounds("mel_encoder"),
            3,
            [8, 5],
        ),
    },
    "image": {
        "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "efficientnet": {
            "model_type": "efficientnet",
            "width_coefficient": 0.25,
            "depth_coefficient": 0.1,
            "hidden_dim": 320,
        },
        "dinov2_with_registers": {**IMAGE["dinov2"], "model_type": "dinov2_with_registers"},
        "deit": {**IMAGE["vit"], "model_type": "deit"},
        "ijepa": {**IMAGE["vit"], "model_type": "ijepa"},
        "swin": {
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
            "image_size": 32,
            "patch_size": 4,
        },
    },
}


@pytest.mark.parametrize("kind", BY_RULE["audio"])
def test_an_audio_tower_that_stands_in_no_table(kind, tmp_path):
    tower, sound, num_mixed, num_frames = BY_RULE["audio"][kind]
    model = build(unibrivl_config("hubert", audio_config=tower))
    with torch.no_grad():
        heard = model.audio_model(**sound)
        assert heard.frame_mask.sum(1).tolist() == num_frames
        assert (0 if model.audio_model.layer_mix is None else len(model.audio_model.layer_mix.logits)) == num_mixed
        assert torch.equal(saved_again(model, tmp_path)(**sound).audio_embeds, heard.pooler_output)


@pytest.mark.parametrize("kind", BY_RULE["image"])
def test_an_image_tower_that_stands_in_no_table(kind, tmp_path):
    model = build(unibrivl_config("hubert", vision_config=BY_RULE["image"][kind]))
    seen = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(pixel_values=seen)
        assert torch.equal(saved_again(model, tmp_path)(pixel_values=seen).image_embeds, output.image_embeds)
        states = model.vision_model(seen).last_hidden_state
        wanted = {
            "deit": states[:, 0],  # the class token: its pooler is untrained, and not built
            "ijepa": states.mean(1),  # it has no class token
        }
    if kind in wanted:
        close(output.native_image_embeds, torch.nn.functional.normalize(wanted[kind], dim=-1))


def test_siglip2_takes_its_pictures_as_patches():
    size = {name: value for name, value in PATCHES.items() if name != "image_size"}
    tower = {"model_type": "siglip2_vision_model", **size, "num_patches": 16}
    model = build(unibrivl_config("hubert", vision_config=tower))
    batch = {
        "pixel_values": torch.randn(2, 16, 192),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
    }
    close(model(**batch, **sounds("hubert")).image_embeds, model.get_image_features(**batch).pooler_output)


# ---- what is no tower ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"audio_config": {"model_type": "bert", **DEEP}},
            "takes input_ids and no audio tower, which takes input_val",
        ),
        ({"audio_config": {"model_type": "speech_to_text"}}, "is a whole model and no audio tower"),
        ({"audio_config": {"model_type": "clap", "hidden_size": 8}}, "is a whole model and no audio tower"),
        ({"audio_config": {"model_type": "unibrivl"}}, "names no hidden_size"),
        ({"vision_config": {"model_type": "bert", **DEEP}}, "takes input_ids and no image tower"),
        ({"vision_config": {"model_type": "clip"}}, "width of a 'clip' is not known: name an image encoder, such as"),
        (
            {"vision_config": {"model_type": "vit_mae"}},
            r"hides most of a picture.*ViTModel\(add_pooling_layer=False\)",
        ),
        ({"vision_config": {"model_type": "focalnet"}, "image_embed_dim": None}, "set image_embed_dim=16"),
    ],
)
def test_what_is_no_tower_says_so(given, words):
    if given.get("vision_config", {}).get("model_type") == "focalnet":
        given["vision_config"] |= {"embed_dim": 8, "depths": [1, 1], "image_size": 32, "focal_levels": [1, 1]}
        given["vision_config"] |= {"focal_windows": [3, 3]}
    with pytest.raises((ValueError, StrictDataclassError), match=words):
        build(unibrivl_config("hubert", **given))(pixel_values=pictures())


def test_a_codec_is_no_tower():
    codec = {"model_type": "dac", "encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "decoder_hidden_size": 16}
    model = build(unibrivl_config("hubert", audio_config={**codec, "hidden_size": 32, "codebook_dim": 8}))
    with pytest.raises(ValueError, match="DacModel takes no attention_mask: leave it out"):
        model(torch.randn(1, 1, 640), torch.ones(1, 640))
    with pytest.raises(ValueError, match="gives no last_hidden_state, so it is no encoder"):
        model(torch.randn(1, 1, 640))


def test_widths_that_do_not_fit():
    with pytest.raises(ValueError, match="gives 20 numbers a picture and the configuration says 21: set image_embed"):
        build(unibrivl_config("hubert", image_embed_dim=21))(pixel_values=pictures())
    with pytest.raises(
        ValueError, match="gives frames of width 128 and its configuration says 64: correct its hidden"
    ):
        build(unibrivl_config("clap", audio_config={**AUDIO["clap"], "hidden_size": 64}))(**sounds("clap"))
    with pytest.raises(
        StrictDataclassError, match="text tower gives 20 numbers and the image tower 32: text_config must be"
    ):
        unibrivl_config("hubert", "siglip", "clip")


def test_a_mask_that_nobody_can_follow():
    """Guessing would pool frames of padding."""
    tower = {"model_type": "voxtral_encoder", **DEEP, "num_mel_bins": 16, "max_source_positions": 50}
    model = build(unibrivl_config("hubert", audio_config=tower))
    model.audio_model.tower.forward = lambda input_features, attention_mask=None, **kwargs: BertModelOutput
    with pytest.raises(ValueError, match="made 37 frames of 100 inputs.*leave the attention_mask out"):
        model(torch.randn(1, 16, 100), torch.ones(1, 100))


class BertModelOutput:
    last_hidden_state = torch.randn(1, 37, 32)


# ---- from checkpoints -----------------------------------------------------------------------------------------------


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
