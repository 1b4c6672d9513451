"""Embeddings of pictures for an IP-Adapter, one for each row of a call: diffusers repeats one for all.

Shapes: R rows, V numbers of an embedding.
"""

import torch


class EmbedsOfRows(list):
    """For each IP-Adapter (R, 1, V): what each row is conditioned on, without those of classifier-free guidance."""


class TakesEmbedsOfRows:
    """Stands before a pipeline of diffusers and lets `ip_adapter_image_embeds` be `EmbedsOfRows`."""

    def prepare_ip_adapter_image_embeds(
        self, ip_adapter_image, ip_adapter_image_embeds, device, num_images_per_prompt, do_classifier_free_guidance
    ):
        if not isinstance(ip_adapter_image_embeds, EmbedsOfRows):
            return super().prepare_ip_adapter_image_embeds(  # type: ignore[misc]
                ip_adapter_image, ip_adapter_image_embeds, device, num_images_per_prompt, do_classifier_free_guidance
            )
        rows = [one.to(device) for one in ip_adapter_image_embeds]
        if do_classifier_free_guidance:  # without the picture: zeros, as diffusers has it
            rows = [torch.cat([torch.zeros_like(one), one]) for one in rows]
        return rows


__all__ = ["EmbedsOfRows", "TakesEmbedsOfRows"]
