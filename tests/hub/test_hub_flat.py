"""Flat copies: every model and everything that prepares its inputs, loaded where `import unibrivl` fails, bit for bit.

The test saves tiny ones with their code and what they give; `flat_reader.py` loads and compares them in one process
without this package, out of folders and out of a Hub's cache.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import flat_reader
import pytest
import tiny_brewclip
import tiny_cavmae
import tiny_cavtmae
import torch
import transformers
from flat_reader import keys_of, results
from packaging.version import Version
from safetensors.torch import save_file
from tiny_brivl import TEXT as BRIVL_TEXT
from tiny_brivl import VISION as BRIVL_VISION
from tiny_towers import AUDIO, pictures, sounds, tokens, unibrivl_config, units
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    FeatureExtractionMixin,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

import unibrivl.modeling as ours
from unibrivl.hub.flat import ALONE, MODELS, PREPARERS, write_code
from unibrivl.modeling import (
    AudioTokenAdapter,
    AudioTokenAdapterConfig,
    BrewCLIPForSpeechClassification,
    BriVLConfig,
    BriVLImageProcessor,
    BriVLModel,
    BriVLTextConfig,
    BriVLTextModel,
    BriVLVisionConfig,
    BriVLVisionModel,
    CAVMAEAudioModel,
    CAVMAEFeatureExtractor,
    CAVMAEForAudioClassification,
    CAVMAEForAudioVisualClassification,
    CAVMAEForPreTraining,
    CAVMAEImageModel,
    CAVMAEImageProcessor,
    CAVMAEModel,
    MelEncoderConfig,
    MelEncoderFeatureExtractor,
    MelEncoderModel,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMModel,
    SpeechLMPhoneTokenizer,
    UniBriVLAudioModel,
    UniBriVLForAudioCaptioning,
    UniBriVLForAudioClassification,
    UniBriVLModel,
    UniBriVLProcessor,
)
from unibrivl.modeling.code_unibrivl import CarriesCode

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Version(transformers.__version__)
# before, transformers copied only the files that an entry of auto_map imports itself out of a folder, not theirs; from
# the Hub it fetched all. Seen in the wheels: 5.10.0 and older do, 5.11.0 does not
LOCAL = Version("5.11") <= INSTALLED
# before, trust_remote_code=True took the repository's code also where classes of ours are registered
OURS_WIN = Version("5.6") <= INSTALLED

LEXICON = {"A": ["AH0"], "DOG": ["D", "AO1", "G"], "BARKS": ["B", "AA1", "R", "K", "S"]}
TEXTS = ["a dog barks", "a dog"]
GPT2 = {"model_type": "gpt2", "vocab_size": 40, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 2}
FOR_OTHERS = ("AutoModelForPreTraining", "AutoModelForAudioClassification")  # heads that no push of a case has
GPT2 |= {"bos_token_id": 38, "eos_token_id": 39}


def fields(name: str) -> dict:
    return {key: value for key, value in AUDIO[name].items() if key != "model_type"}


def phones() -> SpeechLMPhoneTokenizer:
    return SpeechLMPhoneTokenizer(lexicon=LEXICON)


def bert() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "barks"]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


def brivl_pictures() -> BriVLImageProcessor:
    return BriVLImageProcessor(size={"height": 64, "width": 64})


def cavmae_sounds() -> CAVMAEFeatureExtractor:
    return CAVMAEFeatureExtractor(num_mel_bins=32, max_length=64)


def cavmae_processor() -> UniBriVLProcessor:
    return UniBriVLProcessor(cavmae_sounds(), CAVMAEImageProcessor(size=32, crop_size=32))


def clip_pictures() -> CLIPImageProcessorPil:
    side = {"height": 32, "width": 32}
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)


def speech(cls, calls: list, *preparers):
    return cls(SpeechLMConfig(**fields("speechlm"))), calls, preparers


def call(method: str = "forward", settings: dict | None = None, **given) -> tuple:
    return method, given, settings or {}


def labels(*shape: int) -> torch.Tensor:
    return torch.randint(4, 11, shape, generator=torch.Generator().manual_seed(5))


@cache
def cases() -> dict:
    """Folder -> model, calls of it, and what is saved beside it."""
    torch.manual_seed(0)
    heard, written = sounds("speechlm"), units()
    as_units = {"input_ids": written["unit_ids"], "attention_mask": written["unit_attention_mask"]}
    side = BRIVL_VISION["image_size"]
    seen = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    read = tokens("brivl")
    texts = {"input_ids": read["input_ids"].clamp(max=59), "attention_mask": read["text_attention_mask"]}
    both = {"input_values": heard["input_values"], "input_ids": written["unit_ids"]}
    learned = {"unit_labels": labels(2, 13), "letter_labels": labels(2, 3)}
    captions = {"labels": labels(2, 5)}
    greedy = {"max_new_tokens": 4, "do_sample": False}
    pairs = {"input_values": tiny_cavmae.sounds(), "pixel_values": tiny_cavmae.pictures()}
    # the towers of the three unions: all ours; ours and a stock one; stock ones
    whole = unibrivl_config("speechlm", "brivl", "brivl")
    mel, stock = unibrivl_config("mel_encoder", "clip", "clip"), unibrivl_config("hubert", "dinov2")
    native = UniBriVLProcessor(SpeechLMFeatureExtractor(), brivl_pictures(), bert(), phones(), "max_length", 12)
    mel_features = MelEncoderFeatureExtractor.for_config(mel.audio_config)
    return {
        "speechlm": speech(
            SpeechLMModel,
            [call(**heard), call(**as_units, settings={"output_hidden_states": True})],
            SpeechLMFeatureExtractor(do_normalize=True),
            phones(),
        ),
        "speechlm-ctc": speech(SpeechLMForCTC, [call(**heard)], SpeechLMFeatureExtractor()),
        "speechlm-pretraining": speech(SpeechLMForPreTraining, [call(**both, **learned)]),
        "audio-token": (
            AudioTokenAdapter(AudioTokenAdapterConfig(audio_width=24, token_widths={"text_encoder": 32})),
            [call(features=torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2)))],
            (),
        ),
        "brivl": (
            BriVLModel(BriVLConfig(vision_config=BRIVL_VISION, text_config=BRIVL_TEXT)),
            [call(pixel_values=seen, **texts)],
            (brivl_pictures(),),
        ),
        "brivl.vision": (BriVLVisionModel(BriVLVisionConfig(**BRIVL_VISION)), [call(pixel_values=seen)], ()),
        "brivl.text": (BriVLTextModel(BriVLTextConfig(**BRIVL_TEXT, projection_dim=128)), [call(**texts)], ()),
        "mel": (
            MelEncoderModel(MelEncoderConfig(**fields("mel_encoder"))),
            [call(**sounds("mel_encoder"))],
            (MelEncoderFeatureExtractor.for_config(mel.audio_config),),
        ),
        "cavmae": (tiny_cavmae.build(CAVMAEModel), [call(**pairs)], (cavmae_processor(),)),
        "cavmae.audio": (
            tiny_cavmae.build(CAVMAEAudioModel),
            [call(input_values=pairs["input_values"])],
            (cavmae_sounds(),),
        ),
        "cavmae.image": (
            tiny_cavmae.build(CAVMAEImageModel),
            [call(pixel_values=pairs["pixel_values"])],
            (CAVMAEImageProcessor(size=32, crop_size=32),),
        ),
        "cavtmae": (
            tiny_cavtmae.build(),
            [call(**tiny_cavtmae.everything())],
            (tiny_cavtmae.processor(),),
        ),
        "brewclip": (
            tiny_brewclip.build(),
            [call(**tiny_brewclip.batch(0.5, 1.0), pixel_values=tiny_brewclip.pixels(2))],
            (tiny_brewclip.processor(),),
        ),
        "brewclip-classes": (
            BrewCLIPForSpeechClassification(tiny_brewclip.config(num_labels=3)),
            [call(**tiny_brewclip.batch(0.5, 1.0))],
            (),
        ),
        "cavmae-pretraining": (tiny_cavmae.build(CAVMAEForPreTraining), [call(**pairs, **tiny_cavmae.noise())], ()),
        "cavmae-classes": (tiny_cavmae.build(CAVMAEForAudioVisualClassification), [call(**pairs)], ()),
        "cavmae.audio-classes": (
            tiny_cavmae.build(CAVMAEForAudioClassification),
            [call(input_values=pairs["input_values"])],
            (),
        ),
        "whole": (
            UniBriVLModel(whole),
            [call(**heard, pixel_values=pictures("brivl"), **written, **read)],
            (native,),
        ),
        "mel-clip": (
            UniBriVLModel(mel),
            [call(**sounds("mel_encoder"), pixel_values=pictures("clip"), **tokens("clip"))],
            (UniBriVLProcessor(mel_features, clip_pictures()),),
        ),
        "stock": (
            UniBriVLModel(stock),
            [call(**sounds("hubert"), pixel_values=pictures("dinov2"))],
            (UniBriVLProcessor(Wav2Vec2FeatureExtractor(), clip_pictures()),),
        ),
        "language-tower": (UniBriVLAudioModel(whole), [call(**heard), call(**written)], ()),
        "probe": (
            UniBriVLForAudioClassification(unibrivl_config("speechlm", num_labels=3)),
            [call(**heard, labels=torch.tensor([0, 2]))],
            (),
        ),
        "captioner": (
            UniBriVLForAudioCaptioning(unibrivl_config("mel_encoder", decoder_config=dict(GPT2), prefix_length=4)),
            [call(**sounds("mel_encoder"), **captions), call("generate", greedy, **sounds("mel_encoder"))],
            (UniBriVLProcessor(MelEncoderFeatureExtractor.for_config(mel.audio_config)),),
        ),
    }


def parts_of(preparers) -> list:
    """What a folder of these holds that an Auto class finds: processors and their parts, of ours."""
    found = []
    for one in preparers:
        parts = one.get_attributes() if isinstance(one, ProcessorMixin) else []
        found += [one, *(getattr(one, part) for part in parts if part != "unit_tokenizer")]  # in a folder of its own
    return [one for one in found if type(one).__name__ in PREPARERS]


def auto_classes(model: PreTrainedModel, preparers) -> dict[str, str]:
    """Auto class -> the class that it must find in the folder."""
    found = {auto: reference.split(".")[1] for auto, reference in MODELS[model.config.model_type].items()}
    if type(model).__name__ in ALONE:
        found["AutoModel"] = type(model).__name__
    if isinstance(model, UniBriVLForAudioClassification):
        del found["AutoModel"]  # it has no image tower, so no UniBriVLModel is in there
    return found | {PREPARERS[type(one).__name__][0]: type(one).__name__ for one in parts_of(preparers)}


def clips_and_pictures() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    given = {name: 0.1 * torch.randn(count, generator=generator) for name, count in (("long", 4000), ("short", 2500))}
    for name, size in (("wide", (40, 33, 3)), ("high", (34, 50, 3))):
        given[name] = torch.randint(0, 256, size, generator=generator).to(torch.uint8)
    return given


def save(model, preparers, folder: Path) -> None:
    model.eval().save_pretrained(folder)
    for one in preparers:
        one.save_pretrained(folder)


def two_versions(root: Path) -> list[tuple[str, int]]:
    """Two folders of one name whose code reads another version of the format each."""
    for place, version in (("first", 1), ("second", 2)):
        folder = root / place / "model"
        shutil.copytree(root / "speechlm", folder)
        for name, line in (("format_unibrivl.py", "FORMAT_VERSION = {}\n"), ("config.json", '"format_version": {},')):
            text = (folder / name).read_text()
            assert text.count(line.format(1)) == 1
            (folder / name).write_text(text.replace(line.format(1), line.format(version)))
    return [("first/model", 1), ("second/model", 2)]


def push(one, folder: Path) -> None:
    """`push_to_hub`, with transformers' own replaced by its first step: what it would upload lies in the folder."""
    owner = next(base for base in type(one).__mro__ if "push_to_hub" in vars(base) and base is not CarriesCode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "push_to_hub", lambda self, repo_id: self.save_pretrained(repo_id))
        one.push_to_hub(folder)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """Flat copies of every case, by write_code and some by push_to_hub, and the job for the reader."""
    root = tmp_path_factory.mktemp("flat")
    given, expected, listed = clips_and_pictures(), {}, []
    for name, (model, calls, preparers) in cases().items():
        classes = auto_classes(model, preparers)
        case = {
            "name": name,
            "folder": name,
            "classes": classes,
            "calls": [
                {"method": method, "given": sorted(inputs), "settings": settings} for method, inputs, settings in calls
            ],
            "texts": TEXTS,
            "untrusted": name in ("speechlm", "whole"),
            "local": LOCAL and name in ("speechlm", "whole", "captioner"),  # the others out of a Hub's cache alone
        }
        for number, (_, inputs, _) in enumerate(calls):
            given |= {f"{name}/{number}/{key}": value.clone() for key, value in inputs.items()}
        made = {type(one).__name__: one for one in (model.eval(), *parts_of(preparers))}
        case["outputs"] = [auto for auto, of in classes.items() if of in made]
        for kind in case["outputs"]:
            expected |= keys_of(case, kind, results(made[classes[kind]], kind, case, given))
        for one in (model, *preparers):
            one.save_pretrained(root / name)
        write_code(root / name)
        listed.append(case)
    for name in ("speechlm-ctc", "whole"):
        case, (model, _, preparers) = next(case for case in listed if case["name"] == name), cases()[name]
        for one in (model, *preparers):
            push(one, root / f"pushed-{name}")
        kept = {auto: of for auto, of in case["classes"].items() if auto not in FOR_OTHERS}
        listed.append(case | {"folder": f"pushed-{name}", "classes": kept, "untrusted": False, "local": False})
    save_file(given, root / "given.safetensors")
    save_file(expected, root / "expected.safetensors")
    job = {"cases": listed, "checkout": str(ROOT), "threads": torch.get_num_threads(), "local": LOCAL}
    (root / "job.json").write_text(json.dumps(job | {"versions": two_versions(root)}))
    return root


@pytest.fixture(scope="module")
def failures(copies) -> list[str]:
    """What the reader found wrong, in a process and a folder where our package is not."""
    home = copies / "home"
    home.mkdir()
    named = ("HF_HUB_CACHE", "HF_MODULES_CACHE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": "1"}
    program = [sys.executable, str(shutil.copy(flat_reader.__file__, home)), str(copies)]
    done = subprocess.run(program, cwd=home, env=environment, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads((copies / "failures.json").read_text())


def test_every_flat_copy_loads_and_agrees_without_our_package(failures):
    """Each Auto class finds its class; what it gives is bit for bit ours, also saved by the copy and loaded again."""
    assert failures == []


def test_every_public_class_has_a_flat_copy():
    public = [vars(ours)[name] for name in ours.__all__]
    kinds = (PreTrainedModel, ProcessorMixin, FeatureExtractionMixin, ImageProcessingMixin, PreTrainedTokenizerBase)
    wanted = {one.__name__ for one in public if inspect.isclass(one) and issubclass(one, kinds)}
    saved = {type(model).__name__ for model, _, _ in cases().values()}
    saved |= {type(one).__name__ for _, _, preparers in cases().values() for one in parts_of(preparers)}
    assert saved == wanted


def test_auto_map_says_what_the_package_registers():
    """The table of flat.py and the registrations of modeling/__init__.py, both ways."""
    registered: dict[str, dict[str, str]] = {}
    for name, auto in vars(modeling_auto).items():
        mapping = getattr(auto, "_model_mapping", None) if name.startswith("Auto") else None
        for config, model in getattr(mapping, "_extra_content", {}).items():
            if model.__module__.startswith("unibrivl."):
                registered.setdefault(config.model_type, {})[name] = reference(model)
    for config in (one for one in vars(ours).values() if inspect.isclass(one) and issubclass(one, PreTrainedConfig)):
        registered[config.model_type]["AutoConfig"] = reference(config)
    assert registered == MODELS
    mappings = (FEATURE_EXTRACTOR_MAPPING, IMAGE_PROCESSOR_MAPPING, PROCESSOR_MAPPING, TOKENIZER_MAPPING)
    found = [one for mapping in mappings for one in mapping._extra_content.values()]
    found = [one for value in found for one in (value.values() if isinstance(value, dict) else [value])]
    names = {reference(one) for one in found if one is not None and one.__module__.startswith("unibrivl.")}
    assert names == {f"{stem}.{name}" for name, (_, stem) in PREPARERS.items()}
    for name, where in ALONE.items():
        assert where == reference(vars(ours)[name])


def reference(one: type) -> str:
    return f"{one.__module__.rpartition('.')[2]}.{one.__name__}"


# ---- what write_code writes -----------------------------------------------------------------------------------------


def test_the_code_is_a_copy_and_the_second_time_nothing_is_written(tmp_path):
    SpeechLMFeatureExtractor().save_pretrained(tmp_path)
    phones().save_pretrained(tmp_path)
    wrote = write_code(tmp_path)
    source = ROOT / "modeling"
    assert {path.name for path in wrote} == {
        *("preprocessor_config.json", "tokenizer_config.json", "clips_unibrivl.py", "code_unibrivl.py"),
        *("feature_extraction_speechlm.py", "tokenization_speechlm.py"),
    }
    for path in wrote:
        if path.suffix == ".py":
            assert path.read_bytes() == (source / path.name).read_bytes()
    assert write_code(tmp_path) == []
    (tmp_path / "clips_unibrivl.py").write_text("an older version")
    assert [path.name for path in write_code(tmp_path)] == ["clips_unibrivl.py"]
    assert not list(tmp_path.glob("*.partial"))


def test_weights_and_other_fields_are_not_touched(tmp_path):
    model, _, _ = cases()["mel"]
    model.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").stat()
    before = json.loads((tmp_path / "config.json").read_text())
    write_code(tmp_path)
    after = json.loads((tmp_path / "config.json").read_text())
    assert after.pop("auto_map") == MODELS["mel_encoder"]
    assert after == before
    assert (tmp_path / "model.safetensors").stat() == weights


def test_a_linked_configuration_is_replaced_and_its_original_stays(tmp_path):
    """A staging folder holds links to what the user has; only the staging folder may change."""
    SpeechLMConfig(**fields("speechlm")).save_pretrained(tmp_path / "mine")
    before = (tmp_path / "mine" / "config.json").read_bytes()
    for name, link in (("soft", os.symlink), ("hard", os.link)):
        (tmp_path / name).mkdir()
        link(tmp_path / "mine" / "config.json", tmp_path / name / "config.json")
        write_code(tmp_path / name)
        assert "auto_map" in json.loads((tmp_path / name / "config.json").read_text())
        assert (tmp_path / "mine" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"AutoModel": "modeling_brivl.BriVLModel"}, {}),  # ours, and wrong by now
        ({"AutoModel": "org/name--modeling_speechlm.SpeechLMModel"}, {}),  # ours, somewhere else
        ({"AutoModelForCTC": "modeling_speechlm.Gone"}, {}),
        ({"AutoBackbone": "my_backbone.Mine"}, {"AutoBackbone": "my_backbone.Mine"}),
    ],
)
def test_an_older_auto_map_is_brought_up_to_date(before, after, tmp_path):
    SpeechLMConfig(**fields("speechlm"), auto_map=before).save_pretrained(tmp_path)
    write_code(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == after | MODELS["speechlm"]
    assert write_code(tmp_path) == []


def test_code_of_others_is_not_replaced(tmp_path):
    SpeechLMConfig(**fields("speechlm"), auto_map={"AutoModel": "my_speech.Mine"}).save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="sends AutoModel to my_speech.Mine, which is not our code"):
        write_code(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_is_not_ours_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        write_code(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds nothing of ours"):
        write_code(tmp_path)
    CLIPConfig().save_pretrained(tmp_path)
    clip_pictures().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds nothing of ours: no config.json with a model_type of brivl"):
        write_code(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "preprocessor_config.json"]
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no JSON object"):
        write_code(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match="is no JSON"):
        write_code(tmp_path)


# ---- what push_to_hub leaves, and the package beside a flat copy ----------------------------------------------------


def test_a_push_carries_code_and_a_save_does_not(tmp_path):
    """And nothing of the push stays behind in the objects or their classes."""
    for number, (model, _, preparers) in enumerate(cases().values()):
        for one in (model, model.config, *preparers):
            push(one, tmp_path / f"pushed{number}" / type(one).__name__)
            one.save_pretrained(tmp_path / f"saved{number}" / type(one).__name__)
            ours_here = getattr(type(one), "_auto_class", None)
            assert ours_here is None, type(one)
    assert not list(tmp_path.glob("saved*/**/*.py"))
    for path in tmp_path.glob("saved*/**/*.json"):
        assert "auto_map" not in path.read_text(), path
    for path in tmp_path.glob("pushed*/*"):
        assert list(path.glob("*.py")), path


def test_a_push_that_fails_leaves_nothing_behind():
    def fail(self, repo_id):
        raise OSError("no network")

    model, _, _ = cases()["speechlm-ctc"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "push_to_hub", fail)
        with pytest.raises(OSError, match="no network"):
            model.push_to_hub("org/name")
    assert SpeechLMForCTC._auto_class is None
    assert SpeechLMConfig._auto_class is None
    assert not hasattr(model.config, "auto_map")


def test_registered_classes_save_their_code(tmp_path):
    """Who asks transformers for the code in every save keeps it, through pushes too."""
    model, _, _ = cases()["brivl.text"]
    try:
        BriVLTextModel.register_for_auto_class("AutoModel")
        push(model, tmp_path / "pushed")
        model.save_pretrained(tmp_path / "saved")
        assert (tmp_path / "saved" / "modeling_brivl.py").exists()
    finally:
        BriVLTextModel._auto_class = None
        vars(model.config).pop("auto_map", None)


def test_with_the_package_a_flat_copy_is_read_by_it_unasked(copies):
    for name in ("whole", "speechlm", "pushed-whole"):
        case = next(case for case in json.loads((copies / "job.json").read_text())["cases"] if case["folder"] == name)
        for kwargs in ({}, {"trust_remote_code": False}, *([{"trust_remote_code": True}] if OURS_WIN else [])):
            for kind, of in case["classes"].items():
                if kwargs.get("trust_remote_code") and kind == "AutoTokenizer":
                    continue  # transformers looks for the class of a tokenizer's model, and takes the repository's
                assert type(flat_reader.load(kind, str(copies / name), **kwargs)) is vars(ours)[of], (name, kind)
