"""BrewCLIP with a head: spoken sounds to classes, such as the tone of voice.

The head sees the direction of a sound's fused vector. With `freeze_brewclip` nothing else trains.

Shapes: B sounds, E width of the space, C classes.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_brewclip import BrewCLIPConfig
from .modeling_brewclip import BrewCLIPModel, BrewCLIPPreTrainedModel
from .modeling_unibrivl_heads import classification_loss


class BrewCLIPForSpeechClassification(BrewCLIPPreTrainedModel):
    """One linear layer on the fused vector, brought to one length."""

    input_modalities = ("audio", "text")

    def __init__(
        self,
        config: BrewCLIPConfig,
        audio_tower: PreTrainedModel | None = None,
        vision_tower: PreTrainedModel | None = None,
        text_tower: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.brewclip = BrewCLIPModel(config, audio_tower, vision_tower, text_tower)
        self.classifier = nn.Linear(config.embed_dim, config.num_labels)
        self.post_init()
        self.apply_freezing()

    def get_input_embeddings(self):
        return self.brewclip.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.brewclip.set_input_embeddings(value)

    def freeze_brewclip(self) -> None:
        """Train the head alone."""
        self.config.freeze_brewclip = True
        self.apply_freezing()

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        text_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        input_values: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_rows: torch.Tensor | None = None,
        text_channel_embeds: torch.Tensor | None = None,
        channels: Sequence[str] | None = None,
        fusion_weight: float | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            labels (`torch.Tensor`, *optional*): (B,) class numbers, or (B, C) floats for several classes a sound.
            Others: see `BrewCLIPModel.get_audio_features`.
        """
        heard = self.brewclip.get_audio_features(
            input_features, attention_mask, input_ids, input_values=input_values, audio_states=audio_states,
            frame_mask=frame_mask, audio_rows=audio_rows, text_channel_embeds=text_channel_embeds, channels=channels,
            fusion_weight=fusion_weight, return_dict=True, **kwargs,
        )  # fmt: skip
        # numbers of about one: on those of a vector of length one a linear layer takes long to learn
        features_BE = heard.pooler_output * heard.pooler_output.shape[1] ** 0.5
        logits = self.classifier(features_BE.to(self.classifier.weight.dtype))
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config), logits=logits
        )


__all__ = ["BrewCLIPForSpeechClassification"]
