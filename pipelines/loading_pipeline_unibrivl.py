"""How a pipeline of ours is loaded and pushed: a base of diffusers and a matcher from wherever each is, or one folder.

A folder names the classes of its components in `model_index.json`. Ours stand there in one of two ways: by their
module in this package (what `save_pretrained` writes), or by a small file in the component's folder (what a push
writes, with the code beside: see `unibrivl.hub.flat_pipeline`). The classes of ours read both, and take the module
that lies beside their own: that of the installed package, or of the flat copy. So nobody is asked to trust what is
installed.
"""

import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from .matching_unibrivl import INSTALL, PLACES, load_matcher
from .prompts_unibrivl import checked_banks

# a component's class of ours: its module in the package, or the file that a push puts into the component's folder
OURS = re.compile(r"(?:unibrivl\.modeling\.|component_)((?:modeling|processing|feature_extraction)_\w+)")

_downloading: ContextVar[bool] = ContextVar("downloading", default=False)


class LoadsMatcher:
    """Stands before a pipeline of diffusers and says where the matcher comes from."""

    _parts_of_ours: tuple[str, ...] = ("matcher", "matcher_processor")  # components whose class may be one of ours

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in diffusers; a matcher may be a name or a folder too.

        Args:
            pretrained_model_name_or_path: a repository or folder of Stable Diffusion, or one that holds the matcher as
                well.
            matcher (*optional*): name or folder of UniBriVL or PE-AV, or a loaded model, or `None` for none.
            matcher_processor (*optional*): what prepares its input: needed with a loaded model.
            matcher_kwargs (`dict`, *optional*): for the matcher's own `from_pretrained`: revision, dtype, ...
            dtype (*optional*): of all models, however they are stored: float32 unless told otherwise. (Without one,
                diffusers' own classes would come in float32, and those of transformers as they are stored.)
            kwargs: of `DiffusionPipeline.from_pretrained`.
        """
        if kwargs.get("torch_dtype") is None and kwargs.get("dtype") is None:
            kwargs = {name: value for name, value in kwargs.items() if name != "torch_dtype"}
            kwargs["dtype"] = torch.float32
        kwargs = cls._load_parts(kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_pipe(cls, pipeline, **kwargs):
        """As in diffusers: the components of another pipeline, and a matcher as in `from_pretrained`."""
        return super().from_pipe(pipeline, **cls._load_parts(kwargs))  # type: ignore[misc]

    @classmethod
    def from_single_file(cls, pretrained_model_link_or_path, **kwargs):
        """As in diffusers: a base in one file, and a matcher as in `from_pretrained`."""
        kwargs = cls._load_parts(kwargs)
        return super().from_single_file(pretrained_model_link_or_path, **kwargs)  # type: ignore[misc]

    @classmethod
    def _load_parts(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments in which components that are given by name are loaded."""
        return with_matcher(kwargs, dtype_in(kwargs))

    @classmethod
    def download(cls, pretrained_model_name, **kwargs):
        """As in diffusers."""
        with downloading():
            return super().download(pretrained_model_name, **kwargs)  # type: ignore[misc]

    @classmethod
    def _dict_from_json_file(cls, json_file):
        """`model_index.json` with the classes of ours where they are in this process."""
        fields = super()._dict_from_json_file(json_file)  # type: ignore[misc]
        name = fields.get("_class_name")
        if isinstance(name, list):  # [file, class]: this class is loaded already
            fields["_class_name"] = name = name[-1]
        if os.path.basename(json_file) == cls.config_name:  # type: ignore[attr-defined]
            cls._refuse_other_bases(json_file, name, fields)
        for part in cls._parts_of_ours:
            library = (fields.get(part) or [None])[0]
            if library and (found := OURS.fullmatch(library)):
                # a download only asks which folders there are, and knows no module but those of some libraries
                fields[part][0] = "transformers" if _downloading.get() else module_of_ours(found[1])
        return Index(fields)

    @classmethod
    def _refuse_other_bases(cls, json_file, name: Any, fields: dict[str, Any]) -> None:
        needed = cls._get_signature_keys(cls)[0]  # type: ignore[attr-defined]
        optional = set(cls._optional_components)  # type: ignore[attr-defined]
        xl = "text_encoder_2" in needed
        wrong = [part for part in needed if part not in fields and part not in optional]
        if "text_encoder_2" in fields and not xl:
            advice = "it is of SDXL's kind, which UniBriVLXLPipeline loads"
        elif "text_encoder_2" not in fields and xl and "unet" in fields:
            advice = "it is of Stable Diffusion 1.x or 2.x, which UniBriVLPipeline loads"
        elif "unet" in wrong or "vae" in wrong:
            advice = f"its parts are {', '.join(part for part in fields if isinstance(fields[part], list))}"
        else:
            return
        base = "Stable Diffusion XL" if xl else "Stable Diffusion 1.x or 2.x"
        raise ValueError(f"{cls.__name__} needs a base of {base}, and {json_file} is of a {name}: {advice}")

    def register_to_config(self, **kwargs):
        """As in diffusers; a class that came out of a flat copy is written as the same class of the package."""
        for part in self._parts_of_ours:
            library, name = kwargs.get(part) or (None, None)
            if library and library.split(".")[0] in ("diffusers_modules", "transformers_modules"):
                kwargs[part] = (f"unibrivl.modeling.{library.rpartition('.')[2]}", name)
        super().register_to_config(**kwargs)  # type: ignore[misc]

    def _register_banks(self, label_banks: Any) -> None:
        self.register_to_config(label_banks=checked_banks(label_banks))

    def to_json_string(self) -> str:
        """As in diffusers, which sorts: label banks keep their order, since the first is the default."""
        fields = json.loads(super().to_json_string())  # type: ignore[misc]
        if "label_banks" in fields:
            fields["label_banks"] = self.config["label_banks"]  # type: ignore[attr-defined]
        return json.dumps(fields, indent=2) + "\n"

    def push_to_hub(self, *args, **kwargs):
        """As in diffusers, with the code: load it with `trust_remote_code=True` where this package is missing."""
        code_writer()  # before a repository is made
        return super().push_to_hub(*args, **kwargs)  # type: ignore[misc]

    def _upload_folder(self, working_dir, *args, **kwargs):
        """What every push of diffusers ends with: the code goes along."""
        code_writer()(working_dir)
        return super()._upload_folder(working_dir, *args, **kwargs)  # type: ignore[misc]


class Index(dict):
    """What `model_index.json` says. `in` leaves out a processor: looking for the files of a variant, diffusers asks so
    which folders there are, and stumbles over one that has a folder in it, as a processor with two tokenizers does.
    """

    def __contains__(self, name: object) -> bool:
        return name != "matcher_processor" and super().__contains__(name)


def dtype_in(kwargs: dict[str, Any]) -> Any:
    """Of all models, by its name of today or the older one."""
    dtype = kwargs.get("dtype")
    return kwargs.get("torch_dtype") if dtype is None else dtype


def with_matcher(kwargs: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Arguments in which a matcher that is a name or a folder is loaded, with its processor."""
    kwargs = dict(kwargs)
    own = kwargs.pop("matcher_kwargs", None) or {}
    matcher, processor = kwargs.get("matcher"), kwargs.get("matcher_processor")
    if not isinstance(matcher, (str, os.PathLike)):
        if own:
            raise ValueError("matcher_kwargs are for loading a matcher: pass its name or folder as matcher")
        if isinstance(processor, (str, os.PathLike)):
            raise ValueError(
                "matcher_processor is a name, and the matcher is not: load the processor, or pass both names"
            )
        return kwargs
    dtype = dtype.get("matcher", dtype.get("default")) if isinstance(dtype, dict) else dtype
    where = {name: kwargs[name] for name in PLACES if name in kwargs}
    settings = {**where, **({} if dtype is None else {"dtype": dtype}), **own}
    kwargs["matcher"], kwargs["matcher_processor"] = load_matcher(matcher, processor, **settings)
    return kwargs


def module_of_ours(stem: str) -> str:
    """The module of a component's class that lies beside this code, imported: diffusers looks for it among those."""
    place = __name__.rpartition(".")[0]
    name = f"unibrivl.modeling.{stem}" if place == "unibrivl.pipelines" else f"{place}.{stem}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a component's class is in {stem}.py, which is not among the code that is here. Update the package "
            f"({INSTALL}), or load with DiffusionPipeline.from_pretrained, which takes the code of the repository"
        ) from error
    return name


def code_writer() -> Any:
    try:
        from unibrivl.hub.flat_pipeline import write_pipeline_code
    except ImportError as error:
        raise ValueError(f"a push takes the code along, out of the package: {INSTALL}") from error
    return write_pipeline_code


@contextmanager
def downloading() -> Iterator[None]:
    token = _downloading.set(True)
    try:
        yield
    finally:
        _downloading.reset(token)


__all__ = ["LoadsMatcher"]
