"""SpeechLM at toy size: what every Hugging Face user relies on, each compared with a second way of knowing."""

from __future__ import annotations

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCTC, AutoModelForPreTraining
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

from unibrivl.modeling import SpeechLMConfig, SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel, front_end_speechlm
from unibrivl.modeling.attention_speechlm import relative_bias
from unibrivl.modeling.front_end_speechlm import frame_mask, num_frames
from unibrivl.modeling.masking_speechlm import align_labels, sample_spans


def build(cls, config, seed=0):
    torch.manual_seed(seed)
    return cls(config).eval()


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


# ---- saving and loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SpeechLMModel, SpeechLMForPreTraining, SpeechLMForCTC])
def test_save_and_load_is_bit_exact(cls, tiny_config, tmp_path):
    model = build(cls, tiny_config)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(1)  # another seed: anything initialised instead of loaded would show
    again, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    auto = {SpeechLMModel: AutoModel, SpeechLMForPreTraining: AutoModelForPreTraining, SpeechLMForCTC: AutoModelForCTC}
    assert type(auto[cls].from_pretrained(tmp_path)) is cls


def test_tower_loads_from_a_checkpoint_with_heads(tiny_config, tmp_path, clips):
    """SpeechLMModel reads the tower of a pre-training checkpoint, bit for bit."""
    pretrained = build(SpeechLMForPreTraining, tiny_config)
    pretrained.save_pretrained(tmp_path)
    tower = SpeechLMModel.from_pretrained(tmp_path)
    assert torch.equal(tower(clips[0]).last_hidden_state, pretrained.speechlm(clips[0]).last_hidden_state)


def test_stale_position_ids_in_a_checkpoint_are_tolerated(tiny_config, tmp_path):
    model = build(SpeechLMModel, tiny_config)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "encoder.position_ids": torch.arange(4)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert SpeechLMModel.from_pretrained(tmp_path, output_loading_info=True)[1]["unexpected_keys"] == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_load_and_run(dtype, tiny_config, tmp_path, clips):
    model = build(SpeechLMModel, tiny_config)
    model.save_pretrained(tmp_path)
    half = SpeechLMModel.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    output = half(clips[0].to(dtype), clips[1]).last_hidden_state
    assert output.dtype == dtype
    exact = model(clips[0], clips[1])
    keep = exact.frame_mask.bool()
    cosine = torch.cosine_similarity(output.float()[keep], exact.last_hidden_state[keep], dim=-1)
    assert cosine.min() > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_autocast_runs_forward_and_backward(dtype, attention, tiny_config, clips):
    model = build(SpeechLMForPreTraining, tiny_config)
    model.set_attn_implementation(attention)
    labels = torch.randint(4, 30, (3, 100))
    with torch.autocast("cpu", dtype=dtype):
        loss = model.train()(clips[0], clips[1], unit_labels=labels).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_device_map_places_the_model(tiny_config, tmp_path, clips):
    pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    model = build(SpeechLMModel, tiny_config)
    model.save_pretrained(tmp_path)
    mapped = SpeechLMModel.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(mapped(clips[0]).last_hidden_state, model(clips[0]).last_hidden_state)


# ---- one clip is one clip -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_padded_clip_equals_the_clip_alone(attention, gradients, tiny_config, clips):
    """In a batch, in any place of it, with either attention, in the padded and in the clip-at-a-time path."""
    samples, mask, lengths = clips
    model = build(SpeechLMModel, tiny_config)
    model.set_attn_implementation(attention)
    with torch.set_grad_enabled(gradients):
        together = model(samples, mask, output_hidden_states=True)
        for row, length in enumerate(lengths):
            alone = model(samples[row : row + 1, :length], output_hidden_states=True)
            frames = alone.last_hidden_state.shape[1]
            assert together.frame_mask[row].sum() == frames == num_frames(length, tiny_config)
            for ours, other in zip(together.hidden_states, alone.hidden_states, strict=True):
                close(ours[row, :frames], other[0])
            close(together.last_hidden_state[row, :frames], alone.last_hidden_state[0])
            close(together.extract_features[row, :frames], alone.extract_features[0])


@pytest.mark.parametrize("seconds", [(0.5, 0.3, 0.4), (3.0, 0.3, 2.7)])
def test_clips_beside_longer_padding_than_any_of_them(seconds, tiny_config):
    """padding="max_length": short clips on the padded batch and long ones at their own length, 49 frames or 249."""
    lengths = [int(16000 * one) for one in seconds]
    samples = torch.zeros(3, 5 * 16000)
    mask = torch.zeros(3, 5 * 16000, dtype=torch.long)
    for row, length in enumerate(lengths):
        samples[row, :length] = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(row))
        mask[row, :length] = 1
    model = build(SpeechLMModel, tiny_config)
    with torch.no_grad():
        together = model(samples, mask)
        assert together.last_hidden_state.shape[1] == 249
        for row, length in enumerate(lengths):
            alone = model(samples[row : row + 1, :length]).last_hidden_state[0]
            close(together.last_hidden_state[row, : len(alone)], alone)


@pytest.mark.parametrize("blocks", [1, 3, 7, 1000])
def test_blocks_of_the_front_end_do_not_show(blocks, tiny_config, clips, monkeypatch):
    """However many frames a block holds, across clips or within one, the frames are those of the whole clip."""
    samples, mask, lengths = clips
    model = build(SpeechLMModel, tiny_config).feature_extractor
    wanted = [model(samples[row : row + 1, :length])[0] for row, length in enumerate(lengths)]
    monkeypatch.setattr(front_end_speechlm, "BLOCK_NUMBERS", blocks * 64 * max(tiny_config.conv_dim))
    with torch.no_grad():
        frames_BTC = model(samples, lengths)
    for row, alone in enumerate(wanted):
        close(frames_BTC[row, : len(alone)], alone)
        assert not frames_BTC[row, len(alone) :].any()


def test_a_clip_may_stand_anywhere_in_its_row(tiny_config, clips):
    """Padding on the left, or on both sides: the clip is moved to the start, and the result is the clip's."""
    samples, mask, _ = clips
    model = build(SpeechLMModel, tiny_config)
    shifted, shifted_mask = samples.clone(), mask.clone()
    shifted[1], shifted_mask[1] = samples[1].roll(9600), mask[1].roll(9600)
    shifted[2], shifted_mask[2] = samples[2].roll(1234), mask[2].roll(1234)
    expected, output = model(samples, mask), model(shifted, shifted_mask)
    assert torch.equal(output.frame_mask, expected.frame_mask)
    close(output.last_hidden_state, expected.last_hidden_state)


def test_the_same_clip_gives_the_same_bits(tiny_config, clips):
    model = build(SpeechLMModel, tiny_config)
    with torch.inference_mode():
        first, second = model(clips[0], clips[1]), model(clips[0], clips[1])
        turned = model(clips[0].flip(0), clips[1].flip(0))
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert torch.equal(first.last_hidden_state, turned.last_hidden_state.flip(0))


def test_eager_equals_sdpa(tiny_config, clips):
    model = build(SpeechLMModel, tiny_config)
    assert model.config._attn_implementation == "sdpa"
    sdpa = model(clips[0], clips[1])
    model.set_attn_implementation("eager")
    eager = model(clips[0], clips[1], output_attentions=True)
    close(sdpa.last_hidden_state[sdpa.frame_mask == 1], eager.last_hidden_state[eager.frame_mask == 1])
    assert len(eager.attentions) == 4 and eager.attentions[0].shape == (3, 4, 49, 49)
    close(eager.attentions[0][1][:, :, 19:], torch.zeros(4, 49, 30))  # nobody listens to padding


@pytest.mark.parametrize("frames", [1, 2, 5, 129, 160, 161, 200])
@pytest.mark.parametrize("rows", [8, 320])
def test_relative_bias_equals_the_dense_form(frames, rows):
    """Shifted strides in blocks of queries against the T x T x d gather they replace."""
    generator = torch.Generator().manual_seed(frames)
    query = torch.randn(2, 3, frames, 4, dtype=torch.double, generator=generator)
    table = torch.randn(rows, 4, dtype=torch.double, generator=generator)
    index = torch.arange(frames)
    index = (index[:, None] - index).clamp(-rows // 2, rows // 2 - 1) + rows // 2
    dense = torch.einsum("bhid,ijd->bhij", query, table[index])
    for block in (1, 3, 64, frames):
        pieces = [relative_bias(query[:, :, i : i + block], table, i, frames) for i in range(0, frames, block)]
        close(torch.cat(pieces, dim=2), dense, 1e-12)


@pytest.mark.parametrize("samples", [400, 719, 720, 16000, 40000])
@pytest.mark.parametrize("gradients", [False, True])
def test_front_end_equals_huberts(samples, gradients, tiny_config):
    """Folded normalisation, matrix products and blocks against transformers' layer-by-layer convolutions."""
    model = build(SpeechLMModel, tiny_config)
    literal = HubertFeatureEncoder(tiny_config).eval()
    literal.load_state_dict(model.feature_extractor.state_dict())
    sound = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(3)) + 0.5  # with a DC offset
    with torch.set_grad_enabled(gradients):
        close(model.feature_extractor(sound), literal(sound).transpose(1, 2), 2e-5)


def test_front_end_gradients_equal_huberts(tiny_config):
    model = build(SpeechLMModel, tiny_config)
    literal = HubertFeatureEncoder(tiny_config)
    literal.load_state_dict(model.feature_extractor.state_dict())
    sound = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(3))
    model.feature_extractor(sound).square().mean().backward()
    literal(sound).square().mean().backward()
    for (name, ours), other in zip(model.feature_extractor.named_parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad, atol=1e-6, rtol=1e-3, msg=name)


def test_fairseq_frame_mask_is_the_originals_rule():
    """T equal chunks of the padded batch; a frame is padding when its whole chunk is."""
    config = SpeechLMConfig(padding_mode="fairseq")
    for padded, real in ((60000, 41234), (1000, 801), (16000, 399), (16123, 16000)):
        frames = num_frames(padded, config)
        padding = torch.arange(padded) >= real
        chunk = padded // frames
        wanted = [bool(padding[t * chunk : (t + 1) * chunk].all()) for t in range(frames)]
        mask = frame_mask((~padding).long()[None], frames, config)
        assert (~mask[0]).tolist() == wanted


# ---- training -------------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_nothing(tiny_config, clips):
    config = copy.deepcopy(tiny_config)
    config.hidden_dropout = config.attention_dropout = config.feat_proj_dropout = config.layerdrop = 0.0
    grads = []
    for checkpointing in (False, True):
        model = build(SpeechLMModel, config).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.encoder.layers[0].gradient_checkpointing
        model(clips[0], clips[1]).last_hidden_state.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 40
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_every_parameter_of_pretraining_gets_a_gradient(tiny_config, clips):
    config = copy.deepcopy(tiny_config)
    config.layerdrop = 0.0
    model = build(SpeechLMForPreTraining, config).train()
    units, letters = torch.randint(4, 30, (3, 60)), torch.randint(5, 11, (3, 6))
    labels = torch.randint(4, 30, (3, 100))
    output = model(clips[0], clips[1], units, labels, letters)
    output.loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    terms = output.unit_loss + 10 * output.feature_penalty * output.num_masked
    terms = terms + 0.1 * output.ctc_loss * output.num_masked / (3 * 60)
    torch.testing.assert_close(output.loss, terms)
    assert not (output.swap_indices & output.mask_time_indices).any()


def test_pretraining_learns(tiny_config, clips):
    config = copy.deepcopy(tiny_config)
    config.hidden_dropout = config.attention_dropout = config.feat_proj_dropout = config.layerdrop = 0.0
    config.swap_prob = 0.0
    model = build(SpeechLMForPreTraining, config).train()
    labels, samples = torch.full((3, 100), 7), clips[0][:, :6400]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        output = model(samples, unit_labels=labels)
        (output.loss / output.num_masked).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(output.unit_loss.detach() / output.num_masked))
    assert losses[-1] < 0.7 * losses[0], losses


def test_training_draws_are_decided_by_the_torch_seed(tiny_config, clips):
    model = build(SpeechLMForPreTraining, tiny_config).train()
    labels = torch.randint(4, 30, (3, 100))
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        masks.append(model(clips[0], clips[1], unit_labels=labels).mask_time_indices)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_evaluation_draws_nothing(tiny_config, clips):
    model = build(SpeechLMForPreTraining, tiny_config)
    before = torch.get_rng_state()
    output = model(clips[0], clips[1], unit_labels=torch.randint(4, 30, (3, 100), generator=torch.Generator()))
    assert torch.equal(before, torch.get_rng_state())
    assert (
        output.mask_time_indices is None
        and not output.swap_indices.any()
        and output.num_masked == 0
        and output.unit_loss == 0
    )


def test_feature_gradient_multiplier(tiny_config, clips):
    grads = []
    for scale in (1.0, 0.1):
        config = copy.deepcopy(tiny_config)
        config.feature_grad_mult = scale
        config.hidden_dropout = config.attention_dropout = config.feat_proj_dropout = config.layerdrop = 0.0
        model = build(SpeechLMModel, config).train()
        model(clips[0]).last_hidden_state.square().mean().backward()
        grads.append(model.feature_extractor.conv_layers[3].conv.weight.grad)
    torch.testing.assert_close(grads[1], 0.1 * grads[0], atol=1e-9, rtol=1e-3)


def test_frozen_front_end_keeps_its_weights(tiny_config, clips):
    model = build(SpeechLMModel, tiny_config).train()
    model.freeze_feature_encoder()
    model(clips[0]).last_hidden_state.sum().backward()
    assert all(parameter.grad is None for parameter in model.feature_extractor.parameters())
    assert model.feature_projection.projection.weight.grad is not None


def test_ctc_loss_equals_torchs_on_the_clips_alone(tiny_config, clips):
    model = build(SpeechLMForCTC, tiny_config)
    labels = torch.tensor([[5, 6, 7, -100], [8, -100, -100, -100], [9, 9, 10, 5]])
    output = model(clips[0], clips[1], labels=labels)
    assert output.logits.shape == (3, 49, 11)
    losses = []
    for row, (length, count) in enumerate(zip(clips[2], (3, 1, 4), strict=True)):
        log_probs = model(clips[0][row : row + 1, :length]).logits.log_softmax(-1).transpose(0, 1)
        frames = torch.tensor([log_probs.shape[0]])
        target, size = labels[row : row + 1, :count], torch.tensor([count])
        losses.append(torch.nn.functional.ctc_loss(log_probs, target, frames, size, reduction="sum") / count)
    torch.testing.assert_close(output.loss, torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_initialisation_is_the_originals():
    """The distributions measured on freshly built originals (spec/speechlm.md section 7), at full width."""
    torch.manual_seed(0)
    model = SpeechLMForPreTraining(SpeechLMConfig(num_speech_layers=1, num_shared_layers=1))
    tower = model.speechlm
    speech, shared = tower.encoder.layers[0], tower.shared_encoder.layers[0]
    deviations = {
        "speech q": (speech.attention.q_proj.weight, 0.02),
        "speech fc1": (speech.feed_forward.intermediate_dense.weight, 0.02),
        "speech pe_k": (tower.encoder.relative_positions.pe_k.weight, 0.02),
        "shared pe_k": (tower.shared_encoder.relative_positions.pe_k.weight, 1.0),
        "shared q": (shared.attention.q_proj.weight, (2 / (768 + 768)) ** 0.5 / 2**0.5),
        "shared out": (shared.attention.out_proj.weight, (2 / (768 + 768)) ** 0.5),
        "shared fc1": (shared.feed_forward.intermediate_dense.weight, 768**-0.5 / 3**0.5),
        "projection": (tower.feature_projection.projection.weight, 512**-0.5 / 3**0.5),
        "positions": (tower.shared_encoder.position_embeddings.weight[2:], 768**-0.5),
        "units": (tower.unit_embeddings.weight[2:], 768**-0.5),
        "conv": (tower.feature_extractor.conv_layers[1].conv.weight, (2 / (512 * 3)) ** 0.5),
        "ctc conv": (model.ctc_head.conv.weight, (2 / (768 * 2)) ** 0.5),
        "pos conv v": (tower.encoder.pos_conv_embed.conv.parametrizations.weight.original1, (4 / (128 * 768)) ** 0.5),
        "mask vector": (tower.masked_spec_embed, 12**-0.5),
        "labels": (model.unit_head.label_embeddings[0], 12**-0.5),
    }
    for name, (tensor, deviation) in deviations.items():
        assert abs(float(tensor.detach().std()) / deviation - 1) < 0.06, name
    assert model.unit_head.label_embeddings[0].min() >= 0 and tower.masked_spec_embed.max() <= 1
    for padded in (tower.unit_embeddings, tower.shared_encoder.position_embeddings):
        assert padded.weight[1].abs().max() == 0
    zero = (speech.attention.q_proj.bias, shared.attention.out_proj.bias, tower.encoder.pos_conv_embed.conv.bias)
    assert all(bias.abs().max() == 0 for bias in zero)
    assert shared.attention.q_proj.bias.abs().max() > 0
    direction = tower.encoder.pos_conv_embed.conv.parametrizations.weight.original1
    gain = tower.encoder.pos_conv_embed.conv.parametrizations.weight.original0
    torch.testing.assert_close(gain, direction.norm(dim=(0, 1), keepdim=True))


# ---- inputs ---------------------------------------------------------------------------------------------------------


def test_units_alone_equal_units_in_a_batch(tiny_config):
    model = build(SpeechLMModel, tiny_config)
    ids = torch.randint(4, 30, (2, 40), generator=torch.Generator().manual_seed(0))
    ids[1, 25:] = 1
    together = model(input_ids=ids, output_hidden_states=True)
    alone = model(input_ids=ids[1:, :25])
    close(together.last_hidden_state[1, :25], alone.last_hidden_state[0])
    assert len(together.hidden_states) == tiny_config.num_shared_layers + 1
    close(together.hidden_states[0], together.shared_input, 0)


def test_sound_and_units_in_one_call_equal_two_calls(tiny_config, clips):
    model = build(SpeechLMModel, tiny_config)
    ids = torch.randint(4, 30, (3, 20))
    both = model(clips[0], clips[1], ids, output_hidden_states=True)
    assert torch.equal(both.last_hidden_state, model(clips[0], clips[1]).last_hidden_state)
    assert torch.equal(both.unit_output.last_hidden_state, model(input_ids=ids).last_hidden_state)
    assert len(both.hidden_states) == 5 and len(both.unit_output.hidden_states) == 3


def test_swapped_frames_hear_units(tiny_config, clips):
    """Swapping every frame makes the Shared Transformer read the units alone."""
    model = build(SpeechLMModel, tiny_config)
    ids = torch.randint(4, 30, (3, 49))
    swapped = model(clips[0], None, ids, swap_indices=torch.ones(3, 49, dtype=torch.bool))
    close(swapped.last_hidden_state, model(input_ids=ids).last_hidden_state)


def test_labels_shorter_than_the_sound_cut_the_sound(tiny_config, clips):
    model = build(SpeechLMForPreTraining, tiny_config)
    ratio = tiny_config.label_rate // 50
    output = model(clips[0], unit_labels=torch.full((3, 20 * ratio), 5))
    assert output.speech_logits.shape == (3, 20, 37)
    assert torch.equal(align_labels(torch.arange(12)[None], 10, 2.0, 1), torch.tensor([[1, 3, 5, 7, 9, 11]]))


def test_frames_without_a_label_are_not_scored(tiny_config, clips):
    """Row 1's labels end early: in exact mode the row counts in a batch what it counts alone."""
    model = build(SpeechLMForPreTraining, tiny_config)
    ratio = tiny_config.label_rate // 50
    labels = torch.full((2, 49 * ratio), 5)
    labels[1, 15 * ratio :] = 1
    masked = torch.ones(2, 49, dtype=torch.bool)
    assert model(clips[0][:2], unit_labels=labels, mask_time_indices=masked).num_masked == 49 + 15


def test_span_sampler_on_very_short_rows():
    import numpy as np

    mask = sample_spans((2, 12), 0.8, 10, np.random.RandomState(0), [12, 2])
    assert mask.shape == (2, 12) and mask[0].sum() == mask[1].sum() > 0 and not mask[1, 2:].any()


def test_a_model_without_unit_table_refuses_units(tiny_config, clips):
    config = copy.deepcopy(tiny_config)
    config.use_unit_embeddings = False
    model = build(SpeechLMModel, config)
    assert model(clips[0]).last_hidden_state.shape == (3, 49, 32)
    with pytest.raises(ValueError, match="no unit table"):
        model(input_ids=torch.tensor([[5, 6]]))


def test_bad_inputs_say_what_to_do(tiny_config, clips):
    model = build(SpeechLMModel, tiny_config)
    with pytest.raises(ValueError, match="pass input_values"):
        model()
    with pytest.raises(ValueError, match=r"must be \(batch, samples\)"):
        model(clips[0][0])
    with pytest.raises(ValueError, match="SpeechLMFeatureExtractor pads"):
        model(torch.zeros(1, 399))
    with pytest.raises(ValueError, match="SpeechLMFeatureExtractor pads"):
        model(torch.zeros(2, 800), torch.tensor([[1] * 800, [1] * 300 + [0] * 500]))
    with pytest.raises(ValueError, match="one number a sample"):
        model(clips[0], clips[1][:, :15000])
    for wrong in (99, 0):
        with pytest.raises(ValueError, match="letter labels must be below 11"):
            build(SpeechLMForCTC, tiny_config)(clips[0], labels=torch.full((3, 2), wrong))
    with pytest.raises(ValueError, match="has holes"):
        model(clips[0][:1], (torch.arange(16000) % 2)[None])
    with pytest.raises(ValueError, match="swap_indices needs"):
        model(clips[0], swap_indices=torch.zeros(3, 49, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs unit_labels"):
        build(SpeechLMForPreTraining, tiny_config)(clips[0])
    with pytest.raises(ValueError, match="not both"):
        build(SpeechLMForCTC, tiny_config)(clips[0], input_ids=torch.tensor([[5]] * 3))


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_size": "seven"}, {"hidden_size": 30}, {"padding_mode": "hf"}, {"conv_dim": [8, 8]}, {"layerdrop": None}],
)
def test_wrong_configs_are_refused(wrong):
    with pytest.raises((StrictDataclassError, ValueError, TypeError)):
        SpeechLMConfig(**wrong)


def test_sound_longer_than_the_position_table_shares_its_last_row(tiny_config):
    model = build(SpeechLMModel, tiny_config)
    output = model(0.1 * torch.randn(1, 16000 * 4, generator=torch.Generator().manual_seed(0)))
    assert output.last_hidden_state.shape[1] > tiny_config.max_source_positions
    assert output.last_hidden_state.isfinite().all()
