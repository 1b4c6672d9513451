"""The mel encoder at toy size: its front end against transformers' own, its tower over four kinds of backbone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, ResNetConfig, ResNetModel, ViTConfig
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from unibrivl.audio import Waveform
from unibrivl.modeling import MelEncoderConfig, MelEncoderFeatureExtractor, MelEncoderModel

BACKBONES: dict[str, dict] = {
    "resnet": {
        "num_channels": 1,
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 24],
        "depths": [1, 1, 1],
        "layer_type": "basic",
    },
    "efficientnet": {
        "num_channels": 3,
        "width_coefficient": 0.1,
        "depth_coefficient": 0.3,
        "in_channels": [32, 16, 24, 40],
        "out_channels": [16, 24, 40, 80],
        "kernel_sizes": [3, 3, 5, 3],
        "strides": [1, 2, 2, 2],
        "num_block_repeats": [1, 1, 1, 1],
        "expand_ratios": [1, 2, 2, 2],
        "drop_connect_rate": 0.0,
        "hidden_dim": 128,
    },
    "convnext": {"num_channels": 1, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "swin": {
        "num_channels": 1,
        "embed_dim": 8,
        "depths": [1, 1, 1],
        "num_heads": [1, 2, 2],
        "window_size": 4,
        "image_size": 64,
        "drop_path_rate": 0.0,
    },
    "vit": {
        "num_channels": 1,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 64,
        "patch_size": 16,
    },
}
STRIDES = {"resnet": 16, "efficientnet": 16, "convnext": 32, "swin": 16, "vit": 16}
LENGTHS = [200, 64, 97, 1]


def make_config(kind="resnet", **fields):
    return MelEncoderConfig(backbone_config={"model_type": kind, **BACKBONES[kind]}, **fields)


def build(config, seed=0):
    """A model in eval mode whose batch normalisation has statistics of its own, so that silence matters."""
    torch.manual_seed(seed)
    model = MelEncoderModel(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.2, 0.5)
            module.bias.data.normal_(std=0.1)
    return model


@pytest.fixture(params=list(BACKBONES))
def kind(request):
    return request.param


@pytest.fixture
def batch():
    """Four clips of 200, 64, 97 and 1 frames, padded with silence, and their mask."""
    features = 3 * torch.rand(4, 200, 64, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(200) < torch.tensor(LENGTHS)[:, None]).long()
    return features * mask[..., None], mask


def noise(length, scale=0.1, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def hear(extractor, sound, **options):
    return extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)


def close(ours, other, tolerance=1e-5):
    torch.testing.assert_close(ours, other, atol=tolerance, rtol=2 * tolerance)


# ---- the front end --------------------------------------------------------------------------------------------------

SOUNDS = {
    "noise": noise(20000),
    "quiet noise": noise(8000, 1e-4),
    "tone": np.sin(np.arange(12345) * 2 * np.pi * 440 / 16000).astype(np.float32),
    "offset": np.ones(4000, np.float32),
    "click": np.eye(1, 4001, 2000, dtype=np.float32)[0],
    "one sample": np.ones(1, np.float32),
}


@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"feature_size": 20, "n_fft": 1024, "win_length": 1024, "hop_length": 320, "fmin": 0, "fmax": 4000.0}],
    ids=["default", "other"],
)
def test_log_mel_equals_transformers_spectrogram(sound, settings):
    """Beside a loud tone too, where the rounding of a float32 transform would be louder than the quiet bins."""
    extractor = MelEncoderFeatureExtractor(**settings)
    frames = math.ceil(len(sound) / extractor.hop_length)
    padded = np.pad(sound, (0, (frames - 1) * extractor.hop_length + extractor.win_length - len(sound)))
    theirs = spectrogram(
        padded,
        window_function(extractor.win_length, "hann"),
        frame_length=extractor.win_length,
        hop_length=extractor.hop_length,
        fft_length=extractor.n_fft,
        power=2.0,
        center=False,
        mel_filters=mel_filter_bank(
            extractor.n_fft // 2 + 1, extractor.feature_size, extractor.fmin, extractor.fmax, extractor.sampling_rate
        ),
        log_mel="log10",
    )
    ours = hear(extractor, sound).input_features[0].numpy() * extractor.log_scale - 10
    assert ours.shape == (frames, extractor.feature_size)
    assert np.abs(ours - theirs.T).max() < 1e-5


def test_silence_is_zero_and_loudness_survives():
    extractor = MelEncoderFeatureExtractor()
    assert not hear(extractor, np.zeros(3200, np.float32)).input_features.any()
    soft, loud = (hear(extractor, noise(8000, scale)).input_features for scale in (0.003, 0.3))
    close(loud - soft, torch.full_like(soft, 4 / extractor.log_scale), 1e-5)  # 40 dB are four powers of ten
    half_silent = hear(extractor, np.concatenate([noise(8000, 0.3), np.zeros(8000, np.float32)])).input_features
    assert torch.equal(half_silent[:, :50], loud), "what else is in the clip must not matter"


@pytest.mark.parametrize("length", [1, 159, 160, 161, 16000, 24321])
def test_a_clip_equals_the_clip_followed_by_digital_silence(length):
    """Bit for bit: in a batch, alone, and with the silence in the samples."""
    extractor, sound = MelEncoderFeatureExtractor(), noise(length)
    alone = hear(extractor, sound)
    batch = hear(extractor, [sound, noise(40000)])
    silent = hear(extractor, np.pad(sound, (0, 40000 - length)))
    frames = math.ceil(length / 160)
    assert alone.input_features.shape == (1, frames, 64) and alone.attention_mask.shape == (1, frames)
    assert batch.attention_mask.sum(1).tolist() == [frames, 250]
    assert torch.equal(batch.input_features[0, :frames], alone.input_features[0])
    assert torch.equal(batch.input_features[0], silent.input_features[0])


def test_kinds_of_clips_give_the_same():
    extractor, sound = MelEncoderFeatureExtractor(), noise(1000)
    wanted = hear(extractor, sound).input_features
    kinds = [torch.from_numpy(sound), sound.tolist(), [sound], Waveform(sound, 16000), [Waveform(sound, 16000)]]
    for clip in [*kinds, sound.astype(np.float64)]:
        assert torch.equal(hear(extractor, clip).input_features, wanted)
    assert torch.equal(extractor(Waveform(sound, 16000), return_tensors="pt").input_features, wanted)


@pytest.mark.parametrize(
    "sound, message",
    [
        (np.zeros((2, 800), np.float32), "stereo"),
        (np.zeros(0, np.float32), "empty"),
        ([], "at least one clip"),
        (np.array([0.0, np.nan] * 400, np.float32), "NaN"),
        ([np.zeros((2, 800), np.float32)], "one channel"),
        ([Waveform(noise(800), 16000), Waveform(noise(800), 44100)], r"hears 16000 Hz and got 44100 Hz.*load_audio"),
    ],
)
def test_sounds_that_are_refused(sound, message):
    with pytest.raises(ValueError, match=message):
        MelEncoderFeatureExtractor()(sound, sampling_rate=16000)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hop_length": 500}, "grow in this order"),
        ({"win_length": 600}, "grow in this order"),
        ({"fmax": 9000.0}, "half the sampling rate"),
        ({"fmin": 8000.0}, "between 0 and"),
        ({"mel_floor": 0.0}, "above 0"),
        ({"padding_value": -1.0}, "which is silence"),
        pytest.param(
            {"feature_size": 128},
            "128 mel bins are narrower",
            marks=pytest.mark.filterwarnings("ignore:At least one mel filter"),
        ),
    ],
)
def test_front_ends_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MelEncoderFeatureExtractor(**settings)


def test_padding_and_truncation_are_in_frames():
    extractor, sounds = MelEncoderFeatureExtractor(), [noise(3200), noise(4800)]
    cut = hear(extractor, sounds, padding="max_length", max_length=25, truncation=True)
    assert cut.input_features.shape == (2, 25, 64) and cut.attention_mask.sum(1).tolist() == [20, 25]
    assert hear(extractor, sounds, pad_to_multiple_of=32).input_features.shape == (2, 32, 64)
    assert "attention_mask" not in hear(extractor, sounds, return_attention_mask=False)


def test_feature_extractor_of_a_config_saves_and_loads(tmp_path):
    """The defaults agree, the numbers travel, and neither the window nor the filters are written."""
    config = make_config(num_mel_bins=40, sampling_rate=32000, win_length=512, fmin=100.0, fmax=14000.0, log_scale=3.0)
    extractor = MelEncoderFeatureExtractor.for_config(config)
    assert MelEncoderFeatureExtractor.for_config(make_config()).to_dict() == MelEncoderFeatureExtractor().to_dict()
    extractor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["feature_size"] == 40 and saved["fmax"] == 14000.0 and len(str(saved)) < 600
    for cls in (MelEncoderFeatureExtractor, AutoFeatureExtractor):
        again = cls.from_pretrained(tmp_path)
        assert type(again) is MelEncoderFeatureExtractor and again.to_dict() == extractor.to_dict()
        assert torch.equal(hear(again, noise(3000)).input_features, hear(extractor, noise(3000)).input_features)


# ---- the configuration ----------------------------------------------------------------------------------------------


def fields_of(config):
    return {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", "model_type")}


def test_config_round_trips(kind, tmp_path):
    config = make_config(kind, padding_mode="silence", num_mel_bins=80)
    config.save_pretrained(tmp_path)
    loaded = [MelEncoderConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)]
    for again in [*loaded, MelEncoderConfig(**fields_of(config))]:
        assert type(again) is MelEncoderConfig and fields_of(again) == fields_of(config)
        assert type(again.backbone_config) is type(config.backbone_config)


def test_a_backbone_may_be_a_config_a_dictionary_or_left_out():
    vit = ViTConfig(**BACKBONES["vit"])
    assert MelEncoderConfig(backbone_config=vit).to_dict() == make_config("vit").to_dict()
    default = MelEncoderConfig()
    assert type(default.backbone_config) is ResNetConfig and default.hidden_size == 256
    other = MelEncoderConfig()
    other.backbone_config.depths = [9]
    assert default.backbone_config.depths == MelEncoderConfig().backbone_config.depths == [1, 1, 1]


@pytest.mark.parametrize(
    "backbone, width",
    [
        ({"model_type": "efficientnet"}, 2560),
        ({"model_type": "efficientnet", "width_coefficient": 0.2, "hidden_dim": 256}, 256),
        ({"model_type": "mobilenet_v1", "depth_multiplier": 0.1}, 102),
        ({"model_type": "mobilenet_v2", "depth_multiplier": 0.35}, 1280),
        ({"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "finegrained_output": False}, 448),
        ({"model_type": "regnet", "hidden_sizes": [8, 8, 8, 16]}, 16),
        ({"model_type": "swin"}, 768),
        ({"model_type": "mobilevit"}, 640),
        ({"model_type": "dinov2"}, 768),
    ],
)
def test_hidden_size_is_found_in_the_backbone(backbone, width):
    config = MelEncoderConfig(backbone_config=backbone)
    assert config.hidden_size == width and config.frame_multiple == {"dinov2": 14}.get(backbone["model_type"], 32)
    if width < 600:
        assert MelEncoderModel(config)(torch.zeros(1, 32, 64)).last_hidden_state.shape[2] == width


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"backbone_config": {"depths": [1]}}, "needs a model_type"),
        ({"backbone_config": {"model_type": "resnett"}}, "resnett"),
        ({"hidden_size": 7}, "has 256 channels: leave it out"),
        ({"backbone_config": {"model_type": "mobilevitv2"}}, "pass hidden_size"),
        ({"backbone_config": {"model_type": "vit", "patch_size": [16, 8]}}, "one number"),
        ({"backbone_config": {"model_type": "vit"}, "frame_multiple": 24}, "multiple of the patch size"),
        ({"backbone_config": {"model_type": "efficientnet", "width_coefficient": 1.0}}, "must be 1280, got 2560"),
        ({"padding_mode": "fairseq"}, "'exact' or 'silence'"),
        ({"num_mel_bins": "many"}, "num_mel_bins"),
    ],
)
def test_configs_that_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        MelEncoderConfig(**fields)


# ---- the tower ------------------------------------------------------------------------------------------------------


def test_save_and_load_is_bit_exact(kind, tmp_path, batch):
    model = build(make_config(kind))
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)  # another seed: anything initialised instead of loaded would show
    again, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is MelEncoderModel and not again.training
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert torch.equal(model(*batch).last_hidden_state, again(*batch).last_hidden_state)


def test_a_clip_in_a_batch_equals_the_clip_alone(kind, batch):
    model = build(make_config(kind))
    with torch.no_grad():
        together = model(*batch)
        assert together.last_hidden_state.shape == (4, math.ceil(200 / STRIDES[kind]), model.config.hidden_size)
        assert together.frame_mask.dtype == torch.long
        for row, length in enumerate(LENGTHS):
            alone = model(batch[0][row : row + 1, :length])
            frames = alone.last_hidden_state.shape[1]
            assert alone.frame_mask is None
            assert together.frame_mask[row].tolist() == [1] * frames + [0] * (len(together.frame_mask[row]) - frames)
            close(together.last_hidden_state[row, :frames], alone.last_hidden_state[0])
            assert not together.last_hidden_state[row, frames:].any()


@pytest.mark.parametrize("training", [False, True])
def test_a_padded_clip_equals_the_clip_followed_by_silence(training, kind, batch):
    """What one run over the batch means: the padding is heard as digital silence, whatever numbers stand on it."""
    model = build(make_config(kind, padding_mode="exact" if training else "silence"))
    model.train(training)
    dirty = batch[0].masked_fill(~batch[1].bool()[..., None], math.nan)
    states = {name: value.clone() for name, value in model.state_dict().items()}
    together = model(dirty, batch[1])
    model.load_state_dict(states)
    silent = model(batch[0])
    assert silent.frame_mask is None
    keep = together.frame_mask.bool()
    assert keep.sum(1).tolist() == [math.ceil(length / STRIDES[kind]) for length in LENGTHS]
    assert torch.equal(together.last_hidden_state[keep], silent.last_hidden_state[keep])


def test_padding_reaches_no_further_than_the_field_of_view(batch):
    """A plain convolutional backbone, one run over the batch: frames that see the clip only are the clip's own."""
    model = build(make_config("resnet", padding_mode="silence"))
    field = 7 + 2 * 2 + (2 * 4 + 2 * 4) + (2 * 4 + 2 * 8) + (2 * 8 + 2 * 16)  # stem, pool, and two 3 x 3 a stage
    with torch.no_grad():
        features = batch[0][:1].repeat(2, 4, 1)  # 800 frames
        mask = torch.ones(2, 800, dtype=torch.long)
        mask[1, 400:] = 0
        together = model(features, mask).last_hidden_state
        alone = model(features[1:, :400]).last_hidden_state[0]
    first_moved = (400 - field // 2) // 16
    assert 0 < first_moved < 25
    close(together[1, :first_moved], alone[:first_moved])
    assert (together[1, 24] - alone[24]).abs().max() > 1e-4, "the last frame sees the border"


def test_a_clip_may_stand_anywhere_in_its_row(batch):
    model = build(make_config())
    expected = model(*batch)
    features, mask = (tensor.clone() for tensor in batch)
    features[1], mask[1] = features[1].roll(136, 0), mask[1].roll(136)
    features[2], mask[2] = features[2].roll(50, 0), mask[2].roll(50)
    moved = model(features, mask)
    assert torch.equal(moved.frame_mask, expected.frame_mask)
    close(moved.last_hidden_state, expected.last_hidden_state, 0)


def test_three_channels_see_the_same_picture(batch):
    """Like one channel whose first kernel is the sum of the three, as for a backbone that was trained on pictures."""
    three = build(MelEncoderConfig(backbone_config={"model_type": "resnet", **BACKBONES["resnet"], "num_channels": 3}))
    one = build(make_config())
    states = three.state_dict()
    first = "backbone.embedder.embedder.convolution.weight"
    one.load_state_dict({**states, first: states[first].sum(1, keepdim=True)})
    close(one(*batch).last_hidden_state, three(*batch).last_hidden_state)


def test_frames_are_the_backbones_map_over_frequency():
    """The long way round: the backbone itself on the transposed picture, its kernels transposed too."""
    model = build(make_config())
    features = torch.rand(2, 64, 64)
    literal = ResNetModel(model.config.backbone_config).eval()
    turned = {name: t.transpose(2, 3) if t.dim() == 4 else t for name, t in model.backbone.state_dict().items()}
    literal.load_state_dict(turned)
    picture = features.transpose(1, 2)[:, None] - 1.9  # mel bins down, time to the right
    map_BCHW = literal(picture).last_hidden_state
    close(model(features).last_hidden_state, map_BCHW.mean(2).transpose(1, 2))


def test_tokens_lose_their_class_token_and_their_mel_bins():
    model = build(make_config("vit"))
    features = torch.rand(2, 64, 64)
    tokens = model.backbone(features[:, None] - 1.9).last_hidden_state
    close(model(features).last_hidden_state, tokens[:, 1:].reshape(2, 4, 4, 32).mean(2))


def test_hidden_states_are_the_backbones(kind, batch):
    model = build(make_config(kind))
    with torch.no_grad():
        output = model(*batch, output_hidden_states=True)
        alone = model(batch[0][1:2, :64], output_hidden_states=True)
    assert len(output.hidden_states) == len(alone.hidden_states) > 2
    assert model(*batch).hidden_states is None
    for ours, other in zip(output.hidden_states, alone.hidden_states, strict=True):
        time = 2 if ours.dim() == 4 else 1
        close(ours[1].narrow(time - 1, 0, other.shape[time]), other[0])
    assert len(model(*batch, output_hidden_states=True, return_dict=False)) == 3


def test_windows_of_swin_are_the_same_before_and_after_a_short_clip():
    """transformers' own rule shrinks them in place, and fails on the result."""
    model = build(make_config("swin"))
    features = torch.rand(1, 256, 64)
    before = model(features).last_hidden_state
    assert model(features[:, :20]).last_hidden_state.shape == (1, 2, 32)
    assert torch.equal(model(features).last_hidden_state, before)


def test_positions_are_interpolated_from_a_square_table_only(batch):
    """A table of 128 x 64 serves clips of up to 128 frames, filled up with silence, and refuses longer ones."""
    config = make_config("vit")
    config.backbone_config.image_size = [128, 64]
    model = build(config)
    with torch.no_grad():
        output = model(batch[0][1:3, :97], batch[1][1:3, :97])
        assert output.frame_mask.sum(1).tolist() == [4, 7]
        close(output.last_hidden_state[:1, :4], model(batch[0][1:2, :64]).last_hidden_state)
    with pytest.raises(ValueError, match="windows that fit"):
        model(batch[0])


def test_eager_equals_sdpa(batch):
    model = build(make_config("vit"))
    assert model.backbone.config._attn_implementation == "sdpa"
    sdpa = model(*batch).last_hidden_state
    model.set_attn_implementation("eager")
    assert model.backbone.config._attn_implementation == "eager"
    close(model(*batch).last_hidden_state, sdpa)


def test_a_backbone_without_attention_takes_any_kind_of_it(tmp_path):
    build(make_config()).save_pretrained(tmp_path)
    model = MelEncoderModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    model.set_attn_implementation("eager")
    model.set_attn_implementation("sdpa")
    assert model(torch.zeros(1, 32, 64)).last_hidden_state.shape == (1, 2, 24)


@pytest.mark.parametrize("kind", ["resnet", "efficientnet", "vit"])
def test_bfloat16_loads_and_runs(kind, tmp_path, batch):
    model = build(make_config(kind))
    model.save_pretrained(tmp_path)
    half = MelEncoderModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        exact, output = model(*batch), half(*batch)
    assert output.last_hidden_state.dtype == torch.bfloat16
    keep = exact.frame_mask.bool()
    ours, wanted = output.last_hidden_state[keep].float(), exact.last_hidden_state[keep]
    assert torch.cosine_similarity(ours, wanted, dim=-1).min() > 0.98


def test_gradients_reach_the_sound_and_every_weight(kind, batch):
    model = build(make_config(kind)).train()
    features = batch[0].clone().requires_grad_()
    output = model(features, batch[1])
    pooled = (output.last_hidden_state * torch.randn_like(output.last_hidden_state)).sum(1)
    pooled.square().mean().backward()
    unused = {"convnext": {"backbone.layernorm.weight", "backbone.layernorm.bias"}}.get(kind, set())
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == unused
    assert features.grad.isfinite().all() and not features.grad[batch[1] == 0].any()
    assert features.grad[batch[1] == 1].any()


def test_activation_checkpointing_is_the_backbones(batch):
    grads = []
    for checkpointing in (False, True):
        model = build(make_config("vit")).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(*batch).last_hidden_state.square().mean().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*grads, strict=True):
        close(checkpointed, plain)
    with pytest.raises(ValueError, match="does not support"):
        MelEncoderModel(make_config()).gradient_checkpointing_enable()


def test_weights_start_as_the_backbones_own_class_does():
    """Spread, and not values: ResNet's kernels start wide, transformers' default would be 0.02 everywhere."""
    torch.manual_seed(0)
    ours = MelEncoderModel(MelEncoderConfig()).backbone.state_dict()
    theirs = ResNetModel(MelEncoderConfig().backbone_config).state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        if weight.numel() > 2000:
            assert 0.8 < ours[name].std() / weight.std() < 1.25 and abs(ours[name].std() - 0.02) > 0.005, name


def test_it_hears_nothing_through_an_embedding():
    assert MelEncoderModel(make_config()).get_input_embeddings() is None


@pytest.mark.parametrize(
    "shape, mask_shape, message",
    [
        ((2, 64), None, "batch, frames, 64 mel bins"),
        ((2, 100, 80), None, "for_config"),
        ((2, 0, 64), None, "for_config"),
        ((2, 100, 64), (2, 64), "one number a frame"),
    ],
)
def test_inputs_that_are_refused(shape, mask_shape, message):
    mask = None if mask_shape is None else torch.ones(mask_shape)
    with pytest.raises(ValueError, match=message):
        MelEncoderModel(make_config())(torch.zeros(shape), mask)


@pytest.mark.parametrize(
    "backbone, message",
    [
        ({"model_type": "bert", "num_hidden_layers": 1}, "no image model"),
        (
            {"model_type": "vit_mae", "num_hidden_layers": 1, "hidden_size": 24, "num_attention_heads": 2},
            "no grid of square cells",
        ),
        ({"model_type": "focalnet", "embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 2]}, "hidden_size=16"),
    ],
)
def test_backbones_that_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        MelEncoderModel(MelEncoderConfig(backbone_config=backbone))(torch.zeros(1, 64, 64))


def test_a_reduction_that_does_not_fit_is_refused():
    six_stages = {**BACKBONES["resnet"], "hidden_sizes": [8] * 6, "depths": [1] * 6}
    backbone = {"model_type": "resnet", **six_stages}
    with pytest.raises(ValueError, match="frame_multiple"):
        MelEncoderModel(MelEncoderConfig(backbone_config=backbone))(torch.zeros(1, 200, 64))
    model = MelEncoderModel(MelEncoderConfig(backbone_config=backbone, frame_multiple=128)).eval()
    output = model(torch.zeros(2, 200, 64), torch.ones(2, 200))
    assert output.last_hidden_state.shape == (2, 2, 8)


def test_it_learns():
    """A quick check of the whole: three kinds of noise, told apart by the default tower from sound to class."""
    torch.manual_seed(0)
    config = make_config()
    extractor, model = MelEncoderFeatureExtractor.for_config(config), MelEncoderModel(config).train()
    head = torch.nn.Linear(config.hidden_size, 3)
    labels = torch.arange(12) % 3
    sounds = [noise(8000, 0.1 * 10.0 ** (int(label) - 2), seed) for seed, label in enumerate(labels)]
    features = hear(extractor, sounds)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(15):
        logits = head(model(**features).last_hidden_state.mean(1))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3, float(loss)
