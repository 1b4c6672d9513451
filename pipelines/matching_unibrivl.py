"""From the components of a pipeline to a matcher, where this package is installed and where only its files are."""

import os
from typing import Any

PLACES = ("token", "cache_dir", "local_files_only", "force_download", "trust_remote_code")  # of the base, and of ours
INSTALL = 'pip install "unibrivl[diffusion]"'


def matcher_for(model: Any, processor: Any) -> Any:
    """What hears and sees for a pipeline.

    Args:
        model: a matcher by the protocol, a model that offers `as_matcher(processor)` (UniBriVL), or, with this package
            installed, any model that `unibrivl.load` takes.
        processor: what prepares its input.
    """
    if callable(getattr(model, "encode_audio", None)) and callable(getattr(model, "encode_image", None)):
        return model
    if processor is None:
        raise ValueError(
            f"the matcher is a {type(model).__name__} without what prepares its input: pass matcher_processor too, or "
            "the name of a repository as matcher, which brings both"
        )
    if hasattr(model, "as_matcher"):
        matcher = model.as_matcher(processor)
    else:
        try:
            from unibrivl.modeling.matching_models_unibrivl import matcher_of
        except ImportError as error:
            raise ValueError(
                f"a {type(model).__name__} becomes a matcher only with the package: {INSTALL}. Without it the matcher "
                "is a UniBriVLModel, or an object with encode_audio and encode_image"
            ) from error
        matcher = matcher_of(model, processor)
    for kind in ("audio", "image"):
        if kind not in matcher.kinds:
            raise ValueError(
                f"the matcher {matcher.name} encodes {', '.join(matcher.kinds)}, and a pipeline needs sounds and "
                "pictures: take UniBriVL or PE-AV, with a processor that has the parts for both"
            )
    return matcher


def load_matcher(source: str | os.PathLike[str], processor: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    """The model of a repository or folder, and what prepares its input.

    Args:
        source: name or folder: UniBriVL, PE-AV (`facebook/pe-av-small`).
        processor (*optional*): the processor, or where it is, if it does not lie beside the model.
        kwargs: for `from_pretrained`.
    """
    source = os.fspath(source)
    try:
        from unibrivl.modeling.matching_models_unibrivl import load_model_and_processor
    except ImportError:
        load_model_and_processor = load_by_auto_classes
    if isinstance(processor, (str, os.PathLike)):
        return load_model_and_processor(source, **kwargs)[0], load_model_and_processor(os.fspath(processor), **kwargs)[
            1
        ]
    return load_model_and_processor(source, processor, **kwargs)


def load_by_auto_classes(source: str, processor: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    """The same without this package: what a push of UniBriVL has put on the Hub, with its code."""
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(source, **kwargs)
    where = {name: kwargs[name] for name in (*PLACES, "revision") if name in kwargs}
    return model, processor or AutoProcessor.from_pretrained(source, **where)


__all__ = ["PLACES", "load_matcher", "matcher_for"]
