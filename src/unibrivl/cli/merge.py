"""`unibrivl merge ADAPTER DIR`: an adapter worked into the weights of its base, as a model like any other.

The base is the one that the adapter names, unless another is given. The processor is the adapter's own, or the base's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Prompt frames cannot be merged: they are no weights of the model."
    parser.add_argument("adapter", metavar="ADAPTER", help="a folder or a name on the Hub")
    parser.add_argument("output", type=Path, metavar="DIR", help="where the model goes; not there yet, or empty")
    parser.add_argument("--base", help="folder or name of the model to merge into; default: the one the adapter names")


def run(args: argparse.Namespace) -> int:
    from unibrivl.training.adapters import load_adapter, merged
    from unibrivl.utils import require

    peft = require("peft", "train", "merging an adapter")
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise ValueError(f"{args.output} is not empty: name another folder, or remove it")
    settings = settings_of(peft, args.adapter)
    base = args.base or base_of(args.adapter, settings.base_model_name_or_path)
    revision = None if args.base else settings.revision
    try:
        plain = base_class(base, settings).from_pretrained(base, revision=revision)
    except OSError as error:
        raise ValueError(
            f"the base {base!r} is no folder seen from here, and was not found on the Hub: run this where the adapter "
            f"was trained, or pass --base ({error})"
        ) from error
    model = merged(load_adapter(plain, args.adapter))
    model.save_pretrained(args.output)
    saved = save_processor(args.output, args.adapter, base)
    print(f"{args.adapter} in {base} -> {args.output}{saved}")
    return 0


def settings_of(peft: Any, adapter: str) -> Any:
    """adapter_config.json, of a folder or from the Hub."""
    if Path(adapter).is_dir() and not (Path(adapter) / "adapter_config.json").exists():
        what = "a whole model already" if (Path(adapter) / "config.json").exists() else "no adapter"
        raise ValueError(
            f"{adapter} is {what}: it has no adapter_config.json. A run leaves its adapter in OUTPUT/model"
        )
    try:
        return peft.PeftConfig.from_pretrained(adapter)
    except (OSError, ValueError) as error:
        raise ValueError(f"{adapter} is no folder with an adapter, and was not found on the Hub: {error}") from error


def base_of(adapter: str, name: str | None) -> str:
    """What the adapter names; a run's own base lies beside its adapter, wherever both have been moved."""
    if not name:
        raise ValueError(f"{adapter} does not say which model it belongs to: pass --base")
    beside = Path(adapter).parent / "base"
    if Path(name).name == "base" and not Path(name).exists() and (beside / "config.json").exists():
        return str(beside)
    return name


def base_class(base: str, settings: Any) -> Any:
    """The class the adapter was trained in, by its name: ours, or one of transformers."""
    import transformers

    from unibrivl import modeling

    name = (settings.auto_mapping or {}).get("base_model_class", "AutoModel")
    found = getattr(modeling, name, None) or getattr(transformers, name, None)
    if found is None:
        raise ValueError(f"{base} would be a {name}, which neither unibrivl nor transformers has: upgrade them")
    return found


def save_processor(output: Path, *sources: str) -> str:
    """Of the first source that has one; what was done, in words."""
    from transformers import AutoProcessor

    for source in sources:
        try:
            AutoProcessor.from_pretrained(source).save_pretrained(output)
        except (OSError, ValueError):  # none lies there
            continue
        return f", with the processor of {source}"
    return ", without a processor: neither has one"
