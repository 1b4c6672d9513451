"""Converting files laid out exactly like CAV-MAE's: prefixed, with norms that nothing uses. What comes out reproduces
the goldens and goes back byte for byte; what is broken is refused by name.
"""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import parity_cavmae as parity
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from unibrivl.cli import main
from unibrivl.convert.cavmae import NORM, convert_cavmae, original_state
from unibrivl.convert.checkpoint import ConversionError
from unibrivl.convert.outputs import cavmae_outputs
from unibrivl.modeling import (
    CAVMAEAudioModel,
    CAVMAEFeatureExtractor,
    CAVMAEForAudioClassification,
    CAVMAEForAudioVisualClassification,
    CAVMAEForPreTraining,
    CAVMAEModel,
    UniBriVLProcessor,
)

PRETRAINED, FINE_TUNED = "CAVMAE_tiny11", "CAVMAEFT_tiny11"
HEARD = "sound alone"
CLASSES = {
    PRETRAINED: (CAVMAEForPreTraining, AutoModelForPreTraining),
    FINE_TUNED: (CAVMAEForAudioVisualClassification, AutoModelForAudioClassification),
    "CAVMAE_tiny10": (CAVMAEForPreTraining, AutoModelForPreTraining),
    "CAVMAEFT_tiny10": (CAVMAEForAudioVisualClassification, AutoModelForAudioClassification),
    HEARD: (CAVMAEForAudioClassification, AutoModelForAudioClassification),
}


def state_of(name):
    """The tiny weights of a layout; of the class of sound alone those of the fine-tuned that it has."""
    if name != HEARD:
        return dict(parity.original_state(name))
    official = parity.LAYOUTS["CAVMAEFTAudio(label_dim=527)"]
    return {key: tensor for key, tensor in parity.original_state(FINE_TUNED).items() if key in official}


def write(path, state, prefix="module."):
    torch.save({prefix + key: tensor for key, tensor in state.items()}, path)
    return path


def convert(name, tmp_path, **kwargs):
    heads = parity.heads("CAVMAEFT_tiny11" if name == HEARD else name)
    return convert_cavmae(write(tmp_path / "file.pth", state_of(name)), tmp_path / "out", **heads, **kwargs)


# ---- the tiny files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_every_kind_of_file_is_known_by_its_keys(name, tmp_path):
    report = convert(name, tmp_path)
    cls, auto = CLASSES[name]
    assert report.architecture == cls.__name__
    model = auto.from_pretrained(tmp_path / "out")
    assert type(model) is cls
    state = state_of(name)
    assert set(report.dropped_keys.values()) == {NORM} and report.dropped_keys.keys() < state.keys()
    dropped = sum(state[key].numel() for key in report.dropped_keys)
    assert sum(one.numel() for one in model.parameters()) == sum(one.numel() for one in state.values()) - dropped
    facts = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert facts["dropped_keys"] == report.dropped_keys and facts["architecture"] == cls.__name__


@pytest.mark.parametrize("name", CLASSES)
def test_there_and_back_again_byte_for_byte(name, tmp_path):
    """With the unused norms kept: a file, our folder, our model, and the same file."""
    report = convert(name, tmp_path, keep_unused_norms=True)
    assert report.dropped_keys == {}
    model, state = CLASSES[name][0].from_pretrained(tmp_path / "out"), state_of(name)
    assert model.config.keep_unused_norms
    back = original_state(model)
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert back[key].dtype == tensor.dtype and torch.equal(back[key], tensor), key


def test_the_folder_reproduces_the_goldens(tmp_path, monkeypatch):
    built = {}
    for name in (PRETRAINED, FINE_TUNED):
        (tmp_path / name).mkdir()
        convert(name, tmp_path / name)
        built[name] = CLASSES[name][0].from_pretrained(tmp_path / name / "out")
    monkeypatch.setattr(parity, "build", lambda name, attention: built[name])
    rows = parity.differences("tiny")
    assert all(row.passed for row in rows), parity.table(rows)


@pytest.mark.parametrize("name, dead", [("CAVMAE", 240), ("CAVMAEFT(label_dim=527)", 176)])
def test_dead_norms_of_the_official_files(name, dead):
    """8 in each of the layers that have a stream of their own: 22 of the encoder, and the decoder's 8."""
    assert len(parity.unused_norms(dict.fromkeys(parity.LAYOUTS[name]))) == dead


def test_the_audio_side_of_a_converted_folder(tmp_path):
    convert(PRETRAINED, tmp_path)
    whole, tower = (cls.from_pretrained(tmp_path / "out") for cls in (CAVMAEModel, CAVMAEAudioModel))
    sounds = parity.inputs("tiny")["input_values"]
    assert torch.equal(tower(sounds).last_hidden_state, whole(sounds).audio_last_hidden_state)
    assert type(AutoModel.from_pretrained(tmp_path / "out")) is CAVMAEModel


def test_the_folder_prepares_its_inputs(tmp_path):
    convert(PRETRAINED, tmp_path)
    processor = UniBriVLProcessor.from_pretrained(tmp_path / "out")
    clip = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    batch = processor(audio=clip, images=picture, sampling_rate=16000)
    assert batch.input_values.shape == (1, 64, 128) and batch.pixel_values.shape == (1, 3, 32, 32)
    output = CAVMAEModel.from_pretrained(tmp_path / "out")(**batch)
    assert output.joint_embeds.shape == (1, 48)
    with pytest.raises(ValueError, match="lasts 1.00 s"):
        processor(audio=np.zeros(16000, np.float32), sampling_rate=16000)
    (tmp_path / "sound").mkdir()
    convert(HEARD, tmp_path / "sound")
    assert CAVMAEFeatureExtractor.from_pretrained(tmp_path / "sound" / "out").max_length == 64


def test_other_prefixes_and_leftovers(tmp_path):
    """Bare keys too; class tokens of the file that training began with are dropped for their reason."""
    state = state_of(PRETRAINED) | {f"cls_token_{kind}": torch.zeros(1, 1, 48) for kind in ("a", "v", "av")}
    report = convert_cavmae(write(tmp_path / "bare.pth", state, ""), tmp_path / "out", **parity.TINY)
    assert {key for key, why in report.dropped_keys.items() if why != NORM} == {
        "cls_token_a", "cls_token_v", "cls_token_av"
    }  # fmt: skip


def test_encoders_alone(tmp_path):
    """A file without decoder and head is a CAVMAEModel, or the audio side."""
    both = {key: one for key, one in state_of(FINE_TUNED).items() if not key.startswith("mlp_head")}
    heard = {key: one for key, one in state_of(HEARD).items() if not key.startswith("mlp_head")}
    for state, cls in ((both, CAVMAEModel), (heard, CAVMAEAudioModel)):
        report = convert_cavmae(write(tmp_path / "file.pth", state), tmp_path / cls.__name__, num_attention_heads=4)
        assert report.architecture == cls.__name__
        found = cls.from_pretrained(tmp_path / cls.__name__)(parity.inputs("tiny")["input_values"])
        features = found.get("audio_last_hidden_state", found.get("last_hidden_state"))
        assert (features - parity.stored()["tiny11.feat_a"]).abs().max() < parity.LIMIT


# ---- parity against a reference file --------------------------------------------------------------------------------


def test_a_reference_file_is_compared(tmp_path, capsys):
    """Inputs and outputs of the original beside the weights: the goldens as such a file, and a wrong one."""
    given = parity.inputs("tiny")
    stored = {name.removeprefix("tiny11."): one for name, one in parity.stored().items() if name.startswith("tiny11.")}
    whole = {name: one for name, one in stored.items() if name in ("feat_a", "feat_v", "enc.x", "enc.ca", "enc.cv")}
    save_file({**given, **whole}, tmp_path / "reference.safetensors")
    report = convert(PRETRAINED, tmp_path, reference=tmp_path / "reference.safetensors")
    assert len(report.differences) == 5 and all(row.passed for row in report.differences)
    logits = {f"{name}": one for name, one in stored.items() if name.startswith("logits.")}
    save_file({**given, **logits, "feat_a": whole["feat_a"] + 1e-4}, tmp_path / "reference.safetensors")
    report = convert(FINE_TUNED, tmp_path, reference=tmp_path / "reference.safetensors")
    assert {row.name for row in report.differences if not row.passed} == {"feat_a"}
    save_file({**given, "surprise": torch.zeros(1)}, tmp_path / "reference.safetensors")
    with pytest.raises(ValueError, match="surprise"):
        convert(PRETRAINED, tmp_path, reference=tmp_path / "reference.safetensors")


def test_outputs_of_sound_alone(tmp_path):
    convert(HEARD, tmp_path)
    model = CAVMAEForAudioClassification.from_pretrained(tmp_path / "out")
    named = cavmae_outputs(model, {"input_values": parity.inputs("tiny")["input_values"]})
    assert (named["logits.audioonly"] - parity.stored()["tiny11.logits.audioonly"]).abs().max() < parity.LIMIT


# ---- the command ----------------------------------------------------------------------------------------------------


def small_official(hidden=64):
    """The key list of a pre-trained file at a width whose heads the converter tells by itself."""
    layout = parity.LAYOUTS[PRETRAINED]
    return {
        key: torch.zeros([{48: hidden, 144: 3 * hidden, 192: 4 * hidden}.get(size, size) for size in shape])
        for key, shape in layout.items()
    }


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "audio_model.21.pth", small_official())
    assert main(["convert", "cavmae", str(path), str(tmp_path / "out"), "--raw-targets"]) == 0
    said = capsys.readouterr().out
    assert "CAVMAEForPreTraining" in said and f"dropped 192: {NORM}" in said
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_attention_heads"], config["decoder_num_attention_heads"]) == (1, 1)
    assert config["norm_pix_loss"] is False and config["max_audio_frames"] == 64 and config["image_size"] == 32
    assert main(["convert", "cavmae", str(path), str(tmp_path / "kept"), "--keep-unused-norms"]) == 0
    assert "dropped" not in capsys.readouterr().out


# ---- what is refused ------------------------------------------------------------------------------------------------


def without(part):
    return lambda state: {key: tensor for key, tensor in state.items() if part not in key}


@pytest.mark.parametrize(
    "change, message",
    [
        pytest.param(lambda s: {**s, "surprise.weight": torch.zeros(1)}, "surprise", id="left over"),
        pytest.param(lambda s: {**s, "blocks_a.0.norm3.bias": torch.zeros(1)}, "norm3", id="no such norm"),
        pytest.param(lambda s: {**s, "blocks_a.11.norm1.bias": torch.zeros(48)}, "missing", id="half a layer"),
        pytest.param(without("pos_embed_a"), "no CAV-MAE checkpoint", id="foreign"),
        pytest.param(without("patch_embed_a"), "no CAV-MAE checkpoint", id="no patches"),
        pytest.param(without("blocks_u."), "num_joint_layers", id="no joint layer"),
        pytest.param(without("decoder_norm"), "decoder.norm", id="decoder cut"),
        pytest.param(without("blocks_v.3.mlp.fc1.bias"), "image_layers.3.fc1.bias", id="missing bias"),
        pytest.param(lambda s: {**s, "norm.bias": s["norm.bias"] * float("nan")}, "NaN", id="nan"),
        pytest.param(lambda s: {**s, "norm.bias": "text"}, "not tensors of numbers", id="text"),
        pytest.param(lambda s: {**s, "norm.bias": s["norm.bias"][:-1]}, "another shape", id="shape"),
        pytest.param(lambda s: {**s, "pos_embed_a": torch.tensor(1.0)}, "malformed", id="scalar"),
        pytest.param(lambda s: {**s, "module.module.norm.bias": s["norm.bias"]}, "twice", id="twice"),
        pytest.param(lambda s: {}, "no CAV-MAE checkpoint", id="empty"),
    ],
)
def test_unfit_weights_are_an_error_that_lists_them(change, message, tmp_path):
    path = write(tmp_path / "bad.pth", change(state_of(PRETRAINED)))
    with pytest.raises(ConversionError, match=message):
        convert_cavmae(path, tmp_path / "out", **parity.TINY)
    assert not (tmp_path / "out").exists(), "nothing may be written before the file is known to be good"


def test_heads_that_no_file_tells(tmp_path):
    path = write(tmp_path / "tiny.pth", state_of(PRETRAINED))
    with pytest.raises(ConversionError, match="num_attention_heads"):
        convert_cavmae(path, tmp_path / "out")
    with pytest.raises(ConversionError, match="malformed"):
        convert_cavmae(path, tmp_path / "out", num_attention_heads=5, decoder_num_attention_heads=4)


class Malicious:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_malicious_pickle_runs_nothing(tmp_path, capsys):
    path, trap = tmp_path / "evil.pth", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"module.norm.bias": Malicious(f"touch {trap}")}))
    assert main(["convert", "cavmae", str(path), str(tmp_path / "out")]) == 2
    assert "evil.pth" in capsys.readouterr().err and not trap.exists() and not (tmp_path / "out").exists()
