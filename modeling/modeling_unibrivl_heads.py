"""UniBriVL's language tower with a head: sounds to classes (the probe of the paper's tables).

The tower is trained with the head, or frozen by the config's `freeze_audio_model`. Both ways it works in transformers'
Trainer and in `pipeline("audio-classification")`.

Shapes: B batch, E features, C classes.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_unibrivl import UniBriVLConfig
from .modeling_unibrivl import UniBriVLAudioModel, UniBriVLPreTrainedModel

STILL = 1e-6  # a feature that deviates less than this counts as constant


class UniBriVLProbe(nn.Module):
    """Features, standardised with the training set's statistics if they were set, through two hidden layers."""

    def __init__(self, config: UniBriVLConfig):
        super().__init__()
        width = config.classifier_hidden_size
        self.register_buffer("mean", torch.zeros(config.embed_dim))
        self.register_buffer("scale", torch.ones(config.embed_dim))
        self.fc1 = nn.Linear(config.embed_dim, width)
        self.fc2 = nn.Linear(width, width)
        self.out = nn.Linear(width, config.num_labels)
        self.dropout = nn.Dropout(config.classifier_dropout)

    def set_statistics(self, features_NE: torch.Tensor) -> None:
        """Standardise by these features' mean and deviation from now on; they are saved with the weights."""
        width = len(self.mean)
        if features_NE.shape != (len(features_NE), width) or len(features_NE) < 2 or not features_NE.isfinite().all():
            raise ValueError(
                f"set_statistics needs finite features of at least two sounds, (N, {width}), got "
                f"{tuple(features_NE.shape)}: take `features` of the audio model's output"
            )
        deviation_E = features_NE.float().std(0)
        self.mean.copy_(features_NE.float().mean(0))
        # what never moved in training must not be blown up when it moves later
        self.scale.copy_(torch.where(deviation_E < STILL, 1.0, deviation_E))

    def forward(self, features_BE: torch.Tensor) -> torch.Tensor:
        hidden = (features_BE - self.mean) / self.scale
        hidden = self.dropout(nn.functional.relu(self.fc1(hidden)))
        hidden = self.dropout(nn.functional.relu(self.fc2(hidden)))
        return self.out(hidden)


def classification_loss(logits_BC: torch.Tensor, labels: torch.Tensor, config: UniBriVLConfig) -> torch.Tensor:
    """Cross-entropy for one label a sound, binary cross-entropy for several, the squared error for numbers."""
    num_labels = logits_BC.shape[1]
    labels, logits_BC = labels.to(logits_BC.device), logits_BC.float()
    kind = config.problem_type
    if kind is None:
        if num_labels == 1:
            raise ValueError(
                "one class has nothing to be told from: set num_labels, or say with problem_type what the one output "
                "is, 'regression' or 'multi_label_classification' (there or not)"
            )
        several = labels.is_floating_point() and labels.shape == logits_BC.shape
        kind = "multi_label_classification" if several else "single_label_classification"
    if kind == "single_label_classification":
        if labels.is_floating_point() or labels.dim() != 1:
            raise ValueError(
                f"labels must be class numbers of shape (batch,), got {labels.dtype} of shape {tuple(labels.shape)}. "
                "For several classes a sound pass floats of shape (batch, num_labels)"
            )
        if not torch.compiler.is_compiling() and labels.max() >= num_labels:  # a GPU would not say which or why
            raise ValueError(f"label {labels.max()} is none of the {num_labels} classes: set num_labels in the config")
        return nn.functional.cross_entropy(logits_BC, labels)
    if kind == "regression" and num_labels == 1 and labels.dim() == 1:
        labels = labels[:, None]
    if labels.shape != logits_BC.shape:
        raise ValueError(f"for {kind} labels must have the shape {tuple(logits_BC.shape)}, got {tuple(labels.shape)}")
    if kind == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits_BC, labels.float())
    return nn.functional.mse_loss(logits_BC, labels.float())


class UniBriVLForAudioClassification(UniBriVLPreTrainedModel):
    base_model_prefix = "audio_model"
    input_modalities = ("audio",)

    def __init__(self, config: UniBriVLConfig, audio_tower: PreTrainedModel | None = None):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.audio_model = UniBriVLAudioModel(config, audio_tower)
        self.classifier = UniBriVLProbe(config)
        self.post_init()
        self.apply_freezing()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, UniBriVLProbe):
            init.zeros_(module.mean)
            init.ones_(module.scale)

    def apply_freezing(self) -> None:
        super().apply_freezing()
        # it stands behind the features; weights that never get a gradient stop distributed training
        self.audio_model.projection.requires_grad_(False)

    def freeze_audio_model(self) -> None:
        """Train the probe alone, on fixed features."""
        self.config.freeze_audio_model = True
        self.apply_freezing()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_values, attention_mask, input_features, padding_mask, is_longer: sounds; see `UniBriVLAudioModel`.
            labels (`torch.Tensor`, *optional*): (B,) class numbers, or (B, C) floats for several classes a sound.
        """
        output = self.audio_model(
            input_values,
            attention_mask,
            input_features=input_features,
            padding_mask=padding_mask,
            is_longer=is_longer,
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(output.features)
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


__all__ = ["UniBriVLForAudioClassification", "UniBriVLProbe"]
