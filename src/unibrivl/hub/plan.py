"""What of a folder goes to the Hub: a list of files with sizes, what stays behind and why, or a refusal.

Refused are folders that nobody could load or should: without a configuration, without weights, with weights that are
cut short or missing, with pickles, with links that lead out of the folder. The folder itself is never changed: the
code and the model card that are added are made in a copy beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

CONFIGURATIONS = ("config.json", "model_index.json", "adapter_config.json")  # of a model, a pipeline, an adapter
WEIGHTS = ".safetensors"
REWRITTEN = (".json", ".py", ".md")  # kinds of files that the code and the card consist of
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")

# pattern of a file's or folder's name -> why it stays behind
LEFT_OUT = {
    ".git": "git's own",
    ".gitattributes": "",  # the Hub reads these two
    ".gitignore": "",
    ".*": "hidden",
    "__pycache__": "a cache",
    "*.egg-info": "a build",
    "*.partial": "not written to its end",
    "*.incomplete": "not written to its end",
    "*.tmp": "not written to its end",
    "*.lock": "a lock",
    "*.log": "a log",
    "checkpoint-*": "a training checkpoint",
    "optimizer*": "an optimizer state",
    "global_step*": "an optimizer state",
    "scheduler.*": "an optimizer state",
    "scaler.*": "an optimizer state",
    "rng_state*": "a training state",
    "training_args.bin": "a training state",
}


class PushError(ValueError):
    """A folder that cannot be pushed as it is, or a Hub that does not take it; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class PlannedFile:
    """A file of the repository: its path there, and its content, on disk or (if it was made here) in memory."""

    path: str
    size: int
    source: Path | bytes
    note: str = ""  # "added" or "changed" by us


@dataclasses.dataclass(frozen=True)
class Plan:
    folder: Path
    files: tuple[PlannedFile, ...]
    left_out: tuple[tuple[str, str], ...]  # path, why
    warnings: tuple[str, ...]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def plan(folder: str | os.PathLike, *, repo_id: str | None = None, code: bool = False, card: bool = False) -> Plan:
    """What a push of `folder` uploads; touches neither the folder nor the network.

    Args:
        folder: what save_pretrained wrote.
        repo_id (*optional*): the repository, which a generated card names in its example.
        code (`bool`): add the modeling files that load a model of ours where this package is absent.
        card (`bool`): add a model card where the folder has no README.md.
    """
    root = Path(folder)
    if not root.is_dir():
        raise PushError(f"{root} is no folder: push what save_pretrained wrote")
    found: list[PlannedFile] = []
    left_out: list[tuple[str, str]] = []
    for path, why in walk(root):
        name = path.relative_to(root).as_posix()
        if why:
            left_out.append((name, why))
        else:
            found.append(PlannedFile(name, path.stat().st_size, path))
    refuse_pickles(root, found)
    kind = refuse_what_nobody_can_load(root, found)
    files = {file.path: file for file in found}
    warnings: list[str] = []
    card = card and "README.md" not in files
    if kind != "adapter_config.json" and (code or card):  # adapters have neither yet
        generated, warnings = generate(root, files, repo_id, code, card)
        files |= generated
    if "README.md" in files:
        warnings += [f"README.md: {problem}" for problem in problems_of_card(files["README.md"].source)]
    else:
        warnings.append("no README.md: the repository will say nothing of what the model is, its licence or its use")
    in_order = tuple(files[path] for path in sorted(files))
    return Plan(root, in_order, tuple(sorted(left_out)), tuple(warnings))


def walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `root` with the reason why it stays behind, "" where it does not; folders only with one."""
    for base, folders, names in os.walk(root):
        here = Path(base)
        for name in sorted(folders):
            path = here / name
            why = reason(name)
            if not why and path.is_symlink():
                refuse_leading_out(root, path)
                why = "a link to another folder of this one"
            if why:
                folders.remove(name)
                yield path, why
        folders.sort()
        for name in sorted(names):
            path = here / name
            why = reason(name)
            if not why and path.is_symlink():
                refuse_leading_out(root, path)
            if not why and not path.is_file():
                why = "not a plain file"
            yield path, why


def reason(name: str) -> str:
    return next((why for pattern, why in LEFT_OUT.items() if fnmatch(name.lower(), pattern)), "")


def refuse_leading_out(root: Path, link: Path) -> None:
    target = link.resolve()
    if not target.exists():
        raise PushError(f"{link} is a link to {target}, which does not exist: delete it or mend it")
    if not target.is_relative_to(root.resolve()):
        raise PushError(
            f"{link} is a link that leads out of the folder, to {target}. Nothing outside is uploaded: put the file "
            f"itself there, or push a copy made by: cp -rL {root} COPY"
        )


def refuse_pickles(root: Path, files: list[PlannedFile]) -> None:
    pickles = [file.path for file in files if file.path.lower().endswith(PICKLES)]
    if pickles:
        raise PushError(
            f"{root} holds {listed(pickles)}: pickles run code on the machine of whoever loads them, and are not "
            "uploaded. Convert weights to safetensors (unibrivl convert, or load the model and save_pretrained it to "
            "a new folder) and delete these files"
        )


def refuse_what_nobody_can_load(root: Path, files: list[PlannedFile]) -> str:
    """Checks configuration and weights; returns the name of the configuration."""
    names = {file.path for file in files}
    kind = next((name for name in CONFIGURATIONS if name in names), "")
    if not kind:
        raise PushError(f"{root} has no config.json, so nothing could load it: push what save_pretrained wrote")
    try:
        json.loads((root / kind).read_text(encoding="utf-8")).keys()
    except (ValueError, AttributeError) as error:
        raise PushError(f"{root / kind} is no JSON object ({error}): save the model again") from error
    weights = [file for file in files if file.path.endswith(WEIGHTS)]
    if not any(kind == "model_index.json" or "/" not in file.path for file in weights):
        raise PushError(
            f"{root} holds no weights: no *{WEIGHTS} beside {kind}. Save the model with save_pretrained, not only its "
            "configuration or processor"
        )
    for file in weights:
        refuse_damaged(root / file.path)
    for name in sorted(names):
        if name.endswith(f"{WEIGHTS}.index.json"):
            refuse_incomplete(root / name)
    return kind


def refuse_damaged(path: Path) -> None:
    """The header is read and its offsets are held against the file's size; no tensor is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        raise PushError(f"{path} is damaged or cut short ({error}): save the model again") from error


def refuse_incomplete(index: Path) -> None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise PushError(f"{index} is no index of weights: save the model again") from error
    if missing := [shard for shard in sorted(shards) if not (index.parent / shard).is_file()]:
        raise PushError(f"{index} names {listed(missing)}, which the folder lacks: save the model again")


def generate(
    root: Path, files: dict[str, PlannedFile], repo_id: str | None, code: bool, card: bool
) -> tuple[dict[str, PlannedFile], list[str]]:
    """The files that are added or changed for the Hub, made in a copy, and what could not be made."""
    from unibrivl.hub.card import render_card
    from unibrivl.hub.card_pipeline import pipeline_card
    from unibrivl.hub.flat import MODELS, write_code
    from unibrivl.hub.flat_pipeline import INDEX, PIPELINES, class_of

    warnings = []
    with tempfile.TemporaryDirectory(prefix="unibrivl-push-") as temporary:
        copy = Path(temporary)
        for file in files.values():
            stage(root / file.path, copy / file.path)
        pipeline = (copy / INDEX).is_file()
        fields = json.loads((copy / (INDEX if pipeline else "config.json")).read_text(encoding="utf-8"))
        ours = class_of(fields) in PIPELINES if pipeline else fields.get("model_type") in MODELS
        if code and ours:
            write_code(copy)
        elif code:
            library = "diffusers" if pipeline else "transformers"
            kind = "pipeline" if pipeline else "model"
            warnings.append(f"no code is added: this is no {kind} of ours, and {library} itself has to know it")
        if card and pipeline:
            (copy / "README.md").write_text(pipeline_card(fields, repo_id or root.resolve().name), encoding="utf-8")
        elif card:
            (copy / "README.md").write_text(render_card(copy, repo_id or root.resolve().name), encoding="utf-8")
        generated = {}
        for path in sorted(copy.rglob("*")):
            name = path.relative_to(copy).as_posix()
            if not path.is_file() or path.suffix not in REWRITTEN:
                continue
            content = path.read_bytes()
            if name not in files:
                generated[name] = PlannedFile(name, len(content), content, "added")
            elif content != (root / name).read_bytes():
                generated[name] = PlannedFile(name, len(content), content, "changed")
    return generated, warnings


def problems_of_card(source: Path | bytes) -> list[str]:
    from unibrivl.hub.card import check_card

    content = source if isinstance(source, bytes) else source.read_bytes()
    return check_card(content.decode("utf-8", errors="replace"))


def stage(source: Path, target: Path) -> None:
    """What is rewritten as copies; weights and all else as links, since they may be large."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix not in REWRITTEN:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:
            target.unlink(missing_ok=True)  # links need a right that not everyone has on Windows: copy
    shutil.copyfile(source, target)


def same_weights(path: str) -> str:
    """What the shards, the index and the single file of one set of weights have in common: `unet/model`."""
    return re.sub(r"(-\d{5,}-of-\d{5,})?\.safetensors(\.index\.json)?$", "", path)


def is_weights(path: str) -> bool:
    return path.endswith((WEIGHTS, f"{WEIGHTS}.index.json"))


def listed(names: list[str], room: int = 5) -> str:
    return ", ".join(names[:room]) + (f" and {len(names) - room} more" if len(names) > room else "")
