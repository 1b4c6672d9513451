"""What a saved model says about itself: read from its small files and the headers of its weights, never from tensors.

Nothing here is guessed. What no file states is `UNKNOWN`, or absent. The facts of a folder are one dictionary; model
cards and `unibrivl info` both show it, so that they cannot differ.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unibrivl.hub.records import (
    LICENCES,
    UNKNOWN,
    RecordError,
    read_conversion,
    read_json,
    read_results,
    read_training,
)

OURS = (
    "audio_token_adapter", "brewclip", "speechlm", "brivl", "brivl_vision", "brivl_text", "cavmae", "cavmae_audio",
    "cavmae_image", "cavtmae", "mel_encoder", "unibrivl",
)  # fmt: skip
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
BITS = re.compile(r"\d+")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

# The files that `facts_of` reads beside the weights; of a model on the Hub only these are fetched.
SMALL_FILES = (
    "config.json", "README.md", "training.json", "results.json", "conversion.json", "preprocessor_config.json",
    "processor_config.json", "tokenizer_config.json", "model.safetensors.index.json",
)  # fmt: skip

IMAGE_AND_TEXT = (
    ("image tower", ("vision_config",), ("vision_model.", "visual_projection.")),
    ("text tower", ("text_config",), ("text_model.", "text_projection.")),
)
SPEECHLM = (
    ("convolutional front end", (), ("feature_extractor.", "feature_projection.")),
    ("speech transformer", (), ("encoder.", "masked_spec_embed")),
    ("shared transformer", (), ("shared_encoder.",)),
    ("unit table", (), ("unit_embeddings.",)),
)
CAVMAE = (
    ("audio layers", (), ("audio_embeddings.", "audio_layers.")),
    ("image layers", (), ("image_embeddings.", "image_layers.")),
    ("joint layers", (), ("joint_layers.", "audio_norm.", "image_norm.", "joint_norm.")),
    ("decoder", (), ("decoder.",)),
)
# model_type -> how the names of its trunk begin in a model with heads
UNDER_HEAD = {"speechlm": "speechlm.", "cavmae": "cavmae.", "cavmae_audio": "cavmae.", "cavmae_image": "cavmae.",
              "brewclip": "brewclip."}  # fmt: skip
# model_type -> its parts: name, where in the configuration it stands, how the names of its tensors begin
PARTS: dict[str, tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = {
    "unibrivl": (
        ("audio tower", ("audio_config",), ("audio_model.tower.", "tower.")),
        ("audio head", (), ("audio_model.", "attention_pool.", "frame_projection.", "layer_mix.", "projection.")),
        ("image tower", ("vision_config",), ("vision_model.",)),
        ("text tower", ("text_config",), ("text_model.",)),
        ("language model", ("decoder_config",), ("decoder.",)),
        ("projections", (), ("audio_to_native.", "image_to_shared.")),
    ),
    "speechlm": SPEECHLM,
    "cavmae": CAVMAE,
    "cavmae_audio": CAVMAE,
    "cavmae_image": CAVMAE,
    "cavtmae": (
        ("audio tower", ("audio_config",), ("audio_model.",)),
        ("image tower", ("vision_config",), ("vision_model.",)),
        ("text tower", ("text_config",), ("text_model.",)),
        ("projections", (), ("audio_projection.", "image_projection.", "text_projection.")),
    ),
    "brewclip": (
        ("audio tower", ("audio_config",), ("audio_model.",)),
        ("image tower", ("vision_config",), ("vision_model.",)),
        ("text tower", ("text_config",), ("text_model.",)),
        ("end-to-end channel", (), ("e2e.", "layer_mix.")),
        ("keywords", (), ("keywords.",)),
        ("prompts and fusion", (), ("shared_prompts.", "vision_prompts.", "fusion.", "temperature")),
    ),
    "mel_encoder": (("backbone", ("backbone_config",), ("backbone.",)),),
    "brivl": IMAGE_AND_TEXT,
    **dict.fromkeys(("clip", "siglip", "siglip2", "altclip", "align"), IMAGE_AND_TEXT),
    "pe_audio_video": (
        ("audio tower", ("audio_video_config", "audio_config"), ("audio_model.audio_encoder.",)),
        ("video tower", ("audio_video_config", "video_config"), ("video_model.video_encoder.",)),
        ("text tower", ("text_config",), ("text_model.", "audio_model.text_model.", "video_model.text_model.")),
        ("audio-video tower", ("audio_video_config",), ("audio_video_encoder.",)),
    ),
}
REST = "heads and joints"

# classes whose vectors of several kinds can be compared -> the kinds that need no part beside the model to be known
JOINT = {
    **{"UniBriVLModel": (), "CAVMAEModel": (), "CAVTMAEModel": (), "BrewCLIPModel": ()},
    **{"PeAudioVideoModel": ("audio", "image", "text"), "ClapModel": ("audio", "text")},
}
KIND_OF_PART = {
    "feature_extractor": "audio",
    "image_processor": "image",
    "tokenizer": "text",
    "unit_tokenizer": "text",
}


@dataclass(frozen=True)
class Header:
    """One tensor of a safetensors file, as its header describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        bits = BITS.search(self.dtype)
        return self.parameters * (int(bits[0]) if bits else 8) // 8


@dataclass(frozen=True)
class SavedModel:
    """A model on disk or on the Hub: a folder with its small files, and the headers of its tensors.

    Args:
        name: what it was asked for as.
        folder: where its small files lie; of a model on the Hub a folder of the cache.
        headers: every tensor by its name.
        revision (*optional*): the commit, of a model on the Hub.
    """

    name: str
    folder: Path
    headers: dict[str, Header] = field(repr=False)
    revision: str | None = None


def open_saved(folder: str | os.PathLike) -> SavedModel:
    """A folder as `save_pretrained` writes it; an error that says what is missing if it is none."""
    folder = Path(folder)
    check_folder(folder)
    return SavedModel(folder.resolve().name, folder, local_headers(folder))


def check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one that save_pretrained wrote, or a model as org/name")
    if (folder / "config.json").is_file():
        return
    if (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is a whole pipeline: name the folder of one of its models{_listed(folder)}")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds an adapter and no model: merge it into its base model and save that")
    raise ValueError(f"{folder} has no config.json, so it is no saved model: save one there{_listed(folder)}")


def _listed(folder: Path) -> str:
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f". It holds the models {', '.join(inside[:8])}" if inside else ""


def local_headers(folder: Path) -> dict[str, Header]:
    """The headers of all safetensors files of a model; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    headers: dict[str, Header] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                    view = file.get_slice(name)
                    headers[name] = Header(view.get_dtype(), tuple(view.get_shape()))
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): copy or download it again") from error
    return headers


def weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = sorted(set(read_json(index).get("weight_map", {}).values()))
        absent = [name for name in wanted if not (folder / name).is_file()]
        if absent or not wanted:
            raise ValueError(f"{folder} lacks {', '.join(absent) or 'weights'}, which its index names: fetch it again")
        return [folder / name for name in wanted]
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):  # of transformers, of diffusers
        if (folder / name).is_file():
            return [folder / name]
    pickles = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind))
    if pickles:
        raise ValueError(
            f"{folder} holds {', '.join(pickles)} and no safetensors: such files can run code and are not opened. "
            "Load the model where you trust it and save it again"
        )
    raise ValueError(f"{folder} has a config.json and no weights (model.safetensors): save the model there")


def fetch_saved(name: str, revision: str | None = None, token: str | None = None) -> SavedModel:
    """A model on the Hub: its small files and the headers of its weights, a few kilobytes; if offline, the cache's."""
    from huggingface_hub import get_safetensors_metadata, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, NotASafetensorsRepoError

    try:
        folder = Path(snapshot_download(name, revision=revision, token=token, allow_patterns=list(SMALL_FILES)))
    except HFValidationError as error:
        raise ValueError(f"{name!r} is neither a folder nor the name of a model (org/name): check it") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{name} is no folder here and not in the cache, and the Hub cannot be reached: check it, or go online"
        ) from error
    except OSError as error:  # all that the Hub may answer
        raise ValueError(refusal(name, revision, error)) from error
    check_folder(folder)
    if all((folder / file).exists() for file in _named_weights(folder)):
        headers = local_headers(folder)
    else:
        try:
            found = get_safetensors_metadata(name, revision=folder.name, token=token)
        except NotASafetensorsRepoError as error:
            raise ValueError(  # the lowest version of the client says so too where the token is missing
                f"{name} shows no safetensors: convert what it holds or, if it is private or gated, log in (HF_TOKEN)"
            ) from error
        except OSError as error:
            raise ValueError(refusal(name, revision, error)) from error
        headers = {
            tensor: Header(str(about.dtype), tuple(about.shape))
            for file in found.files_metadata.values()
            for tensor, about in file.tensors.items()
        }
    return SavedModel(name, folder, headers, folder.name)


def _named_weights(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    return sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]


def refusal(name: str, revision: str | None, error: Exception) -> str:
    """One line for what the Hub answers instead of a model."""
    kind = type(error).__name__
    if kind == "RevisionNotFoundError":
        return f"{name} has no revision {revision!r}: name a branch, a tag or a commit"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind in ("RepositoryNotFoundError", "GatedRepoError") or status in (401, 403):
        return (
            f"{name} is not on the Hub, or is private or gated: check the name, or log in (`hf auth login`, HF_TOKEN) "
            "with an account that may read it"
        )
    first = (str(error).strip().splitlines() or [kind])[0]
    return f"{name} could not be fetched ({kind}: {first}): try again, or download it and name the folder"


def facts_of(saved: SavedModel) -> dict[str, Any]:
    """Everything that the files of a saved model state.

    Keys: name, revision, class, library, model_type, format_version, auto_map, parts (name, model_type, parameters,
    bytes, dtypes, weights), parameters, bytes, licences (code, weights, data), sampling_rate, image_size, prepares,
    embeds, width, training, conversion, results. What is absent is None or empty.

    Parameters are counted as the Hub counts them: every number in the safetensors files.
    """
    folder = saved.folder
    config = read_json(folder / "config.json")
    training, conversion = read_training(folder), read_conversion(folder)
    classes = [*_items(config.get("architectures")), config.get("_class_name")]  # diffusers has the one name
    named = next((name for name in classes if isinstance(name, str)), None)
    prepares = prepared(folder)
    sizes = list(saved.headers.values())
    parts = parts_of(config, saved.headers, training)
    sees = config.get("model_type") != "unibrivl" or any(part["name"] == "image tower" for part in parts)
    return {
        "name": saved.name,
        "revision": saved.revision,
        "class": named,
        "library": "diffusers" if "_diffusers_version" in config else "transformers",
        "model_type": config.get("model_type"),
        "format_version": config.get("format_version"),
        "auto_map": _object(config.get("auto_map")),
        "parts": parts,
        "parameters": sum(header.parameters for header in sizes),
        "bytes": sum(header.bytes for header in sizes),
        "licences": licences_of(folder, config, training),
        "sampling_rate": sampling_rate(folder, config),
        "image_size": image_size(folder, config) if sees else None,  # heads for sound keep the configuration
        "prepares": prepares,
        "embeds": embedded_kinds(config, named, prepares),
        "width": joint_width(config, named, saved.headers),
        "training": training,
        "conversion": conversion,
        "results": read_results(folder),
    }


def parts_of(config: Mapping, headers: Mapping[str, Header], training: Mapping | None = None) -> list[dict[str, Any]]:
    """The towers and what joins them, each with its size; every tensor is in exactly one."""
    rows = PARTS.get(config.get("model_type", ""))
    if rows is None:
        rows = tuple((f"{key.removesuffix('_config')} part", (key,), _beginnings(key)) for key in _inner(config))
    under_head = UNDER_HEAD.get(config.get("model_type", ""), "")
    members: dict[str, list[Header]] = {name: [] for name, _, _ in rows}
    rest: list[Header] = []
    for tensor, header in headers.items():
        bare = tensor.removeprefix(under_head)
        owner = next((name for name, _, begins in rows if bare.startswith(begins)), None)
        (rest if owner is None else members[owner]).append(header)
    found = []
    for name, path, _ in rows:
        if members[name]:
            inner: Any = config
            for key in path:
                inner = _object(inner).get(key)
            found.append(_part(name, _object(inner) if path else {}, members[name], training))
    if rest:
        found.append(_part(REST, {}, rest, training) if found else _part("model", config, rest, training))
    return found


def _part(name: str, config: Mapping, headers: Iterable[Header], training: Mapping | None) -> dict[str, Any]:
    headers = list(headers)
    stated = ((training or {}).get("towers") or {}).get(name.split()[0])
    if stated is None:
        recorded = str(config.get("_name_or_path") or "")
        # a folder on somebody's machine says nothing to others; a name is what from_pretrained was once given
        stated = {"recorded": recorded} if HUB_NAME.fullmatch(recorded) else {}
    return {
        "name": name,
        "model_type": config.get("model_type"),
        "parameters": sum(header.parameters for header in headers),
        "bytes": sum(header.bytes for header in headers),
        "dtypes": sorted({DTYPES.get(header.dtype, header.dtype) for header in headers}),
        "weights": stated,
    }


def _object(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list:
    return value if isinstance(value, list) else []


def _inner(config: Mapping) -> list[str]:
    return [key for key, value in config.items()
            if key.endswith("_config") and isinstance(value, dict) and value.get("model_type")]  # fmt: skip


def _beginnings(key: str) -> tuple[str, ...]:
    """How the tensors of a part of an unknown composite may begin: `vision_config` -> vision_model., visual., ..."""
    stem = key.removesuffix("_config")
    stems = ("vision", "visual", "image") if stem == "vision" else (stem,)
    return tuple(f"{before}{name}{after}" for before in ("", "model.") for name in stems for after in ("_", "."))


def licences_of(folder: Path, config: Mapping, training: Mapping | None) -> dict[str, str]:
    """Licence of the code, of the weights and of the data they were trained on; each from a file, or unknown."""
    found = dict.fromkeys(LICENCES, UNKNOWN)
    if config.get("model_type") in OURS or not config.get("auto_map"):
        found["code"] = "apache-2.0"  # this package's and transformers' alike
    found |= front_matter_licences(folder / "README.md")
    return found | {key: value for key, value in ((training or {}).get("licences") or {}).items() if value}


def front_matter_licences(path: Path) -> dict[str, str]:
    """The licences at the head of a model card: our three, or the one of the weights that every card may have."""
    if not path.is_file():
        return {}
    from huggingface_hub import ModelCard

    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return {}
    try:
        data = ModelCard(text, ignore_metadata_errors=True).data
    except Exception as error:  # a hand-written head may be broken in many ways, in YAML's own classes of errors
        raise RecordError(f"{path}: its head is not readable YAML ({type(error).__name__}): mend it") from error
    found = {"weights": data.license} if isinstance(data.license, str) else {}
    if found.get("weights") == "other" and isinstance(data.license_name, str):
        found["weights"] = data.license_name
    three = data.get("licences")
    if isinstance(three, dict):
        found |= {key: str(value) for key, value in three.items() if key in LICENCES}
    return found


def prepared(folder: Path) -> list[str]:
    """The parts that prepare input and lie beside the model: feature_extractor, image_processor, tokenizer, ..."""
    processor = read_json(folder / "processor_config.json", missing={})
    found = list(
        _items(processor.get("parts")) or [key for key in KIND_OF_PART if isinstance(processor.get(key), dict)]
    )
    single = read_json(folder / "preprocessor_config.json", missing={})
    for part in ("feature_extractor", "image_processor"):
        if part not in found and f"{part}_type" in single:
            found.append(part)
    if "tokenizer" not in found and (folder / "tokenizer_config.json").is_file():
        found.append("tokenizer")
    return found


def _part_settings(folder: Path, part: str) -> dict:
    single = read_json(folder / "preprocessor_config.json", missing={})
    inner = read_json(folder / "processor_config.json", missing={}).get(part)
    return inner if isinstance(inner, dict) else single


def sampling_rate(folder: Path, config: Mapping) -> int | None:
    """In Hz; the feature extractor decides, else the configuration."""
    stated = _part_settings(folder, "feature_extractor").get("sampling_rate")
    return stated or config.get("sampling_rate") or _object(config.get("audio_config")).get("sampling_rate")


def image_size(folder: Path, config: Mapping) -> list[int] | None:
    """Height and width in pixels of what the image tower is shown."""
    settings = _part_settings(folder, "image_processor")
    for size in (settings.get("crop_size"), settings.get("size"), config.get("image_size"),
                 _object(config.get("vision_config")).get("image_size")):  # fmt: skip
        if isinstance(size, int):
            return [size, size]
        if isinstance(size, dict) and isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
            return [size["height"], size["width"]]
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return list(size)
    return None


def embedded_kinds(config: Mapping, named: str | None, prepares: Iterable[str]) -> list[str]:
    """Which of audio, image and text the model puts into one space, with the parts that lie beside it."""
    if named in JOINT:
        kinds = JOINT[named] or {KIND_OF_PART[part] for part in prepares if part in KIND_OF_PART}
    elif config.get("model_type") in ("clip", "siglip", "siglip2", "altclip", "align"):
        kinds = ("image", "text") if str(named).endswith("Model") and "With" not in str(named) else ()
    else:
        kinds = ()
    return [kind for kind in ("audio", "image", "text") if kind in kinds]


def joint_width(config: Mapping, named: str | None, headers: Mapping[str, Header]) -> int | None:
    """Numbers of a vector that the default embedder gives; None where files do not tell."""
    if named == "UniBriVLModel":
        widths = config.get("embed_dim"), config.get("image_embed_dim")
        known = [width for width in widths if isinstance(width, int)]
        return sum(known) if len(known) == len(widths) else None
    if named == "CAVTMAEModel":
        width = config.get("projection_dim") or _object(config.get("audio_config")).get("hidden_size")
        return width if isinstance(width, int) else None
    if named == "BrewCLIPModel":
        width = _object(config.get("text_config")).get("projection_dim")
        return width if isinstance(width, int) else None
    if named == "PeAudioVideoModel":
        head = headers.get("audio_model.audio_head.proj.weight")
        return None if head is None else head.shape[0]
    for tensor in ("visual_projection.weight", "text_projection.weight"):
        if tensor in headers and config.get("model_type") in ("clip", "altclip"):
            return headers[tensor].shape[0]
    return None
