"""How a pipeline with sounds as words is loaded: a base of diffusers, an adapter, its ears, from wherever each is."""

import os
from typing import Any

from .loading_pipeline_unibrivl import LoadsMatcher, dtype_in, module_of_ours
from .matching_unibrivl import INSTALL, PLACES, load_matcher

ADAPTER = "audio_adapter"
PARTS = (ADAPTER, "audio_encoder", "audio_feature_extractor")


class LoadsAdapter(LoadsMatcher):
    """`from_pretrained(base, audio_adapter="org/adapter", audio_encoder="org/ears")`.

    Names or folders are loaded, with what prepares the ears' sounds; `audio_encoder_kwargs` and `audio_adapter_kwargs`
    go to their own `from_pretrained`.
    """

    _parts_of_ours = (*LoadsMatcher._parts_of_ours, *PARTS)

    @classmethod
    def _dict_from_json_file(cls, json_file):
        """As in `LoadsMatcher`; an adapter that lies beside an index which does not name it is taken too.

        So a folder of `UniBriVLPipeline` or of diffusers' own may hold one, and these do not stumble over it.
        """
        fields = super()._dict_from_json_file(json_file)
        folder, name = os.path.split(os.fspath(json_file))
        beside = os.path.isfile(os.path.join(folder, ADAPTER, "config.json"))
        if beside and name == cls.config_name and ADAPTER not in fields:  # type: ignore[attr-defined]
            fields[ADAPTER] = [module_of_ours("modeling_audio_token"), "AudioTokenAdapter"]
        return fields

    @classmethod
    def _load_parts(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        kwargs = super()._load_parts(kwargs)
        kwargs = with_part(kwargs, ADAPTER, load_adapter)
        encoder = kwargs.get("audio_encoder")
        if isinstance(encoder, (str, os.PathLike)):
            kwargs = with_part(kwargs, "audio_encoder", load_ears)
            kwargs["audio_encoder"], found = kwargs["audio_encoder"]
            kwargs.setdefault("audio_feature_extractor", found)
        return kwargs


def with_part(kwargs: dict[str, Any], name: str, load: Any) -> dict[str, Any]:
    """Arguments in which a component that is a name or a folder is loaded."""
    kwargs = dict(kwargs)
    own, source = kwargs.pop(f"{name}_kwargs", None) or {}, kwargs.get(name)
    if not isinstance(source, (str, os.PathLike)):
        if own:
            raise ValueError(f"{name}_kwargs are for loading it: pass its name or folder as {name}")
        return kwargs
    dtype = dtype_in(kwargs)
    dtype = dtype.get(name, dtype.get("default")) if isinstance(dtype, dict) else dtype
    where = {one: kwargs[one] for one in PLACES if one in kwargs}
    kwargs[name] = load(os.fspath(source), **{**where, **({} if dtype is None else {"dtype": dtype}), **own})
    return kwargs


def load_adapter(source: str, **kwargs: Any) -> Any:
    try:
        from unibrivl.modeling.modeling_audio_token import AudioTokenAdapter
    except ImportError:
        from transformers import AutoModel

        return AutoModel.from_pretrained(source, **kwargs)
    return AudioTokenAdapter.from_pretrained(source, **kwargs)


def load_ears(source: str, **kwargs: Any) -> tuple[Any, Any]:
    """A model that hears, and what prepares its sounds."""
    try:
        from unibrivl.modeling.towers_unibrivl import load_audio_tower
    except ImportError as error:
        raise ValueError(
            f"an audio encoder is found by its name with the package ({INSTALL}): without it pass the model and its "
            "feature extractor"
        ) from error
    from transformers import AutoConfig, AutoFeatureExtractor

    where = {name: kwargs[name] for name in (*PLACES, "revision") if name in kwargs}
    if AutoConfig.from_pretrained(source, **where).model_type == "unibrivl":
        return load_matcher(source, **kwargs)
    return load_audio_tower(source, **kwargs), AutoFeatureExtractor.from_pretrained(source, **where)


__all__ = ["PARTS", "LoadsAdapter"]
