"""Checkpoints that age, break or belong to another model: what loading forgives, what it reports, what it refuses."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from itertools import product

import pytest
import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCTC,
    BertConfig,
    BertModel,
    PreTrainedConfig,
)

from unibrivl.modeling import SpeechLMConfig, SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel
from unibrivl.modeling.format_unibrivl import FORMAT_VERSION, VersionedConfig
from unibrivl.modeling.loading_unibrivl import CheckedLoading, CheckpointMismatch

pytestmark = pytest.mark.parametrize("tiny_config", ["base"], indirect=True)
CLASSES = [SpeechLMModel, SpeechLMForCTC, SpeechLMForPreTraining]
POSITIONS = "encoder.position_ids"
BIAS = "encoder.layer_norm.bias"


def save(cls, config, folder, seed=0, **kwargs):
    torch.manual_seed(seed)
    model = cls(config)
    model.save_pretrained(folder, **kwargs)
    return model


def edit(folder, change):
    """Writes the weights again after `change` has edited the dictionary of them in place."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rename(key, other):
    return lambda state: state.update({other: state.pop(key)})


def trunk_of(model):
    return model if isinstance(model, SpeechLMModel) else model.speechlm


def same(ours, other):
    return ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


def reports(caplog):
    return [record.getMessage() for record in caplog.records if record.name.endswith("loading_unibrivl")]


# ---- what fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("saved", "loaded"), list(product(CLASSES, CLASSES)))
def test_every_class_loads_from_every_other(saved, loaded, tiny_config, tmp_path):
    """The trunk and every head that both have arrive bit for bit; a head that only one has is no error."""
    written = save(saved, tiny_config, tmp_path)
    torch.manual_seed(1)
    read = loaded.from_pretrained(tmp_path)
    assert same(trunk_of(read).state_dict(), trunk_of(written).state_dict())
    for head in ("ctc_head", "unit_head"):
        if hasattr(read, head) and hasattr(written, head):
            assert same(getattr(read, head).state_dict(), getattr(written, head).state_dict())
    read.save_pretrained(tmp_path / "again")
    assert same(loaded.from_pretrained(tmp_path / "again").state_dict(), read.state_dict())


def test_shards_dtype_device_map_and_auto_classes(tiny_config, tmp_path):
    model = save(SpeechLMForCTC, tiny_config, tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(AutoModelForCTC.from_pretrained(tmp_path).state_dict(), model.state_dict())
    assert same(AutoModel.from_pretrained(tmp_path).state_dict(), model.speechlm.state_dict())
    half = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    assert same(SpeechLMForCTC.from_pretrained(tmp_path, dtype=torch.bfloat16).state_dict(), half)
    pytest.importorskip("accelerate", reason="device_map needs accelerate: pip install 'unibrivl[dev]'")
    assert same(SpeechLMForCTC.from_pretrained(tmp_path, device_map={"": "cpu"}).state_dict(), model.state_dict())


def test_shapes_that_differ_stay_with_transformers(tiny_config, tmp_path):
    """A new alphabet is an error without `ignore_mismatched_sizes`, and a new head with it."""
    model = save(SpeechLMForCTC, tiny_config, tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        SpeechLMForCTC.from_pretrained(tmp_path, ctc_vocab_size=13)
    other = SpeechLMForCTC.from_pretrained(tmp_path, ctc_vocab_size=13, ignore_mismatched_sizes=True)
    assert other.ctc_head.classifier.out_features == 13
    assert same(other.speechlm.state_dict(), model.speechlm.state_dict())


# ---- stale keys -----------------------------------------------------------------------------------------------------


class CountingSpeechLM(SpeechLMModel):
    """A SpeechLM that saves a counter, as older transformers did."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder.register_buffer("position_ids", torch.arange(6).expand(1, -1))


@pytest.mark.parametrize("loaded", CLASSES)
@pytest.mark.parametrize("saved", [SpeechLMModel, SpeechLMForCTC])
def test_stale_keys_of_the_file_are_dropped_and_reported_once(saved, loaded, tiny_config, tmp_path, caplog):
    model = save(saved, tiny_config, tmp_path)
    prefix = "" if saved is SpeechLMModel else "speechlm."
    stale = {f"{prefix}{POSITIONS}": torch.arange(4), f"{prefix}shared_encoder.position_ids": torch.arange(4)}
    edit(tmp_path, lambda state: state.update(stale))
    read = loaded.from_pretrained(tmp_path)
    assert same(trunk_of(read).state_dict(), trunk_of(model).state_dict())
    (report,) = reports(caplog)
    assert f"{loaded.__name__} from {tmp_path}" in report and all(key in report for key in stale)
    assert "2 in the file only (a counter that older transformers saved)" in report


def test_stale_keys_of_the_model_are_rebuilt_and_reported_once(tiny_config, tmp_path, caplog):
    model = save(CountingSpeechLM, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.pop(POSITIONS))
    read, info = CountingSpeechLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert read.encoder.position_ids.tolist() == [[0, 1, 2, 3, 4, 5]] and same(read.state_dict(), model.state_dict())
    (report,) = reports(caplog)
    assert f"1 in the model only, rebuilt (a counter that older transformers saved): {POSITIONS}" in report


def test_a_counter_on_both_sides_is_loaded_like_any_other(tiny_config, tmp_path, caplog):
    save(CountingSpeechLM, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.update({POSITIONS: torch.arange(6).flip(0)[None]}))
    assert CountingSpeechLM.from_pretrained(tmp_path).encoder.position_ids.tolist() == [[5, 4, 3, 2, 1, 0]]
    assert not reports(caplog)


def test_a_learned_weight_of_a_stale_name_is_not_rebuilt(tiny_config, tmp_path):
    class Learned(SpeechLMModel):
        def __init__(self, config):
            super().__init__(config)
            self.position_ids = torch.nn.Parameter(torch.ones(3))

    save(Learned, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.pop("position_ids"))
    with pytest.raises(CheckpointMismatch, match="position_ids"):
        Learned.from_pretrained(tmp_path)


# ---- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda state: state.update({"extra_head.weight": torch.ones(2)}), ["holds 1 that", "extra_head.weight"]),
        (lambda state: state.pop(BIAS), ["lacks 1 that", BIAS]),
        (rename(BIAS, "encoder.ln.bias"), ["lacks 1 that", BIAS, "holds 1 that", "encoder.ln.bias"]),
    ],
    ids=["extra head", "missing", "renamed"],
)
def test_a_file_of_the_class_must_match_key_by_key(change, faults, cls, tiny_config, tmp_path):
    save(cls, tiny_config, tmp_path)
    prefix = "" if cls is SpeechLMModel else "speechlm."
    edit(tmp_path, lambda state: change(_without_prefix(state, prefix)))
    with pytest.raises(ValueError, match="does not fit") as caught:
        cls.from_pretrained(tmp_path)
    assert type(caught.value) is CheckpointMismatch
    for words in [*faults, str(tmp_path), cls.__name__, "download or convert it again", "output_loading_info=True"]:
        assert words in str(caught.value)


def _without_prefix(state, prefix):
    for key in [key for key in state if prefix and key.startswith(prefix)]:
        state[key.removeprefix(prefix)] = state.pop(key)  # the loader puts it back on
    return state


@pytest.mark.parametrize("loaded", CLASSES)
@pytest.mark.parametrize("saved", CLASSES)
@pytest.mark.parametrize("other", [None, "encoder.ln.bias"])
def test_the_trunk_must_be_whole_in_any_file(saved, loaded, other, tiny_config, tmp_path):
    save(saved, tiny_config, tmp_path)
    prefix = "" if saved is SpeechLMModel else "speechlm."
    key = f"{prefix}{BIAS}"
    edit(tmp_path, rename(key, prefix + other) if other else lambda state: state.pop(key))
    with pytest.raises(CheckpointMismatch, match=re.escape(BIAS)) as caught:
        loaded.from_pretrained(tmp_path)
    assert other is None or prefix + other in str(caught.value)


@pytest.mark.parametrize("key", ["speechlm.encoder.layers.7.layer_norm.bias", "encoder.layers.7.layer_norm.bias"])
@pytest.mark.parametrize(("saved", "loaded"), [(SpeechLMForCTC, SpeechLMModel), (SpeechLMModel, SpeechLMForCTC)])
def test_the_trunk_holds_nothing_unknown(saved, loaded, key, tiny_config, tmp_path):
    """As when the file has more layers than the configuration."""
    save(saved, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.update({key: torch.ones(32)}))
    with pytest.raises(CheckpointMismatch, match=rf"holds 1 that the model does not know: {re.escape(key)}"):
        loaded.from_pretrained(tmp_path)


def test_the_error_lists_twelve_keys(tiny_config, tmp_path):
    save(SpeechLMModel, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.update({f"extra.{number:02}": torch.ones(1) for number in range(30)}))
    with pytest.raises(CheckpointMismatch, match=r"extra\.00, .*extra\.11 and 18 more"):
        SpeechLMModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", CLASSES)
def test_another_model_is_no_silent_random_weights(cls, tiny_config, tmp_path):
    """A repository of BERT, with its own configuration, with ours, and with ours saved beside its weights."""
    tiny_bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=9)
    BertModel(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of a 'bert' model and SpeechLMConfig reads 'speechlm': check the name"):
        cls.from_pretrained(tmp_path)
    for architectures in (None, ["BertModel"], [cls.__name__]):
        tiny_config.architectures = architectures
        with pytest.raises(CheckpointMismatch, match="holds none of the .* weights of SpeechLMModel") as caught:
            cls.from_pretrained(tmp_path, config=tiny_config)
        assert "check the name or path" in str(caught.value) and "embeddings.LayerNorm.bias" in str(caught.value)


def test_no_weights_at_all(tiny_config):
    with pytest.raises(CheckpointMismatch, match="the state dict .* holds none .* It is empty"):
        SpeechLMModel.from_pretrained(None, config=tiny_config, state_dict={})


def test_a_broken_file_is_an_error(tiny_config, tmp_path):
    save(SpeechLMModel, tiny_config, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SafetensorError):
            SpeechLMModel.from_pretrained(tmp_path)


def test_a_shard_that_lacks_a_key(tiny_config, tmp_path):
    save(SpeechLMModel, tiny_config, tmp_path, max_shard_size="40KB")
    shard = tmp_path / json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"][BIAS]
    save_file({key: tensor for key, tensor in load_file(shard).items() if key != BIAS}, shard, {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match=f"lacks 1 that the model needs: {BIAS}"):
        AutoModel.from_pretrained(tmp_path)


def test_who_asks_for_the_lists_judges_them(tiny_config, tmp_path):
    save(SpeechLMModel, tiny_config, tmp_path)
    edit(tmp_path, rename(BIAS, "encoder.ln.bias"))
    _, info = SpeechLMModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {BIAS} and info["unexpected_keys"] == {"encoder.ln.bias"}
    with pytest.raises(CheckpointMismatch):  # and the next caller is protected again
        SpeechLMModel.from_pretrained(tmp_path)


def test_quantised_weights_stay_with_transformers(tiny_config, tmp_path, monkeypatch):
    save(SpeechLMModel, tiny_config, tmp_path)
    edit(tmp_path, lambda state: state.update({f"{BIAS}.scale": torch.ones(1)}))
    monkeypatch.setattr(SpeechLMModel, "is_quantized", True, raising=False)
    assert isinstance(SpeechLMModel.from_pretrained(tmp_path), SpeechLMModel)


# ---- a tower inside a bigger model ----------------------------------------------------------------------------------


@strict
class PairConfig(VersionedConfig):
    model_type = "pair"
    sub_configs = {"audio_config": SpeechLMConfig}
    audio_config: dict | PreTrainedConfig | None = None
    name: str = "speechlm"

    def __post_init__(self, **kwargs):
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = SpeechLMConfig(**(self.audio_config or {}))
        super().__post_init__(**kwargs)


class Pair(CheckedLoading):
    config_class = PairConfig
    base_model_prefix = "pair"

    def __init__(self, config):
        super().__init__(config)
        self.add_module(config.name, SpeechLMModel._from_config(config.audio_config))
        self.projection = torch.nn.Linear(32, 8)
        self.post_init()


@pytest.mark.parametrize("known", [None, ["SpeechLMModel"]], ids=["fresh tower", "tower that was loaded"])
def test_a_tower_loads_from_a_bigger_models_folder(known, tiny_config, tmp_path):
    """Also where the tower's part of the file still says that it was once a file of its own."""
    tiny_config.architectures = known
    pair = save(Pair, PairConfig(audio_config=tiny_config), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["audio_config"].get("architectures") == known
    tower = SpeechLMModel.from_pretrained(tmp_path)
    assert same(tower.state_dict(), pair.speechlm.state_dict())
    assert same(SpeechLMForCTC.from_pretrained(tmp_path).speechlm.state_dict(), pair.speechlm.state_dict())
    assert same(Pair.from_pretrained(tmp_path).state_dict(), pair.state_dict())
    edit(tmp_path, lambda state: state.pop(f"speechlm.{BIAS}"))
    with pytest.raises(CheckpointMismatch, match=BIAS):
        SpeechLMModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [SpeechLMModel, SpeechLMForCTC])
def test_the_error_says_how_to_find_a_tower_of_another_name(cls, tiny_config, tmp_path):
    pair = save(Pair, PairConfig(audio_config=tiny_config, name="ear"), tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"holds none .* under 'ear\.': pass key_mapping=") as caught:
        cls.from_pretrained(tmp_path)
    mapping = ast.literal_eval(str(caught.value).partition("key_mapping=")[2])
    tower = trunk_of(cls.from_pretrained(tmp_path, key_mapping=mapping))
    assert same(tower.state_dict(), pair.ear.state_dict())


# ---- the version of the format --------------------------------------------------------------------------------------

READERS = [SpeechLMConfig, AutoConfig, SpeechLMForCTC, AutoModel]


@pytest.mark.parametrize("reader", READERS)
def test_a_newer_format_is_refused(reader, tiny_config, tmp_path):
    """Before anything else of the file is looked at: what a field of the future holds, nobody knows."""
    save(SpeechLMForCTC, tiny_config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == FORMAT_VERSION == 1
    edit_config(tmp_path, format_version=2, padding_mode={"kind": "exact"})
    with pytest.raises(ValueError, match=r"format_version 2 .* up to 1: pip install --upgrade unibrivl"):
        reader.from_pretrained(tmp_path)


@pytest.mark.parametrize("version", ["2", -1, 0, True, 1.0, None, [1]])
@pytest.mark.parametrize("reader", [SpeechLMConfig, AutoConfig])
def test_a_version_that_is_none_is_refused(reader, version, tiny_config, tmp_path):
    tiny_config.save_pretrained(tmp_path)
    edit_config(tmp_path, format_version=version)
    with pytest.raises(ValueError, match=f"whole number from 1 on, got {re.escape(repr(version))}.*Download it again"):
        reader.from_pretrained(tmp_path)


def test_a_file_from_before_the_field_is_version_one(tiny_config, tmp_path):
    save(SpeechLMModel, tiny_config, tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["format_version"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = SpeechLMModel.from_pretrained(tmp_path)
    assert model.config.format_version == 1
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 1


@pytest.mark.parametrize("version", [2, -1, "2", True, None])
def test_a_wrong_version_in_memory_is_refused_too(version, tiny_config):
    with pytest.raises(StrictDataclassError, match="format_version"):
        SpeechLMConfig(format_version=version)
    with pytest.raises((StrictDataclassError, ValueError), match="format_version"):
        tiny_config.format_version = version
        tiny_config.validate()


def test_a_tower_has_the_version_of_the_file_it_is_in(tiny_config, tmp_path):
    save(Pair, PairConfig(audio_config=tiny_config), tmp_path)
    edit_config(tmp_path, format_version=2)
    for reader in (Pair, SpeechLMModel, SpeechLMConfig):
        with pytest.raises(ValueError, match="format_version 2"):
            reader.from_pretrained(tmp_path)


# ---- flat, as code from the Hub -------------------------------------------------------------------------------------

READ_FLAT = """
import sys
sys.modules["unibrivl"] = None  # the package is out of reach
sys.path.insert(0, sys.argv[1])
from flat.modeling_speechlm import SpeechLMModel
print(sorted(SpeechLMModel.from_pretrained(sys.argv[1] + "/whole").state_dict()))
for folder in ("broken", "newer"):
    try:
        SpeechLMModel.from_pretrained(f"{sys.argv[1]}/{folder}")
    except ValueError as error:
        print(error)
"""


def test_the_checks_travel_with_the_code(tiny_config, tmp_path, monkeypatch):
    """The flat copy that is saved for the Auto classes drops, reports and refuses without this package."""
    monkeypatch.setattr(SpeechLMConfig, "_auto_class", "AutoConfig")
    monkeypatch.setattr(SpeechLMModel, "_auto_class", "AutoModel")
    model = save(SpeechLMModel, tiny_config, tmp_path / "flat")
    for name in ("whole", "broken", "newer"):
        shutil.copytree(tmp_path / "flat", tmp_path / name)
    edit(tmp_path / "whole", lambda state: state.update({POSITIONS: torch.arange(4)}))
    edit(tmp_path / "broken", lambda state: state.pop(BIAS))
    edit_config(tmp_path / "newer", format_version=2)
    run = subprocess.run([sys.executable, "-c", READ_FLAT, tmp_path], capture_output=True, text=True, timeout=300)
    whole, broken, newer = run.stdout.splitlines()
    assert whole == str(sorted(model.state_dict()))
    assert "does not fit SpeechLMModel. It lacks 1" in broken and "format_version 2" in newer
    assert run.stderr.count("stale keys dropped") == 1
