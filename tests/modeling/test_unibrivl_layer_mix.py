"""The layer mix against the sum as one writes it down: all layers, stacked, in float64."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from tiny_towers import AUDIO, sounds, unibrivl_config, units
from torch import nn

from unibrivl.modeling import UniBriVLAudioModel, UniBriVLModel
from unibrivl.modeling.layer_mix_unibrivl import RunningMix, UniBriVLLayerMix
from unibrivl.modeling.towers_unibrivl import FIRST_FRAME_IN_LAYERS, layers_to_mix

MIXED = ["speechlm", "hubert", "wav2vec2", "wavlm", "ast", "whisper", "pe_audio"]
STILL = {
    "speechlm": {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0},
    "hubert": {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "mask_time_prob": 0.0},
    "whisper": {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
}


def build(audio="speechlm", seed=0, tower=None, **fields):
    torch.manual_seed(seed)
    model = UniBriVLAudioModel(unibrivl_config(audio, audio_config={**AUDIO[audio], **(tower or {})}, **fields)).eval()
    if model.layer_mix is not None:
        nn.init.normal_(model.layer_mix.logits)
    return model


class Seen:
    """What the layers gave, (index, input, output) in the order they ran, and what the mix made of it."""

    def __init__(self, model):
        self.layers, self.mixed = [], None
        for index, layer in enumerate(layers_to_mix(model.tower)):
            layer.register_forward_hook(self.layer_hook(index))
        model.frame_projection.register_forward_pre_hook(self.mix_hook)
        model.tower.register_forward_hook(self.tower_hook)

    def layer_hook(self, index):
        def hook(module, inputs, output):
            self.layers.append((index, inputs[0], output[0] if isinstance(output, tuple) else output))

        return hook

    def mix_hook(self, module, inputs):
        self.mixed = inputs[0]

    def tower_hook(self, module, inputs, output):
        self.last_hidden = output.last_hidden_state


def written_down(model, states, first=0, skip=0):
    """softmax(logits), layer by layer, in float64."""
    weights = model.layer_mix.logits[first:].double().softmax(0)
    total = 0
    for weight, state in zip(weights, states, strict=True):
        state = state.double()[:, skip:]
        if model.config.layer_mix_norm:
            state = (state - state.mean(-1, keepdim=True)) / (
                state.var(-1, unbiased=False, keepdim=True) + 1e-5
            ).sqrt()
        total = total + weight * state
    return total


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours.double(), other.double(), atol=atol, rtol=0)


# ---- the sum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", MIXED)
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_mix_is_the_weighted_sum(audio, gradients, normalize):
    model = build(audio, layer_mix_norm=normalize)
    seen = Seen(model)
    with torch.set_grad_enabled(gradients):
        model(**sounds(audio))
    skip = FIRST_FRAME_IN_LAYERS.get(model.config.audio_config.model_type, 0)
    assert [index for index, _, _ in seen.layers] == list(range(len(model.layer_mix.logits)))
    close(seen.mixed, written_down(model, [output for _, _, output in seen.layers], skip=skip))
    assert seen.mixed.requires_grad == gradients


@pytest.mark.parametrize("audio", ["speechlm", "hubert"])
@pytest.mark.parametrize("gradients", [False, True])
def test_hidden_states_may_be_asked_for_beside_the_mix(audio, gradients):
    model = build(audio)
    seen = Seen(model)
    with torch.set_grad_enabled(gradients):
        output = model(**sounds(audio), output_hidden_states=True)
        alone = model(**sounds(audio))
    assert len(output.hidden_states) == len(model.layer_mix.logits) + 1
    close(seen.mixed, written_down(model, output.hidden_states[1:]))
    assert torch.equal(output.features, alone.features) and alone.hidden_states is None


@pytest.mark.parametrize("gradients", [False, True])
def test_text_runs_through_the_shared_layers_alone(gradients):
    """Their weights are made to sum to one again."""
    model = build()
    seen = Seen(model)
    with torch.set_grad_enabled(gradients):
        model(**units())
    assert [index for index, _, _ in seen.layers] == [2, 3]
    close(seen.mixed, written_down(model, [output for _, _, output in seen.layers], first=2))


def test_at_the_start_all_layers_count_the_same():
    model = UniBriVLAudioModel(unibrivl_config("hubert")).eval()
    assert torch.equal(model.layer_mix.logits, torch.zeros(3))
    output = model(**sounds("hubert"), output_hidden_states=True)
    seen = Seen(model)
    model(**sounds("hubert"))
    close(seen.mixed, torch.stack(output.hidden_states[1:]).mean(0))


def test_without_a_mix_the_last_hidden_state_counts():
    model = build("whisper", use_layer_mix=False)
    assert model.layer_mix is None and not any(layer._forward_hooks for layer in model.tower.layers)
    seen = Seen(model)
    model(**sounds("whisper"))
    assert torch.equal(seen.mixed, seen.last_hidden)


# ---- LayerDrop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", ["speechlm", "hubert", "whisper"])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dropped", [[], [0], [1], [2], [0, 1], [1, 2], [0, 1, 2], [3], [2, 3], [0, 3]])
def test_a_dropped_layer_counts_what_it_was_given(audio, gradients, dropped, monkeypatch):
    name = "encoder_layerdrop" if audio == "whisper" else "layerdrop"
    model = build(audio, tower={**STILL[audio], name: 0.5}, sa_dropout=0.0).train()
    number = len(model.layer_mix.logits)
    dropped = [index for index in dropped if index < number]
    draws = iter([0.1 if index in dropped else 0.9 for index in range(number)])
    real = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **kw: torch.tensor(next(draws)) if is_draw(size) else real(*size))
    seen = Seen(model)
    with torch.set_grad_enabled(gradients):
        model(**sounds(audio))
    assert [index for index, _, _ in seen.layers] == [index for index in range(number) if index not in dropped]
    if len(dropped) == number:
        assert torch.equal(seen.mixed, seen.last_hidden)
        return
    ran = {index: (given, gave) for index, given, gave in seen.layers}
    states, last = [], seen.layers[0][1]
    for index in range(number):
        last = ran[index][1] if index in ran else last
        states.append(last)
    close(seen.mixed, written_down(model, states))
    if gradients:
        seen.mixed.square().sum().backward()
        assert model.layer_mix.logits.grad.isfinite().all()


def is_draw(size):
    return size in ((), ((),), ([],))


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", ["speechlm", "hubert", "wavlm"])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_are_those_of_the_sum(audio, normalize):
    """Of the logits and of every weight of the tower."""
    model = build(audio, layer_mix_norm=normalize).double()
    seen = Seen(model)
    model(**sounds(audio))
    noise = torch.randn(seen.mixed.shape, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    names, weights = zip(*model.named_parameters(), strict=True)
    reference = written_down(model, [output for _, _, output in seen.layers])
    theirs = torch.autograd.grad((reference * noise).sum(), weights, retain_graph=True, allow_unused=True)
    ours = torch.autograd.grad((seen.mixed * noise).sum(), weights, allow_unused=True)
    got = {name: (one, other) for name, one, other in zip(names, ours, theirs, strict=True) if one is not None}
    assert "layer_mix.logits" in got and len(got) > 20
    assert [
        name for name, one, other in zip(names, ours, theirs, strict=True) if (one is None) != (other is None)
    ] == []
    for name, (one, other) in got.items():
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7, msg=name)


@pytest.mark.parametrize(
    ("audio", "reentrant"),
    [(audio, again) for audio in ("speechlm", "hubert", "whisper") for again in (False, True)] + [("wavlm", False)],
)
def test_checkpointing_changes_no_gradient(audio, reentrant):
    """Or says that it would: in older transformers re-entrant checkpointing hides the layers from any hook."""
    tower = {**STILL.get(audio, STILL["hubert"]), "encoder_layerdrop" if audio == "whisper" else "layerdrop": 0.0}
    found = []
    for checkpointing in (False, True):
        model = build(audio, tower=tower, sa_dropout=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            assert layers_to_mix(model.tower)[0].gradient_checkpointing
        try:
            model(**sounds(audio)).features.square().sum().backward()
        except ValueError as error:
            assert checkpointing and reentrant and "{'use_reentrant': False}" in str(error)
            return
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys() and "layer_mix.logits" in found[0]
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_layers_that_run_without_gradients_keep_their_weights():
    """The mix decides once, at the start, how it sums."""
    model = build("hubert")
    first = model.tower.encoder.layers[0]
    forward = first.forward
    first.forward = torch.no_grad()(forward)
    seen = Seen(model)
    model(**sounds("hubert"))
    close(seen.mixed, written_down(model, [output for _, _, output in seen.layers]))


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_keeps_nothing_but_the_layers_for_the_backward_pass(dtype):
    """In bfloat16 too: no wide copy of each layer."""
    states = [torch.randn(2, 5, 8, dtype=dtype, requires_grad=True) for _ in range(6)]
    mix = UniBriVLLayerMix(6, normalize=False).begin()
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        before = states[0]
        for index, state in enumerate(states):
            mix.take(index, before, state)
        result = mix.result(states[-1])
    big = [tensor for tensor in kept if tensor.numel() > 1]
    assert {tensor.data_ptr() for tensor in big} == {state.data_ptr() for state in states}
    assert {tensor.dtype for tensor in big} == {dtype} == {result.dtype}


def test_without_gradients_one_sum_is_all_there_is(monkeypatch):
    model = build("hubert")
    mixes = []
    begin = UniBriVLLayerMix.begin
    monkeypatch.setattr(UniBriVLLayerMix, "begin", lambda *args: mixes.append(begin(*args)) or mixes[-1])
    with torch.inference_mode():
        model(**sounds("hubert"))
    assert len(mixes) == 1 and mixes[0].kept == [] and mixes[0].taken == 3


# ---- types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_narrow_layers_are_summed_wide(dtype, gradients):
    """The result is the exact sum, rounded once."""
    torch.manual_seed(0)
    mix = UniBriVLLayerMix(24, normalize=False)
    nn.init.normal_(mix.logits)
    states = [torch.randn(2, 5, 8).to(dtype) for _ in range(24)]
    with torch.set_grad_enabled(gradients):
        running = mix.begin()
        for index, state in enumerate(states):
            running.take(index, states[0], state)
        result = running.result(states[-1])
    exact = (mix.logits.double().softmax(0)[:, None, None, None] * torch.stack(states).double()).sum(0)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), exact, atol=1e-6, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_model_in_bfloat16(gradients):
    model = build("hubert").to(torch.bfloat16)
    seen = Seen(model)
    with torch.set_grad_enabled(gradients):
        model(**sounds("hubert"))
    assert seen.mixed.dtype == torch.bfloat16
    close(seen.mixed, written_down(model, [output for _, _, output in seen.layers]), 0.02)


def test_autocast():
    model = build("hubert")
    seen = Seen(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**sounds("hubert"))
    close(seen.mixed, written_down(model, [output for _, _, output in seen.layers]), 0.02)
    output.features.float().square().sum().backward()
    assert model.layer_mix.logits.grad.isfinite().all()


# ---- several models, several threads --------------------------------------------------------------------------------


@pytest.mark.parametrize("gradients", [False, True])
def test_two_threads_do_not_mix_with_each_other(gradients):
    """Both stand between two layers of the same model at the same time."""
    model = build("hubert")
    clips = [{name: value[row : row + 1] for name, value in sounds("hubert").items()} for row in range(2)]
    with torch.set_grad_enabled(gradients):
        alone = [model(**clip).features for clip in clips]
    barrier = threading.Barrier(2, timeout=20)

    def meet(module, inputs, output):
        barrier.wait()

    for layer in model.tower.encoder.layers:
        layer.register_forward_hook(meet)
    found = [None, None]

    def run(row):
        with torch.set_grad_enabled(gradients):
            found[row] = model(**clips[row]).features

    threads = [threading.Thread(target=run, args=(row,)) for row in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, alone, strict=True):
        assert torch.equal(ours, theirs)


def test_a_copy_mixes_for_itself():
    """As a momentum copy does: other weights, another mix, one hook a layer."""
    model = build("hubert")
    before = model(**sounds("hubert")).features
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    assert torch.equal(model(**sounds("hubert")).features, before)
    assert [len(layer._forward_hooks) for layer in twin.tower.encoder.layers] == [1, 1, 1]
    seen = Seen(twin)
    twin(**sounds("hubert"))
    close(seen.mixed, written_down(twin, [output for _, _, output in seen.layers]))
    assert torch.equal(model(**sounds("hubert")).features, before)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_tower_in_a_second_model_is_summed_once(gradients):
    """As captioning does with the tower of a trained model."""
    model = build("hubert")
    other = UniBriVLModel.from_pretrained_towers(model.tower, UniBriVLModel(model.config).vision_model).audio_model
    with torch.set_grad_enabled(gradients):
        for one in (other, model):
            seen = Seen(one)
            one(**sounds("hubert"))
            close(seen.mixed, written_down(one, [output for _, _, output in seen.layers]))


def test_a_tower_alone_runs_as_ever():
    """Outside of a model's forward pass its layers have nobody to offer to; also after one that failed."""
    model = build("hubert")
    before = model.tower(**sounds("hubert")).last_hidden_state
    with pytest.raises(ValueError, match="nothing to pool"):  # 300 samples are no frame
        model(torch.randn(1, 4000), (torch.arange(4000) < 300).long()[None])
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 20))
    assert torch.equal(model.tower(**sounds("hubert")).last_hidden_state, before)
    assert model(**sounds("hubert")).features.isfinite().all()


def test_a_mix_of_other_layers_than_it_has_weights_for():
    """What the hooks make impossible is not summed in silence."""
    mix = RunningMix(torch.ones(2) / 2, 0, False)
    for index in range(2):
        mix.take(index, torch.ones(1, 2, 3), torch.ones(1, 2, 3))
    with pytest.raises(IndexError):
        mix.take(2, torch.ones(1, 2, 3), torch.ones(1, 2, 3))


def test_only_layers_that_gradients_go_through_are_kept():
    """A frozen tower under fixed weights streams even where gradients are on; the sum is the same."""
    frozen, learned = torch.ones(1, 2, 3), torch.full((1, 2, 3), 3.0, requires_grad=True)
    mix = RunningMix(torch.tensor([0.25, 0.75]), 0, False)
    mix.take(0, frozen, frozen)
    mix.take(1, frozen, learned)
    assert len(mix.kept) == 1
    total = mix.result(frozen)
    assert torch.equal(total.detach(), torch.full((1, 2, 3), 2.5))
    total.sum().backward()
    assert torch.equal(learned.grad, torch.full((1, 2, 3), 0.75))


# ---- torch.compile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("audio", "whole"), [("whisper", True), ("ast", True), ("speechlm", False)])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_compiled_model_gives_the_same(audio, whole, gradients):
    """In one graph where the tower is one: SpeechLM looks at the mask's numbers."""
    torch.compiler.reset()
    model = build(audio)
    with torch.set_grad_enabled(gradients):
        expected = model(**sounds(audio)).pooler_output
        compiled = torch.compile(model, fullgraph=whole, backend="eager")
        for _ in range(2):
            close(compiled(**sounds(audio)).pooler_output, expected, 1e-6)
    if gradients:
        compiled(**sounds(audio)).features.square().sum().backward()
        ours = model.layer_mix.logits.grad.clone()
        model.zero_grad()
        model(**sounds(audio)).features.square().sum().backward()
        close(ours, model.layer_mix.logits.grad, 1e-6)
