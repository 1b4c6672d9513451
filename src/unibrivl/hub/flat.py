"""Flat copies: the code of a saved model, processor or tokenizer of ours beside it, for machines without this package.

`write_code(folder)` copies files of `modeling/` as they are, and writes under `auto_map` in the folder's JSON files
which class each Auto class finds in them. Loading then asks for `trust_remote_code=True` where this package is not
installed; where it is, its own classes are taken and nobody is asked.

`auto_map` names more here than after `model.push_to_hub`: every class that reads the model_type, for fine-tuning too.
The files are copied, never imported, so this needs no torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from unibrivl.hub.flat_pipeline import INDEX, write_pipeline_code

# model_type -> what its Auto classes read it as: modeling/__init__.py registers the same
MODELS: dict[str, dict[str, str]] = {
    "brivl": {"AutoConfig": "configuration_brivl.BriVLConfig", "AutoModel": "modeling_brivl.BriVLModel"},
    "brivl_text": {
        "AutoConfig": "configuration_brivl.BriVLTextConfig",
        "AutoModel": "modeling_brivl.BriVLTextModel",
    },
    "brivl_vision": {
        "AutoConfig": "configuration_brivl.BriVLVisionConfig",
        "AutoModel": "modeling_brivl.BriVLVisionModel",
    },
    "cavmae": {
        "AutoConfig": "configuration_cavmae.CAVMAEConfig",
        "AutoModel": "modeling_cavmae.CAVMAEModel",
        "AutoModelForAudioClassification": "modeling_cavmae_heads.CAVMAEForAudioVisualClassification",
        "AutoModelForPreTraining": "modeling_cavmae_pretraining.CAVMAEForPreTraining",
    },
    "cavmae_audio": {
        "AutoConfig": "configuration_cavmae.CAVMAEAudioConfig",
        "AutoModel": "modeling_cavmae.CAVMAEAudioModel",
        "AutoModelForAudioClassification": "modeling_cavmae_heads.CAVMAEForAudioClassification",
    },
    "cavmae_image": {
        "AutoConfig": "configuration_cavmae.CAVMAEImageConfig",
        "AutoModel": "modeling_cavmae.CAVMAEImageModel",
    },
    "brewclip": {
        "AutoConfig": "configuration_brewclip.BrewCLIPConfig",
        "AutoModel": "modeling_brewclip.BrewCLIPModel",
        "AutoModelForAudioClassification": "modeling_brewclip_heads.BrewCLIPForSpeechClassification",
    },
    "cavtmae": {"AutoConfig": "configuration_cavtmae.CAVTMAEConfig", "AutoModel": "modeling_cavtmae.CAVTMAEModel"},
    "mel_encoder": {
        "AutoConfig": "configuration_mel_encoder.MelEncoderConfig",
        "AutoModel": "modeling_mel_encoder.MelEncoderModel",
    },
    "speechlm": {
        "AutoConfig": "configuration_speechlm.SpeechLMConfig",
        "AutoModel": "modeling_speechlm.SpeechLMModel",
        "AutoModelForCTC": "modeling_speechlm.SpeechLMForCTC",
        "AutoModelForPreTraining": "modeling_speechlm_pretraining.SpeechLMForPreTraining",
    },
    "unibrivl": {
        "AutoConfig": "configuration_unibrivl.UniBriVLConfig",
        "AutoModel": "modeling_unibrivl.UniBriVLModel",
        "AutoModelForAudioClassification": "modeling_unibrivl_heads.UniBriVLForAudioClassification",
    },
    "audio_token_adapter": {
        "AutoConfig": "configuration_audio_token.AudioTokenAdapterConfig",
        "AutoModel": "modeling_audio_token.AudioTokenAdapter",
    },
}
# architectures that no Auto class is for: in a folder that one of them saved, AutoModel means it
ALONE = {
    "UniBriVLAudioModel": "modeling_unibrivl.UniBriVLAudioModel",
    "UniBriVLForAudioCaptioning": "modeling_unibrivl_captioning.UniBriVLForAudioCaptioning",
}
# class of what prepares inputs -> its Auto class and its file
PREPARERS = {
    "BrewCLIPProcessor": ("AutoProcessor", "processing_brewclip"),
    "BriVLImageProcessor": ("AutoImageProcessor", "image_processing_brivl"),
    "CAVMAEFeatureExtractor": ("AutoFeatureExtractor", "feature_extraction_cavmae"),
    "CAVMAEImageProcessor": ("AutoImageProcessor", "image_processing_cavmae"),
    "MelEncoderFeatureExtractor": ("AutoFeatureExtractor", "feature_extraction_mel_encoder"),
    "SpeechLMFeatureExtractor": ("AutoFeatureExtractor", "feature_extraction_speechlm"),
    "SpeechLMPhoneTokenizer": ("AutoTokenizer", "tokenization_speechlm"),
    "UniBriVLProcessor": ("AutoProcessor", "processing_unibrivl"),
}
# the fields that name such a class; a processor's file says besides what its tokenizers' processor is
CLASS_FIELDS = ("feature_extractor_type", "image_processor_type", "tokenizer_class")
PREPARER_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def write_code(folder: str | os.PathLike[str]) -> list[Path]:
    """Makes what was saved in a folder loadable without this package; a second time there is nothing left to do.

    Args:
        folder: what `save_pretrained` of a model, processor, feature extractor, image processor or tokenizer of ours
            wrote, or of several of them, or of a pipeline. Weights are not touched.

    Returns:
        The files it wrote, each whole or not at all; those that were as they should be are not among them.

    `auto_map` entries for other people's code stay, unless they stand where ours must: then it is an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: pass the one that save_pretrained wrote")
    if (folder / INDEX).is_file():
        return write_pipeline_code(folder)
    source = _code_folder()
    texts: dict[Path, bytes] = {}
    needed: set[str] = set()
    for path in _json_files(folder):
        fields = read_fields(path)
        references = _map_classes(fields, path, source)
        if references:
            needed |= references
            texts[path] = (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
    if not needed:
        raise ValueError(
            f"{folder} holds nothing of ours: no config.json with a model_type of {', '.join(MODELS)}, and no file of "
            f"{', '.join(PREPARERS)}. Pass the folder that save_pretrained wrote"
        )
    for file in with_imports(source / f"{reference.split('.')[0]}.py" for reference in needed):
        texts[folder / file.name] = file.read_bytes()
    return write_changed(texts)


def write_changed(texts: dict[Path, bytes]) -> list[Path]:
    """Writes the files that do not say so already, and returns them."""
    changed = [path for path, text in texts.items() if not path.is_file() or not _says(path, text)]
    # code before the configurations that send loaders to it: a run cut short leaves nothing that names what is absent
    changed.sort(key=lambda path: (path.suffix == ".json", path))
    for path in changed:
        _replace(path, texts[path])
    return changed


def _code_folder() -> Path:
    """Where `modeling/` is installed, found without importing it."""
    spec = importlib.util.find_spec("unibrivl.modeling")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _json_files(folder: Path) -> list[Path]:
    """The files that may name classes: also of tokenizers in a folder of their own, where a processor puts them."""
    names = ("config.json", *PREPARER_FILES)
    found = [folder / name for name in names] + sorted(folder.glob("*/tokenizer_config.json"))
    return [path for path in found if path.is_file()]


def read_fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): remove it or save again") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds no JSON object, so transformers did not write it: remove it or save again")
    return fields


def _map_classes(fields: dict[str, Any], path: Path, source: Path) -> set[str]:
    """Writes `auto_map` into the fields of one file for the classes of ours they name, and returns the references."""
    if path.name == "config.json":
        found = _model_map(fields)
    else:
        named = fields.get("processor_class") if path.name == "processor_config.json" else None
        named = named or next((fields[name] for name in CLASS_FIELDS if fields.get(name) in PREPARERS), None)
        found = {}
        if named in PREPARERS:
            auto_class, stem = PREPARERS[named]
            found[auto_class] = f"{stem}.{named}"
    references = set(found.values())
    if found:
        fields["auto_map"] = _joined(fields.get("auto_map"), found, path, source)
    for part in fields.values() if path.name == "processor_config.json" else ():
        if isinstance(part, dict) and any(part.get(name) in PREPARERS for name in CLASS_FIELDS):
            references |= _map_classes(part, path.with_name("preprocessor_config.json"), source)
    return references


def _model_map(fields: dict[str, Any]) -> dict[str, str]:
    found = dict(MODELS.get(fields.get("model_type", ""), {}))
    for architecture in fields.get("architectures") or ():
        if found and architecture in ALONE:
            found["AutoModel"] = ALONE[architecture]
    return found


def _joined(before: Any, ours: dict[str, str], path: Path, source: Path) -> dict[str, Any]:
    """An older `auto_map` with ours in it: what named files of ours goes, what is of others stays."""
    before = {"AutoTokenizer": before} if isinstance(before, (list, tuple)) else before or {}
    kept = {name: reference for name, reference in before.items() if not _is_ours(reference, source)}
    taken = sorted(kept.keys() & ours.keys())
    if taken:
        raise ValueError(
            f"{path}: auto_map sends {taken[0]} to {kept[taken[0]]}, which is not our code. If it may go, remove that "
            "line; if the class is yours, its code is yours to publish (register_for_auto_class)"
        )
    # a tokenizer's entry is a pair: written in Python, written in Rust
    written = {name: [it, None] if name == "AutoTokenizer" else it for name, it in ours.items()}
    return kept | written


def _is_ours(reference: Any, source: Path) -> bool:
    names = [name for name in (reference if isinstance(reference, (list, tuple)) else [reference]) if name]
    return all((source / f"{str(name).rpartition('--')[2].split('.')[0]}.py").is_file() for name in names)


def with_imports(files: Any) -> set[Path]:
    """The files and all they import of ours, as transformers and diffusers will look for them."""
    from transformers.dynamic_module_utils import get_relative_import_files

    return {Path(needed) for file in files for needed in (file, *get_relative_import_files(file))}


def _says(path: Path, text: bytes) -> bool:
    """Whether a file says that already: a configuration may be written in another style."""
    held = path.read_bytes()
    return held == text or (path.suffix == ".json" and json.loads(held) == json.loads(text))


def _replace(path: Path, text: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


__all__ = ["write_code"]
