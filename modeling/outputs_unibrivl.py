"""What UniBriVL's models return. Shapes: B batch, T frames, E shared width, V image tower's width."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class UniBriVLAudioOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`): (B, T, E), frames (or units) after the self-attention block.
        pooler_output (`torch.FloatTensor`): (B, E), the embedding in the shared space, l2-normalised.
        features (`torch.FloatTensor`): (B, E), the mean of the real frames, before the MLP: what probes see.
        frame_mask (`torch.LongTensor`): (B, T), 1 on real frames; None when no mask was given.
        hidden_states, attentions (`tuple[torch.FloatTensor]`, on request): of the backbone.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    features: torch.FloatTensor | None = None
    frame_mask: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class UniBriVLFeatures(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`): what the tower gave for each of its tokens.
        pooler_output (`torch.FloatTensor`): the embedding, l2-normalised; (B, E), or (B, V) in the image's space.
        hidden_states, attentions (`tuple[torch.FloatTensor]`, on request): of the tower.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class UniBriVLOutput(ModelOutput):
    """All embeddings are l2-normalised, all scores are cosines or means of two.

    Args:
        audio_embeds (`torch.FloatTensor`): (A, E), sounds in the shared space: a.
        image_embeds (`torch.FloatTensor`): (I, E), pictures in the shared space: f(v).
        text_embeds (`torch.FloatTensor`): (N, E), texts as units in the shared space.
        native_audio_embeds (`torch.FloatTensor`): (A, V), sounds in the image tower's space: g(a).
        native_image_embeds (`torch.FloatTensor`): (I, V), pictures there: v.
        native_text_embeds (`torch.FloatTensor`): (N, V), texts there, from the native text tower.
        logits_audio_image (`torch.FloatTensor`): (A, I), the matching score: the mean of the next two.
        shared_scores (`torch.FloatTensor`): (A, I), cos(a, f(v)).
        native_scores (`torch.FloatTensor`): (A, I), cos(g(a), v).
        logits_audio_text (`torch.FloatTensor`): (A, N), by the config's `text_route` where both are there.
        logits_image_text (`torch.FloatTensor`): (I, N), by the same route.
        audio_model_output, text_model_output, vision_model_output, native_text_model_output: all that the towers gave.
    """

    audio_embeds: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    native_audio_embeds: torch.FloatTensor | None = None
    native_image_embeds: torch.FloatTensor | None = None
    native_text_embeds: torch.FloatTensor | None = None
    logits_audio_image: torch.FloatTensor | None = None
    shared_scores: torch.FloatTensor | None = None
    native_scores: torch.FloatTensor | None = None
    logits_audio_text: torch.FloatTensor | None = None
    logits_image_text: torch.FloatTensor | None = None
    audio_model_output: ModelOutput | None = None
    text_model_output: ModelOutput | None = None
    vision_model_output: ModelOutput | None = None
    native_text_model_output: ModelOutput | None = None
