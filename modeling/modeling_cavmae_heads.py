"""CAV-MAE's classifiers: of a sound and its picture, in five modes, and of a sound alone.

Tokens are averaged, normalised by a LayerNorm of the head and mapped to classes.

Shapes: B batch, T frames, M mel bins, S side of a picture, N tokens, D width, C classes.
"""

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_cavmae import CLASSIFIER_MODES, CAVMAEAudioConfig, CAVMAEConfig
from .layers_cavmae import AUDIO, IMAGE, PLAIN, run_layers
from .modeling_cavmae import CAVMAEAudioModel, CAVMAEModel, CAVMAEPreTrainedModel


def classification_loss(logits_BC, labels, config) -> torch.Tensor:
    """Cross-entropy or, for several classes at once, binary cross-entropy.

    `config.problem_type` decides; without one whole numbers (B,) are single classes and floats (B, C) several. Floats
    with "single_label_classification" are soft labels that sum to 1, as mixing and smoothing make them.
    """
    kind = config.problem_type
    if kind is None:
        kind = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    logits_BC = logits_BC.float()
    if kind == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC))
    if kind == "single_label_classification":
        return nn.functional.cross_entropy(logits_BC, labels.float() if labels.is_floating_point() else labels)
    raise ValueError(f"problem_type must be single_label_classification or multi_label_classification, got {kind!r}")


class CAVMAEClassifier(CAVMAEPreTrainedModel):
    """The head, above whichever trunk."""

    def add_head(self, config) -> None:
        self.classifier_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.train_positions(by_default=True)
        self.post_init()

    def classify(self, pooled_BD, labels=None, **found) -> SequenceClassifierOutput:
        logits_BC = self.classifier(self.classifier_norm(pooled_BD))
        loss = None if labels is None else classification_loss(logits_BC, labels, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits_BC, **found)


class CAVMAEForAudioVisualClassification(CAVMAEClassifier):
    """Classes of a sound, its picture, or both."""

    config: CAVMAEConfig

    def __init__(self, config: CAVMAEConfig):
        super().__init__(config)
        self.cavmae = CAVMAEModel(config)
        self.add_head(config)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        mode: str | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_values (`torch.FloatTensor`, *optional*): (B, T, M), frames from `CAVMAEFeatureExtractor`.
            pixel_values (`torch.FloatTensor`, *optional*): (B, C, S, S), from `CAVMAEImageProcessor`.
            labels (`torch.Tensor`, *optional*): (B,) classes, or (B, C) several classes or soft ones.
            mode (`str`, *optional*): `config.classifier_mode` by default. `"multimodal"`: the joint stream of both.
                `"audioonly"`, `"videoonly"`: the stream of one. `"missingaudioonly"`, `"missingvideoonly"`: one is
                there and the other missing, and the joint stream of what is there is averaged with its own stream.
        """
        mode = self.config.classifier_mode if mode is None else mode
        if mode not in CLASSIFIER_MODES:
            raise ValueError(f"mode must be one of {', '.join(CLASSIFIER_MODES)}, got {mode!r}")
        hears, sees = mode in ("multimodal", "audioonly", "missingaudioonly"), "audio" not in mode
        for name, values, wanted in (("input_values", input_values, hears), ("pixel_values", pixel_values, sees)):
            if wanted and values is None:
                raise ValueError(f"mode {mode!r} needs {name}: pass them, or another mode")
        model = self.cavmae
        tokens = {}
        if hears:
            audio_BND = model.embed_audio(input_values, interpolate_pos_encoding)
            tokens[AUDIO] = run_layers(model.audio_layers, audio_BND, **kwargs)
        if sees:
            image_BND = model.embed_image(pixel_values, interpolate_pos_encoding)
            tokens[IMAGE] = run_layers(model.image_layers, image_BND, **kwargs)
        pooled = []
        if mode == "multimodal" or mode.startswith("missing"):
            pooled.append(model.join(torch.cat(list(tokens.values()), dim=1), PLAIN, **kwargs).mean(1))
        if mode != "multimodal":
            pooled += [model.join(tokens_BND, stream, **kwargs).mean(1) for stream, tokens_BND in tokens.items()]
        return self.classify(sum(pooled) / len(pooled), labels)


class CAVMAEForAudioClassification(CAVMAEClassifier):
    """Classes of a sound, by the audio side alone."""

    config: CAVMAEAudioConfig
    input_modalities = ("audio",)
    _keys_to_ignore_on_load_unexpected = CAVMAEAudioModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: CAVMAEAudioConfig):
        super().__init__(config)
        self.cavmae = CAVMAEAudioModel(config)
        self.add_head(config)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_values (`torch.FloatTensor`): (B, T, M), frames from `CAVMAEFeatureExtractor`.
            labels (`torch.Tensor`, *optional*): (B,) classes, or (B, C) several classes or soft ones.
        """
        output = self.cavmae(input_values, interpolate_pos_encoding, return_dict=True, **kwargs)
        found = {"hidden_states": output.hidden_states, "attentions": output.attentions}
        return self.classify(output.pooler_output, labels, **found)


__all__ = ["CAVMAEForAudioClassification", "CAVMAEForAudioVisualClassification"]
