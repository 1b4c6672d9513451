"""Every kind of tower inside UniBriVL: run, masked, saved, loaded, refused."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_towers import AUDIO, DEEP, IMAGE, PATCHES, TEXT, pictures, sounds, tokens, unibrivl_config
from transformers import (
    AutoModel,
)

from unibrivl.modeling import (
    UniBriVLAudioModel,
    UniBriVLModel,
)


def build(config, cls=UniBriVLModel, seed=0):
    torch.manual_seed(seed)
    return cls(config).eval()


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def saved_again(model, folder):
    model.save_pretrained(folder)
    torch.manual_seed(99)  # another seed: anything drawn instead of loaded would show
    return UniBriVLModel.from_pretrained(folder)


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
    "cavmae": (3, [8, 8]),
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
    assert frames == num_frames and (heard.frame_mask is None) == (audio in ("ast", "clap", "cavmae"))

    again = saved_again(model, tmp_path)
    with torch.no_grad():
        assert same(again.state_dict(), model.state_dict()) and not again.training
        assert same(dict(again.named_buffers()), dict(model.named_buffers()))  # those that are not saved, too
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
    model.audio_model.tower.forward = lambda input_features, attention_mask=None, **kwargs: OddFrames
    with pytest.raises(ValueError, match="made 37 frames of 100 inputs.*leave the attention_mask out"):
        model(torch.randn(1, 16, 100), torch.ones(1, 100))


class OddFrames:
    last_hidden_state = torch.randn(1, 37, 32)
