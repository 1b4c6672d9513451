"""The code example of a model card: what a reader can paste and run, for the class and the parts that are there.

An example uses only what was saved beside the model, so it runs as it stands wherever the model can be loaded, with a
sound `dog.wav` and a picture `dog.jpg` at hand. The tests run every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unibrivl.hub.facts import OURS


def example(facts: Mapping[str, Any], source: str) -> str:
    """Python that loads the model from `source`, a name or folder, and uses it.

    Args:
        facts: of `facts_of`: class, model_type, embeds and prepares decide.
    """
    named, prepares = facts.get("class"), facts.get("prepares") or []
    if facts.get("adapter_of"):
        return _adapted(str(named), facts["adapter_of"], source)
    if facts.get("embeds") and named not in EXAMPLES:
        return _joined(facts["embeds"], source)
    write = EXAMPLES.get(str(named))
    lines = write(str(named), source, prepares) if write else None
    return "\n".join(lines or _loaded(facts, source))


def _adapted(named: str, base: str, source: str) -> str:
    """An adapter, into its base."""
    return "\n".join(
        [
            f"from unibrivl.modeling import {named}",
            "from unibrivl.training.adapters import load_adapter",
            "",
            f'model = load_adapter({named}.from_pretrained("{base}"), "{source}")',
        ]
    )


def without_package(facts: Mapping[str, Any], source: str) -> str | None:
    """The same model where this package is not installed; None if its code does not lie beside it."""
    autos = {name: str(found) for name, found in (facts.get("auto_map") or {}).items() if name.startswith("AutoModel")}
    if not autos:
        return None
    named = f".{facts.get('class')}"
    auto = next((name for name, found in autos.items() if found.endswith(named)), next(iter(autos)))
    load = f'model = {auto}.from_pretrained("{source}", trust_remote_code=True)'
    return "\n".join([f"from transformers import {auto}", "", load])


def from_preset(facts: Mapping[str, Any]) -> str:
    """The shape of a preset with random weights: it runs without any file.

    `facts["build"]` names the configuration's class, and the preset by its table and key; with a "field" the preset is
    that part of a composite.
    """
    named, build = facts["class"], facts["build"]
    inside, names = "", [build["config"], named]
    if "preset" in build:
        names.append(build["presets"])
        fields = f'{build["presets"]}["{build["preset"]}"]'
        inside = f"{build['field']}={fields}" if "field" in build else f"**{fields}"
    return "\n".join(
        [
            f"from unibrivl.modeling import {', '.join(sorted(names))}",
            "",
            f"model = {named}({build['config']}({inside}))  # random weights",
            "print(model.num_parameters())",
        ]
    )


def _joined(kinds: list[str], source: str) -> str:
    lines = ["import unibrivl", "", f'embedder = unibrivl.load("{source}")']
    made = {
        "audio": 'sounds = embedder.encode_audio(["dog.wav"])',
        "image": 'pictures = embedder.encode_image(["dog.jpg"])',
        "text": 'texts = embedder.encode_text(["a dog barks", "rain"])',
    }
    names = {"audio": "sounds", "image": "pictures", "text": "texts"}
    lines += [made[kind] for kind in kinds]
    first, *others = (names[kind] for kind in kinds)
    lines += [f"print(embedder.similarity({first}, {other}))  # cosines" for other in others] or [f"print({first})"]
    return "\n".join(lines)


def _loaded(facts: Mapping[str, Any], source: str) -> list[str]:
    ours = facts.get("model_type") in OURS and facts.get("class")
    package, named = ("unibrivl.modeling", facts["class"]) if ours else ("transformers", "AutoModel")
    if facts.get("library") == "diffusers":  # whose automatic class is for a few models only
        package, named = "diffusers", facts["class"]
    return [
        f"from {package} import {named}", "", f'model = {named}.from_pretrained("{source}")',
        "print(model.num_parameters())",
    ]  # fmt: skip


def _heard(named: str, source: str, prepares: list[str], last: list[str]) -> list[str] | None:
    """Sound in through the feature extractor, which every part of the package takes as `load_audio` makes it."""
    if "feature_extractor" not in prepares:
        return None
    family = next(name for name in ("MelEncoder", "CAVMAE", "") if named.startswith(name)) or "SpeechLM"
    extractor = f"{family}FeatureExtractor"
    return [
        "import torch",
        "from unibrivl import load_audio",
        f"from unibrivl.modeling import {', '.join(sorted((extractor, named)))}",
        "",
        f'model = {named}.from_pretrained("{source}")',
        f'extractor = {extractor}.from_pretrained("{source}")',
        'sound = load_audio("dog.wav", rate_hz=extractor.sampling_rate)',
        "with torch.no_grad():",
        '    output = model(**extractor([sound], return_tensors="pt"))',
        *last,
    ]


def _frames(named: str, source: str, prepares: list[str]) -> list[str] | None:
    return _heard(named, source, prepares, ["print(output.last_hidden_state.shape)  # (1 sound, frames, width)"])


def _trunk(named: str, source: str, prepares: list[str]) -> list[str] | None:
    """Of a pre-training class the model without its heads, which want labels."""
    return _frames(named.removesuffix("ForPreTraining") + "Model", source, prepares)


def _class(named: str, source: str, prepares: list[str]) -> list[str] | None:
    return _heard(named, source, prepares, ["print(model.config.id2label[int(output.logits.argmax())])"])


def _letters(named: str, source: str, prepares: list[str]) -> list[str] | None:
    return _heard(named, source, prepares, ["print(output.logits.argmax(-1))  # a letter's number for each frame"])


def _processed(
    named: str, source: str, prepares: list[str], last: list[str], processor: str = "UniBriVLProcessor"
) -> list[str] | None:
    if "feature_extractor" not in prepares:
        return None
    return [
        "import torch",
        "from unibrivl import load_audio",
        f"from unibrivl.modeling import {named}, {processor}",
        "",
        f'model = {named}.from_pretrained("{source}")',
        f'processor = {processor}.from_pretrained("{source}")',
        'sound = load_audio("dog.wav", rate_hz=processor.feature_extractor.sampling_rate)',
        "with torch.no_grad():",
        *last,
    ]


def _features(named: str, source: str, prepares: list[str]) -> list[str] | None:
    last = ["    features = model(**processor(sound)).features", "print(features.shape)  # (1 sound, width)"]
    return _processed(named, source, prepares, last)


def _classes(named: str, source: str, prepares: list[str]) -> list[str] | None:
    last = [
        "    logits = model(**processor(sound)).logits",
        "print(model.config.id2label[int(logits.argmax())])",
    ]
    return _processed(named, source, prepares, last)


def _spoken(named: str, source: str, prepares: list[str]) -> list[str] | None:
    """A sound with its transcript, so that no Whisper has to be at hand."""
    if not {"feature_extractor", "tokenizer"} <= set(prepares):
        return None
    model, last = (
        named,
        [
            '    heard = model.as_matcher(processor).hear(sound, ["a dog barks"])  # or without the text',
            "print({name: vectors.shape for name, vectors in heard.channels.items()}, heard.fused.shape)",
        ],
    )
    if not named.endswith("Model"):
        last = [
            '    logits = model(**processor(audio=sound, text="a dog barks")).logits',
            "print(model.config.id2label[int(logits.argmax())])",
        ]
    return _processed(model, source, prepares, last, "BrewCLIPProcessor")


def _caption(named: str, source: str, prepares: list[str]) -> list[str] | None:
    shown = "processor.batch_decode(tokens, skip_special_tokens=True)" if "tokenizer" in prepares else "tokens"
    last = ["    tokens = model.generate(**processor(sound))", f"print({shown})"]
    return _processed(named, source, prepares, last)


def _seen(named: str, source: str, prepares: list[str]) -> list[str] | None:
    if "image_processor" not in prepares:
        return None
    call = "model.get_image_features(pixels)" if named == "BriVLModel" else "model(pixels)"
    family = "CAVMAE" if named.startswith("CAVMAE") else "BriVL"
    return [
        "import torch",
        "from PIL import Image",
        f"from unibrivl.modeling import {', '.join(sorted((f'{family}ImageProcessor', named)))}",
        "",
        f'model = {named}.from_pretrained("{source}")',
        f'processor = {family}ImageProcessor.from_pretrained("{source}")',
        'pixels = processor(Image.open("dog.jpg"), return_tensors="pt").pixel_values',
        "with torch.no_grad():",
        f"    vectors = {call}.pooler_output",
        "print(vectors.shape)  # (1 picture, width)",
    ]


def _pair(named: str, source: str, prepares: list[str]) -> list[str] | None:
    """A sound and its picture, seen together; of a pre-training class without its decoder, which hides by chance."""
    if not {"feature_extractor", "image_processor"} <= set(prepares):
        return None
    named, last = named.replace("ForPreTraining", "Model"), "print(output.joint_embeds.shape)  # (1 pair, width)"
    if named.endswith("Classification"):
        last = "print(model.config.id2label[int(output.logits.argmax())])"
    return [
        "import torch",
        "from PIL import Image",
        "from unibrivl import load_audio",
        f"from unibrivl.modeling import {named}, UniBriVLProcessor",
        "",
        f'model = {named}.from_pretrained("{source}")',
        f'processor = UniBriVLProcessor.from_pretrained("{source}")',
        'sound = load_audio("dog.wav", rate_hz=processor.feature_extractor.sampling_rate)',
        "with torch.no_grad():",
        '    output = model(**processor(sound, images=Image.open("dog.jpg")))',
        last,
    ]


EXAMPLES: dict[str, Callable[[str, str, list[str]], list[str] | None]] = {
    "BrewCLIPForSpeechClassification": _spoken,
    "BrewCLIPModel": _spoken,
    "SpeechLMModel": _frames,
    "SpeechLMForPreTraining": _trunk,
    "SpeechLMForCTC": _letters,
    "MelEncoderModel": _frames,
    "CAVMAEModel": _pair,
    "CAVMAEForPreTraining": _pair,
    "CAVMAEForAudioVisualClassification": _pair,
    "CAVMAEImageModel": _seen,
    "CAVMAEAudioModel": _frames,
    "CAVMAEForAudioClassification": _class,
    "BriVLModel": _seen,
    "BriVLVisionModel": _seen,
    "UniBriVLAudioModel": _features,
    "UniBriVLForAudioClassification": _classes,
    "UniBriVLForAudioCaptioning": _caption,
}
