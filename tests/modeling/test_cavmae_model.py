"""CAV-MAE at toy size: what every Hugging Face user relies on, each compared with a second way of knowing."""

from __future__ import annotations

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_cavmae import BOTH, SHARED, build, close, noise, pictures, sounds
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from unibrivl.modeling import (
    CAVMAEAudioConfig,
    CAVMAEAudioModel,
    CAVMAEConfig,
    CAVMAEForAudioClassification,
    CAVMAEForAudioVisualClassification,
    CAVMAEForPreTraining,
    CAVMAEModel,
)
from unibrivl.modeling.layers_cavmae import CAVMAEPositions, sincos_positions
from unibrivl.modeling.loading_unibrivl import CheckpointMismatch
from unibrivl.modeling.masking_cavmae import mask_by_noise, structure_noise
from unibrivl.modeling.modeling_cavmae_pretraining import patches
from unibrivl.modeling.towers_unibrivl import frames_of, layers_to_mix, load_audio_tower

CLASSES = {
    CAVMAEModel: AutoModel,
    CAVMAEAudioModel: AutoModel,
    CAVMAEForPreTraining: AutoModelForPreTraining,
    CAVMAEForAudioVisualClassification: AutoModelForAudioClassification,
    CAVMAEForAudioClassification: AutoModelForAudioClassification,
}


def inputs(cls, number=3):
    given = {"input_values": sounds(number)}
    if cls not in (CAVMAEAudioModel, CAVMAEForAudioClassification):
        given["pixel_values"] = pictures(number)
    return given | (noise(number) if cls is CAVMAEForPreTraining else {})


def result(output):
    names = ("logits", "pooler_output", "joint_embeds", "audio_prediction")
    return next(output[name] for name in names if output.get(name) is not None)


# ---- saving and loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load_is_bit_exact(cls, dtype, tmp_path):
    model = build(cls).to(dtype)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(1)  # another seed: anything initialised instead of loaded would show
    again, report = cls.from_pretrained(tmp_path, output_loading_info=True, dtype="auto")
    assert not report["missing_keys"] and not report["unexpected_keys"] and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert [one.requires_grad for one in again.parameters()] == [one.requires_grad for one in model.parameters()]
    with torch.no_grad():
        assert torch.equal(result(model(**inputs(cls))), result(again(**inputs(cls))))
    assert type(CLASSES[cls].from_pretrained(tmp_path)) is cls
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)


@pytest.mark.parametrize("cls", CLASSES)
def test_missing_weights_start_as_in_a_new_model(cls):
    """transformers builds on the meta device: a weight without a rule would come back as garbage."""
    config = build(cls).config
    new = cls(copy.deepcopy(config)).state_dict()
    started, _ = cls.from_pretrained(None, config=config, state_dict={}, output_loading_info=True)
    for name, tensor in started.state_dict().items():
        if "positions" in name or new[name].unique().numel() == 1:
            assert torch.equal(tensor, new[name]), name
        else:
            assert 0.5 < float(tensor.std() / new[name].std()) < 2, name


@pytest.mark.parametrize("whole", [CAVMAEModel, CAVMAEForPreTraining, CAVMAEForAudioVisualClassification])
def test_the_audio_side_loads_out_of_every_whole_model(whole, tmp_path):
    """Its own copy of the joint layers with the sound's norms; it hears what the whole model hears."""
    model = build(whole)
    model.save_pretrained(tmp_path)
    tower = CAVMAEAudioModel.from_pretrained(tmp_path)
    assert tower.config.model_type == "cavmae_audio" and not hasattr(tower.config, "decoder_hidden_size")
    with torch.no_grad():
        alone, both = tower(sounds()), model.base_model(sounds(), pictures())
    assert torch.equal(alone.last_hidden_state, both.audio_last_hidden_state)
    assert torch.equal(alone.pooler_output, both.audio_embeds)
    tower.save_pretrained(tmp_path / "tower")
    assert type(AutoModel.from_pretrained(tmp_path / "tower")) is CAVMAEAudioModel


def test_a_classifier_starts_from_pretraining(tmp_path):
    pretrained = build(CAVMAEForPreTraining)
    pretrained.save_pretrained(tmp_path)
    classifier = CAVMAEForAudioVisualClassification.from_pretrained(tmp_path, num_labels=5)
    close(classifier.cavmae(sounds()).audio_embeds, pretrained.cavmae(sounds()).audio_embeds, 0)
    assert classifier(sounds(), pictures()).logits.shape == (3, 5)


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointMismatch, match="holds none of the"):
        CAVMAEModel.from_pretrained(None, config=build(CAVMAEModel).config, state_dict={})
    build(CAVMAEAudioModel).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cavmae_audio"):
        CAVMAEModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", CLASSES)
def test_unused_norms_are_built_on_request_and_never_used(cls):
    plain, full = build(cls), build(cls, keep_unused_norms=True)
    extra = full.state_dict().keys() - plain.state_dict().keys()
    assert extra and all("norm" in name for name in extra) and not plain.state_dict().keys() - full.state_dict().keys()
    full.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        before = result(full(**inputs(cls)))
        assert torch.equal(before, result(plain(**inputs(cls))))
        for name, parameter in full.named_parameters():
            if name in extra:
                parameter.fill_(float("nan"))
        assert torch.equal(result(full(**inputs(cls))), before)


# ---- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_batch_equals_its_rows(attention):
    model = build(CAVMAEModel)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        together = model(sounds(), pictures())
        for row in range(3):
            alone = model(sounds()[row : row + 1], pictures()[row : row + 1])
            for name, tensor in alone.items():
                close(together[name][row : row + 1], tensor)


def test_the_streams_are_what_they_say():
    """The joint stream sees both; a single one the same with and without the other; means are means."""
    model = build(CAVMAEModel)
    with torch.no_grad():
        both, heard, seen = model(sounds(), pictures()), model(sounds()), model(pixel_values=pictures())
        other = model(sounds(), pictures().flip(0))
        features = model.get_audio_features(sounds()), model.get_image_features(pictures())
    assert both.joint_last_hidden_state.shape == (3, 32 + 16, 32)
    assert torch.equal(both.audio_last_hidden_state, heard.audio_last_hidden_state)
    assert torch.equal(both.image_last_hidden_state, seen.image_last_hidden_state)
    assert heard.joint_embeds is None and heard.image_embeds is None and seen.audio_embeds is None
    assert torch.equal(other.audio_embeds, both.audio_embeds)
    assert (other.joint_embeds - both.joint_embeds)[[0, 2]].abs().max() > 1e-2
    for name in ("audio", "image", "joint"):
        close(both[f"{name}_embeds"], both[f"{name}_last_hidden_state"].mean(1))
    assert torch.equal(features[0].pooler_output, both.audio_embeds)
    assert torch.equal(features[1].last_hidden_state, both.image_last_hidden_state)
    assert isinstance(model(sounds(), return_dict=False), tuple)
    assert isinstance(model.get_audio_features(sounds(), return_dict=False), tuple)


def test_eager_equals_sdpa_and_gives_what_was_asked_for():
    model = build(CAVMAEModel)
    sdpa = model(sounds(), pictures())
    model.set_attn_implementation("eager")
    eager = model(sounds(), pictures(), output_hidden_states=True, output_attentions=True)
    for name in ("audio", "image", "joint"):
        close(sdpa[f"{name}_last_hidden_state"], eager[f"{name}_last_hidden_state"])
    assert [states.shape for states in eager.audio_hidden_states] == [(3, 32, 32)] * 5
    assert [states.shape for states in eager.image_hidden_states] == [(3, 16, 32)] * 5
    assert [states.shape for states in eager.joint_hidden_states] == [(3, 48, 32)] * 3
    assert [weights.shape for weights in eager.audio_attentions] == [(3, 4, 32, 32)] * 4
    assert [weights.shape for weights in eager.joint_attentions] == [(3, 4, 48, 48)] * 2
    close(model.audio_norm(eager.audio_hidden_states[-1]), eager.audio_last_hidden_state, 0)
    assert torch.equal(eager.audio_hidden_states[0], model.embed_audio(sounds()))
    assert sdpa.audio_hidden_states is None and sdpa.audio_attentions is None
    tower = build(CAVMAEAudioModel)
    tower.set_attn_implementation("eager")
    output = tower(sounds(), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 5 and [one.shape for one in output.attentions] == [(3, 4, 32, 32)] * 4


def test_the_audio_towers_joint_layers_are_its_own(tmp_path):
    """Training the tower leaves every picture where it was: what CAVT-MAE needs."""
    whole = build(CAVMAEModel)
    whole.save_pretrained(tmp_path)
    tower = CAVMAEAudioModel.from_pretrained(tmp_path)
    before = whole.get_image_features(pictures()).pooler_output
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(1.0)
    assert torch.equal(whole.get_image_features(pictures()).pooler_output, before)


def test_unibrivl_takes_the_audio_side_out_of_a_folder(tmp_path):
    """Its frames are columns of time, the mean over frequency; a whole model is no tower."""
    model = build(CAVMAEForPreTraining)
    model.save_pretrained(tmp_path)
    tower = load_audio_tower(str(tmp_path))
    assert type(tower) is CAVMAEAudioModel and not tower.audio_embeddings.positions.weight.requires_grad
    states = tower(sounds(frames=48)).last_hidden_state
    frames = frames_of(tower, states)
    assert frames.shape == (3, 6, 32)
    close(frames[:, 2], (states[:, 2] + states[:, 8] + states[:, 14] + states[:, 20]) / 4)
    assert layers_to_mix(tower) == [*tower.audio_layers, *tower.joint_layers]
    with pytest.raises(ValueError, match="whole model"):
        load_audio_tower(model)


# ---- lengths and sizes ----------------------------------------------------------------------------------------------


def test_shorter_sounds_take_the_first_columns_of_positions():
    model = build(CAVMAEAudioModel)
    grid = model.audio_embeddings.positions.weight.view(4, 8, 32)
    close(model.audio_embeddings.positions(4, 3)[0], grid[:, :3].reshape(12, 32), 0)
    assert model(sounds(frames=24)).last_hidden_state.shape == (3, 12, 32)
    close(sincos_positions((4, 8), 32)[0], grid.reshape(32, 32), 0)


def test_longer_sounds_and_other_pictures_are_interpolated_on_request():
    model = build(CAVMAEModel)
    positions = model.audio_embeddings.positions
    longer = positions(4, 16, True).view(4, 16, 32)
    known = positions.weight.view(4, 8, 32)
    close(longer[:, 1:-1:2], known[:, :-1] * 0.75 + known[:, 1:] * 0.25)  # linear along time, rows apart
    output = model(sounds(frames=128), pictures(side=48), interpolate_pos_encoding=True)
    assert output.joint_last_hidden_state.shape == (3, 4 * 16 + 36, 32)
    assert model.image_embeddings.positions(6, 6, True).shape == (1, 36, 32)
    for bad in (lambda: model(sounds(frames=128)), lambda: model(pixel_values=pictures(side=48))):
        with pytest.raises(ValueError, match="interpolate_pos_encoding=True"):
            bad()


# ---- pre-training ---------------------------------------------------------------------------------------------------


def test_everything_in_pretraining_learns():
    model = build(CAVMAEForPreTraining).train()
    model(sounds(), pictures()).loss.backward()
    silent = {name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()}
    positions = {name for name, _ in model.named_parameters() if "positions" in name}
    assert len(positions) == 4 and silent == positions


@pytest.mark.parametrize("cls", [CAVMAEForPreTraining, CAVMAEForAudioVisualClassification, CAVMAEAudioModel])
@pytest.mark.parametrize("wanted", [None, True, False])
def test_positions_learn_as_in_the_original_or_as_told(cls, wanted):
    model = build(cls, train_position_embeddings=wanted)
    learn = {one.weight.requires_grad for one in model.modules() if isinstance(one, CAVMAEPositions)}
    assert learn == {cls is CAVMAEForAudioVisualClassification if wanted is None else wanted}


@pytest.mark.parametrize("cls", [CAVMAEForPreTraining, CAVMAEForAudioVisualClassification])
def test_gradient_checkpointing_changes_nothing(cls):
    grads = []
    for checkpointing in (False, True):
        model = build(cls).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.cavmae.joint_layers[0].gradient_checkpointing
        output = model(**inputs(cls))
        (result(output).square().sum() if output.loss is None else output.loss).backward()
        grads.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_noise_decides_and_a_generator_draws_it():
    model = build(CAVMAEForPreTraining)
    first = model(sounds(), pictures(), generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    audio, image = torch.rand(3, 32, generator=generator), torch.rand(3, 16, generator=generator)
    again = model(sounds(), pictures(), audio_noise=audio, image_noise=image)
    assert torch.equal(first.loss, again.loss) and torch.equal(first.audio_mask, again.audio_mask)
    assert first.audio_mask.sum(1).tolist() == [24] * 3 and first.image_mask.sum(1).tolist() == [12] * 3
    assert torch.equal(first.audio_mask.bool(), audio >= audio.sort(1).values[:, 8:9])
    with pytest.raises(ValueError, match="pass a generator"):
        model(sounds(), pictures())


@pytest.mark.parametrize("mode, rows, columns", [("time", 0, 48), ("freq", 6, 0), ("tf", 4, 33)])
def test_structured_masks_fill_rows_and_columns(mode, rows, columns):
    """On 8 x 64 patches: int(64 r) columns, int(8 r) rows, or 0.7 of each, and 128 tokens stay as ever."""
    noise_BN = torch.rand(4, 512, generator=torch.Generator().manual_seed(0))
    filled = structure_noise(noise_BN, mode, 0.75, (8, 64), torch.Generator().manual_seed(1))
    largest = (filled > 1).view(4, 8, 64)
    assert largest.all(2).sum(1).tolist() == [rows] * 4 and largest.all(1).sum(1).tolist() == [columns] * 4
    assert torch.equal(filled[filled <= 1], noise_BN[filled <= 1])
    mask = mask_by_noise(filled, 0.75)
    assert mask.hidden.sum(1).tolist() == [384] * 4
    assert len({tuple(row.tolist()) for row in mask.hidden}) == 4, "every sample draws its own"
    model = build(CAVMAEForPreTraining, mask_mode=mode)
    assert model(sounds(), pictures(), generator=torch.Generator().manual_seed(0)).loss.isfinite()


def test_the_losses_written_out():
    """The hidden patches' squared errors with a target normalised by the unbiased variance; weights of the sum."""
    model = build(CAVMAEForPreTraining, contrastive_loss_weight=0.3, reconstruction_loss_weight=0.7)
    output = model(**inputs(CAVMAEForPreTraining))
    target = torch.stack([
        sounds()[:, 8 * t : 8 * t + 8, 8 * f : 8 * f + 8].transpose(1, 2).flatten(1)
        for f in range(4) for t in range(8)
    ], dim=1)  # fmt: skip
    close(patches(sounds().transpose(1, 2)[:, None], 8), target, 0)
    target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    errors = (output.audio_prediction - target)[output.audio_mask.bool()]
    close(output.audio_reconstruction_loss, errors.square().mean())
    close(output.reconstruction_loss, 0.7 * (output.audio_reconstruction_loss + output.image_reconstruction_loss))
    cosines = torch.cosine_similarity(output.image_embeds[:, None], output.audio_embeds[None], dim=2)
    wanted = torch.nn.functional.cross_entropy(cosines / 0.05, torch.arange(3))
    close(output.contrastive_loss, 0.3 * wanted, 1e-4)
    close(output.loss, output.reconstruction_loss + output.contrastive_loss)


def test_the_originals_quirk_with_several_joint_layers():
    """Its pre-training lets single modalities through the last joint layer alone; with one layer all is the same."""
    chained, quirky = build(CAVMAEForPreTraining), build(CAVMAEForPreTraining, original_pretrain_quirk=True)
    given = inputs(CAVMAEForPreTraining)
    ours, theirs = chained(**given), quirky(**given)
    assert torch.equal(ours.joint_last_hidden_state, theirs.joint_last_hidden_state)
    assert (ours.audio_embeds - theirs.audio_embeds).abs().max() > 1e-2
    assert torch.equal(chained.cavmae(sounds()).audio_embeds, quirky.cavmae(sounds()).audio_embeds)
    ours, theirs = (
        build(CAVMAEForPreTraining, num_joint_layers=1, original_pretrain_quirk=quirk)(**given)
        for quirk in (False, True)
    )
    assert torch.equal(ours.loss, theirs.loss)


def test_shorter_sounds_pretrain_too():
    model = build(CAVMAEForPreTraining)
    output = model(sounds(frames=32), pictures(), generator=torch.Generator().manual_seed(0))
    assert output.audio_prediction.shape == (3, 16, 64) and output.audio_mask.sum(1).tolist() == [12] * 3


def test_evaluation_draws_nothing():
    for cls in CLASSES:
        model, before = build(cls), torch.get_rng_state()
        assert torch.equal(result(model(**inputs(cls))), result(model(**inputs(cls))))
        assert torch.equal(before, torch.get_rng_state()), cls.__name__


def test_half_precision_runs():
    for cls in CLASSES:
        model = build(cls)
        exact, half = result(model(**inputs(cls))), result(model.to(torch.bfloat16)(**inputs(cls)))
        assert half.dtype == torch.bfloat16
        assert torch.cosine_similarity(half.float().flatten(1), exact.flatten(1)).min() > 0.98, cls.__name__


@pytest.mark.parametrize("cls", [CAVMAEAudioModel, CAVMAEForPreTraining])
def test_compiled_equals_eager(cls):
    """Through torch.compile's whole front half, without a break in the graph."""
    depth = {"num_hidden_layers": 2, "num_joint_layers": 1}
    model = build(cls, **depth if cls is CAVMAEAudioModel else depth | {"decoder_num_hidden_layers": 1})
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        close(result(compiled(**inputs(cls))), result(model(**inputs(cls))))


# ---- classifying ----------------------------------------------------------------------------------------------------


def test_the_modes_written_out():
    """Means of streams: and with one modality missing, the average of what the joint layers make of the other."""
    model = build(CAVMAEForAudioVisualClassification, num_labels=5)
    trunk, head = model.cavmae, lambda pooled: model.classifier(model.classifier_norm(pooled))
    output = trunk(sounds(), pictures(), output_hidden_states=True)
    logits = {mode: model(sounds(), pictures(), mode=mode).logits for mode in (None, "audioonly", "videoonly")}
    close(logits[None], head(output.joint_embeds))
    close(logits["audioonly"], head(output.audio_embeds))
    close(logits["videoonly"], head(output.image_embeds))
    alone = trunk.join(output.audio_hidden_states[2], "plain").mean(1)
    close(model(sounds(), mode="missingaudioonly").logits, head((alone + output.audio_embeds) / 2))
    alone = trunk.join(output.image_hidden_states[2], "plain").mean(1)
    close(model(pixel_values=pictures(), mode="missingvideoonly").logits, head((alone + output.image_embeds) / 2))
    heard = build(CAVMAEForAudioVisualClassification, num_labels=5, classifier_mode="audioonly")
    close(heard(sounds()).logits, logits["audioonly"])


def test_the_class_of_sound_alone_is_the_mode(tmp_path):
    model = build(CAVMAEForAudioVisualClassification, num_labels=5)
    model.save_pretrained(tmp_path)
    alone = CAVMAEForAudioClassification.from_pretrained(tmp_path)
    close(alone(sounds()).logits, model(sounds(), mode="audioonly").logits, 0)


@pytest.mark.parametrize(
    "labels, kind, loss",
    [
        (torch.tensor([0, 4, 2]), None, torch.nn.functional.cross_entropy),
        (torch.eye(5)[:3] * 0.9 + 0.02, "single_label_classification", torch.nn.functional.cross_entropy),
        (torch.eye(5)[:3], None, torch.nn.functional.binary_cross_entropy_with_logits),
        (torch.eye(5)[:3].long(), "multi_label_classification", None),
    ],
)
def test_losses_of_labels(labels, kind, loss):
    model = build(CAVMAEForAudioClassification, num_labels=5, problem_type=kind)
    output = model(sounds(), labels=labels)
    wanted = (loss or torch.nn.functional.binary_cross_entropy_with_logits)(
        output.logits, labels.float() if loss is None else labels
    )
    close(output.loss, wanted)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_bad_inputs_say_what_to_do():
    model, pretrained = build(CAVMAEModel), build(CAVMAEForPreTraining)
    classifier = build(CAVMAEForAudioVisualClassification)
    for bad, match in [
        (lambda: model(), "pass input_values, pixel_values"),
        (lambda: model(sounds()[0]), r"must be \(batch, frames, 32 mel bins\)"),
        (lambda: model(sounds(bins=24)), "CAVMAEFeatureExtractor"),
        (lambda: model(sounds(frames=60)), "whole patches of 8"),
        (lambda: model(pixel_values=pictures(side=30)), "whole patches"),
        (lambda: model(pixel_values=pictures()[:, :1]), "CAVMAEImageProcessor"),
        (lambda: model(sounds(2), pictures(3)), "2 sounds and 3 pictures"),
        (lambda: pretrained(sounds(2), pictures(3), **noise()), "no pairs"),
        (lambda: pretrained(sounds(), pictures(), **noise(2)), "one number a token"),
        (lambda: classifier(sounds()), "needs pixel_values"),
        (lambda: classifier(pixel_values=pictures(), mode="audioonly"), "needs input_values"),
        (lambda: classifier(sounds(), mode="both"), "mode must be one of"),
    ]:
        with pytest.raises(ValueError, match=match):
            bad()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "seven"}, {"num_attention_heads": 5}, {"num_joint_layers": 4}, {"num_joint_layers": 0},
        {"num_mel_bins": 30}, {"max_audio_frames": 60}, {"image_size": 30}, {"mask_mode": "boxes"},
        {"audio_mask_ratio": 1.0}, {"classifier_mode": "both"}, {"decoder_num_attention_heads": 5},
    ],
)  # fmt: skip
def test_wrong_configs_are_refused(wrong):
    with pytest.raises((StrictDataclassError, ValueError, TypeError)):
        CAVMAEConfig(**BOTH | wrong)


def test_the_defaults_are_the_released_weights():
    config = CAVMAEConfig()
    assert config.num_modality_layers == 11 and config.audio_grid == (8, 64) and config.image_grid == (14, 14)
    assert CAVMAEConfig(**config.to_dict()).to_dict() == config.to_dict()
    assert CAVMAEAudioConfig(**SHARED).audio_grid == (4, 8)
