"""Receipts of pictures that `AudioTokenEditPipeline` has changed, or drawn in the style of a sound.

    output, receipt = with_receipt(editor, image=picture, source_prompt="a dog", audio="rooster.wav")
    save_png(output.images[0], receipt, "edited.png")
    image, again, different = replay_edit(editor, read_receipt("edited.png"), picture)

A receipt of `receipt_unibrivl` is of a picture that a sound has ranked; this one is of a call without candidates. It
holds the words of the sound, so that neither the sound nor what heard it is needed again, and of the picture that was
changed its size and a digest of its pixels, never the pixels.

Shapes: K words of a sound, D width of a token table.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import PIL
import torch
from PIL import Image

from .fingerprint_unibrivl import is_plain, told_of
from .fitting_audio_token import resized
from .hearing_unibrivl import as_sounds
from .mixin_audio_token import PROMPT
from .mixing_audio_token import is_sound
from .receipt_unibrivl import (
    MAKE_WORDS,
    NOT_THE_PICTURES,
    VERSION,
    as_it_was,
    differences,
    public_name,
    told_machine,
    told_models,
    told_versions,
)
from .seeds_unibrivl import read, written
from .words_audio_token import text_encoders_of
from .words_receipt_unibrivl import read_words, told_words

KINDS = ("edit", "stylize")
HEARD = ("audio", "audio_embeds", "audio_sampling_rate", "audio_weights", "audio_mix")
NOT_IN_A_CALL = {*HEARD, "image", "generator", "source_audio", "negative_audio"}  # they may be paths to files
ONLY_HEAR = ("matcher", "matcher_processor")  # an edit is not ranked


class Told:
    """Words that are already made, in the place of a sound: what the pipelines ask of an `AudioCue`.

    Args:
        vectors: text encoder -> (K, D).
    """

    def __init__(self, vectors: Mapping[str, torch.Tensor]):
        self.vectors = vectors

    def check_base(self, *_: Any) -> None:
        """Made by this base's own adapter, or held against its token table by `with_receipt` already."""


def with_receipt(pipe: Any, kind: str = "edit", name: str | None = None, **call: Any) -> tuple[Any, dict[str, Any]]:
    """One picture, and what it takes to make it again.

    Args:
        pipe: an `AudioTokenEditPipeline`.
        kind (`str`): "edit", its call, or "stylize".
        name (*optional*): of the file of `image`.
        call: arguments of either, by name. Those that cannot be written down make a receipt that is not replayable.

    Returns:
        What the pipeline returns, and the receipt of its only picture.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    heard: dict[str, Any] = {name: call.pop(name) for name in HEARD if name in call}
    words = words_of(pipe, kind, call.get("prompt"), heard)
    rows = [words] if words else []
    told_of_words, reasons = told_words((rows, rows))
    image, unlike = told_image(call.get("image"), name)
    plain, left_out = told_call({name: value for name, value in call.items() if name != "image"})
    reasons += [*unlike, *left_out]
    generator = call.get("generator")
    if isinstance(generator, (list, tuple)) and len(generator) == 1:
        generator = generator[0]
    if isinstance(generator, (list, tuple)):
        raise ValueError(f"a receipt is of one picture, and there are {len(generator)} generators: a call for each")
    device = pipe._execution_device
    origin = written(generator, str(device))  # before it is used
    if generator is None:
        origin = written(read(origin), str(device))  # in the words that its replay will find for it
    for_others: dict[str, Any] = {name: heard[name] for name in ("audio_sampling_rate", "audio_mix") if name in heard}
    output = drawn(pipe, kind, words, {**call, **for_others, "generator": generator})
    if len(output.images) != 1:
        raise ValueError(f"a receipt is of one picture, and there are {len(output.images)}: make a call for each")
    machine = told_machine(pipe, device)
    idle = ONLY_HEAR if words else (*ONLY_HEAR, *MAKE_WORDS)
    return output, {
        "receipt": VERSION,
        "kind": kind,
        "pipeline": type(pipe).__name__,
        "base": public_name(pipe) or public_name(pipe.unet, "unet"),
        "replayable": not reasons,
        "why_not": reasons,
        "call": plain,
        "tuples": sorted(name for name, value in plain.items() if isinstance(value, tuple)),  # lists in JSON
        "image": image,
        "audio": {"sounds": told_sounds(pipe, heard)},
        **({} if told_of_words is None else {"words": told_of_words}),
        "generators": [origin],
        "scheduler": {"class": type(pipe.scheduler).__name__, "config": told_of(pipe.scheduler.config)},
        "models": {name: one for name, one in told_models(pipe).items() if name not in idle},
        "versions": {**told_versions(), "pillow": PIL.__version__},
        "machine": {name: one for name, one in machine.items() if name != "matcher_dtype"},
        "picture": {"number": 0, "prompt": plain.get("prompt"), "seed": origin.get("seed")},
    }


def replay_edit(
    pipe: Any, receipt: dict[str, Any], image: Any = None
) -> tuple[Image.Image, dict[str, Any], list[str]]:
    """The picture of such a receipt, made again, its own receipt, and what is different about the circumstances.

    Args:
        pipe: an `AudioTokenEditPipeline`; it needs no adapter.
        image: the picture that was changed, as it was or as large as it came from its file.
    """
    call = check_edit(receipt, image)
    if type(pipe).__name__ != receipt["pipeline"]:
        raise ValueError(f"this picture is made again by {receipt['pipeline']}, and this is {type(pipe).__name__}")
    rows = read_words(receipt["words"], list(text_encoders_of(pipe)))[0] if "words" in receipt else [[]]
    if rows[0]:
        call["audio"] = [Told(words) for words in rows[0]]
    name = (receipt["image"] or {}).get("name")
    with as_it_was(pipe, receipt):
        output, now = with_receipt(pipe, receipt["kind"], name, **call)
    now["audio"] = receipt["audio"]  # only its words were heard
    return output.images[0], now, differences(receipt, now)


def check_edit(receipt: dict[str, Any], image: Any = None) -> dict[str, Any]:
    """The call of a receipt, all but its words; what is wrong with it, or with the picture, is said before that."""
    if receipt.get("kind") not in KINDS:
        raise ValueError("this receipt is of a picture that was not edited: replay it with receipt_unibrivl.replay")
    if not receipt["replayable"]:
        raise ValueError(f"this picture cannot be made again from its receipt: {'; '.join(receipt['why_not'])}")
    call = dict(receipt["call"])
    if planted := sorted(call.keys() & NOT_IN_A_CALL):
        raise ValueError(f"the receipt has {planted[0]} in its call, which none of ours has: it was tampered with")
    call |= {name: tuple(call[name]) for name in receipt["tuples"]}
    told = receipt["image"]
    if told is not None and image is None:
        raise ValueError(f"{told['name'] or 'a picture'} was changed here: it is needed to make this picture again")
    if told is None and image is not None:
        raise ValueError("this picture was drawn from chance and changed none: leave the other picture out")
    if told is not None:
        call["image"] = as_it_came(image, told)
    return {**call, "generator": read(receipt["generators"][0])}


# ---- what is written down


def words_of(pipe: Any, kind: str, prompt: Any, heard: Mapping[str, Any]) -> list[Any]:
    """The words of the sounds of a call, mixed and weighted, as the pipeline makes them."""
    text = prompt if isinstance(prompt, str) else PROMPT if not prompt else list(prompt)
    if kind == "stylize":
        text = PROMPT  # its sound stands behind whatever is drawn
    if heard.get("audio") is None and heard.get("audio_embeds") is None:
        return []
    prompts, rows = pipe.understood(
        text, heard.get("audio"), heard.get("audio_embeds"), sampling_rate=heard.get("audio_sampling_rate"),
        mix=heard.get("audio_mix", "separate"), weights=heard.get("audio_weights", 1.0),
    )  # fmt: skip
    if len(prompts) != 1:
        raise ValueError(f"a receipt is of one picture, and there are {len(prompts)} prompts: make a call for each")
    return rows[0]


def drawn(pipe: Any, kind: str, words: list[Any], call: dict[str, Any]) -> Any:
    draw = pipe if kind == "edit" else pipe.stylize
    return draw(**call, **({"audio": [Told(one) for one in words]} if words else {}))


def told_call(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments that decide the picture, and why some of them cannot be written down."""
    call, reasons = {}, []
    for name, value in given.items():
        if value is None or name in set(NOT_THE_PICTURES) - {"prompt"}:
            continue
        if name.startswith("callback"):
            if callable(value) and not getattr(value, "only_watches", False):
                reasons.append(f"{name} may have changed what was drawn")
        elif not is_plain(value) or name in ("source_audio", "negative_audio"):
            reasons.append(f"{name} was a {type(value).__name__}, which is not written down")
        else:
            call[name] = value
    return call, reasons


def told_image(image: Any, name: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    if image is None:
        return None, []
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        return None, ["the picture that was changed was no RGB picture of Pillow, and only those are written down"]
    return {"name": name, "size": list(image.size), "sha256": digest_of(image)}, []


def told_sounds(pipe: Any, heard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names and digests of the sounds themselves, for people; of cues and embeddings there are none."""
    audio = heard.get("audio")
    sources = [] if audio is None else [audio] if is_sound(audio) else list(audio)
    sounds = [one for one in sources if not hasattr(one, "vectors") and is_sound(one)]
    return [one.told() for one in as_sounds(pipe.ears, sounds, heard.get("audio_sampling_rate"))] if sounds else []


def digest_of(image: Image.Image) -> str:
    """Of the pixels and the size; not of the file, which may be written in many ways."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.width} x {pixels.height} RGB ".encode() + pixels.tobytes()).hexdigest()


def as_it_came(image: Image.Image, told: Mapping[str, Any]) -> Image.Image:
    """The picture as the call got it: itself, or made as large as the call had it."""
    image = image.convert("RGB")
    for found in (image, resized(image, tuple(told["size"]))):
        if digest_of(found) == told["sha256"]:
            return found
    width, height = told["size"]
    raise ValueError(
        f"this is not the picture that was changed ({told['name'] or 'without a name'}, {width} x {height}): its "
        "pixels are others. Pass that one; where it had to be made smaller, another version of Pillow may do it "
        "otherwise"
    )


__all__ = ["KINDS", "check_edit", "replay_edit", "with_receipt"]
