"""Receipts: what it takes to make a picture again, as plain JSON that travels inside its PNG.

A receipt says what the call was, which random numbers its candidates had, which weights and versions stood behind it,
and what was heard, as digests. It holds file names and no folders, and nothing of the sound itself. On the same
machine `replay` gives the same pixels; elsewhere, or with something else, it says what is different.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image, PngImagePlugin

from .fingerprint_unibrivl import OFFLOADED, fingerprint_of, is_plain, told_of
from .words_receipt_unibrivl import FIT_IN_A_RECEIPT, packed, told_words, unpacked

VERSION = 1
KEY = "unibrivl"  # of the text chunk in a PNG
MOST_BYTES = 8 << 20  # of a receipt that is read: a text of a stranger's picture
NOT_THE_PICTURES = {"generator", "output_type", "return_dict", "callback_on_step_end_tensor_inputs", "prompt"}
EMBEDDED = ("embedded", "open")  # ends the folder of the model that the package carries: `--model embedded`
MAKE_WORDS = ("audio_adapter", "audio_encoder", "audio_feature_extractor")  # a receipt has what they made


def write_receipts(
    pipe: Any, request: Any, strategy: Any, query: Any, seeds: Any, candidates: list, places: list[tuple[int, float]],
    size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """For each finished picture, in the order of the output, a receipt.

    Args:
        candidates: all of the call.
        places: of each picture its row and its score.
        size: (height, width) in pixels, where there are pixels.
    """
    call, reasons = told_call(pipe, request.call, size)
    settings = strategy.settings()
    if not is_plain(settings):
        reasons.append(f"the strategy {type(strategy).__name__} has settings that cannot be written down")
    words, too_many = told_words(getattr(pipe, "_spoken", None))
    reasons += too_many
    heard, left_out = told_query(query)
    reasons += left_out
    steering = request.steering
    shared = {
        "receipt": VERSION,
        "pipeline": type(pipe).__name__,
        "base": public_name(pipe) or public_name(pipe.unet, "unet"),
        "replayable": not reasons,
        "why_not": reasons,
        "call": call,
        "tuples": sorted(name for name, value in call.items() if isinstance(value, tuple)),  # lists in JSON
        "strategy": settings if is_plain(settings) else {"name": strategy.name},
        "max_rows": None if steering is None else steering.max_rows,
        "audio": heard,
        "prompts": request.prompts,
        **({} if words is None else {"words": words}),
        "generators": told_generators(seeds),
        "scheduler": {"class": type(pipe.scheduler).__name__, "config": told_of(pipe.scheduler.config)},
        "models": told_models(pipe),
        "versions": dict(told_versions()),
        "machine": told_machine(pipe, request.queries.device),  # the matcher stays where everything runs
    }
    receipts = []
    for number, (row, score) in enumerate(places):
        sound = row // request.per_sound
        seed_row = row % request.per_sound
        receipts.append(
            {
                **shared,
                "picture": {
                    "number": number,
                    "row": row,
                    "sound": sound,
                    "prompt": None
                    if request.prompts is None
                    else request.prompts[sound][seed_row // request.num_seeds],
                    "seed": seeds.seeds[row],
                    "score": finite(score),
                    "heard": query.hashes[sound % len(query.hashes)],
                    "window_s": None if query.times is None else list(query.times[sound]),
                    "label": None if query.labels is None else query.labels[sound % len(query.labels)],
                },
                "candidates": [
                    {"prompt": one.prompt, "seed": one.seed, "score": finite(one.score)}
                    for one in candidates
                    if one.sound == sound
                ],
            }
        )
    return receipts


def finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def told_call(pipe: Any, given: dict[str, Any], size: tuple[int, int] | None) -> tuple[dict[str, Any], list[str]]:
    """The arguments that decide the picture, with the pipeline's own defaults, and why some cannot be written."""
    calls = [inspect.signature(vars(base)["__call__"]) for base in type(pipe).__mro__ if "__call__" in vars(base)]
    stock = next(one for one in calls if "audio" not in one.parameters)
    defaults = {
        name: parameter.default
        for name, parameter in stock.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    call, reasons = {}, []
    for name, value in {**defaults, **given}.items():
        if name in NOT_THE_PICTURES or value is None:
            continue
        if name.startswith("callback"):
            if callable(value) and not getattr(value, "only_watches", False):
                reasons.append(f"{name} may have changed what was drawn")
        elif is_plain(value):
            call[name] = value
        else:
            reasons.append(f"{name} was a {type(value).__name__}, which is not written down")
    if size is not None:
        call |= {"height": size[0], "width": size[1]}
    return call, reasons


def told_query(query: Any) -> tuple[dict[str, Any], list[str]]:
    told = {name: value for name, value in query.told.items() if value is not None and name != "sampling_rate"}
    embeds = told.pop("audio_embeds", None)
    if embeds is None:
        return told, []
    if embeds.numel() > FIT_IN_A_RECEIPT:
        return told, [f"audio_embeds of {embeds.numel()} numbers are too many for a receipt"]
    told["audio_embeds"] = packed(embeds)
    return told, []


def told_generators(seeds: Any) -> list[dict[str, Any]]:
    if isinstance(seeds.generator, list) and None not in seeds.seeds:
        return [
            {"device": generator.device.type, "seed": seed}
            for generator, seed in zip(seeds.generator, seeds.seeds, strict=True)
        ]
    return seeds.origin


def told_models(pipe: Any) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {}
    for name, part in pipe.components.items():
        if part is None or name == "scheduler":
            continue
        said: dict[str, Any] = {"class": type(part).__name__, "name": public_name(part, name)}
        module = part if isinstance(part, torch.nn.Module) else getattr(part, "model", None)
        if isinstance(module, torch.nn.Module):
            said["fingerprint"] = fingerprint_of(module)
        elif hasattr(part, "save_pretrained"):
            said["fingerprint"] = digest_of_settings(part)
        told[name] = said
    if getattr(pipe, "vae", None) is not None:
        told["vae"] |= {name: bool(getattr(pipe.vae, name, False)) for name in ("use_slicing", "use_tiling")}
    told["unet"]["attention"] = attention_of(pipe.unet)
    return told


def attention_of(unet: torch.nn.Module) -> list[str]:
    """By which processors a UNet attends, and how strongly adapters that hang there count."""
    found = {layer.__dict__.get("processor", layer._modules.get("processor")) for layer in unet.modules()} - {None}
    return sorted({f"{type(one).__name__} {getattr(one, 'scale', '')}".strip() for one in found})


def digest_of_settings(part: Any) -> str | None:
    """Of what prepares inputs: extractors by their settings, tokenizers by their size and class."""
    pieces = {}
    names = ("feature_extractor", "image_processor", "tokenizer", "unit_tokenizer")
    found: dict[str, Any] = {name: getattr(part, name, None) for name in names}
    for name, one in (found if any(one is not None for one in found.values()) else {"": part}).items():
        if hasattr(one, "get_vocab"):
            pieces[name] = [type(one).__name__, len(one.get_vocab())]
        elif hasattr(one, "to_dict"):
            settings = {key: value for key, value in one.to_dict().items() if is_plain(value) and "path" not in key}
            pieces[name] = [type(one).__name__, settings]
    return hashlib.sha256(json.dumps(pieces, sort_keys=True).encode()).hexdigest() if pieces else None


def public_name(part: Any, component: str = "") -> str | None:
    """Where a component was loaded from: a name on the Hub with its revision, of a folder its last part alone."""
    config = getattr(part, "config", None)
    name = getattr(config, "_name_or_path", None) or getattr(part, "name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    cached = re.search(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\](\w+)", name)
    if cached:
        return f"{cached[1]}/{cached[2]}@{cached[3]}"
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) and not os.path.exists(name):
        commit = getattr(config, "_commit_hash", None)
        return f"{name}@{commit}" if commit else name
    parts = [one for one in name.replace("\\", "/").split("/") if one]
    if len(parts) > 1 and parts[-1] == component:  # a folder in the pipeline's own
        parts.pop()
    if tuple(parts[-2:]) == EMBEDDED:
        return parts[-2]
    return parts[-1] if parts else None


@functools.cache
def told_versions() -> dict[str, str | None]:
    try:
        own = importlib.metadata.version("unibrivl")
    except importlib.metadata.PackageNotFoundError:
        own = None
    return {
        "unibrivl": own,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def told_machine(pipe: Any, device: torch.device) -> dict[str, Any]:
    chip = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    return {
        "device": device.type,
        "chip": chip,
        "dtype": str(next(pipe.unet.parameters()).dtype).removeprefix("torch."),
        "matcher_dtype": str(getattr(getattr(pipe, "matcher", None), "dtype", None)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


# ---- in a file


def save_png(image: Image.Image, receipt: dict[str, Any] | None, path: str | os.PathLike) -> None:
    """A PNG with its receipt, if there is one, as a text chunk; it is whole or not there."""
    about = PngImagePlugin.PngInfo()
    if receipt is not None:
        about.add_text(KEY, json.dumps(receipt, allow_nan=False))
    path = os.fspath(path)
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".unibrivl-", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, format="PNG", pnginfo=about)
        os.chmod(beside, 0o666 & ~current_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_receipt(path: str | os.PathLike) -> dict[str, Any]:
    """The receipt inside a PNG."""
    name = os.path.basename(os.fspath(path))
    with Image.open(path) as image:
        image.load()  # a text may stand behind the pixels
        text = getattr(image, "text", {}).get(KEY)
    if text is None:
        raise ValueError(
            f"{name} carries no receipt: it is not a PNG that save_png or `unibrivl generate` wrote, or a program has "
            "stripped its metadata"
        )
    try:
        receipt = json.loads(text) if len(text) <= MOST_BYTES else None
    except ValueError as error:
        raise ValueError(f"the receipt of {name} is no JSON: {error}") from error
    if not isinstance(receipt, dict) or receipt.get("receipt") != VERSION:
        raise ValueError(f"the receipt of {name} is not of version {VERSION}, which this version of unibrivl reads")
    return receipt


# ---- once more


def replay(pipe: Any, receipt: dict[str, Any], audio: Any = None) -> tuple[Image.Image, dict[str, Any], list[str]]:
    """The picture of a receipt, drawn again, its own receipt, and what is different about the circumstances.

    The scheduler, its settings, slicing and tiling and the number of threads are those of the receipt for the time of
    the call; the pipeline's weights, device and dtype are what they are.

    Args:
        audio: the sound or sounds of the call; not needed for a call with audio_embeds.
    """
    arguments = arguments_of(receipt, audio)
    draw = pipe
    if "words" in receipt:
        if not hasattr(pipe, "with_words"):
            raise ValueError(
                f"the prompt of this picture has sounds in it as words: it is drawn again by {receipt['pipeline']}, "
                f"and this is {type(pipe).__name__}"
            )
        draw = functools.partial(pipe.with_words, receipt["words"])
    with as_it_was(pipe, receipt):
        output = draw(**arguments)
        number = receipt["picture"]["number"]
        return output.images[number], output.receipts[number], differences(receipt, output.receipts[number])


def arguments_of(receipt: dict[str, Any], audio: Any = None) -> dict[str, Any]:
    """The call of a receipt."""
    from .seeds_unibrivl import read
    from .strategies_unibrivl import strategy_named

    if "kind" in receipt:
        raise ValueError("this picture was edited: replay it with edit_receipt_audio_token.replay_edit")
    if not receipt["replayable"]:
        raise ValueError(f"this picture cannot be made again from its receipt: {'; '.join(receipt['why_not'])}")
    heard = dict(receipt["audio"])
    sounds = heard.pop("sounds", None)
    if sounds is not None:
        given = list(audio) if isinstance(audio, list) else [] if audio is None else [audio]
        if len(given) != len(sounds):
            names = ", ".join(sound["name"] for sound in sounds)
            raise ValueError(
                f"the call heard {len(sounds)} ({names}), and {len(given)} are given: give them in this order"
            )
        heard["audio"] = given
    else:
        heard["audio_embeds"] = unpacked(heard.pop("audio_embeds"))
    generators = [read(one) for one in receipt["generators"]]
    settings = dict(receipt["strategy"])
    # rounds and the like are tuples, and lists in JSON
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    call = dict(receipt["call"])
    call |= {name: tuple(call[name]) for name in receipt["tuples"]}
    prompts = receipt["prompts"]
    singly = all(len(one) == 1 for one in prompts)  # as it was: texts are encoded together, and that moves bits
    return {
        **call,
        **heard,
        "strategy": strategy_named(settings.pop("name"), **settings),
        **({"prompt": [one[0] for one in prompts]} if singly else {"label_bank": prompts}),
        "generator": generators[0] if len(generators) == 1 else generators,
        "max_rows": receipt["max_rows"],
        "output_type": "pil",
    }


@contextlib.contextmanager
def as_it_was(pipe: Any, receipt: dict[str, Any]) -> Iterator[None]:
    """The pipeline with the receipt's scheduler and settings, and afterwards as it is now."""
    name, config = receipt["scheduler"]["class"], receipt["scheduler"]["config"]
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(
            f"the receipt's scheduler {name!r} is none of diffusers {diffusers.__version__}: install its own"
        )
    said = receipt["models"].get("vae", {})
    flags = {flag: said[flag] for flag in ("use_slicing", "use_tiling") if flag in said}
    before = {flag: getattr(pipe.vae, flag) for flag in flags if hasattr(pipe.vae, flag)}
    scheduler, threads = pipe.scheduler, torch.get_num_threads()
    try:
        pipe.scheduler = getattr(diffusers, name).from_config(config)
        for flag in before:
            setattr(pipe.vae, flag, flags[flag])
        torch.set_num_threads(int(receipt["machine"]["threads"]))
        yield
    finally:
        pipe.scheduler = scheduler
        for flag, value in before.items():
            setattr(pipe.vae, flag, value)
        torch.set_num_threads(threads)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of two receipts may make two pictures of them, in sentences; empty if nothing does."""
    said = []
    sounds = zip(before["audio"].get("sounds", []), now["audio"].get("sounds", []), strict=False)
    for old, new in sounds:
        if old["sha256"] != new["sha256"]:
            same_length = (
                "as long"
                if old["seconds"] == new["seconds"]
                else f"{new['seconds']:g} s instead of {old['seconds']:g} s"
            )
            said.append(f"another sound: {new['name']} has other samples than {old['name']} had ({same_length})")
    words = "words" in before
    if before.get("words") != now.get("words"):
        said.append("words: not what the receipt says")
    for name in sorted({*before["models"], *now["models"]} - (set(MAKE_WORDS) if words else set())):
        old, new = before["models"].get(name, {}), now["models"].get(name, {})
        if not old or not new:
            said.append(f"{name}: {'there now, and not then' if new else 'missing now, and there then'}")
        elif OFFLOADED not in (old.get("fingerprint"), new.get("fingerprint")) and old.get("fingerprint") != new.get(
            "fingerprint"
        ):
            said.append(f"{name}: other weights or settings ({shown(old)} then, {shown(new)} now)")
        elif old.get("attention") != new.get("attention"):
            said.append(f"{name}: attention by {', '.join(new['attention'])} instead of {', '.join(old['attention'])}")
    for name in ("scheduler", "strategy", "call", "prompts", "generators"):
        if json.dumps(before.get(name), sort_keys=True) != json.dumps(now.get(name), sort_keys=True):
            said.append(f"{name}: not what the receipt says")
    for place in ("versions", "machine"):
        for name, old in before[place].items():
            new = now[place].get(name)
            if old != new:
                said.append(f"{name}: {new} instead of {old}")
    return said


def shown(model: dict[str, Any]) -> str:
    return f"{model.get('name') or model['class']} {str(model.get('fingerprint'))[:8]}"


def pixel_difference(before: Image.Image, now: Image.Image) -> str:
    """How far two pictures are apart, in words; empty if they are equal bit for bit."""
    old, new = np.asarray(before.convert("RGB"), dtype=np.int16), np.asarray(now.convert("RGB"), dtype=np.int16)
    if old.shape != new.shape:
        return f"{new.shape[1]}x{new.shape[0]} pixels instead of {old.shape[1]}x{old.shape[0]}"
    apart = np.abs(old - new)
    if not apart.any():
        return ""
    share = 100 * float((apart.max(-1) > 0).mean())
    return f"{share:.1f} % of the pixels differ, by {apart.mean():.2f} of 255 on average and {apart.max()} at most"


__all__ = ["differences", "pixel_difference", "read_receipt", "replay", "save_png", "write_receipts"]
