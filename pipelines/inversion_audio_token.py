"""From a picture back to the noise it would have been drawn from: DDIM inversion, with every latent on the way.

Shapes: B pictures, C latent channels, h x w a latent, T numbers of steps.
"""

from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler


def ddim(scheduler: Any) -> DDIMScheduler:
    """A DDIM scheduler with the noise of another: editing walks the same way there and back."""
    spacing = scheduler.config.get("timestep_spacing", "leading")
    spacing = spacing if spacing in ("leading", "trailing") else "leading"
    return DDIMScheduler.from_config(settings_of(scheduler), clip_sample=False, timestep_spacing=spacing)


def settings_of(scheduler: Any) -> dict[str, Any]:
    """All that a scheduler is set to, for `from_config` of another.

    diffusers lists what was left to a scheduler's defaults, and gives the other its own defaults instead: another
    noise, where they are others. And what its pipelines have mended in a config is still in that list.
    """
    return {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}


@torch.no_grad()
def encoded(vae: Any, pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w), the most likely latents of pictures in -1..1."""
    found = vae.encode(pixels_B3HW.to(next(vae.parameters()).dtype))
    latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    return vae.config.scaling_factor * latents


@torch.no_grad()
def inverted(
    pipe: Any, latents_BChw: torch.Tensor, states: torch.Tensor, steps: int, unread: Any = None, guidance: float = 1.0
) -> list[torch.Tensor]:  # fmt: skip
    """The latents at each of `steps` + 1 levels of noise, from none to all.

    Args:
        pipe: its UNet and its scheduler, which is DDIM.
        latents_BChw: of pictures.
        states: (B, L, D), their texts as the UNet is told them.
        unread (*optional*): (B, L, D), of no text, for guidance.
        guidance (`float`): of the inversion; 1 is none.
    """
    scheduler = DDIMInverseScheduler.from_config(settings_of(pipe.scheduler))
    scheduler.set_timesteps(steps, device=latents_BChw.device)
    latents, kept = latents_BChw, [latents_BChw]
    guided = guidance != 1.0 and unread is not None
    told = torch.cat([unread, states]) if guided else states
    with pipe.progress_bar(total=steps) as bar:
        for timestep in scheduler.timesteps:
            given = torch.cat([latents] * 2) if guided else latents
            found = pipe.unet(given, timestep, encoder_hidden_states=told).sample
            if guided:
                plain, with_text = found.chunk(2)
                found = plain + guidance * (with_text - plain)
            latents = scheduler.step(found, timestep, latents).prev_sample
            kept.append(latents)
            bar.update()
    return kept


__all__ = ["ddim", "encoded", "inverted", "settings_of"]
