"""What BrewCLIP gives back, and how sounds and pictures are compared in it.

Shapes: B sounds, C pictures, N windows or parts of all sounds, T frames, K keywords, E width of the space.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput


@dataclass
class BrewCLIPAudioOutput(ModelOutput):
    """
    Args:
        pooler_output (`torch.FloatTensor`): (B, E), a, of length one.
        text_channel_embeds, e2e_channel_embeds (`torch.FloatTensor`): (B, E), of each channel, not normalised.
        keyword_ids (`torch.LongTensor`): (B, K), the sub-words that the cascade chose.
        chunk_embeds (`torch.FloatTensor`), chunk_rows: (N, E), of length one, a for each part of a long transcript
            (`long_text="chunk_max"`), and the sound that each is of.
        frame_mask (`torch.LongTensor`): (N, T), which frames are of the sound.
    """

    pooler_output: torch.FloatTensor | None = None
    text_channel_embeds: torch.FloatTensor | None = None
    e2e_channel_embeds: torch.FloatTensor | None = None
    keyword_ids: torch.LongTensor | None = None
    chunk_embeds: torch.FloatTensor | None = None
    chunk_rows: torch.LongTensor | None = None
    frame_mask: torch.LongTensor | None = None


@dataclass
class BrewCLIPOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, with `return_loss=True`), loss_parts (`dict`): the loss and its weighted terms.
        logits_per_audio, logits_per_image (`torch.FloatTensor`): cosines over the temperature.
        audio_embeds, image_embeds (`torch.FloatTensor`): (B, E), of length one.
        text_channel_embeds, e2e_channel_embeds: see `BrewCLIPAudioOutput`.
        native_image_embeds (`torch.FloatTensor`): (B, E), pictures' vectors as the image tower gives them.
        temperature (`torch.FloatTensor`): (1,).
    """

    loss: torch.FloatTensor | None = None
    loss_parts: dict[str, torch.FloatTensor] | None = None
    logits_per_audio: torch.FloatTensor | None = None
    logits_per_image: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_channel_embeds: torch.FloatTensor | None = None
    e2e_channel_embeds: torch.FloatTensor | None = None
    native_image_embeds: torch.FloatTensor | None = None
    temperature: torch.FloatTensor | None = None


def unit(vectors_BE: torch.Tensor) -> torch.Tensor:
    """Of length one, in float32 at least."""
    return nn.functional.normalize(vectors_BE.to(torch.promote_types(vectors_BE.dtype, torch.float32)), dim=-1)


def scores(heard: BrewCLIPAudioOutput, image_embeds: torch.Tensor) -> torch.Tensor:
    """Cosines (sounds, pictures); of a transcript in parts the best part's."""
    sounds_BE, pictures_CE = heard.pooler_output, unit(image_embeds)
    assert sounds_BE is not None
    if heard.chunk_embeds is None or heard.chunk_rows is None:
        return sounds_BE @ pictures_CE.to(sounds_BE).t()
    parts_NC = heard.chunk_embeds @ pictures_CE.to(sounds_BE).t()
    rows_NC = heard.chunk_rows[:, None].expand_as(parts_NC)
    return parts_NC.new_zeros(len(sounds_BE), len(pictures_CE)).scatter_reduce(
        0, rows_NC, parts_NC, "amax", include_self=False
    )


__all__ = ["BrewCLIPAudioOutput", "BrewCLIPOutput", "scores", "unit"]
