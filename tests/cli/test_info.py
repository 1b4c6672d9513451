"""`unibrivl info` and `unibrivl card`: what they print is what the folder holds, for models of ours and of others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_towers import AUDIO, WIDE, unibrivl_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

import unibrivl.modeling as modeling
from unibrivl.cli import main
from unibrivl.embedder import load
from unibrivl.hub.facts import facts_of, open_saved

SIDE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
PARTS = {
    "feature_extractor": modeling.SpeechLMFeatureExtractor,
    "image_processor": lambda: CLIPImageProcessorPil(**SIDE),
}


def save_joint(folder: Path, cls=modeling.UniBriVLModel, parts: tuple[str, ...] = tuple(PARTS)) -> Path:
    torch.manual_seed(0)
    cls(unibrivl_config("speechlm", "clip")).save_pretrained(folder)
    modeling.UniBriVLProcessor(**{name: PARTS[name]() for name in parts}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def joint(tmp_path_factory) -> Path:
    return save_joint(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tower = {**WIDE, "num_hidden_layers": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    text = {**tower, "vocab_size": 64, "max_position_embeddings": 16, **ends}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "dog": 1, "[SEP]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]")
    CLIPProcessor(image_processor=PARTS["image_processor"](), tokenizer=tokenizer).save_pretrained(folder)
    return folder


def info(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments) -> str:
    assert main(["info", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("unibrivl info: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_of_a_joint_model(joint, capsys):
    found = info(capsys, joint)
    embedder = load(joint)
    assert found["fingerprint"] == embedder.fingerprint
    assert found["embeds"] == ["audio", "image"] == list(embedder.matcher.kinds)
    picture = Image.new("RGB", (40, 30), "teal")
    assert found["width"] == embedder.encode_image(picture).vectors.shape[1]
    assert (found["class"], found["model_type"], found["format_version"]) == ("UniBriVLModel", "unibrivl", 1)
    assert (found["sampling_rate"], found["image_size"]) == (16000, [32, 32])
    assert found["parameters"] == embedder.matcher.model.num_parameters()
    assert found["bytes"] == 4 * found["parameters"]
    assert {part["model_type"] for part in found["parts"]} >= {"speechlm", "clip_vision_model"}
    assert set(found["licences"]) == {"code", "weights", "data"}


def test_the_table_says_the_same(joint, capsys):
    assert main(["info", str(joint)]) == 0
    printed = capsys.readouterr()
    found = info(capsys, joint)
    licence = "licence of the weights:  unknown: ask the owner"
    sizes = f"{found['parameters']:,}", "16000 Hz", "32 x 32", "audio, image, as 44 numbers"
    for said in (found["fingerprint"], licence, *sizes, "audio tower  speechlm"):
        assert said in printed.out, said
    assert printed.err == ""


def test_without_the_fingerprint_no_weights_are_read(joint, tmp_path):
    """A file of a header alone, in a process that must not even import torch."""
    folder = shutil.copytree(joint, tmp_path / "joint")
    program = (
        "import sys; from unibrivl.cli import main; code = main(['info', sys.argv[1], '--no-fingerprint'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "none: not asked for" in done.stdout


def test_of_clip(clip, capsys):
    found = info(capsys, clip)
    embedder = load(clip)
    assert found["fingerprint"] == embedder.fingerprint
    assert found["embeds"] == ["image", "text"]
    assert found["width"] == 20
    parts = {part["name"]: part["parameters"] for part in found["parts"]}
    model = embedder.matcher.model
    assert parts["image tower"] == model.vision_model.num_parameters() + model.visual_projection.weight.numel()
    assert sum(parts.values()) == found["parameters"] == model.num_parameters()
    assert found["licences"]["weights"] == "unknown: ask the owner"


def test_of_pe_av(tmp_path, capsys):
    """Sizes without loading; no fingerprint, since nothing that prepares its input lies beside it."""
    towers = {**WIDE, "num_hidden_layers": 1, "num_key_value_heads": 4, "head_dim": 8}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    vision = transformers.ViTConfig(**WIDE, num_hidden_layers=1, image_size=32, patch_size=8, num_labels=20)
    try:
        config = transformers.PeAudioVideoConfig(
            text_config={"model_type": "modernbert", **WIDE, "num_hidden_layers": 1, "vocab_size": 64, **ends},
            audio_video_config=transformers.PeAudioVideoEncoderConfig(
                audio_config=AUDIO["pe_audio"],
                video_config=transformers.PeVideoEncoderConfig(vision_config=vision, **towers),
                **towers,
            ),
        )
    except ImportError as error:
        pytest.skip(f"this transformers builds no PE-AV configuration without timm: {error}")
    model = transformers.PeAudioVideoModel(config)
    model.save_pretrained(tmp_path)
    found = info(capsys, tmp_path)
    parts = {part["name"]: part for part in found["parts"]}
    assert parts["audio tower"]["parameters"] == model.audio_model.audio_encoder.num_parameters()
    assert parts["audio tower"]["model_type"] == "pe_audio_encoder"
    assert parts["video tower"]["parameters"] == model.video_model.video_encoder.num_parameters()
    assert sum(part["parameters"] for part in found["parts"]) == found["parameters"]
    assert found["embeds"] == ["audio", "image", "text"]
    assert found["width"] == 32
    assert found["fingerprint"] is None
    assert found["no_fingerprint"].startswith("it could not be loaded: ")


def test_of_models_that_embed_nothing(tmp_path, capsys):
    config = transformers.HubertConfig(**{key: value for key, value in AUDIO["hubert"].items() if key != "model_type"})
    model = transformers.HubertModel(config)
    model.save_pretrained(tmp_path / "hubert")
    found = info(capsys, tmp_path / "hubert")
    assert [part["name"] for part in found["parts"]] == ["model"]
    assert found["parameters"] == model.num_parameters()
    assert found["no_fingerprint"].startswith("it has no embedder")
    deaf = save_joint(tmp_path / "heads", modeling.UniBriVLForAudioClassification)
    assert info(capsys, deaf)["embeds"] == []


def test_an_unknown_composite_is_told_apart_by_its_configuration(tmp_path):
    """Of models that no table knows the parts follow from the names of the configurations."""
    tower = {**WIDE, "num_hidden_layers": 1}
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.ViTConfig(**tower, image_size=32, patch_size=8), transformers.BertConfig(**tower, vocab_size=64)
    )
    model = transformers.VisionTextDualEncoderModel(config)
    model.save_pretrained(tmp_path)
    facts = facts_of(open_saved(tmp_path))
    parts = {part["model_type"]: part["parameters"] for part in facts["parts"]}
    assert parts["vit"] == model.vision_model.num_parameters() + model.visual_projection.weight.numel()
    assert parts["bert"] == model.text_model.num_parameters() + model.text_projection.weight.numel()
    assert sum(part["parameters"] for part in facts["parts"]) == facts["parameters"] == model.num_parameters()


def test_bad_folders_are_one_line(joint, tmp_path, capsys):
    assert "no config.json" in refused(capsys, tmp_path)
    assert "is no folder" in refused(capsys, "./nothing")
    assert "no folder here and not in the cache" in refused(capsys, "org/nothing")
    assert "neither a folder nor the name of a model" in refused(capsys, "a/b/c")
    assert "leave --revision out" in refused(capsys, joint, "--revision", "main")
    (tmp_path / "model_index.json").write_text("{}")
    assert "is a whole pipeline" in refused(capsys, tmp_path)


def test_odd_configurations_are_not_our_traceback(joint, tmp_path, capsys):
    folder = shutil.copytree(joint, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    odd = {
        "architectures": "UniBriVLModel",
        "auto_map": 1,
        "audio_config": [],
        "vision_config": None,
        "embed_dim": "x",
    }
    (folder / "config.json").write_text(json.dumps({**config, **odd}))
    found = info(capsys, folder, "--no-fingerprint")
    assert (found["class"], found["width"], found["auto_map"]) == (None, None, {})
    (folder / "config.json").write_text(json.dumps({**config, "embed_dim": "x"}))
    assert info(capsys, folder)["no_fingerprint"].startswith("it could not be loaded: ")


def test_where_towers_come_from(tmp_path, capsys):
    folder = save_joint(tmp_path)
    stated = {"audio": {"model": "org/ears", "licence": "mit"}, "model": {"model": "org/older"}}
    (folder / "training.json").write_text(json.dumps({"towers": stated, "licences": {"weights": "mit"}}))
    assert main(["info", str(folder), "--no-fingerprint"]) == 0
    table = capsys.readouterr().out
    assert [line.endswith("org/ears, mit") for line in table.splitlines() if "audio tower" in line] == [True]
    assert [line.endswith("org/older") for line in table.splitlines() if line.startswith("  all")] == [True]
    assert "licence of the weights:  mit" in table


def test_of_a_cached_model(joint, tmp_path, monkeypatch, capsys):
    """Offline, by its name; the revision is the commit, whatever was asked for."""
    commit = "1" * 40
    place = tmp_path / "models--org--joint"
    shutil.copytree(joint, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = info(capsys, "org/joint", "--no-fingerprint")
    assert (found["name"], found["revision"]) == ("org/joint", commit)
    assert found["parameters"] == info(capsys, joint, "--no-fingerprint")["parameters"]


def test_card(joint, tmp_path, capsys):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"licences": {"weights": "mit"}}))
    assert main(["card", str(joint), "--repo", "org/joint", "--facts", str(facts)]) == 0
    printed = capsys.readouterr()
    assert "license: mit" in printed.out
    assert 'unibrivl.load("org/joint")' in printed.out
    assert printed.err == ""
    assert main(["card", str(joint), "--out", str(tmp_path / "README.md")]) == 0
    assert str(joint.parent) not in (tmp_path / "README.md").read_text()
    assert main(["card"]) == 2
    assert "pass --presets" in capsys.readouterr().err


def test_card_presets_needs_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["card", "--presets"]) == 2
    assert "is no checkout" in capsys.readouterr().err


def test_sounds_of_a_model_without_pictures(tmp_path, capsys):
    folder = save_joint(tmp_path, parts=("feature_extractor",))
    found = info(capsys, folder)
    embedder = load(folder)
    assert found["embeds"] == ["audio"]
    sound = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    assert found["width"] == embedder.encode_audio(sound, source_rate_hz=16000).vectors.shape[1]
    assert found["fingerprint"] == embedder.fingerprint
