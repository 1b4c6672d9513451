"""How many rows of latents a UNet may get at once: from the memory that is free, and what a row of it takes.

A row is estimated, not tried out: its largest activations grow with the first level's channels times the latents'
size. The numbers are rounded down to a power of two, so that the same machine on another day mostly comes to the same
one: how a batch is cut moves the last bits of a picture.
"""

import os
from pathlib import Path
from typing import Any

import torch

# OURS: peak bytes of a row over (channels of the first level x latents x size of a number): 30 to 54 were measured
# with UNets of the shapes of Stable Diffusion 1.x and XL on a CPU
ACTIVATIONS_OF_A_ROW = 60
SHARE = 0.5  # OURS: of the free memory; the rest is for the VAE, the matcher and other people's programs
MOST_ROWS = 64  # OURS: larger batches are not faster on any device we know
ROWS_WITHOUT_KNOWLEDGE = 8  # OURS: where a system does not say what is free


def rows_that_fit(unet: Any, sample_RCHW: torch.Tensor, free: int | None = None) -> int:
    """A power of two: rows of this size that the UNet can take at once, at least 1.

    Args:
        unet: with a diffusers config.
        sample_RCHW (`torch.Tensor`): latents, on the device they will run on.
        free (`int`, *optional*): bytes; asked of the device if not given.
    """
    free = free_memory(sample_RCHW.device) if free is None else free
    if free is None:
        return ROWS_WITHOUT_KNOWLEDGE
    channels = unet.config.block_out_channels[0]
    height, width = sample_RCHW.shape[-2:]
    row = ACTIVATIONS_OF_A_ROW * channels * height * width * sample_RCHW.element_size()
    rows = min(MOST_ROWS, max(1, int(SHARE * free / row)))
    return 1 << (rows.bit_length() - 1)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device, or None where nobody says."""
    if device.type == "cpu":
        return free_of_the_system()
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    info = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    if info is None:
        return None
    kept = getattr(torch, device.type)  # what torch has taken and uses no more is free for us as well
    return info(device)[0] + kept.memory_reserved(device) - kept.memory_allocated(device)


def free_of_the_system(root: str = "/") -> int | None:
    """What Linux calls available, no more than a container's limit leaves; elsewhere half of the machine."""
    found = []
    meminfo = Path(root, "proc/meminfo")
    if meminfo.is_file():
        lines = [line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
        found += [int(line.split()[1]) * 1024 for line in lines]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        places = Path(root, "sys/fs/cgroup", limit), Path(root, "sys/fs/cgroup", used)
        if all(place.is_file() for place in places):
            texts = [place.read_text().strip() for place in places]
            if all(text.isdigit() for text in texts):
                found.append(max(0, int(texts[0]) - int(texts[1])))
    if found:
        return min(found)
    if root == "/" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


__all__ = ["free_memory", "free_of_the_system", "rows_that_fit"]
