"""Guidance by the sound: each step's clean picture is moved to where the matching score is higher.

The picture that the UNet is heading for is decoded, scored, and the score's gradient taken back through the matcher
and the VAE to its latents; these move a little that way, and the UNet's output is rewritten as if it had said so. The
UNet itself is not differentiated: its answer to the latents is taken as given, so a step costs a decoding with its
gradient and no second pass of the UNet's weights.

Shapes: A rows that are there, C channels, H x W latents.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .steering_unibrivl import Moment
from .strategy_unibrivl import Request, Strategy

# the switches of diffusers and transformers (the last one until 5.4), and what they change in a module
SWITCHES = ("enable_gradient_checkpointing", "activation_checkpointing_enable", "gradient_checkpointing_enable")
SUPPORT = ("_supports_gradient_checkpointing", "supports_gradient_checkpointing")
SWITCHED = ("gradient_checkpointing", "_gradient_checkpointing_func", "training")
# the direction alone is used, so the score may be as large as half precision can carry its gradient
LOSS_SCALE = 1024.0  # OURS: cosines have gradients of 1e-3 and less, which float16 would round to nothing


@dataclass(frozen=True, kw_only=True)
class Guide(Strategy):
    """
    Args:
        scale: how far a step moves the clean latents, as a share of their length, where the latents are all noise; at
            less noise it is proportionally less, so that late steps do not paint over the picture. It depends neither
            on the scheduler nor on the resolution. 0 does nothing.
        start, stop: the shares of the steps between which it works.
        every: only each so-many-th step is guided.
        repeats: gradients taken in one step; they share its length.
        side: pictures larger than this many pixels are decoded smaller for the gradient.
        rows: candidates that are decoded with a gradient at once.
        checkpointing: activations of VAE and matcher are computed again instead of kept, where the classes can.
    """

    num_candidates: int = 1  # OURS: guidance finds by itself what others choose from many
    scale: float = 0.1  # OURS: seen to raise the score on small models; to be measured on the embedded one
    start: float = 0.1  # OURS: the first pictures are blurs that score by chance
    stop: float = 0.8  # OURS: the last steps belong to the UNet, which cleans up after the gradient
    every: int = 1
    repeats: int = 1
    side: int = 512
    rows: int = 1
    checkpointing: bool = True

    name = "guide"
    steers = True

    def __post_init__(self):
        super().__post_init__()
        if self.scale < 0:
            raise ValueError(f"scale must be 0 or more, got {self.scale}: a negative one leads away from the sound")
        if not 0 <= self.start < self.stop <= 1:
            raise ValueError(
                f"start and stop are shares with 0 <= start < stop <= 1, got {self.start} and {self.stop}"
            )
        for field in ("every", "repeats", "side", "rows"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")

    def during(self, request: Request):
        """Weights stay out of the gradient, which then keeps none of the activations that only they need."""
        modules = [one for one in (request.pipe.vae, request.pipe.matcher) if isinstance(one, nn.Module)]
        stack = ExitStack()
        for module in modules:
            stack.enter_context(without_weight_gradients(module))
            if self.checkpointing:
                stack.enter_context(checkpointed(module))
        return stack

    def adjust(self, moment: Moment, request: Request) -> torch.Tensor | None:
        if not self.works_at(moment.step, moment.num_steps):
            return None
        clean_ACHW = moment.clean
        length_A111 = self.scale * moment.level.noise / self.repeats * norms(clean_ACHW)
        for _ in range(self.repeats):
            gradient_ACHW = self.gradient(clean_ACHW, moment.rows, request)
            # where the score does not change, as in a picture that is all clipped, there is nowhere to go
            direction_ACHW = gradient_ACHW / norms(gradient_ACHW).clamp_min(torch.finfo(gradient_ACHW.dtype).tiny)
            clean_ACHW = clean_ACHW + length_A111 * direction_ACHW
        return moment.toward(clean_ACHW)

    def works_at(self, step: int, num_steps: int) -> bool:
        first, last = round(self.start * num_steps), round(self.stop * num_steps)
        return self.scale > 0 and first <= step < last and (step - first) % self.every == 0

    def gradient(self, clean_ACHW: torch.Tensor, rows: torch.Tensor, request: Request) -> torch.Tensor:
        """(A, C, H, W): of each row's matching score by its clean latents, up to a factor."""
        if request.steering is not None:
            request.steering.pictures += len(rows)
        # a caller's inference_mode would make latents of which autograd keeps nothing
        with torch.inference_mode(False), torch.enable_grad(), upcast(request.pipe):
            pieces = []
            for start in range(0, len(rows), self.rows):
                leaf = clean_ACHW[start : start + self.rows].detach().clone().requires_grad_()
                score = self.score(leaf, rows[start : start + self.rows], request)
                pieces.append(torch.autograd.grad(LOSS_SCALE * score.sum(), leaf)[0])
        return torch.cat(pieces)

    def score(self, clean_ACHW: torch.Tensor, rows: torch.Tensor, request: Request) -> torch.Tensor:
        """(A,) the matching score of clean latents, at the size at which they are decoded for it."""
        pixels = max(clean_ACHW.shape[-2:]) * request.pipe.vae_scale_factor
        if pixels > self.side:
            clean_ACHW = nn.functional.interpolate(clean_ACHW, scale_factor=self.side / pixels, mode="area")
        return request.scores(request.pipe.decode_pictures(clean_ACHW), rows, gradients=True)


def norms(values_ACHW: torch.Tensor) -> torch.Tensor:
    """(A, 1, 1, 1) the length of each row."""
    return values_ACHW.flatten(1).norm(dim=1)[:, None, None, None]


@contextmanager
def upcast(pipe: Any) -> Iterator[None]:
    """SDXL's VAE, which overflows in float16, in float32 until the gradient is back and not just while it decodes."""
    vae = pipe.vae
    if not (hasattr(pipe, "upcast_vae") and vae.dtype == torch.float16 and vae.config.force_upcast):
        yield
        return
    vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        vae.to(dtype=torch.float16)


@contextmanager
def without_weight_gradients(module: nn.Module) -> Iterator[None]:
    wanted = [one for one in module.parameters() if one.requires_grad]
    for one in wanted:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in wanted:
            one.requires_grad_(True)


@contextmanager
def checkpointed(module: Any) -> Iterator[None]:
    """Gradient checkpointing by the class's own switch; where there is none, or it is on, all stays as it is."""
    parts = [one for one in module.modules() if hasattr(one, "gradient_checkpointing")]
    can = any(getattr(module, name, False) for name in SUPPORT)
    switch = next((getattr(module, name) for name in SWITCHES if hasattr(module, name)), None)
    if not parts or not can or switch is None or any(one.gradient_checkpointing for one in parts):
        yield
        return
    before = [(one, {name: vars(one)[name] for name in SWITCHED if name in vars(one)}) for one in parts]
    try:
        switch()
        for one in parts:
            if isinstance(one, GradientCheckpointingLayer):
                one.training = True  # it does so in training only; the flags of its dropout are others
        yield
    finally:
        for one, values in before:
            for name in SWITCHED:
                if name in values:
                    setattr(one, name, values[name])
                elif name in vars(one):
                    delattr(one, name)


__all__ = ["Guide"]
