"""Converting files laid out exactly like Microsoft's: keys and shapes of the official checkpoints, pickled fairseq
dictionaries included. What comes out reproduces the goldens; what is broken or hostile is refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import types

import parity_speechlm as parity
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

from unibrivl.cli import main
from unibrivl.convert.checkpoint import ConversionError, load_checkpoint
from unibrivl.convert.speechlm import convert_speechlm, infer_config
from unibrivl.modeling import SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel, SpeechLMPhoneTokenizer

LETTERS = list("|ETAONIHSRDLUMCWFGYPBVK'XJQZ")
LEXICON = "HELLO HH AH0 L OW1\nhello(2) HH EH0 L OW1\nDOG D AO1 G\n"


@contextlib.contextmanager
def fairseq_stand_in():
    """A module fairseq.data.dictionary that exists only while a checkpoint is written."""
    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary")
    modules = {name: types.ModuleType(name) for name in names}
    modules[names[-1]].Dictionary = type("Dictionary", (), {"__module__": names[-1]})
    sys.modules.update(modules)
    try:
        yield modules[names[-1]].Dictionary
    finally:
        for name in names:
            del sys.modules[name]


def dictionary(symbols):
    """A fairseq Dictionary object as a checkpoint pickles it; its class exists only while the file is written."""
    found = sys.modules["fairseq.data.dictionary"].Dictionary()
    found.symbols = ["<s>", "<pad>", "</s>", "<unk>", *symbols, "<mask>"]
    found.count = [1] * len(found.symbols)
    found.indices = {symbol: index for index, symbol in enumerate(found.symbols)}
    found.bos_word, found.bos_index = "<s>", 0
    return found


def phones(name):
    """Kaldi's inventory, the phones in an order of their own, as a real checkpoint may have it."""
    if name == "base-H":
        return [str(number) for number in range(500)]
    default = list(SpeechLMPhoneTokenizer.default_vocab())[4:-1]
    return [*default[:11], *reversed(default[11:347]), *default[347:]]


def write_checkpoint(path, name, layers=None, *, change=None, cfg_change=None, full=True):
    """A file with the official layout and the goldens' weights. Returns its state dict."""
    state = parity.recipe.state_dict(parity.original_shapes(name, layers))
    if "unit_encoder.embed_tokens.weight" in state:
        state["unit_encoder.embed_tokens.weight"] = state["unit_embed_tokens.weight"]
    state = change(state) if change else state
    cfg = parity.original_cfg(name.removesuffix("-cleaned"), layers)
    if cfg_change:
        cfg_change(cfg)
    content = {"cfg": cfg, "model": state}
    if not full:
        torch.save(content, path)
        return state
    with fairseq_stand_in():
        content |= {
            "args": None,
            "criterion": None,
            "optimizer_history": [{"num_updates": 400000, "lr_scheduler_state": {"best": None}}],
            "task_state": {
                "text_src_dictionary": dictionary(phones(name)),
                "text_dictionary": dictionary(LETTERS),
                "dictionaries": [dictionary([str(number) for number in range(len(phones(name)))])],
                "hubert_tokenizer": None,
            },
            "extra_state": {"previous_training_time": 1.5, "train_iterator": {"epoch": 3}, "val_loss": 0.5},
        }
        torch.save(content, path)
    return state


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    path.write_text(LEXICON)
    return path


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory, lexicon):
    """Base P with 2 + 2 layers, converted: checkpoint path, folder, report."""
    folder = tmp_path_factory.mktemp("two_layers")
    write_checkpoint(folder / "speechlm.pt", "base-P", 2)
    report = convert_speechlm(folder / "speechlm.pt", folder / "out", lexicon=lexicon)
    return folder / "speechlm.pt", folder / "out", report


def assert_goldens(folder, name, cases, monkeypatch, layers=None):
    """The converted folder, loaded from disk, reproduces the goldens."""
    loaded = SpeechLMForPreTraining.from_pretrained(folder)
    assert loaded.config.padding_mode == "exact"
    loaded.config.padding_mode = "fairseq"
    monkeypatch.setattr(parity, "_build", lambda *_: loaded)
    for case in cases:
        rows = parity.differences(case)
        assert all(row.passed for row in rows), parity.table(rows)


def test_base_p_as_published(tmp_path, lexicon, monkeypatch):
    """All 254 keys of Base P: 228 become ours, 26 are dropped for a stated reason, the goldens hold."""
    write_checkpoint(tmp_path / "base.pt", "base-P")
    report = convert_speechlm(tmp_path / "base.pt", tmp_path / "out", lexicon=lexicon)
    assert (report.converted_keys, len(report.dropped_keys)) == (228, 26)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "conversion.json", "vocab.json"} <= written
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in written)
    assert_goldens(tmp_path / "out", "base-P", ["base_p_audio", "base_p_units", "base_p_pretrain"], monkeypatch)


def test_large_p_layout(tmp_path, lexicon, monkeypatch):
    """Large (2 + 2 of its layers): pre-norm, LayerNorm front end, normalised input, inferred from the file."""
    write_checkpoint(tmp_path / "large.pt", "large-P", 2)
    convert_speechlm(tmp_path / "large.pt", tmp_path / "out", lexicon=lexicon)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert extractor.do_normalize and extractor.eps == 1e-5
    assert_goldens(tmp_path / "out", "large-P", ["large_p_audio_2x2", "large_p_units_2x2"], monkeypatch, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name, keys", [("base-H", 228), ("large-P", 482)])
def test_other_published_sizes_in_full(name, keys, tmp_path, lexicon):
    write_checkpoint(tmp_path / "file.pt", name)
    report = convert_speechlm(tmp_path / "file.pt", tmp_path / "out", lexicon=lexicon)
    assert report.converted_keys == keys
    again = SpeechLMForPreTraining.from_pretrained(tmp_path / "out")
    parameters = {"base-H": 98989217 - 2304, "large-P": 321781921}[name]
    assert sum(parameter.numel() for parameter in again.parameters()) == parameters
    with torch.inference_mode():
        assert again.speechlm(0.1 * torch.randn(1, 16000)).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("name", ["base-P", "base-H", "large-P"])
def test_config_is_inferred_from_the_file(name):
    state = {key: torch.empty(shape, device="meta") for key, shape in parity.original_shapes(name).items()}
    config = infer_config(state, parity.original_cfg(name))
    large = name == "large-P"
    assert (config.num_speech_layers, config.num_shared_layers) == ((12, 12) if large else (6, 6))
    assert (config.hidden_size, config.num_attention_heads) == ((1024, 16) if large else (768, 8))
    assert config.label_rate == (100 if name == "base-P" else 50)
    assert config.unit_vocab_size == (505 if name == "base-H" else 369)
    assert config.do_stable_layer_norm is large and config.feat_extract_norm == ("layer" if large else "group")
    assert (config.hidden_dropout, config.layerdrop) == ((0.0, 0.0) if large else (0.1, 0.1))
    assert config.attention_scaling == (32 if large else 1)
    assert list(config.conv_stride) == [5, 2, 2, 2, 2, 2, 2] and config.frame_hop == 320
    assert config.feature_grad_mult == (1.0 if large else 0.1)


def test_converted_folder_works_through_the_auto_classes(two_layers):
    _, folder, report = two_layers
    assert report.architecture == "SpeechLMForPreTraining"
    assert isinstance(AutoModel.from_pretrained(folder), SpeechLMModel)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, SpeechLMPhoneTokenizer)
    wanted = ["<s>", "<pad>", "</s>", "<unk>", *phones("base-P"), "<mask>"]
    assert list(tokenizer.encoder) == wanted, "the numbering must be the file's own, not the default"
    ids = tokenizer("hello dog", return_tensors="pt")
    model = SpeechLMModel.from_pretrained(folder)
    assert model(**ids).last_hidden_state.shape[1] == ids.input_ids.shape[1] == 14 + 7 * 5 + 14 + 1
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert not extractor.do_normalize and extractor.sampling_rate == 16000
    saved = json.loads((folder / "conversion.json").read_text())
    assert saved["converted_keys"] == report.converted_keys and len(saved["source_sha256"]) == 64


@pytest.mark.parametrize("name", ["base-H", "large-P"])
def test_cleaned_files_hear_and_refuse_units(name, tmp_path):
    write_checkpoint(tmp_path / "cleaned.pt", f"{name}-cleaned", 1, full=False)
    report = convert_speechlm(tmp_path / "cleaned.pt", tmp_path / "out")
    assert report.architecture == "SpeechLMModel" and report.tokenizer.startswith("none")
    assert any(key.startswith("final_proj_list") for key in report.dropped_keys)
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model(0.1 * torch.randn(1, 3200)).last_hidden_state.isfinite().all()
    with pytest.raises(ValueError, match="no unit table"):
        model(input_ids=torch.tensor([[7]]))


def test_fine_tuned_ctc_file(tmp_path, lexicon):
    def wrap(state):
        tower = {f"w2v_encoder.w2v_model.{key}": tensor for key, tensor in state.items()}
        head = {key: tensor for key, tensor in state.items() if key.startswith("unit_encoder_ctc_head.")}
        return tower | {key.replace("unit_encoder_ctc_head.", "w2v_encoder.proj."): v for key, v in head.items()}

    def nest(cfg):
        cfg["model"] = {"_name": "speechlm_ctc", "w2v_args": {"model": cfg["model"]}}

    write_checkpoint(tmp_path / "ctc.pt", "base-P", 1, change=wrap, cfg_change=nest)
    report = convert_speechlm(tmp_path / "ctc.pt", tmp_path / "out", lexicon=lexicon)
    assert report.architecture == "SpeechLMForCTC" and report.tokenizer.startswith("none")
    model = SpeechLMForCTC.from_pretrained(tmp_path / "out")
    assert model(0.1 * torch.randn(1, 3200)).logits.shape == (1, 9, 33)


def test_fine_tuned_translation_file_gives_its_tower(tmp_path):
    def wrap(state):
        return {f"encoder.w2v_model.{key}": v for key, v in state.items()} | {"decoder.out.weight": torch.zeros(2)}

    write_checkpoint(tmp_path / "st.pt", "base-P", 1, change=wrap)
    report = convert_speechlm(tmp_path / "st.pt", tmp_path / "out")
    assert report.architecture == "SpeechLMModel" and "decoder.out.weight" in report.dropped_keys


def test_new_style_weight_norm_names(tmp_path, two_layers):
    def rename(state):
        fresh = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
        for old, new in fresh.items():
            state[f"encoder.pos_conv.0.{new}"] = state.pop(f"encoder.pos_conv.0.{old}")
        return state

    write_checkpoint(tmp_path / "new.pt", "base-P", 2, change=rename)
    convert_speechlm(tmp_path / "new.pt", tmp_path / "out")
    ours = SpeechLMModel.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in SpeechLMModel.from_pretrained(two_layers[1]).state_dict().items():
        assert torch.equal(tensor, ours[name]), name


def test_parity_report_against_a_reference(tmp_path, two_layers, lexicon, capsys):
    """`--reference` compares with saved outputs of the original, prints the table and exits by it."""
    checkpoint, folder, _ = two_layers
    tower = SpeechLMModel.from_pretrained(folder)
    tower.config.padding_mode = "fairseq"
    source, padding = parity.recipe.batch(normalize=False)
    named = parity.speech_outputs(tower, source, padding)
    named = {name: tensor.clone().contiguous() for name, tensor in named.items()}
    save_file({"source": source, "padding_mask": padding, **named}, tmp_path / "same.safetensors")
    arguments = ["convert", "speechlm", str(checkpoint), str(tmp_path / "out"), "--lexicon", str(lexicon)]
    assert main([*arguments, "--reference", str(tmp_path / "same.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "last_hidden" in printed and "failed 0" in printed
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["differences"][0]["passed"]
    named["last_hidden"] += 1e-3
    save_file({"source": source, "padding_mask": padding, **named}, tmp_path / "off.safetensors")
    assert main([*arguments, "--reference", str(tmp_path / "off.safetensors")]) == 1
    assert "FAILED" in capsys.readouterr().out


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: {**s, "surprise.weight": torch.zeros(1)}, "surprise.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "post_extract_proj.bias"}, "post_extract_proj|projection.bias"),
        (lambda s: {k: v for k, v in s.items() if "encoder.layers.1.fc1" not in k}, "layers.1.feed_forward"),
        (lambda s: {k: v for k, v in s.items() if ".layers.1." not in k}, "cut off or was edited"),
        (lambda s: {k: v for k, v in s.items() if k != "label_embs_list.0"}, "neither a full nor a cleaned"),
        (lambda s: {**s, "unit_encoder.embed_tokens.weight": s["unit_embed_tokens.weight"] + 1}, "the same tensor"),
        (lambda s: {**s, "post_extract_proj.bias": torch.zeros(5)}, "another shape"),
        (lambda s: {**s, "mask_emb": "text"}, "not tensors"),
        (lambda s: {"w": torch.zeros(1)}, "no SpeechLM checkpoint"),
        (lambda s: {**s, "mask_emb": torch.tensor(1.0)}, "malformed"),
        (lambda s: {**s, "post_extract_proj.bias": s["post_extract_proj.bias"] * float("nan")}, "NaN"),
        (lambda s: {**s, "post_extract_proj.bias": torch.zeros(1).expand(10**12)}, "not tensors of numbers"),
    ],
    ids=[
        "left over",
        "missing",
        "missing in layer",
        "layer gone",
        "head gone",
        "alias",
        "shape",
        "text",
        "foreign",
        "scalar",
        "nan",
        "bomb",
    ],  # fmt: skip
)
def test_unfit_weights_are_an_error_that_lists_them(change, message, tmp_path):
    write_checkpoint(tmp_path / "bad.pt", "base-P", 2, change=change, full=False)
    with pytest.raises(ConversionError, match=message):
        convert_speechlm(tmp_path / "bad.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing may be written before the file is known to be good"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda cfg: cfg["task"].pop("normalize"), "normalize"),
        (lambda cfg: cfg["model"].pop("label_rate"), "label_rate"),
        (lambda cfg: cfg["model"].update(layer_norm_first=True), "cut off or was edited"),
        (lambda cfg: cfg["model"].update(dropout="x"), "malformed"),
        (lambda cfg: cfg["model"].update(label_rate=[1]), "malformed"),
        (lambda cfg: cfg["model"].update(conv_feature_layers=5), "malformed"),
        (lambda cfg: cfg["model"].update(text_transformer="x"), "malformed"),
        (lambda cfg: cfg.update(task="x"), "normalize"),
        (lambda cfg: cfg.update(model=["x"]), "malformed"),
    ],
)
def test_unfit_cfg_is_refused(change, message, tmp_path):
    write_checkpoint(tmp_path / "bad.pt", "base-P", 1, cfg_change=change, full=False)
    with pytest.raises(ConversionError, match=message):
        convert_speechlm(tmp_path / "bad.pt", tmp_path / "out")


class Malicious:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("style", ["torch", "pickle"])
def test_a_malicious_pickle_runs_nothing(style, tmp_path, capsys):
    """Neither inside a torch file nor as a bare pickle: refused by name, exit code 2, the trap untouched."""
    path, trap = tmp_path / "evil.pt", tmp_path / "sprung"
    content = {"cfg": {}, "model": {}, "task_state": Malicious(f"touch {trap}")}
    if style == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ConversionError, match="refused|not a readable"):
        load_checkpoint(path)
    assert main(["convert", "speechlm", str(path), str(tmp_path / "out")]) == 2
    assert "evil.pt" in capsys.readouterr().err and not trap.exists()


def test_converting_again_leaves_nothing_of_the_first(two_layers, lexicon, tmp_path):
    """A cleaned model over a full one: its folder must not keep the other's tokenizer."""
    convert_speechlm(two_layers[0], tmp_path / "out", lexicon=lexicon)
    assert (tmp_path / "out" / "vocab.json").exists()
    write_checkpoint(tmp_path / "cleaned.pt", "base-H-cleaned", 1, full=False)
    convert_speechlm(tmp_path / "cleaned.pt", tmp_path / "out")
    assert not any(
        (tmp_path / "out" / name).exists() for name in ("vocab.json", "lexicon.txt", "tokenizer_config.json")
    )


@pytest.mark.parametrize("option", ["dictionary", "lexicon", "reference"])
def test_a_bad_side_file_writes_nothing(option, two_layers, tmp_path):
    (tmp_path / "bad").write_text("SIL 1\n" if option == "dictionary" else "\n")
    with pytest.raises(ValueError, match="bad"):
        convert_speechlm(two_layers[0], tmp_path / "out", **{option: tmp_path / "bad"})
    assert not (tmp_path / "out").exists()


def test_a_dictionary_that_carries_a_call_is_refused(tmp_path):
    """The one foreign class that is let in cannot smuggle another."""
    with fairseq_stand_in() as dictionary_class:
        found = dictionary_class()
        found.symbols = Malicious(f"touch {tmp_path / 'sprung'}")
        torch.save({"task_state": found}, tmp_path / "evil.pt")
    with pytest.raises(ConversionError, match="refused"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken zip", b"\x80\x02garbage"])
def test_files_that_are_no_checkpoints(content, tmp_path):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ConversionError, match=r"file\.pt"):
        load_checkpoint(tmp_path / "file.pt")


def test_a_truncated_checkpoint_is_refused(two_layers, tmp_path):
    whole = two_layers[0].read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match=r"cut\.pt"):
        load_checkpoint(tmp_path / "cut.pt")


def test_a_tensor_instead_of_a_checkpoint(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ConversionError, match="holds a Tensor"):
        load_checkpoint(tmp_path / "tensor.pt")


def test_conversion_needs_no_fairseq(two_layers, tmp_path):
    """In a process of its own, with any import of fairseq made impossible."""
    code = (
        "import sys; sys.modules['fairseq'] = None\n"
        "from unibrivl.cli import main\n"
        f"sys.exit(main(['convert', 'speechlm', {str(two_layers[0])!r}, {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SpeechLMForPreTraining" in done.stdout and (tmp_path / "out" / "model.safetensors").exists()
