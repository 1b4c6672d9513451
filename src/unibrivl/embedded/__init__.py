"""The embedded model: a small pipeline from sound to picture that lies in this package and needs no network.

`unibrivl.embedded()` is the folder of the variant "open", `src/unibrivl/embedded/open`: what `UniBriVLPipeline` takes,
and of its matcher `unibrivl.load("embedded")`. `make embedded VARIANT=open|research` trains one from nothing; only the
open one is shipped. Its weights have terms of their own, in LICENSE-WEIGHTS beside them, which are said once.

`import unibrivl.embedded` binds this module to the name of the function, so the module can be called as well.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).parent
VARIANTS = ("open", "research")
OVERRIDE = "UNIBRIVL_EMBEDDED"  # names another folder, to try out one that was trained here
LICENCE = "LICENSE-WEIGHTS"

logger = logging.getLogger(__name__)


def embedded(variant: str = "open") -> Path:
    """The folder of the embedded model, for `UniBriVLPipeline.from_pretrained`.

    Args:
        variant (`str`): "open", which this package carries, or "research", which it does not. The environment variable
            UNIBRIVL_EMBEDDED, if it is set, names the folder instead, whatever the variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"there is no variant {variant!r} of the embedded model: take {' or '.join(VARIANTS)}")
    folder, override = HERE / variant, os.environ.get(OVERRIDE)
    if override:
        folder = Path(override).expanduser()
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{OVERRIDE} names {folder}, which has no model_index.json: name the folder of a pipeline, or unset it"
            if override
            else f"the embedded model ({variant}) is not in this installation. In a checkout, with the data, "
            f"`make embedded VARIANT={variant} DATA=PACKS` trains it; {OVERRIDE}=FOLDER then says where it is"
        )
    say_licence(folder)
    return folder


@functools.cache
def say_licence(folder: Path) -> None:
    """Once for each folder: whose terms the weights are under."""
    place = folder / LICENCE
    try:
        paragraphs = place.read_text(encoding="utf-8").split("\n\n")
    except OSError:
        logger.warning("the weights in %s come without %s: ask whoever made them for their terms", folder, LICENCE)
        return
    told = " ".join(" ".join(paragraphs[:2]).split())
    logger.warning("%s Whom to thank: %s", told, place)


class Callable(types.ModuleType):
    def __call__(self, variant: str = "open") -> Path:
        return embedded(variant)


sys.modules[__name__].__class__ = Callable

__all__ = ["embedded"]
