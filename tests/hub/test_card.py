"""Model cards: rendered from JSON and nothing else, true to the files beside the model, with examples that run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import tiny_brewclip
import tiny_brivl
import tiny_cavmae
import tiny_cavtmae
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from tiny_towers import AUDIO, unibrivl_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessorPil, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import unibrivl.modeling as modeling
from unibrivl.cli.card import preset_model
from unibrivl.hub.card import bibtex, check_card, preset_card, preset_names, render_card, task
from unibrivl.hub.facts import facts_of, open_saved
from unibrivl.hub.flat import write_code
from unibrivl.hub.records import UNKNOWN, RecordError
from unibrivl.hub.snippets import EXAMPLES, from_preset

ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "model_cards"
SPEECHLM = {key: value for key, value in AUDIO["speechlm"].items() if key != "model_type"}
MEL = {key: value for key, value in AUDIO["mel_encoder"].items() if key != "model_type"}
RESULT = {
    "task": "audio-classification",
    "dataset": "ESC-50",
    "split": "test",
    "metric": "accuracy",
    "value": 0.8125,
    "unit": "%",
    "command": "unibrivl eval esc50",
    "commit": "1234abc",
    "found": 1999,
    "expected": 2000,
}
TRAINING = {
    "command": "unibrivl train base --seed 7",
    "commit": "89efab0",
    "seed": 7,
    "steps": 4321,
    "hours": 2.5,
    "settings": {"learning_rate": 0.0003},
    "towers": {
        "audio": {"model": "org/ears", "licence": "mit", "relation": "finetune", "revision": "abc"},
        "image": {"model": "org/eyes", "licence": "cc-by-nc-4.0", "relation": "finetune"},
    },
    "data": [{"name": "Sounds", "id": "org/sounds", "licence": "cc-by-4.0", "found": 990, "expected": 1000}],
    "licences": {"weights": "cc-by-nc-4.0", "data": "cc-by-4.0"},
}
CONVERSION = {
    "source": "original.pt",
    "source_sha256": "ab" * 32,
    "architecture": "SpeechLMModel",
    "converted_keys": 173,
    "dropped_keys": {"one": "why", "two": "why"},
    "tokenizer": "",
    "differences": [{"name": "last", "shape": [1], "max_abs": 1.5e-6, "limit": 2e-5, "passed": True}],
}


def words() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "dog": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[UNK]", eos_token="[UNK]")


def processor(**parts):
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    lexicon = {"A": ["AH0"], "DOG": ["D", "AO1", "G"], "RAIN": ["R", "EY1", "N"]}
    units = modeling.SpeechLMPhoneTokenizer(lexicon=lexicon)
    usual = {"feature_extractor": modeling.SpeechLMFeatureExtractor(), "image_processor": pictures}
    return modeling.UniBriVLProcessor(**{**usual, "unit_tokenizer": units, **parts})


def captioner():
    decoder = GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=60, bos_token_id=1, eos_token_id=1)
    )
    joint = modeling.UniBriVLModel(unibrivl_config("speechlm", "clip"))
    return modeling.UniBriVLForAudioCaptioning.from_pretrained_parts(joint, decoder)


def brivl(named: str):
    return lambda: tiny_brivl.build(getattr(modeling, named))


def cavmae(named: str):
    return lambda: tiny_cavmae.build(getattr(modeling, named), max_audio_frames=512)


def cavmae_sounds():
    return modeling.CAVMAEFeatureExtractor(num_mel_bins=32, max_length=512)


def cavmae_pairs():
    return modeling.UniBriVLProcessor(cavmae_sounds(), modeling.CAVMAEImageProcessor(size=32, crop_size=32))


def long_cavtmae():
    return tiny_cavtmae.build(audio_config={**tiny_cavtmae.SHARED, "max_audio_frames": 512})


def long_cavtmae_processor():
    processor = tiny_cavtmae.processor()
    processor.feature_extractor.max_length = 512
    return processor


def brewclip_head():
    return modeling.BrewCLIPForSpeechClassification(tiny_brewclip.config(num_labels=3))


def speechlm(named: str):
    return lambda: getattr(modeling, named)(modeling.SpeechLMConfig(**SPEECHLM))


def joined(named: str):
    return lambda: getattr(modeling, named)(unibrivl_config("speechlm", "clip"))


def adapter():
    return modeling.AudioTokenAdapter(
        modeling.AudioTokenAdapterConfig(audio_width=24, token_widths={"text_encoder": 32}, hidden_size=16)
    )


# class -> a tiny model, and what is saved beside it
SAVED = {
    "AudioTokenAdapter": (adapter, None),
    "SpeechLMModel": (speechlm("SpeechLMModel"), modeling.SpeechLMFeatureExtractor),
    "SpeechLMForCTC": (speechlm("SpeechLMForCTC"), modeling.SpeechLMFeatureExtractor),
    "SpeechLMForPreTraining": (speechlm("SpeechLMForPreTraining"), modeling.SpeechLMFeatureExtractor),
    "MelEncoderModel": (
        lambda: modeling.MelEncoderModel(modeling.MelEncoderConfig(**MEL)),
        lambda: modeling.MelEncoderFeatureExtractor.for_config(modeling.MelEncoderConfig(**MEL)),
    ),
    "CAVMAEModel": (cavmae("CAVMAEModel"), cavmae_pairs),
    "CAVMAEAudioModel": (cavmae("CAVMAEAudioModel"), cavmae_sounds),
    "CAVMAEImageModel": (cavmae("CAVMAEImageModel"), lambda: modeling.CAVMAEImageProcessor(size=32, crop_size=32)),
    "CAVTMAEModel": (long_cavtmae, long_cavtmae_processor),
    "BrewCLIPModel": (tiny_brewclip.build, tiny_brewclip.processor),
    "BrewCLIPForSpeechClassification": (brewclip_head, tiny_brewclip.processor),
    "CAVMAEForPreTraining": (cavmae("CAVMAEForPreTraining"), cavmae_pairs),
    "CAVMAEForAudioClassification": (cavmae("CAVMAEForAudioClassification"), cavmae_sounds),
    "CAVMAEForAudioVisualClassification": (cavmae("CAVMAEForAudioVisualClassification"), cavmae_pairs),
    "BriVLModel": (brivl("BriVLModel"), lambda: modeling.BriVLImageProcessor(size=96)),
    "BriVLVisionModel": (brivl("BriVLVisionModel"), lambda: modeling.BriVLImageProcessor(size=96)),
    "BriVLTextModel": (brivl("BriVLTextModel"), None),
    "UniBriVLModel": (joined("UniBriVLModel"), processor),
    "UniBriVLAudioModel": (joined("UniBriVLAudioModel"), processor),
    "UniBriVLForAudioClassification": (joined("UniBriVLForAudioClassification"), processor),
    "UniBriVLForAudioCaptioning": (captioner, lambda: processor(tokenizer=words())),
}
TASKS = {
    "BrewCLIPForSpeechClassification": "audio-classification",
    "SpeechLMForCTC": "automatic-speech-recognition",
    "UniBriVLForAudioClassification": "audio-classification",
    "UniBriVLForAudioCaptioning": "audio-text-to-text",
    "AudioTokenAdapter": "text-to-image",
    "BriVLVisionModel": "image-feature-extraction",
    "CAVMAEForAudioClassification": "audio-classification",
    "CAVMAEForAudioVisualClassification": "audio-classification",
}


def write(folder: Path, name: str, content) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def head(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def python_blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<card>", "exec"), {})
    return printed.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Every class of ours, saved at toy size."""
    found = {}
    for name, (make, beside) in SAVED.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp(name)
        make().save_pretrained(found[name])
        if beside is not None:
            beside().save_pretrained(found[name])
    return found


@pytest.fixture
def at_hand(tmp_path, monkeypatch) -> Path:
    """A folder with what the examples speak of."""
    noise = (3000 * np.random.default_rng(0).standard_normal(16000)).astype("<i2")
    with wave.open(str(tmp_path / "dog.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(noise.tobytes())
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "dog.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lean(tmp_path) -> Path:
    """A small model without records."""
    modeling.MelEncoderModel(modeling.MelEncoderConfig(**MEL)).save_pretrained(tmp_path / "ears")
    return tmp_path / "ears"


def test_every_preset_has_facts():
    tables = {
        "SPEECHLM_PRESETS": modeling.SPEECHLM_PRESETS,
        "BRIVL_VISION_PRESETS": modeling.BRIVL_VISION_PRESETS,
        "UNIBRIVL_PRESETS": modeling.UNIBRIVL_PRESETS,
    }
    builds = [json.loads(path.read_text())["build"] for path in (CARDS / "facts").glob("*.json")]
    assert {(build.get("presets"), build.get("preset")) for build in builds} - {(None, None)} == {
        (table, key) for table, presets in tables.items() for key in presets
    }


def test_the_committed_cards_are_what_the_facts_render_to():
    """Else: `unibrivl card --presets`."""
    of_results = {path.stem for path in CARDS.glob("*.md") if path.stem.startswith(("embedded-", "brewclip-"))}
    written = {path.stem for path in CARDS.glob("*.md")} - of_results
    assert written - {"template"} == set(preset_names())
    for name in preset_names():
        assert (CARDS / f"{name}.md").read_text(encoding="utf-8") == preset_card(name), name
        assert check_card(preset_card(name)) == [], name
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (CARDS / "citation.bib").read_text(encoding="utf-8") == bibtex(citation)


@pytest.mark.parametrize("name", preset_names())
def test_the_sizes_of_a_preset_are_those_of_its_model(name):
    """Else: `unibrivl card --presets`."""
    facts = json.loads((CARDS / "facts" / f"{name}.json").read_text())
    model = preset_model(facts)
    assert sum(part["parameters"] for part in facts["parts"]) == sum(t.numel() for t in model.state_dict().values())
    with torch.device("meta"):
        assert run(from_preset(facts)) == f"{model.num_parameters()}\n"
    assert from_preset(facts) in preset_card(name)


def numbers_in(config) -> set[int]:
    values = config.values() if isinstance(config, dict) else config
    inner = [numbers_in(value) for value in values if isinstance(value, (dict, list, tuple))]
    return {value for value in values if isinstance(value, int)}.union(*inner)


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_says_of_its_shape_is_true(name):
    facts = json.loads((CARDS / "facts" / f"{name}.json").read_text())
    config = preset_model(facts).config.to_dict()
    said = [int(number) for number in re.findall(r"(?<![\w.-])\d+(?![\w.]\w)", facts["summary"])]
    assert set(said) <= numbers_in(config)
    assert facts.get("sampling_rate") in {None, *numbers_in(config)}
    assert set(facts.get("image_size") or ()) <= numbers_in(config)


def test_the_example_of_a_preset_runs_on_a_converted_folder(folders, at_hand):
    folder_of = {"speechlm-base-p": "SpeechLMModel", "brivl-b5": "BriVLModel", "cavmae": "CAVMAEForPreTraining"}
    for name, of in folder_of.items():
        code = python_blocks(preset_card(name))[-1]
        assert f'"{name}"' in code
        assert "(1 " not in run(code.replace(f'"{name}"', repr(str(folders[of]))))


def test_every_model_of_ours_is_here():
    public = {name for name in modeling.__all__ if isinstance(getattr(modeling, name), type)}
    assert {name for name in public if issubclass(getattr(modeling, name), torch.nn.Module)} == set(SAVED)
    assert set(EXAMPLES) <= set(SAVED)


@pytest.mark.parametrize("named", SAVED)
def test_the_example_of_every_class_runs(named, folders, at_hand):
    card = render_card(folders[named], "org/name")
    assert check_card(card) == []
    assert head(card)["pipeline_tag"] == TASKS.get(named, "feature-extraction")
    (code,) = python_blocks(card)
    assert code.count('"org/name"') >= 1
    assert run(code.replace('"org/name"', repr(str(folders[named])))).strip()
    facts = facts_of(open_saved(folders[named]))
    model = getattr(modeling, named).from_pretrained(folders[named])
    assert facts["class"] == named
    assert sum(part["parameters"] for part in facts["parts"]) == facts["parameters"]
    assert model.num_parameters() <= facts["parameters"] <= sum(t.numel() for t in model.state_dict().values())


def test_without_parts_the_example_only_loads(lean, at_hand):
    (code,) = python_blocks(render_card(lean, "org/ears"))
    assert int(run(code.replace("org/ears", str(lean)))) > 0


def test_the_towers_of_a_joint_model(folders):
    parts = {part["name"]: part for part in facts_of(open_saved(folders["UniBriVLModel"]))["parts"]}
    model = modeling.UniBriVLModel.from_pretrained(folders["UniBriVLModel"])
    for name, module in (("audio tower", model.audio_model.tower), ("image tower", model.vision_model)):
        assert parts[name]["parameters"] == module.num_parameters()
        assert parts[name]["model_type"] == module.config.model_type
    facts = facts_of(open_saved(folders["UniBriVLForAudioClassification"]))
    assert facts["image_size"] is None  # the configuration has an image tower, the file none
    assert facts["embeds"] == []


def test_a_card_says_what_the_records_say(lean):
    for name, content in (("training", TRAINING), ("results", [RESULT]), ("conversion", CONVERSION)):
        write(lean, f"{name}.json", content)
    card = render_card(lean, "org/ears")
    assert check_card(card) == []
    for said in ("4321", "0.0003", "89efab0", "2.5", "990 / 1000", "0.8125 %", "1999 / 2000", "1234abc",
                 "`unibrivl eval esc50`", "ab" * 32, "173", "1.50e-06", "2 dropped"):  # fmt: skip
        assert said in card, said
    data = ModelCard(card).data
    assert data.license == "cc-by-nc-4.0"
    assert data.base_model == ["org/ears", "org/eyes"]
    assert data.base_model_relation == "finetune"
    assert data.datasets == ["org/sounds"]
    (result,) = data.eval_results
    assert (result.metric_value, result.dataset_name, result.metric_type) == (0.8125, "ESC-50", "accuracy")
    write(lean, "results.json", {"results": [{**RESULT, "value": 0.75}]})
    assert card.replace("0.8125", "0.75") == render_card(lean, "org/ears")


def test_every_number_of_a_card_stands_in_json(folders):
    """The sizes come from the headers; all other numbers of the sections come from files that were written as JSON."""
    folder = folders["UniBriVLModel"]
    facts = facts_of(open_saved(folder))
    body = render_card(folder, "org/name").split("## Parts")[1].split("## Intended use")[0]
    known = {f"{part['parameters']:,}" for part in facts["parts"]}
    known |= {f"{facts['parameters']:,}", "32", "16000", "2.0", "44"}  # dtype float32, apache-2.0
    assert set(re.findall(r"\d[\d,.]*\d|\d", body)) <= known


def test_what_holds_of_the_published_weights_is_said_of_no_others(folders, tmp_path):
    folder = shutil.copytree(folders["SpeechLMModel"], tmp_path / "ours")
    assert "English" not in render_card(folder)
    assert "language" not in head(render_card(folder))
    write(folder, "conversion.json", CONVERSION)
    assert "English" in render_card(folder)
    assert head(render_card(folder))["language"] == "en"


@pytest.mark.parametrize(
    ("named", "rate", "wanted"),
    [
        ("Wav2Vec2ForSequenceClassification", 16000, "audio-classification"),
        ("BertForSequenceClassification", None, None),
        ("GPT2LMHeadModel", None, None),
        ("Wav2Vec2ForCTC", 16000, "automatic-speech-recognition"),
        ("HubertModel", 16000, "feature-extraction"),
        ("CLIPModel", None, "zero-shot-image-classification"),
        (None, None, None),
    ],
)
def test_the_task_of_others(named, rate, wanted):
    assert task({"class": named, "sampling_rate": rate}) == wanted


def test_a_licence_is_never_guessed(lean):
    card = head(render_card(lean))
    assert "license" not in card
    assert card["licences"] == {"code": "apache-2.0", "weights": UNKNOWN, "data": UNKNOWN}
    named = head(render_card(lean, facts={"licences": {"weights": "MIT"}}))
    assert named["license"] == "mit"
    odd = head(render_card(lean, facts={"licences": {"weights": "BAAI Terms 1.0"}}))
    assert (odd["license"], odd["license_name"]) == ("other", "baai-terms-1.0")
    with pytest.raises(RecordError, match="it takes code, weights, data"):
        render_card(lean, facts={"licences": {"model": "mit"}})


def test_licences_are_taken_from_an_older_card(lean):
    (lean / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Ears\n")
    assert facts_of(open_saved(lean))["licences"]["weights"] == "cc-by-4.0"
    (lean / "README.md").write_text(render_card(lean, facts={"licences": {"weights": "mit", "data": "cc0-1.0"}}))
    assert facts_of(open_saved(lean))["licences"] == {"code": "apache-2.0", "weights": "mit", "data": "cc0-1.0"}
    (lean / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(RecordError, match="mend it"):
        facts_of(open_saved(lean))


def test_the_code_of_strangers_has_no_licence_of_ours(lean):
    config = json.loads((lean / "config.json").read_text())
    write(lean, "config.json", {**config, "model_type": "else", "auto_map": {"AutoModel": "modeling_x.X"}})
    card = render_card(lean, "org/name")
    assert head(card)["licences"]["code"] == UNKNOWN
    assert "custom_code" in head(card)["tags"]
    assert 'AutoModel.from_pretrained("org/name", trust_remote_code=True)' in python_blocks(card)[-1]
    assert check_card(card) == []


def test_without_this_package_the_code_beside_the_weights_is_named(folders, tmp_path):
    """That such a call works, for every class, is what test_hub_flat.py shows, in processes without this package."""
    for named, auto in (("SpeechLMForCTC", "AutoModelForCTC"), ("UniBriVLModel", "AutoModel")):
        copy = shutil.copytree(folders[named], tmp_path / named)
        assert len(python_blocks(render_card(copy, "org/name"))) == 1
        write_code(copy)
        card = render_card(copy, "org/name")
        assert "custom_code" in head(card)["tags"]
        code = python_blocks(card)[-1]
        assert f'model = {auto}.from_pretrained("org/name", trust_remote_code=True)' in code
        compile(code, "<card>", "exec")
        assert json.loads((copy / "config.json").read_text())["auto_map"][auto].endswith(f".{named}")


def test_a_recorded_name_is_shown_and_not_claimed(tmp_path):
    """config.json keeps what from_pretrained was given; it may be a folder, so it is no base model of the Hub."""
    config = unibrivl_config("speechlm", "clip")
    config.audio_config._name_or_path, config.vision_config._name_or_path = "org/ears", str(tmp_path / "eyes")
    modeling.UniBriVLModel(config).save_pretrained(tmp_path / "joint")
    card = render_card(tmp_path / "joint")
    assert "audio: org/ears (as config.json recorded it)" in card
    assert str(tmp_path) not in card
    assert "base_model" not in head(card)


def test_shards_count_once(folders, tmp_path):
    model = modeling.UniBriVLModel.from_pretrained(folders["UniBriVLModel"]).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    facts, single = facts_of(open_saved(tmp_path)), facts_of(open_saved(folders["UniBriVLModel"]))
    assert facts["parameters"] == single["parameters"]
    assert facts["bytes"] == single["bytes"] / 2
    assert {kind for part in facts["parts"] for kind in part["dtypes"]} == {"bfloat16"}
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match="which its index names: fetch it again"):
        open_saved(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", [{key: value for key, value in RESULT.items() if key != "commit"}], "commit is missing"),
        ("results.json", [{**RESULT, "value": "91 %"}], "value must be int or float"),
        ("results.json", [{**RESULT, "value": float("nan")}], "measure it again"),
        ("results.json", {"rows": []}, "a list of results is expected"),
        ("training.json", {**TRAINING, "sed": 7}, "'sed' is no field of it"),
        ("training.json", {"seed": True}, "seed must be int"),
        ("training.json", {"towers": {"nose": {}}}, "it takes audio"),
        ("training.json", {"towers": {"audio": {"relation": "cousin"}}}, "unknown to the Hub"),
        ("training.json", {"data": [{"id": "org/x"}]}, "name is missing"),
        ("conversion.json", {"source": "x"}, "convert the checkpoint again"),
        ("config.json", [1], "object"),
    ],
)
def test_records_that_are_not_what_they_promise(lean, name, content, message):
    write(lean, name, content)
    with pytest.raises(RecordError, match=message):
        render_card(lean)


def test_folders_that_are_no_models(lean, tmp_path):
    with pytest.raises(ValueError, match="It holds the models ears"):
        render_card(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        render_card(tmp_path / "nothing")
    weights = lean / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        render_card(lean)
    weights.rename(lean / "pytorch_model.bin")
    with pytest.raises(ValueError, match="can run code and are not opened"):
        render_card(lean)
    (lean / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="no weights"):
        render_card(lean)
    (lean / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON|no weights"):
        render_card(lean)


GOOD = {"library_name": "transformers", "license": "mit", "tags": ["audio"]}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"permission": "mit"}, "unknown field 'permission'"),
        ({"license": None}, "no licence of the weights"),
        ({"license": "my own"}, "no identifier of the Hub"),
        ({"license": "other"}, "needs a license_name"),
        ({"licences": {"weights": "mit"}}, "licences must have code, weights, data"),
        ({"pipeline_tag": "telepathy"}, "no task of the Hub"),
        ({"library_name": None}, "library_name is missing"),
        ({"base_model": "/srv/model"}, "no name on the Hub"),
        ({"base_model": "org/a", "base_model_relation": "cousin"}, "is none of"),
        (
            {"model-index": [{"name": "x", "results": [{"task": {"type": "y"}, "dataset": {"name": "d", "type": "d"},
                                                        "metrics": [{"type": "m", "value": "good"}]}]}]},
            "is no number",
        ),
    ],
)  # fmt: skip
def test_check_card_finds(fields, problem):
    data = {key: value for key, value in {**GOOD, **fields}.items() if value is not None}
    (found,) = check_card(f"---\n{yaml.safe_dump(data)}---\n# x\n")
    assert problem in found


def test_check_card_needs_a_head():
    assert "no front matter" in check_card("# x\n")[0]
    assert "cannot be read" in check_card("---\nlicense: [\n---\n")[0]
    assert check_card(f"---\n{yaml.safe_dump(GOOD)}---\n# x\n") == []
