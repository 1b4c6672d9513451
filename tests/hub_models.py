"""Programs of `tests/hub/test_hub_http.py`, each run in a process of its own: tiny models pushed, and fetched again.

`push` and `fetch` share a folder: what the models were, their weights and what they make of a sound or a picture, lies
there as safetensors, so that "the same" can mean bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_brivl
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_towers import AUDIO, unibrivl_config
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # 5.4 exports a substitute

import unibrivl
from unibrivl.modeling import (
    BriVLImageProcessor,
    BriVLModel,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    SpeechLMForCTC,
    SpeechLMPhoneTokenizer,
    UniBriVLModel,
    UniBriVLProcessor,
)

LEXICON = {"DOG": ["D", "AO1", "G"], "RAIN": ["R", "EY1", "N"]}
SPEECHLM = {name: value for name, value in AUDIO["speechlm"].items() if name != "model_type"}
WORDS = "dog rain dog"


def sound() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(6000)).astype(np.float32)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def build(seed: int) -> dict:
    """Name of the repository -> what is pushed there: a model, and what prepares its inputs."""
    torch.manual_seed(seed)
    crop = {"height": 32, "width": 32}
    processor = UniBriVLProcessor(
        feature_extractor=SpeechLMFeatureExtractor(),
        image_processor=transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop),
        unit_tokenizer=SpeechLMPhoneTokenizer(lexicon=LEXICON),
    )
    speechlm = SpeechLMForCTC(SpeechLMConfig(**SPEECHLM))
    return {
        "org/unibrivl": (UniBriVLModel(unibrivl_config()), processor),
        "org/speechlm": (speechlm, SpeechLMFeatureExtractor(), SpeechLMPhoneTokenizer(lexicon=LEXICON)),
        "org/brivl": (tiny_brivl.build(seed=seed), BriVLImageProcessor(image_size=96)),
    }


@torch.no_grad()
def outputs(name: str, model, *preparers) -> dict[str, torch.Tensor]:
    """What a model makes of the sound, the picture and the words, by way of its own preparation."""
    model.eval()
    if name == "org/unibrivl":
        embedder = unibrivl.load(model, *preparers)
        rows = [embedder.encode_audio(sound(), source_rate_hz=16000), embedder.encode_image(picture())]
        rows.append(embedder.encode_text(WORDS))
        return {row.kind: torch.from_numpy(row.vectors.copy()) for row in rows}
    if name == "org/speechlm":
        extractor, tokenizer = preparers
        inputs = extractor(sound(), sampling_rate=16000, return_tensors="pt")
        return {"logits": model(**inputs).logits, "units": torch.tensor(tokenizer(WORDS).input_ids)}
    pixels = preparers[0](picture(), return_tensors="pt")["pixel_values"]
    ids, mask = tiny_brivl.texts()
    made = model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    return {"pixels": pixels, "picture": made.image_embeds, "words": made.text_embeds}


def remember(folder: Path, name: str, seed: int, things: tuple) -> None:
    stem = f"{name.split('/')[1]}-{seed}"
    weights = {key: value.clone() for key, value in things[0].state_dict().items()}
    save_file(weights, folder / f"{stem}-weights.safetensors")
    made = {key: value.contiguous() for key, value in outputs(name, *things).items()}
    save_file(made, folder / f"{stem}-outputs.safetensors")


def same_weights(folder: Path, name: str, seed: int, model) -> bool:
    before = load_file(folder / f"{name.split('/')[1]}-{seed}-weights.safetensors")
    now = model.state_dict()
    return before.keys() == now.keys() and all(torch.equal(before[key], now[key]) for key in before)


def same_outputs(folder: Path, name: str, seed: int, *things) -> bool:
    before = load_file(folder / f"{name.split('/')[1]}-{seed}-outputs.safetensors")
    now = outputs(name, *things)
    return before.keys() == now.keys() and all(torch.equal(before[key], now[key]) for key in before)


def push(folder: str) -> dict[str, str]:
    """Two versions of every model; the first gets a tag and a branch, and its commits are given back."""
    from huggingface_hub import HfApi

    api, firsts = HfApi(), {}
    for seed in (1, 2):
        for name, things in build(seed).items():
            for thing in things:
                thing.push_to_hub(name, private=True)
            remember(Path(folder), name, seed, things)
            if seed == 1:
                firsts[name] = api.repo_info(name).sha
                api.create_tag(name, tag="v1")
                api.create_branch(name, branch="first")
    return firsts


def fetch(folder: str, firsts: dict[str, str], stranger: str) -> dict[str, object]:
    """Loads everything by its name on the Hub and says what is the same as what was pushed, and what was refused."""
    place, said = Path(folder), dict[str, object]()
    said["refused"] = refuse(None), refuse(stranger)  # first: what is in the cache is not asked for again
    auto = transformers.AutoModel, transformers.AutoProcessor
    for name, loaders in {
        "org/unibrivl": ((UniBriVLModel, UniBriVLProcessor), auto),
        "org/speechlm": (
            (SpeechLMForCTC, SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer),
            (transformers.AutoModelForCTC, transformers.AutoFeatureExtractor, transformers.AutoTokenizer),
        ),
        "org/brivl": ((BriVLModel, BriVLImageProcessor), (transformers.AutoModel, AutoImageProcessor)),
    }.items():
        for loader, classes in zip(("own", "auto"), loaders, strict=True):
            things = [patiently(cls, name) for cls in classes]
            said[f"{name} {loader} classes"] = [type(thing).__module__.split(".")[0] for thing in things]
            said[f"{name} {loader} weights"] = same_weights(place, name, 2, things[0])
            said[f"{name} {loader} outputs"] = same_outputs(place, name, 2, *things)
        for revision in ("v1", "first", firsts[name]):
            old = loaders[0][0].from_pretrained(name, revision=revision)
            said[f"{name} {revision[:7]}"] = same_weights(place, name, 1, old)

    embedder = unibrivl.load("org/unibrivl")
    vectors = embedder.encode_audio(sound(), source_rate_hz=16000).vectors
    before = load_file(place / "unibrivl-2-outputs.safetensors")
    said["load"] = any(np.array_equal(vectors, value.numpy()) for value in before.values())
    first = unibrivl.load("org/unibrivl", revision="v1")
    said["load of another revision differs"] = first.fingerprint != embedder.fingerprint
    return said


def patiently(cls, name: str):
    """from_pretrained, once more where it fails: older clients leave it to the user to go on with a download."""
    try:
        return cls.from_pretrained(name)
    except OSError:
        return cls.from_pretrained(name)


def refuse(token: str | None) -> dict[str, str]:
    """How a private repository is refused to those who have no token, or another's."""
    said = {}
    for name, call in {
        "model": lambda: UniBriVLModel.from_pretrained("org/unibrivl", token=token or False),
        "auto": lambda: transformers.AutoModel.from_pretrained("org/unibrivl", token=token or False),
        "processor": lambda: transformers.AutoProcessor.from_pretrained("org/unibrivl", token=token or False),
        "load": lambda: unibrivl.load("org/unibrivl", token=token or False),
    }.items():
        try:
            call()
            said[name] = "loaded"
        except (OSError, ValueError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said
