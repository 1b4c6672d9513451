"""CAV-MAE: one transformer that hears a sound, sees a picture, and looks at both together.

sound -> patches -> 11 layers -+-> joint layer, audio norms -> sound tokens
                               +-> joint layer, plain norms -> tokens of both
picture -> patches -> 11 layers +-> joint layer, image norms -> picture tokens

There is no class token: `..._embeds` are means over tokens, not normalised. `CAVMAEAudioModel` and `CAVMAEImageModel`
are one side alone, each with a joint layer of its own; pre-training is in modeling_cavmae_pretraining.py, classifiers
are in modeling_cavmae_heads.py.

Shapes: B batch, T frames, M mel bins, S side of a picture, N tokens, D width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_cavmae import CAVMAEAudioConfig, CAVMAEConfig, CAVMAEImageConfig
from .layers_cavmae import (
    AUDIO,
    IMAGE,
    PLAIN,
    STREAMS,
    CAVMAEEmbeddings,
    CAVMAELayer,
    CAVMAEPositions,
    Trace,
    run_layers,
    sincos_positions,
)
from .loading_unibrivl import CheckedLoading


@dataclass
class CAVMAEOutput(ModelOutput):
    """
    Args:
        audio_embeds, image_embeds, joint_embeds (`torch.FloatTensor`): (B, D), the mean of the tokens below.
        audio_last_hidden_state (`torch.FloatTensor`): (B, N, D), the sound alone; token f * columns + t is band f of
            the patches and time t.
        image_last_hidden_state (`torch.FloatTensor`): (B, N, D), the picture alone, row by row.
        joint_last_hidden_state (`torch.FloatTensor`): (B, N, D), both together: the sound's tokens, then the
            picture's.
        audio_hidden_states, image_hidden_states, joint_hidden_states (`tuple[torch.FloatTensor]`, with
            `output_hidden_states=True`): what went into the first layer of a stream and came out of each. Of the joint
            stream: into and out of the joint layers.
        audio_attentions, image_attentions, joint_attentions (`tuple[torch.FloatTensor]`, with
            `output_attentions=True` and eager attention): the weights of each layer.
    """

    audio_embeds: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    joint_embeds: torch.FloatTensor | None = None
    audio_last_hidden_state: torch.FloatTensor | None = None
    image_last_hidden_state: torch.FloatTensor | None = None
    joint_last_hidden_state: torch.FloatTensor | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    joint_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    joint_attentions: tuple[torch.FloatTensor, ...] | None = None


class CAVMAEPreTrainedModel(CheckedLoading):
    config: CAVMAEConfig | CAVMAEAudioConfig | CAVMAEImageConfig
    base_model_prefix = "cavmae"
    main_input_name = "input_values"
    input_modalities: tuple[str, ...] = ("audio", "image")
    supports_gradient_checkpointing = True
    _no_split_modules = ["CAVMAELayer", "CAVMAEEmbeddings"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module):
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, CAVMAEPositions):
            init.copy_(module.weight, sincos_positions(module.grid, module.weight.shape[-1]))
        elif isinstance(module, CAVMAEEmbeddings):
            init.normal_(module.modality, std=std)

    def train_positions(self, by_default: bool) -> None:
        """Positions learn where the configuration says so, or where it says nothing and the original's do."""
        wanted = self.config.train_position_embeddings
        for module in self.modules():
            if isinstance(module, CAVMAEPositions):
                module.learns = by_default if wanted is None else wanted
                module.weight.requires_grad_(module.learns)

    def _traced(self, output_hidden_states, output_attentions) -> Trace:
        config = self.config
        states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        weights = config.output_attentions if output_attentions is None else output_attentions
        return Trace(bool(states), bool(weights))


def audio_layers(config) -> nn.ModuleList:
    return nn.ModuleList([_layer(config) for _ in range(config.num_modality_layers)])


def joint_layers(config, streams) -> nn.ModuleList:
    return nn.ModuleList([_layer(config, streams) for _ in range(config.num_joint_layers)])


def _layer(config, streams=(PLAIN,)) -> CAVMAELayer:
    return CAVMAELayer(config, config.hidden_size, config.num_attention_heads, config.intermediate_size, streams)


def audio_embeddings(config) -> CAVMAEEmbeddings:
    return CAVMAEEmbeddings(config.audio_grid, 1, config.patch_size, config.hidden_size, is_audio=True)


def image_embeddings(config) -> CAVMAEEmbeddings:
    return CAVMAEEmbeddings(
        config.image_grid, config.num_channels, config.patch_size, config.hidden_size, is_audio=False
    )


def audio_picture(input_values: torch.Tensor, config) -> torch.Tensor:
    """Frames (B, T, M) as a picture (B, 1, M, T); what the patches cannot cover is refused, not dropped."""
    if input_values.dim() != 3 or input_values.shape[2] != config.num_mel_bins:
        raise ValueError(
            f"input_values must be (batch, frames, {config.num_mel_bins} mel bins), got {tuple(input_values.shape)}. "
            "CAVMAEFeatureExtractor makes them"
        )
    if input_values.shape[1] < 1 or input_values.shape[1] % config.patch_size:
        raise ValueError(
            f"{input_values.shape[1]} frames are no whole patches of {config.patch_size}: CAVMAEFeatureExtractor pads "
            "to them"
        )
    return input_values.transpose(1, 2)[:, None]


def image_picture(pixel_values: torch.Tensor, config) -> torch.Tensor:
    """Pictures (B, C, H, W) as they are; what the patches cannot cover is refused, not dropped."""
    channels, patch = config.num_channels, config.patch_size
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[1] != channels or shape[2] % patch or shape[3] % patch:
        raise ValueError(
            f"pixel_values must be (batch, {channels}, height, width) in whole patches of {patch}, got {shape}. "
            "CAVMAEImageProcessor makes them"
        )
    return pixel_values


class CAVMAEAudioModel(CAVMAEPreTrainedModel):
    """The audio side: frames -> tokens. It owns its joint layers, so that training it leaves no picture changed.

    `from_pretrained` takes a whole model's folder too, and of it what the audio side needs.
    """

    config: CAVMAEAudioConfig
    input_modalities = ("audio",)
    _keys_to_ignore_on_load_unexpected = [
        r"(^|\.)image_(embeddings|layers|norm)\.", r"(^|\.)joint_norm\.", r"_norm\.(plain|image)\.",
    ]  # fmt: skip

    def __init__(self, config: CAVMAEAudioConfig):
        super().__init__(config)
        self.audio_embeddings = audio_embeddings(config)
        self.audio_layers = audio_layers(config)
        self.joint_layers = joint_layers(config, (AUDIO,))
        self.audio_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.keep_unused_norms:
            self.joint_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.train_positions(by_default=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.audio_embeddings.projection

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            input_values (`torch.FloatTensor`): (B, T, M), frames from `CAVMAEFeatureExtractor`.
            interpolate_pos_encoding (`bool`): take sounds longer than `config.max_audio_frames`.
        """
        trace = self._traced(output_hidden_states, output_attentions)
        tokens_BND = self.audio_embeddings(audio_picture(input_values, self.config), interpolate_pos_encoding)
        trace.add(tokens_BND, is_first=True)
        tokens_BND = run_layers(self.audio_layers, tokens_BND, PLAIN, trace, **kwargs)
        tokens_BND = self.audio_norm(run_layers(self.joint_layers, tokens_BND, AUDIO, trace, **kwargs))
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens_BND,
            pooler_output=tokens_BND.mean(1),
            hidden_states=trace.states,
            attentions=trace.weights,
        )


class CAVMAEImageModel(CAVMAEPreTrainedModel):
    """The image side: pictures -> tokens, with joint layers of its own.

    `from_pretrained` takes a whole model's folder too, and of it what the image side needs.
    """

    config: CAVMAEImageConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [
        r"(^|\.)audio_(embeddings|layers|norm)\.", r"(^|\.)joint_norm\.", r"_norm\.(plain|audio)\.",
    ]  # fmt: skip

    def __init__(self, config: CAVMAEImageConfig):
        super().__init__(config)
        self.image_embeddings = image_embeddings(config)
        self.image_layers = audio_layers(config)
        self.joint_layers = joint_layers(config, (IMAGE,))
        self.image_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.train_positions(by_default=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.image_embeddings.projection

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.FloatTensor`): (B, C, S, S), from `CAVMAEImageProcessor`.
            interpolate_pos_encoding (`bool`): take pictures of another size.
        """
        trace = self._traced(output_hidden_states, output_attentions)
        tokens_BND = self.image_embeddings(image_picture(pixel_values, self.config), interpolate_pos_encoding)
        trace.add(tokens_BND, is_first=True)
        tokens_BND = run_layers(self.image_layers, tokens_BND, PLAIN, trace, **kwargs)
        tokens_BND = self.image_norm(run_layers(self.joint_layers, tokens_BND, IMAGE, trace, **kwargs))
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens_BND,
            pooler_output=tokens_BND.mean(1),
            hidden_states=trace.states,
            attentions=trace.weights,
        )


class CAVMAEModel(CAVMAEPreTrainedModel):
    """The encoder, with all three streams."""

    config: CAVMAEConfig

    def __init__(self, config: CAVMAEConfig):
        super().__init__(config)
        norm = {"normalized_shape": config.hidden_size, "eps": config.layer_norm_eps}
        self.audio_embeddings = audio_embeddings(config)
        self.image_embeddings = image_embeddings(config)
        self.audio_layers = audio_layers(config)
        self.image_layers = audio_layers(config)
        self.joint_layers = joint_layers(config, STREAMS)
        self.audio_norm = nn.LayerNorm(**norm)
        self.image_norm = nn.LayerNorm(**norm)
        self.joint_norm = nn.LayerNorm(**norm)
        self.train_positions(by_default=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.audio_embeddings.projection

    def embed_audio(self, input_values: torch.Tensor, interpolate: bool = False) -> torch.Tensor:
        """Frames (B, T, M) -> the tokens (B, N, D) that enter the audio layers."""
        return self.audio_embeddings(audio_picture(input_values, self.config), interpolate)

    def embed_image(self, pixel_values: torch.Tensor, interpolate: bool = False) -> torch.Tensor:
        """Pictures (B, C, S, S) -> the tokens (B, N, D) that enter the image layers."""
        return self.image_embeddings(image_picture(pixel_values, self.config), interpolate)

    def join(self, tokens_BND, stream: str, trace: Trace | None = None, layers=None, **kwargs):
        """Tokens of a modality, or of both, through the joint layers of a stream and its last norm."""
        norm = {PLAIN: self.joint_norm, AUDIO: self.audio_norm, IMAGE: self.image_norm}[stream]
        layers = self.joint_layers if layers is None else layers
        return norm(run_layers(layers, tokens_BND, stream, trace, **kwargs))

    @can_return_tuple
    def get_audio_features(
        self, input_values, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The sound alone; `pooler_output` is its embedding."""
        output = self(input_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.audio_last_hidden_state,
            pooler_output=output.audio_embeds,
            hidden_states=output.audio_hidden_states,
            attentions=output.audio_attentions,
        )

    @can_return_tuple
    def get_image_features(
        self, pixel_values, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """The picture alone; `pooler_output` is its embedding."""
        output = self(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=output.image_last_hidden_state,
            pooler_output=output.image_embeds,
            hidden_states=output.image_hidden_states,
            attentions=output.image_attentions,
        )

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CAVMAEOutput:
        """Sounds, pictures, or as many of the one as of the other: then the joint stream sees each pair.

        Args:
            input_values (`torch.FloatTensor`, *optional*): (B, T, M), frames from `CAVMAEFeatureExtractor`.
            pixel_values (`torch.FloatTensor`, *optional*): (B, C, S, S), from `CAVMAEImageProcessor`.
            interpolate_pos_encoding (`bool`): take longer sounds, and pictures of another size.
        """
        if input_values is None and pixel_values is None:
            raise ValueError("pass input_values, pixel_values, or both")
        found: dict = {}
        tokens = []
        for stream, values, embed, layers in (
            (AUDIO, input_values, self.embed_audio, self.audio_layers),
            (IMAGE, pixel_values, self.embed_image, self.image_layers),
        ):
            if values is None:
                continue
            trace = self._traced(output_hidden_states, output_attentions)
            tokens_BND = embed(values, interpolate_pos_encoding)
            trace.add(tokens_BND, is_first=True)
            tokens_BND = run_layers(layers, tokens_BND, PLAIN, trace, **kwargs)
            tokens.append(tokens_BND)
            found |= self._stream(stream, tokens_BND, trace, **kwargs)
        if len(tokens) == 2:
            if len(tokens[0]) != len(tokens[1]):
                raise ValueError(
                    f"{len(tokens[0])} sounds and {len(tokens[1])} pictures are no pairs: pass as many of each, or "
                    "one kind at a time"
                )
            both_BND, trace = torch.cat(tokens, dim=1), self._traced(output_hidden_states, output_attentions)
            trace.add(both_BND, is_first=True)
            found |= self._stream(PLAIN, both_BND, trace, **kwargs)
        return CAVMAEOutput(**found)

    def _stream(self, stream: str, tokens_BND, trace: Trace, **kwargs) -> dict:
        name = "joint" if stream == PLAIN else stream
        tokens_BND = self.join(tokens_BND, stream, trace, **kwargs)
        return {
            f"{name}_embeds": tokens_BND.mean(1),
            f"{name}_last_hidden_state": tokens_BND,
            f"{name}_hidden_states": trace.states,
            f"{name}_attentions": trace.weights,
        }


__all__ = ["CAVMAEAudioModel", "CAVMAEImageModel", "CAVMAEModel", "CAVMAEOutput", "CAVMAEPreTrainedModel"]
