"""UniBriVL's classifier at toy size: the probe of the benchmarks, its losses, and the stock Trainer and pipeline."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_towers import sounds, unibrivl_config
from torch import nn
from torch.nn import functional
from transformers import AutoModelForAudioClassification, DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

from unibrivl.modeling import SpeechLMFeatureExtractor
from unibrivl.modeling.modeling_unibrivl import UniBriVLAudioModel, UniBriVLModel
from unibrivl.modeling.modeling_unibrivl_heads import UniBriVLForAudioClassification, UniBriVLProbe
from unibrivl.modeling.processing_unibrivl import UniBriVLProcessor

TOWERS = ["speechlm", "hubert", "whisper", "mel_encoder"]
STILL = {"layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


def build(audio="hubert", cls=UniBriVLForAudioClassification, seed=0, **fields):
    torch.manual_seed(seed)
    return cls(unibrivl_config(audio, **{"num_labels": 4, **fields})).eval()


def without_dropout(audio="hubert", **fields):
    """A head that computes the same in training as in evaluation."""
    config = unibrivl_config(audio, num_labels=4, sa_dropout=0.0, classifier_dropout=0.0, **fields)
    for name, value in {**STILL, "feat_proj_dropout": 0.0, "mask_time_prob": 0.0}.items():
        setattr(config.audio_config, name, value)
    torch.manual_seed(0)
    return UniBriVLForAudioClassification(config)


def same(ours, other):
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


# ---- the probe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_probe_is_probe_v1(training):
    """Three linear layers, ReLU and dropout of 0.1 after the first two, on standardised features, in torch's words."""
    probe = build().classifier.train(training)
    assert probe.dropout.p == 0.1
    layers = nn.Sequential(
        probe.fc1, nn.ReLU(), nn.Dropout(0.1), probe.fc2, nn.ReLU(), nn.Dropout(0.1), probe.out
    ).train(training)
    features = 3 * torch.randn(50, 24) + 7
    probe.set_statistics(features)
    torch.manual_seed(5)
    expected = layers((features - features.mean(0)) / features.std(0))
    torch.manual_seed(5)
    torch.testing.assert_close(probe(features), expected, atol=1e-6, rtol=1e-5)


def test_the_published_probe_is_512_wide():
    probe = UniBriVLProbe(unibrivl_config(embed_dim=512, classifier_hidden_size=512, num_labels=50))
    shapes = {name: tuple(weight.shape) for name, weight in probe.named_parameters() if weight.dim() == 2}
    assert shapes == {"fc1.weight": (512, 512), "fc2.weight": (512, 512), "out.weight": (50, 512)}


def test_statistics_are_saved_and_loaded(tmp_path):
    model = build()
    model.classifier.set_statistics(torch.randn(9, 24) + 2)
    model.save_pretrained(tmp_path)
    again, report = UniBriVLForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert same(again.state_dict(), model.state_dict()) and not report["missing_keys"]
    assert again.classifier.mean.abs().min() > 0
    auto = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(auto) is UniBriVLForAudioClassification
    assert torch.equal(auto(**sounds("hubert")).logits, model(**sounds("hubert")).logits)


def test_a_feature_that_never_moved_is_not_blown_up():
    probe = build().classifier
    features = torch.randn(9, 24)
    features[:, 3] = 0.25
    probe.set_statistics(features)
    assert probe.scale[3] == 1 and probe.mean[3] == 0.25


@pytest.mark.parametrize(
    "features", [torch.randn(1, 24), torch.randn(4, 23), torch.randn(24), torch.full((4, 24), torch.nan)]
)
def test_statistics_of_the_wrong_features_are_refused(features):
    with pytest.raises(ValueError, match=r"at least two sounds, \(N, 24\).*take `features`"):
        build().classifier.set_statistics(features)


# ---- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "labels", "loss"),
    [
        (None, torch.tensor([1, 3]), functional.cross_entropy),
        ("single_label_classification", torch.tensor([1, 3]), functional.cross_entropy),
        (None, torch.rand(2, 4), functional.binary_cross_entropy_with_logits),
        (
            "multi_label_classification",
            torch.rand(2, 4).round().long(),
            functional.binary_cross_entropy_with_logits,
        ),
        ("regression", torch.randn(2, 4), functional.mse_loss),
    ],
)
def test_losses_are_torchs(problem, labels, loss):
    model = build(problem_type=problem)
    output = model(**sounds("hubert"), labels=labels)
    expected = loss(output.logits, labels if loss is functional.cross_entropy else labels.float())
    torch.testing.assert_close(output.loss, expected, atol=0, rtol=0)
    pair = model(**sounds("hubert"), labels=labels, return_dict=False)
    assert torch.equal(pair[0], output.loss) and torch.equal(pair[1], output.logits)
    assert model(**sounds("hubert")).loss is None and model.config.problem_type == problem


def test_one_number_a_sound():
    model = build(num_labels=1, problem_type="regression")
    output = model(**sounds("hubert"), labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - torch.tensor([0.5, -1.0])).square().mean())


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        (torch.tensor([1.0, 2.0]), {}, r"class numbers of shape \(batch,\).*pass floats of shape"),
        (torch.tensor([[1, 2, 0, 0]] * 2), {}, r"class numbers of shape \(batch,\)"),
        (torch.tensor([1, 4]), {}, "label 4 is none of the 4 classes: set num_labels"),
        (
            torch.rand(2, 3),
            {"problem_type": "multi_label_classification"},
            r"must have the shape \(2, 4\), got \(2, 3\)",
        ),
        (torch.rand(2), {"problem_type": "regression"}, r"must have the shape \(2, 4\)"),
        (torch.tensor([0, 0]), {"num_labels": 1}, "set num_labels, or say with problem_type"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)(**sounds("hubert"), labels=labels)


# ---- towers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", TOWERS)
def test_every_kind_of_tower_is_probed_on_its_features(audio):
    model = build(audio)
    inputs = sounds(audio)
    output = model(**inputs, labels=torch.tensor([0, 1]), output_hidden_states=True)
    features = model.audio_model(**inputs).features
    assert torch.equal(model.classifier(features), output.logits) and output.logits.shape == (2, 4)
    assert audio == "mel_encoder" or len(output.hidden_states) >= 4
    output.loss.backward()
    # what the mix of layers leaves out, and what is for masks and units; else distributed training would stop
    idle = ("audio_model.tower.masked_spec_embed", "audio_model.tower.unit_embed", "audio_model.tower.layer_norm.")
    silent = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert all(name.startswith(idle) for name in silent), silent
    assert not any(weight.requires_grad for weight in model.audio_model.projection.parameters())


@pytest.mark.parametrize("audio", TOWERS)
def test_a_dual_tower_becomes_a_classifier_and_the_reverse(audio, tmp_path):
    """The trunk arrives bit for bit; what only one of the two has is new or left over, and reported."""
    dual = build(audio, UniBriVLModel)
    dual.save_pretrained(tmp_path / "dual")
    torch.manual_seed(1)
    head, report = UniBriVLForAudioClassification.from_pretrained(tmp_path / "dual", output_loading_info=True)
    assert same(head.audio_model.state_dict(), dual.audio_model.state_dict())
    assert {key.split(".")[0] for key in report["missing_keys"]} == {"classifier"}
    assert {key.split(".")[0] for key in report["unexpected_keys"]} >= {"vision_model", "image_to_shared"}
    assert not head.classifier.mean.any() and (head.classifier.scale == 1).all() and head.num_labels == 4

    head.save_pretrained(tmp_path / "head")
    for cls in (UniBriVLModel, UniBriVLAudioModel):
        again, report = cls.from_pretrained(tmp_path / "head", output_loading_info=True)
        trunk = again if cls is UniBriVLAudioModel else again.audio_model
        assert same(trunk.state_dict(), dual.audio_model.state_dict())
        assert {key.split(".")[0] for key in report["unexpected_keys"]} == {"classifier"}


@pytest.mark.parametrize("by", ["config", "method"])
def test_a_frozen_tower_stays_as_it_was(by, tmp_path):
    model = build(freeze_audio_model=by == "config")
    if by == "method":
        assert model.audio_model.layer_mix.logits.requires_grad
        model.freeze_audio_model()
    model.train()
    assert model.training and model.classifier.training
    assert not any(module.training for module in model.audio_model.modules())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    features = [model.audio_model(**sounds("hubert")).features for _ in range(2)]
    assert torch.equal(*features)  # no dropout in what the probe learns from

    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(**sounds("hubert"), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trained

    model.save_pretrained(tmp_path)
    again = UniBriVLForAudioClassification.from_pretrained(tmp_path).train()
    assert {name for name, weight in again.named_parameters() if weight.requires_grad} == trained
    assert not again.audio_model.training


@pytest.mark.parametrize("audio", ["speechlm", "hubert", "whisper"])
def test_gradient_checkpointing_changes_nothing(audio):
    grads = []
    for checkpointing in (False, True):
        model = without_dropout(audio).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**sounds(audio), labels=torch.tensor([0, 1])).loss.backward()
        grads.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert grads[0].keys() == grads[1].keys() and any("layer_mix" in name for name in grads[0])
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4, msg=name)


def test_bfloat16(tmp_path):
    model = build()
    model.classifier.set_statistics(model.audio_model(**sounds("hubert", 6)).features.detach())
    model.save_pretrained(tmp_path)
    half = UniBriVLForAudioClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    output = half(**sounds("hubert"), labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(**sounds("hubert"), labels=torch.tensor([0, 1]))
    torch.testing.assert_close(cast.logits.float(), model(**sounds("hubert")).logits, atol=0.03, rtol=0.05)


def test_device_map_places_the_model(tmp_path):
    pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    model = build()
    model.save_pretrained(tmp_path)
    mapped = UniBriVLForAudioClassification.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(mapped(**sounds("hubert")).logits, model(**sounds("hubert")).logits)


# ---- transformers' Trainer and pipeline -----------------------------------------------------------------------------

EXTRACTOR = SpeechLMFeatureExtractor()


def examples(number=6):
    """Clips of unlike length; a clip's class is its pitch."""
    rows = []
    for index in range(number):
        time = np.arange(1600 + 400 * (index % 3)) / 16000
        wave = np.sin(2 * np.pi * (300 + 900 * (index % 2)) * time).astype(np.float32)
        rows.append({"input_values": EXTRACTOR(wave, sampling_rate=16000)["input_values"][0], "label": index % 2})
    return rows


def trainer(model, folder, **arguments):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate: pip install 'unibrivl[dev]'")
    defaults = {
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-3,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        "lr_scheduler_type": "constant",
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **{**defaults, **arguments}),
        train_dataset=examples(),
        eval_dataset=examples(2),
        processing_class=EXTRACTOR,
    )


def test_the_trainer_trains_saves_and_resumes(tmp_path):
    """Four steps at once, and two, a checkpoint and two more: the same weights, dropout and all."""
    at_once = trainer(build("speechlm", num_labels=2).train(), tmp_path / "a", max_steps=4)
    assert isinstance(at_once.data_collator, DataCollatorWithPadding)  # its default for a feature extractor
    at_once.train()
    first = trainer(build("speechlm", num_labels=2), tmp_path / "b", max_steps=2, save_strategy="steps", save_steps=2)
    first.train()
    resumed = trainer(build("speechlm", num_labels=2, seed=3), tmp_path / "b", max_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    for name, value in at_once.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=name)
    assert at_once.predict(examples(3)).predictions.shape == (3, 2)


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    start, runs = without_dropout("speechlm").state_dict(), []
    for size, steps in ((4, 1), (2, 2)):
        arguments = {"gradient_accumulation_steps": steps, "optim": "sgd", "max_steps": 1, "max_grad_norm": 0}
        run = trainer(without_dropout("speechlm"), tmp_path, per_device_train_batch_size=size, **arguments)
        run.train()
        runs.append(run)
    whole, parts = (run.model.state_dict() for run in runs)
    assert not same(start, whole)
    # transformers 5.4 lets accelerate divide the loss once more, for every model; newer ones do not
    divisor = runs[1].accelerator.gradient_accumulation_steps
    for name, value in start.items():
        expected = value + (whole[name] - value) / divisor
        torch.testing.assert_close(parts[name], expected, atol=1e-6, rtol=1e-4, msg=name)


def test_the_trainer_learns_with_a_frozen_tower(tmp_path):
    model = build("speechlm", num_labels=2, freeze_audio_model=True)
    model.classifier.set_statistics(
        torch.cat([model.audio_model(torch.tensor(row["input_values"])[None]).features for row in examples()]).detach()
    )
    before = copy.deepcopy(model.audio_model.state_dict())
    run = trainer(model, tmp_path, max_steps=30, learning_rate=1e-2)
    loss = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < 0.3 * loss
    assert same(model.audio_model.state_dict(), before)


@pytest.mark.parametrize("whole", [False, True])
def test_the_pipeline_classifies_from_a_saved_folder(whole, tmp_path):
    """With the feature extractor alone beside the model, or with a whole processor."""
    names = {0: "bark", 1: "rain", 2: "siren", 3: "laughter"}
    model = build("speechlm", id2label=names, label2id={name: index for index, name in names.items()})
    model.save_pretrained(tmp_path)
    (UniBriVLProcessor(feature_extractor=EXTRACTOR) if whole else EXTRACTOR).save_pretrained(tmp_path)
    classify = pipeline("audio-classification", model=str(tmp_path))
    assert type(classify.model) is UniBriVLForAudioClassification

    clips = [np.random.default_rng(seed).normal(size=4000 + 800 * seed).astype(np.float32) for seed in range(3)]
    answers = classify([{"raw": clip, "sampling_rate": 16000} for clip in clips], top_k=2)
    for clip, answer in zip(clips, answers, strict=True):
        scores = model(torch.tensor(clip)[None]).logits[0].softmax(-1)
        best = scores.topk(2)
        assert [row["label"] for row in answer] == [names[index] for index in best.indices.tolist()]
        assert [row["score"] for row in answer] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert {row["label"] for row in classify(clips[0])} == set(names.values())
    assert classify({"array": clips[1], "sampling_rate": 16000}, top_k=1) == answers[1][:1]
