"""What a denoising step takes the finished picture to be: from noisy latents and the UNet's output to clean latents,
and back from changed clean latents to an output.

Whatever a UNet predicts (the noise, the clean latents, v, the direction of a flow) and however a scheduler scales its
latents, at one step the clean latents are a sum of two terms, clean = p * latents + q * output. `level_of` knows p and
q for every scheduler of diffusers that Stable Diffusion runs on, so the way back needs no second table.

Shapes: R rows, C channels, H x W latents.
"""

import math
from typing import Any, NamedTuple

import torch


class Level(NamedTuple):
    """Where a scheduler stands at a step.

    Args:
        noise (`float`): the share of noise in the latents, from 0 to 1: signal^2 + noise^2 = 1.
        of_latents, of_output (`float`): p and q of clean = p * latents + q * output.
    """

    noise: float
    of_latents: float
    of_output: float


def level_of(scheduler: Any, timestep: Any) -> Level:
    """The level at which the scheduler stands when it is asked to step from `timestep`."""
    kind = prediction_of(scheduler)
    if getattr(scheduler, "sigmas", None) is None:
        share = float(scheduler.alphas_cumprod[int(timestep)])
        return mixture(kind, share**0.5, (1 - share) ** 0.5)
    sigma = sigma_of(scheduler, timestep)
    if kind == "edm":  # x = clean + sigma * noise, and clean latents as large as sigma_data
        data = scheduler.config.sigma_data
        total = math.hypot(sigma, data)
        sign = -1 if scheduler.config.prediction_type == "v_prediction" else 1
        return Level(sigma / total, (data / total) ** 2, sign * sigma * data / total)
    if kind == "flow" or getattr(scheduler.config, "use_flow_sigmas", False):
        return mixture(kind, 1 - sigma, sigma)
    signal = 1 / (sigma**2 + 1) ** 0.5
    # Euler's family lets its latents grow with the noise and works out how large they begin; the others say 1
    grows = isinstance(getattr(type(scheduler), "init_noise_sigma", None), property)
    return mixture(kind, signal, sigma * signal, signal if grows else 1.0)


def mixture(kind: str, signal: float, noise: float, scale: float = 1.0) -> Level:
    """The level of latents x with scale * x = signal * clean + noise * (what is no picture)."""
    share = noise / math.hypot(signal, noise)
    if kind == "clean":
        return Level(share, 0.0, 1.0)
    if kind == "noise":
        if signal == 0:
            raise ValueError(
                "the first step is noise alone, so a UNet that predicts noise says nothing about the picture: use a "
                "scheduler without rescale_betas_zero_snr, or a UNet with prediction_type v_prediction"
            )
        return Level(share, scale / signal, -noise / signal)
    if kind == "v":  # v = signal * noise - noise * clean
        return Level(share, signal * scale, -noise)
    return Level(share, scale, -noise)  # x = (1 - s) * clean + s * noise, and the output is noise - clean


def sigma_of(scheduler: Any, timestep: Any) -> float:
    """The noise of the latents that the UNet has just seen, in the scheduler's own terms."""
    if not getattr(scheduler, "state_in_first_order", True):  # a half-step between two of its sigmas
        between = getattr(scheduler, "mid_point_sigma", None)
        if between is not None:
            return float(between)
        if getattr(scheduler, "sigmas_interpol", None) is not None:
            ancestral = "Ancestral" in type(scheduler).__name__  # it keeps them one place earlier
            return float(scheduler.sigmas_interpol[scheduler.step_index - ancestral])
    index = scheduler.step_index
    if index is None:  # it has not stepped yet
        index = getattr(scheduler, "begin_index", None)
    if index is None:
        index = scheduler.index_for_timestep(timestep)
    return float(scheduler.sigmas[index])


def prediction_of(scheduler: Any) -> str:
    """What the UNet predicts for this scheduler: "noise", "clean", "v", "flow", or "edm" for EDM's own mixture."""
    name = type(scheduler).__name__
    if name.startswith("FlowMatch"):
        return "flow"
    if name.startswith("EDM"):
        return "edm"
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    kinds = {"epsilon": "noise", "sample": "clean", "v_prediction": "v", "flow_prediction": "flow"}
    if kind not in kinds:
        raise ValueError(f"{name} has the prediction type {kind!r}; known are {', '.join(kinds)}")
    return kinds[kind]


def clean_latents(
    scheduler: Any, output_RCHW: torch.Tensor, timestep: Any, latents_RCHW: torch.Tensor
) -> torch.Tensor:
    """The clean latents that the UNet's output says the noisy ones come from, in float32."""
    level = level_of(scheduler, timestep)
    return level.of_latents * exact(latents_RCHW) + level.of_output * exact(output_RCHW)


def output_for(scheduler: Any, clean_RCHW: torch.Tensor, timestep: Any, latents_RCHW: torch.Tensor) -> torch.Tensor:
    """The output with which the UNet would have said `clean_RCHW`: the inverse of `clean_latents`."""
    level = level_of(scheduler, timestep)
    output = (exact(clean_RCHW) - level.of_latents * exact(latents_RCHW)) / level.of_output
    return output.to(latents_RCHW.dtype)


def exact(values: torch.Tensor) -> torch.Tensor:
    """Early steps divide by a small share of signal, which half precision does not survive."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


__all__ = ["Level", "clean_latents", "level_of", "output_for", "prediction_of"]
