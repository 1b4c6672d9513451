"""Flat copies of pipelines: the code of a saved pipeline of ours in its folder, for machines without this package.

diffusers takes the class of a pipeline from `pipeline.py` beside `model_index.json`, and that of a component from a
file in the component's folder. Three of its habits decide what is written here (seen in 0.42):

- Out of a folder it copies a file and the files that one imports itself, not theirs. So `pipeline.py` names them all.
- From the Hub it fetches, of a component with weights, no other code than the one file that is named. So a component's
  file is a few lines that find the class among the files beside `pipeline.py`.
- All files of all repositories share one folder when they run. So every file but `pipeline.py` has a name of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# class of a pipeline -> its file
PIPELINES = {
    "AudioTokenEditPipeline": "pipeline_audio_token_edit",
    "AudioTokenImg2ImgPipeline": "pipeline_audio_token_img2img",
    "AudioTokenInpaintPipeline": "pipeline_audio_token_inpaint",
    "AudioTokenPipeline": "pipeline_audio_token",
    "AudioTokenXLPipeline": "pipeline_audio_token_xl",
    "UniBriVLPipeline": "pipeline_unibrivl",
    "UniBriVLXLPipeline": "pipeline_unibrivl_xl",
    "UniBriVLUnCLIPPipeline": "pipeline_unibrivl_unclip",
}
INDEX, ENTRY = "model_index.json", "pipeline"
COMPONENT = re.compile(r"(?:unibrivl\.modeling\.|component_)((?:modeling|processing|feature_extraction)_\w+)")

PIPELINE_FILE = '''"""{name}, for machines without the package unibrivl.

`trust_remote_code=True` runs this file and those beside it.
"""

from .{stem} import {name}


def files():
    """Never called: whoever copies this file copies the files that it names, and all of them are needed."""
{imports}


__all__ = ["{name}"]
'''
COMPONENT_FILE = '''"""Where diffusers looks for the class of this component: it is in a file beside the pipeline's."""

import importlib

{name} = importlib.import_module(".{stem}", __package__).{name}

__all__ = ["{name}"]
'''


def write_pipeline_code(folder: str | os.PathLike[str]) -> list[Path]:
    """Makes a saved pipeline of ours loadable without this package; a second time there is nothing left to do.

    Args:
        folder: what `save_pretrained` of the pipeline wrote. Weights are not touched.

    Returns:
        The files it wrote, each whole or not at all; those that were as they should be are not among them.
    """
    from unibrivl.hub.flat import read_fields, with_imports, write_changed

    folder = Path(folder)
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(f"{folder} has no {INDEX}: pass the folder that save_pretrained of a pipeline wrote")
    fields = read_fields(index)
    name = class_of(fields)
    if name not in PIPELINES:
        raise ValueError(f"{index} is of a {name}, which is not of {', '.join(PIPELINES)}: there is no code to add")
    places = {folder_of("pipelines") / f"{PIPELINES[name]}.py"}
    texts: dict[Path, bytes] = {}
    for part, entry in fields.items():
        found = COMPONENT.fullmatch(entry[0]) if isinstance(entry, list) and isinstance(entry[0], str) else None
        if found is None or part == "_class_name":
            continue
        stem = found[1]
        places.add(folder_of("modeling") / f"{stem}.py")
        fields[part] = [f"component_{stem}", entry[1]]
        text = COMPONENT_FILE.format(name=entry[1], stem=stem)
        texts[folder / part / f"component_{stem}.py"] = text.encode()
    fields["_class_name"] = [ENTRY, name]
    if not is_repository(fields.get("_name_or_path")):
        fields.pop("_name_or_path", None)  # a folder on somebody's machine
    files = sorted(with_imports(places), key=lambda path: path.stem)
    for path in files:
        texts[folder / path.name] = path.read_bytes()
    imports = "\n".join(f"    from .{path.stem} import __all__  # noqa: F401" for path in files)
    texts[folder / f"{ENTRY}.py"] = PIPELINE_FILE.format(name=name, stem=PIPELINES[name], imports=imports).encode()
    texts[index] = (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
    return write_changed(texts)


def class_of(fields: Mapping[str, Any]) -> str:
    """The name of the pipeline's class in `model_index.json`, with code beside it or without."""
    name = fields.get("_class_name") or ""
    return str(name[-1]) if isinstance(name, list) else str(name)


def is_repository(name: Any) -> bool:
    """Whether a name can be one of the Hub's, org/name, and is no path."""
    return (
        isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()
    )


def folder_of(package: str) -> Path:
    """Where a package of ours is installed, found without importing it."""
    spec = importlib.util.find_spec(f"unibrivl.{package}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


__all__ = ["PIPELINES", "class_of", "is_repository", "write_pipeline_code"]
