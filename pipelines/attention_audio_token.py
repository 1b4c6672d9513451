"""Attention that one picture takes from another while both are drawn: prompt-to-prompt's control of a UNet.

    with Control(...).of(unet) as control:
        pipe([source, target], callback_on_step_end=...)       # which calls control.next_step()

Rows of a call are [source, target] or, with guidance, [source, target] without text and then with. For the first steps
the target's maps of words become the source's, by an alignment, and its maps of places are the source's own.

In layers of few places the UNet's processors become diffusers' plain one, which computes maps openly; what a layer
looks at is changed where it computes it. Larger layers attend as before, so that no map is larger than `MOST_PLACES`
squared. Afterwards everything is as it was, whatever happens in between.

Shapes: B pairs, R rows of a call, H heads, Q places of a picture, L tokens, h x w places of a latent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.nn import functional as F

MOST_PLACES = 32 * 32  # prompt-to-prompt code: maps of larger layers stay what they are
BLEND_FROM = 0.3  # prompt-to-prompt code: of the largest value of a map


class Control:
    """
    Args:
        maps_BLL, taken_BL: of each pair, see `alignment_audio_token.alignment`.
        steps (`int`): of the whole call.
        cross (`float`): share of the steps in which words' maps are taken.
        itself (`float`): share of the steps in which places' maps are taken.
        self_places (`int`): layers with more places keep their own of the latter.
        weights_BL (*optional*): by which the target's maps of tokens are multiplied.
        blend (*optional*): of each pair the places of the source's and of the target's tokens, outside of which the
            picture stays the source's.
    """

    def __init__(
        self,
        maps_BLL: torch.Tensor,
        taken_BL: torch.Tensor,
        steps: int,
        cross: float,
        itself: float,
        self_places: int = 16 * 16,
        weights_BL: torch.Tensor | None = None,
        blend: list[tuple[list[int], list[int]]] | None = None,
    ):
        self.maps_BLL, self.taken_BL, self.weights_BL = maps_BLL, taken_BL, weights_BL
        self.cross_steps, self.self_steps = round(cross * steps), round(itself * steps)
        self.self_places, self.blend, self.step = self_places, blend, 0
        self.seen: dict[int, torch.Tensor] = {}  # places of a layer -> (2 B, Q, L), the sum of its maps of words

    @property
    def pairs(self) -> int:
        return len(self.maps_BLL)

    def next_step(self) -> None:
        self.step += 1

    @contextmanager
    def of(self, unet: Any) -> Iterator["Control"]:
        """While it lasts, the layers of this UNet are controlled."""
        before = dict(unet.attn_processors)
        layers = {
            name: layer
            for name, layer in unet.named_modules()
            if isinstance(layer, Attention) and name.endswith(("attn1", "attn2"))
        }
        named = {f"{name}.processor" for name in layers}
        strange = sorted({type(one).__name__ for name, one in before.items() if name in named and has_weights(one)})
        if strange:
            raise ValueError(
                f"this UNet attends by {strange[0]}, which has weights of its own that controlled attention would "
                "leave out: unload the IP-Adapter, or take edit_method='sdedit'"
            )
        try:
            unet.set_attn_processor({name: Openly(one) if name in named else one for name, one in before.items()})
            for name, layer in layers.items():
                layer.__dict__["get_attention_scores"] = self._scores(layer, name.endswith("attn2"))
            yield self
        finally:
            for layer in layers.values():
                layer.__dict__.pop("get_attention_scores", None)
            unet.set_attn_processor(before)

    def _scores(self, layer: Attention, is_cross: bool) -> Any:
        own = layer.get_attention_scores

        def scores(query, key, attention_mask=None):
            probs = own(query, key, attention_mask)
            places = probs.shape[1]
            rows_RHQL = probs.unflatten(0, (-1, layer.heads))
            changed = self._cross(rows_RHQL) if is_cross else self._self(rows_RHQL, places)
            return changed.flatten(0, 1)

        return scores

    def _cross(self, rows_RHQL: torch.Tensor) -> torch.Tensor:
        told = rows_RHQL[-2 * self.pairs :]  # those with a text
        source_BHQL, target_BHQL = told.chunk(2)
        if self.step < self.cross_steps:
            taken = torch.einsum("bhqs,bst->bhqt", source_BHQL, self.maps_BLL.to(source_BHQL))
            share = self.taken_BL.to(source_BHQL)[:, None, None]
            target_BHQL = share * taken + (1 - share) * target_BHQL
        if self.weights_BL is not None:
            target_BHQL = target_BHQL * self.weights_BL.to(target_BHQL)[:, None, None]
        if self.blend is not None:
            maps = torch.cat([source_BHQL, target_BHQL]).float().mean(1)
            places = maps.shape[1]
            self.seen[places] = self.seen[places] + maps if places in self.seen else maps
        return torch.cat([rows_RHQL[: -2 * self.pairs], source_BHQL, target_BHQL])

    def _self(self, rows_RHQL: torch.Tensor, places: int) -> torch.Tensor:
        if self.step >= self.self_steps or places > self.self_places:
            return rows_RHQL
        halves = rows_RHQL.split(self.pairs)  # source, target, and again with a text
        return torch.cat([one for source in halves[::2] for one in (source, source)])

    def blended(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (2 B, C, h, w) in which the targets are their sources outside of what the blend's words look at."""
        if self.blend is None or not self.seen:
            return latents
        source, target = latents.chunk(2)
        sides = latents.shape[-2:]
        small = [places for places in self.seen if places <= 16 * 16] or [min(self.seen)]
        maps_RQL = self.seen[max(small)]
        height = round((maps_RQL.shape[1] * sides[0] / sides[1]) ** 0.5)
        maps_RLhw = maps_RQL.transpose(1, 2).unflatten(2, (height, -1))
        masks = []
        for pair, (old, new) in enumerate(self.blend):
            found = [mask_of(maps_RLhw[pair], old, sides), mask_of(maps_RLhw[self.pairs + pair], new, sides)]
            masks.append(torch.stack([one for one in found if one is not None]).amax(0))
        mask_B1hw = torch.stack(masks)[:, None].to(latents)
        return torch.cat([source, source + mask_B1hw * (target - source)])


class Openly:
    """A layer's processor, or, where the places are few enough, one that computes its maps where they can be seen."""

    def __init__(self, before: Any):
        self.before, self.plain = before, AttnProcessor()

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        places = hidden_states.shape[1] if hidden_states.dim() == 3 else hidden_states.shape[2:].numel()
        return (self.plain if places <= MOST_PLACES else self.before)(attn, hidden_states, *args, **kwargs)


def mask_of(maps_Lhw: torch.Tensor, tokens: list[int], sides: torch.Size) -> torch.Tensor | None:
    """(h, w), 1 where some tokens are looked for."""
    if not tokens:
        return None
    heat = maps_Lhw[tokens].mean(0)[None, None]
    heat = F.max_pool2d(heat, 3, stride=1, padding=1)
    heat = F.interpolate(heat, size=tuple(sides), mode="bilinear")[0, 0]
    return (heat / heat.max().clamp(min=1e-12) > BLEND_FROM).float()


def has_weights(processor: Any) -> bool:
    return isinstance(processor, torch.nn.Module) and any(True for _ in processor.parameters())


__all__ = ["Control"]
