"""The sound in the place of a picture: its embedding in the image tower's own space goes where a picture's would.

UniBriVL takes a sound a to g(a), where the image tower's pictures lie. If that tower is CLIP, adapters that were
trained on CLIP's embeddings of pictures take it: an IP-Adapter on Stable Diffusion, or a Stable unCLIP. That the two
are the same CLIP nobody but the caller can know; the widths are checked.

Shapes: Q sounds, R rows, V numbers of an embedding of the image tower.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .image_embeds_unibrivl import EmbedsOfRows
from .strategy_unibrivl import Request, Strategy

OTHERS = "The strategies rerank, halving and guide need no such adapter"
TAKEN = ("ip_adapter_image", "ip_adapter_image_embeds", "image", "image_embeds")


@dataclass(frozen=True, kw_only=True)
class Embed(Strategy):
    """
    Args:
        scale (*optional*): of the IP-Adapter during the call, a number or what `set_ip_adapter_scale` takes; by
            default as it is set. An unCLIP has none: its `noise_level` says how loosely it follows.
        length (`float`, *optional*): to which the embedding is brought, since g(a) is of length one and those of
            pictures are not. By default that of the adapter's own statistics, or of the image tower's embedding of a
            picture.
    """

    num_candidates: int = 1  # OURS: the sound conditions every picture; more are for ranking
    scale: float | dict | None = None
    length: float | None = None

    name = "embed"
    needs_prompts = False

    def __post_init__(self):
        super().__post_init__()
        if self.length is not None and self.length <= 0:
            raise ValueError(f"length must be more than 0, got {self.length}")

    def check(self, request: Request) -> None:
        pipe, listener = request.pipe, request.pipe.listener
        if not callable(getattr(listener, "native_part", None)):
            name = getattr(listener, "name", type(listener).__name__)
            raise ValueError(
                "embed needs a matcher with an image tower of its own, whose space an adapter was trained on, and "
                f"{name} has none: take a UniBriVL with CLIP. {OTHERS}"
            )
        width = adapter_width(pipe)
        found = listener.native_part(request.queries[:1]).shape[-1]
        if found != width:
            raise ValueError(
                f"the adapter takes embeddings of {width} numbers and the matcher's image tower gives {found}: take "
                f"an adapter and a UniBriVL on the same CLIP. {OTHERS}"
            )
        given = [name for name in TAKEN if request.call.get(name) is not None]
        if given:
            raise ValueError(f"embed puts the sound where {given[0]} would go: pass one of both, or another strategy")
        if self.scale is not None and hasattr(pipe, "image_normalizer"):
            raise ValueError("scale is of an IP-Adapter, and an unCLIP has none: pass noise_level in the call")

    def prepare(self, request: Request) -> dict[str, Any]:
        pipe = request.pipe
        native_QV = pipe.listener.native_part(request.queries).float()
        native_QV = torch.nn.functional.normalize(native_QV, dim=-1) * self.length_for(pipe)
        rows_RV = native_QV.repeat_interleave(request.per_sound, dim=0)
        rows_RV = rows_RV.to(device=pipe._execution_device, dtype=pipe.unet.dtype)
        if hasattr(pipe, "image_normalizer"):
            return {"image_embeds": rows_RV}
        return {"ip_adapter_image_embeds": EmbedsOfRows([rows_RV[:, None]])}

    def length_for(self, pipe: Any) -> float:
        if self.length is not None:
            return self.length
        if hasattr(pipe, "image_normalizer"):
            mean, std = pipe.image_normalizer.mean.float(), pipe.image_normalizer.std.float()
            return float((mean**2 + std**2).sum().sqrt())
        return pipe.listener.native_length()

    @contextmanager
    def during(self, request: Request) -> Iterator[None]:
        if self.scale is None:
            yield
            return
        processors = request.pipe.unet.attn_processors
        before = {name: list(one.scale) for name, one in processors.items() if isinstance(scale_of(one), list)}
        try:
            request.pipe.set_ip_adapter_scale(self.scale)
            yield
        finally:
            for name, scales in before.items():
                processors[name].scale = scales


def adapter_width(pipe: Any) -> int:
    """How many numbers the embedding of a picture has that a pipeline is conditioned on."""
    if hasattr(pipe, "image_normalizer"):
        return pipe.image_normalizer.config.embedding_dim
    layers = getattr(getattr(pipe.unet, "encoder_hid_proj", None), "image_projection_layers", None)
    if not layers:
        raise ValueError(
            "embed needs what takes embeddings of pictures: load an IP-Adapter with load_ip_adapter(..., "
            f"image_encoder_folder=None), or use UniBriVLUnCLIPPipeline. {OTHERS}"
        )
    if len(layers) > 1:
        raise ValueError(f"{len(layers)} IP-Adapters are loaded and a sound is one embedding: load one. {OTHERS}")
    linear = getattr(layers[0], "image_embeds", None)
    if linear is None:
        raise ValueError(
            f"this IP-Adapter ({type(layers[0]).__name__}) takes a picture's patches or a face, and a sound is one "
            f"embedding: load a plain one, such as ip-adapter_sd15. {OTHERS}"
        )
    return linear.in_features


def scale_of(processor: Any) -> Any:
    return getattr(processor, "scale", None)


__all__ = ["Embed"]
