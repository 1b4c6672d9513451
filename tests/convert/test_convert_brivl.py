"""Converting files laid out exactly like BriVL-1.0's: nested, with momentum copies, counters and unused heads. What
comes out reproduces the goldens; what is broken or hostile is refused by name.

Most tests use a toy of the official layout: its key list with one block a stage and a layer or two, at small widths.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys

import parity_brivl as parity
import pytest
import torch
from layout_brivl import OFFICIAL, VOCAB, original_layout, toy_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # 5.4 exports a substitute

from unibrivl.cli import main
from unibrivl.convert import brivl
from unibrivl.convert.brivl import convert_brivl, infer_config, reason_to_drop
from unibrivl.convert.checkpoint import ConversionError, written_whole
from unibrivl.convert.outputs import brivl_outputs
from unibrivl.modeling import BriVLConfig, BriVLImageProcessor, BriVLModel


def write(path, state, nested=True):
    torch.save({"learnable": state} if nested else state, path)
    return path


@pytest.fixture(autouse=True)
def toy_scale(monkeypatch):
    monkeypatch.setitem(brivl.CNN_SCALES, (128, 7), (0.1, 0.1))


@pytest.fixture(scope="module")
def toy():
    """The toy model and its weights in the original layout."""
    model = toy_model()
    return model, original_layout(model)


@pytest.fixture(scope="module")
def checkpoint(toy, tmp_path_factory):
    return write(tmp_path_factory.mktemp("toy") / "brivl.pth", toy[1])


@pytest.fixture
def vocab(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path / "vocab.txt"


def same_weights(folder, model):
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name


# ---- the goldens, through a file and a folder -----------------------------------------------------------------------


def assert_goldens(loaded, cases, monkeypatch):
    monkeypatch.setattr(parity, "_build", lambda which: loaded.text_model if which == "text" else loaded.vision_model)
    parity.outputs.cache_clear()
    try:
        for case in cases:
            rows = parity.differences(case)
            assert all(row.passed for row in rows), parity.table(rows)
    finally:
        parity.outputs.cache_clear()


def test_the_real_image_tower_with_a_toy_text_tower(tmp_path, monkeypatch):
    """All keys and weights of B5's golden through the converter: the folder reproduces what the original gave."""
    state = parity.original_state(OFFICIAL, "imgencoder.") | original_layout(toy_model(), "textencoder.")
    width = "textencoder.learnable.textFC"
    state |= {f"{width}.fc1.weight": torch.zeros(2048, 64), f"{width}.fc1.bias": torch.zeros(2048)}
    state |= {f"{width}.fc2.weight": torch.zeros(2048, 2048), f"{width}.fc2.bias": torch.zeros(2048)}
    report = convert_brivl(write(tmp_path / "b5.pth", state), tmp_path / "out")
    assert report.converted_keys > 900
    assert_goldens(BriVLModel.from_pretrained(tmp_path / "out"), ["vision_b5_380_boxes"], monkeypatch)


@pytest.mark.slow
def test_the_official_file_in_full(tmp_path, monkeypatch):
    """2320 keys and two gigabytes, as published: 1187 tensors of ours, 1165 keys dropped for four reasons."""
    state = parity.original_state(OFFICIAL, "imgencoder.") | parity.original_state(OFFICIAL, "textencoder.")
    copies = {key.replace("encoder.", "encoder_mom.", 1): tensor * 2 for key, tensor in state.items()}
    assert (state | copies).keys() == parity.original_shapes(OFFICIAL).keys()
    write(tmp_path / "BriVL-1.0-5500w.pth", state | copies)
    del state, copies
    assert abs((tmp_path / "BriVL-1.0-5500w.pth").stat().st_size - 2_192_894_015) < 1_000_000, "the published size"
    report = convert_brivl(tmp_path / "BriVL-1.0-5500w.pth", tmp_path / "out")
    assert (report.converted_keys, len(report.dropped_keys)) == (1187, 1165)
    loaded = BriVLModel.from_pretrained(tmp_path / "out")
    unused = 1000 * 2048 + 1000 + 768 * 768 + 768  # EfficientNet's classifier and BERT's pooler
    assert sum(p.numel() for p in loaded.parameters()) == 143_724_056 + 130_094_848 - unused
    cases = ["vision_b5_380_boxes", "vision_b5_360_grid", "text_base_L80", "text_base_L32"]
    assert_goldens(loaded, cases, monkeypatch)


# ---- the toy file ---------------------------------------------------------------------------------------------------


def test_every_key_is_accounted_for(toy, checkpoint, tmp_path):
    model, state = toy
    report = convert_brivl(checkpoint, tmp_path / "out", image_size=64)
    same_weights(tmp_path / "out", model)
    kept = [key for key in state if key not in report.dropped_keys]
    assert not any("_mom." in key for key in kept) and len(kept) > 100
    assert {reason.split(",")[0].split(" copy")[0] for reason in report.dropped_keys.values()} == {
        "a momentum", "a counter", "EfficientNet's ImageNet classifier", "BERT's pooler"
    }  # fmt: skip
    assert report.converted_keys == len(model.state_dict()) and report.architecture == "BriVLModel"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"model.safetensors", "config.json", "preprocessor_config.json", "conversion.json"}
    saved = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert saved["converted_keys"] == report.converted_keys and len(saved["source_sha256"]) == 64
    assert "hfl/chinese-roberta-wwm-ext" in saved["tokenizer"] and "max_length=80" in saved["tokenizer"]


def test_the_folder_works_through_the_auto_classes(toy, checkpoint, vocab, tmp_path):
    model, _ = toy
    convert_brivl(checkpoint, tmp_path / "out", image_size=64, vocab=vocab)
    again = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(again, BriVLModel) and again.config.vision_config.image_size == 64
    texts = AutoTokenizer.from_pretrained(tmp_path / "out")(
        ["\u732b", "\u72d7"], padding="max_length", truncation=True, return_tensors="pt"
    )
    assert texts.input_ids.shape == (2, 80)
    pixels = BriVLImageProcessor.from_pretrained(tmp_path / "out")(
        torch.randint(256, (3, 70, 90), dtype=torch.uint8), return_tensors="pt"
    )
    with torch.inference_mode():
        ours = again(pixels.pixel_values, texts.input_ids, texts.attention_mask)
        wanted = model(pixels.pixel_values, texts.input_ids, texts.attention_mask)
    assert torch.equal(ours.logits_per_image, wanted.logits_per_image)


def test_the_image_processor_through_its_auto_class(checkpoint, tmp_path):
    convert_brivl(checkpoint, tmp_path / "out", image_size=456, center_square=True)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert isinstance(processor, BriVLImageProcessor)
    assert (processor.size.height, processor.do_center_square) == (456, True)


@pytest.mark.parametrize(
    "prefix, nested",
    [("", False), ("module.", True), ("module.", False), ("learnable.", False), ("module.learnable.", False),
     ("module.learnable.", True), ("mixed", True)],
)  # fmt: skip
def test_wrappers_leave_prefixes(prefix, nested, toy, tmp_path):
    """DataParallel and the training module add names in front; a file may even mix them."""
    model, state = toy
    if prefix == "mixed":
        prefixed = {("module." if "img" in key else "module.learnable.") + key: v for key, v in state.items()}
    else:
        prefixed = {prefix + key: tensor for key, tensor in state.items()}
    queues = {"module.img_queue": torch.zeros(128, 6), "module.text_queue_ptr": torch.zeros(1, dtype=torch.long)}
    report = convert_brivl(write(tmp_path / "file.pth", prefixed | queues, nested), tmp_path / "out")
    same_weights(tmp_path / "out", model)
    assert "queue of negatives" in report.dropped_keys["img_queue"]


def test_half_precision_stays(toy, tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in toy[1].items()}
    convert_brivl(write(tmp_path / "half.pth", state), tmp_path / "out")
    loaded = BriVLModel.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}


@pytest.mark.parametrize("name, size", [(OFFICIAL, 380), ("brivl_b7_roberta_large", 600)])
def test_config_is_inferred_from_the_file(name, size):
    config = parity.original_config(name, size)
    large = "b7" in name
    vision, text = config.vision_config, config.text_config
    assert (vision.width_coefficient, vision.depth_coefficient) == ((2.0, 3.1) if large else (1.6, 2.2))
    assert (vision.hidden_size, text.projection_dim) == ((2560, 2560) if large else (2048, 2048))
    assert vision.image_size == size and (vision.num_sa_layers, text.num_sa_layers) == (4, 4)
    assert (text.hidden_size, text.num_hidden_layers) == ((1024, 24) if large else (768, 12))
    assert (text.num_attention_heads, text.intermediate_size) == ((16, 4096) if large else (12, 3072))
    assert (text.vocab_size, text.max_position_embeddings) == (21128, 512)
    assert (vision.sa_intermediate_size, text.sa_intermediate_size) == (2048, 2048)


def test_the_official_key_lists_fit_the_models():
    """Names and shapes of all tensors, of B5 as published and of B7, against the models their configs make."""
    for name in parity.variants:
        shapes = parity.original_shapes(name)
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items() if not reason_to_drop(key)}
        with torch.device("meta"):
            model = BriVLModel(infer_config(state, 380))
        converted = {key: tensor.shape for key, tensor in brivl.convert_state(state).items()}
        assert converted == {key: tensor.shape for key, tensor in model.state_dict().items()}


# ---- tokenizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_tokenizer_keeps_the_numbering_of_the_file(newline, checkpoint, tmp_path):
    """A line ends at a newline and nowhere else, or every token behind U+2028 would move."""
    (tmp_path / "vocab.txt").write_bytes(newline.join([*VOCAB, ""]).encode())
    report = convert_brivl(checkpoint, tmp_path / "out", vocab=tmp_path / "vocab.txt")
    assert report.tokenizer.startswith("BertTokenizer: vocab.txt")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 80 and tokenizer.pad_token_id == 0
    ids = tokenizer("\u732b\u53eb Aab").input_ids
    wanted = ["[CLS]", "\u732b", "\u53eb", "a", "##a", "##b", "[SEP]"]
    assert [VOCAB[index] for index in ids] == wanted


@pytest.mark.parametrize(
    "lines, message",
    [
        (VOCAB[:-1], "the model has 20"),
        ([*VOCAB[:-1], "a"], "19 different tokens in 20 lines"),
        ([*VOCAB[:4], "x", *VOCAB[5:]], r"lacks \[CLS\]"),
        ([VOCAB[1], VOCAB[0], *VOCAB[2:]], r"\[PAD\] in line 2"),
        (None, "not a vocab.txt"),
    ],
)
def test_a_vocabulary_that_does_not_fit(lines, message, checkpoint, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xff\xfe\x00" if lines is None else ("\n".join(lines) + "\n").encode())
    with pytest.raises(ConversionError, match=message):
        convert_brivl(checkpoint, tmp_path / "out", vocab=path)
    assert not (tmp_path / "out").exists()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command(checkpoint, vocab, tmp_path, capsys):
    arguments = ["convert", "brivl", str(checkpoint), str(tmp_path / "out"), "--image-size", "456", "--center-square"]
    assert main([*arguments, "--vocab", str(vocab)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"BriVLModel: \d+ tensors", printed) and "momentum copy" in printed
    assert "tokenizer: BertTokenizer" in printed and "parity: not measured" in printed
    assert (tmp_path / "out" / "tokenizer.json").exists()
    config = BriVLConfig.from_pretrained(tmp_path / "out")
    assert config.vision_config.image_size == 456
    assert main(["convert", "brivl", str(checkpoint), str(tmp_path / "small"), "--image-size", "32"]) == 2
    assert "at least 64" in capsys.readouterr().err


def test_parity_report_against_a_reference(toy, checkpoint, tmp_path, capsys):
    """`--reference` compares with saved outputs of the original, prints the table and exits by it."""
    model, _ = toy
    inputs = {
        "pixel_values": torch.rand(2, 3, 64, 64),
        "boxes": torch.rand(2, 3, 2).repeat(1, 1, 2) * 30 + torch.tensor([0.0, 0, 20, 20]),
        "box_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "input_ids": torch.tensor([[4, 8, 9, 5, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
    }
    named = {name: tensor.clone().contiguous() for name, tensor in brivl_outputs(model, inputs).items()}
    assert {"image.cnn", "image.pooled", "image.sa_layer0", "image.embedding_raw", "text.bert", "text.embedding"} <= (
        named.keys()
    )
    arguments = ["convert", "brivl", str(checkpoint), str(tmp_path / "out"), "--reference"]
    save_file({**inputs, **named}, tmp_path / "same.safetensors")
    assert main([*arguments, str(tmp_path / "same.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "image.embedding_raw" in printed and "failed 0" in printed
    rows = json.loads((tmp_path / "out" / "conversion.json").read_text())["differences"]
    assert len(rows) == len(named) and {row["name"]: row["limit"] for row in rows}["text.embedding_raw"] == 5e-5
    named["text.embedding_raw"] += 6e-5
    save_file({**inputs, **named}, tmp_path / "off.safetensors")
    assert main([*arguments, str(tmp_path / "off.safetensors")]) == 1
    assert capsys.readouterr().out.count("FAILED") == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ({"image.cnn": torch.zeros(1)}, "neither 'pixel_values' nor 'input_ids'"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long)}, "no outputs"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long), "text.surprise": torch.zeros(1)}, "surprise"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long), "text.bert": torch.zeros(1)}, "shape"),
        (None, "not a safetensors file"),
    ],
)
def test_a_reference_that_does_not_fit(content, message, checkpoint, tmp_path):
    path = tmp_path / "reference.safetensors"
    if content is None:
        path.write_text("no\n")
    else:
        save_file(content, path)
    with pytest.raises(ValueError, match=message):
        convert_brivl(checkpoint, tmp_path / "out", reference=path)
    assert not (tmp_path / "out").exists()


# ---- what is refused ------------------------------------------------------------------------------------------------

CONV = "imgencoder.backbone.conv_stem.weight"
COUNTER = "imgencoder.backbone.bn1.num_batches_tracked"
IN_PROJ = "imgencoder.learnable.imgAtt.layers.0.self_attn.in_proj_weight"
WORDS = "textencoder.backbone.bert.embeddings.word_embeddings.weight"


def without(part):
    return lambda state: {key: tensor for key, tensor in state.items() if part not in key}


def replaced(key, change):
    return lambda state: {**state, key: change(state[key])}


@pytest.mark.parametrize(
    "change, message",
    [
        pytest.param(lambda s: {**s, "imgencoder.surprise.weight": torch.zeros(1)}, "surprise", id="left over"),
        pytest.param(lambda s: {**s, "optimizer.step": torch.zeros(1)}, "optimizer.step", id="foreign key"),
        pytest.param(lambda s: {**s, "imgencoder.backbone.bn7.bias": torch.zeros(1)}, "bn7", id="no such part"),
        pytest.param(
            lambda s: {**s, "imgencoder.backbone.blocks.9.0.bn1.bias": torch.zeros(1)}, "blocks.9", id="stage 9"
        ),
        pytest.param(
            lambda s: {**s, "textencoder.learnable.imgFC.fc1.bias": torch.zeros(1)}, "imgFC", id="mixed towers"
        ),
        pytest.param(without("conv_stem"), "embeddings.convolution", id="missing"),
        pytest.param(without("imgFC.fc2.bias"), "projection.fc2.bias", id="missing bias"),
        pytest.param(without("encoder.layer.0."), "encoder.layer.0", id="layer gone"),
        pytest.param(without("blocks.6.0."), "neither B5", id="stage gone"),
        pytest.param(without("max_pool"), "no BriVL checkpoint", id="no regions"),
        pytest.param(without("imgencoder."), "no key starts with", id="no image tower"),
        pytest.param(without("textencoder."), "no BriVL checkpoint", id="no text tower"),
        pytest.param(lambda s: {"w": torch.zeros(1)}, "no BriVL checkpoint", id="foreign"),
        pytest.param(lambda s: {}, "no BriVL checkpoint", id="empty"),
        pytest.param(lambda s: {**s, "module." + CONV: s[CONV]}, "twice", id="twice"),
        pytest.param(
            lambda s: {**s, "imgencoder.backbone.blocks.1.1.bn1.bias": torch.zeros(1)}, "neither B5", id="more blocks"
        ),
        pytest.param(
            lambda s: {key.replace("blocks.1.0.", "blocks.1.1."): tensor for key, tensor in s.items()},
            "both become|missing",
            id="gap",
        ),
        pytest.param(replaced(CONV, lambda t: t[:, :2]), "another shape", id="shape"),
        pytest.param(replaced(IN_PROJ, lambda t: t[:-1]), "another shape", id="packed shape"),
        pytest.param(replaced(CONV, lambda t: "text"), "not tensors of numbers", id="text"),
        pytest.param(replaced(CONV, lambda t: t.long()), "not tensors of numbers", id="whole numbers"),
        pytest.param(replaced(COUNTER, lambda t: t.float()), "not tensors of numbers", id="counter of floats"),
        pytest.param(replaced(CONV, lambda t: t.to_sparse()), "not tensors of numbers", id="sparse"),
        pytest.param(replaced(CONV, lambda t: t * float("nan")), "NaN", id="nan"),
        pytest.param(replaced(CONV, lambda t: torch.zeros(1).expand(10**12)), "not tensors of numbers", id="bomb"),
        pytest.param(replaced(WORDS, lambda t: torch.tensor(1.0)), "malformed", id="scalar"),
        pytest.param(replaced(WORDS, lambda t: t[:, :5]), "malformed", id="no head fits"),
    ],
)
def test_unfit_weights_are_an_error_that_lists_them(change, message, toy, tmp_path):
    write(tmp_path / "bad.pth", change(dict(toy[1])))
    with pytest.raises(ConversionError, match=message):
        convert_brivl(tmp_path / "bad.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing may be written before the file is known to be good"


def test_momentum_copies_may_be_broken(toy, tmp_path):
    """They are not used, so what they hold is nobody's business."""
    model, state = toy
    state = {key: tensor * float("nan") if "_mom." in key else tensor for key, tensor in state.items()}
    convert_brivl(write(tmp_path / "file.pth", state), tmp_path / "out")
    same_weights(tmp_path / "out", model)


def test_learnable_that_is_no_state_dict(tmp_path):
    torch.save({"learnable": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(ConversionError, match="holds a list"):
        convert_brivl(tmp_path / "list.pth", tmp_path / "out")


class Malicious:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("style", ["torch", "pickle"])
def test_a_malicious_pickle_runs_nothing(style, toy, tmp_path, capsys):
    path, trap = tmp_path / "evil.pth", tmp_path / "sprung"
    content = {"learnable": {**toy[1], "extra": Malicious(f"touch {trap}")}}
    if style == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["learnable"]["extra"]))
    assert main(["convert", "brivl", str(path), str(tmp_path / "out")]) == 2
    assert "evil.pth" in capsys.readouterr().err and not trap.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken zip"])
def test_files_that_are_no_checkpoints(content, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=r"file\.pth"):
        convert_brivl(tmp_path / "file.pth", tmp_path / "out")


def test_a_truncated_checkpoint_is_refused(checkpoint, tmp_path):
    whole = checkpoint.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match=r"cut\.pth"):
        convert_brivl(tmp_path / "cut.pth", tmp_path / "out")


# ---- writing --------------------------------------------------------------------------------------------------------


def test_converting_again_leaves_nothing_of_the_first(checkpoint, vocab, tmp_path):
    out = tmp_path / "out"
    convert_brivl(checkpoint, out, vocab=vocab)
    assert (out / "tokenizer.json").exists()
    (out / "model-00001-of-00002.safetensors").write_text("a shard of something larger")
    (out / "vocab.txt").write_text("the user's own: no conversion writes this name")
    convert_brivl(checkpoint, out)
    left = {path.name for path in out.iterdir()}
    assert left == {"model.safetensors", "config.json", "preprocessor_config.json", "conversion.json", "vocab.txt"}


@pytest.mark.parametrize("is_new", [True, False])
def test_a_failed_write_changes_nothing(is_new, checkpoint, tmp_path, monkeypatch):
    """A full disk after the weights were written: the folder is as it was."""
    out = tmp_path / "out"
    if not is_new:
        convert_brivl(checkpoint, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(BriVLImageProcessor, "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        convert_brivl(checkpoint, out, image_size=456)
    assert ({path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None) == before


def test_a_folder_that_is_a_file(checkpoint, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert main(["convert", "brivl", str(checkpoint), str(tmp_path / "out")]) == 2
    assert (tmp_path / "out").read_text() == "in the way" and "out" in capsys.readouterr().err


def test_what_a_block_writes_appears_at_its_end(tmp_path):
    with written_whole(tmp_path / "deep" / "out") as folder:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "deep" / "out" / "config.json").exists()
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == ["config.json"]


def test_conversion_needs_neither_timm_nor_torchvision(toy, tmp_path):
    """In a process of its own, with any import of them made impossible."""
    path = write(tmp_path / "toy.pth", toy[1])
    code = (
        "import sys; sys.modules['timm'] = sys.modules['torchvision'] = None\n"
        "from unibrivl.convert import brivl\n"
        "brivl.CNN_SCALES[128, 7] = (0.1, 0.1)\n"
        "from unibrivl.cli import main\n"
        f"sys.exit(main(['convert', 'brivl', {str(path)!r}, {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "BriVLModel" in done.stdout and (tmp_path / "out" / "model.safetensors").exists()
