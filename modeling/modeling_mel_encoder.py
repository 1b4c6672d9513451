"""The mel encoder: an image backbone of transformers looks at log-mel frames and gives frames of its own.

log-mel frames -> picture (time down, mel bins across) -> backbone -> mean over the mel bins -> frames

The tower has no weights but the backbone's: the backbone starts and trains as its own class does. Image models take no
mask, so what they see behind the end of a clip is silence, which is 0; `MelEncoderConfig.padding_mode` says when.

Shapes: B batch, T mel frames, M mel bins, N frames of the backbone, D width, C channels, H and W sides of
a picture or map.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_mel_encoder import MelEncoderConfig
from .loading_unibrivl import CheckedLoading

# Class, distillation and register tokens that stand before the tokens of the picture; DINOv2 has five
MOST_EXTRA_TOKENS = 16


@dataclass
class MelEncoderOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`): (B, N, D), the backbone's frames, 0 where `frame_mask` is.
        frame_mask (`torch.LongTensor`): (B, N), 1 where a frame saw any real sound of its own; None without a mask.
        hidden_states (`tuple[torch.FloatTensor]`, with `output_hidden_states=True`): as the backbone gives them, maps
            (B, C, H, W) or tokens; clips that ran at their own length are filled up with 0 behind their end.
    """

    last_hidden_state: torch.FloatTensor | None = None
    frame_mask: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class MelEncoderPreTrainedModel(CheckedLoading):
    config: MelEncoderConfig
    base_model_prefix = "mel_encoder"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    # Attention is the backbone's, which says for itself what it supports
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class MelEncoderModel(MelEncoderPreTrainedModel):
    """The tower.

    What a clip in a batch gives, compared with the clip alone:

    - `padding_mode="exact"`, outside training: the same, to rounding, for every backbone.
    - otherwise: the same as the clip followed by silence up to the end of the batch. Frames whose field of view ends
      before the clip does are those of the clip alone; the later ones see silence where the clip alone has the
      backbone's own border. Squeeze-and-excitation (EfficientNet, RegNet-Y) and attention (ViT) view everything, so
      there every frame moves. Batch normalisation in training counts the silence too.
    """

    def __init__(self, config: MelEncoderConfig):
        super().__init__(config)
        self.backbone = build_backbone(config.backbone_config)
        self.supports_gradient_checkpointing = self.backbone.supports_gradient_checkpointing
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters
        # transformers interpolates learned positions from a square table only: from another, one size fits
        size = getattr(config.backbone_config, "image_size", None) if self.interpolates else None
        self.only_size = tuple(size) if isinstance(size, (list, tuple)) and size[0] != size[1] else None
        self.post_init()

    def get_input_embeddings(self):
        return None

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | list[int] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MelEncoderOutput:
        """
        Args:
            input_features (`torch.FloatTensor`): (B, T, M), log-mel frames from `MelEncoderFeatureExtractor`.
            attention_mask (`torch.Tensor`, *optional*): (B, T), 1 on real frames. What stands on the others is not
                heard. A clip may stand anywhere in its row and is moved to the start.
        """
        self._check(input_features, attention_mask)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if attention_mask is None:
            frames_BND, _, hidden_states = self.look(input_features, output_hidden_states)
            return MelEncoderOutput(last_hidden_state=frames_BND, hidden_states=hidden_states)

        num_frames = input_features.shape[1]
        features_BTM, lengths_B = clips_at_start(input_features, attention_mask)
        if self.config.padding_mode == "exact" and not self.training:
            frames_BND, stride, hidden_states = self._look_by_length(features_BTM, lengths_B, output_hidden_states)
        else:
            frames_BND, stride, hidden_states = self.look(features_BTM, output_hidden_states)
        missing = math.ceil(num_frames / stride) - frames_BND.shape[1]
        frames_BND = nn.functional.pad(frames_BND, (0, 0, 0, missing))
        places_N = torch.arange(frames_BND.shape[1], device=lengths_B.device)
        mask_BN = places_N * stride < lengths_B[:, None]
        return MelEncoderOutput(
            last_hidden_state=frames_BND.masked_fill(~mask_BN[..., None], 0.0),
            frame_mask=mask_BN.long(),
            hidden_states=hidden_states,
        )

    def _check(self, input_features, attention_mask) -> None:
        if (
            input_features.dim() != 3
            or input_features.shape[2] != self.config.num_mel_bins
            or not input_features.numel()
        ):
            raise ValueError(
                f"input_features must be (batch, frames, {self.config.num_mel_bins} mel bins), got "
                f"{tuple(input_features.shape)}. MelEncoderFeatureExtractor.for_config(model.config) makes them"
            )
        if attention_mask is not None and attention_mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"attention_mask {tuple(attention_mask.shape)} must be (batch, frames) as input_features "
                f"{tuple(input_features.shape)}: one number a frame"
            )

    def look(self, features_BTM, output_hidden_states: bool | list[int] = False):
        """The backbone's frames (B, N, D) of one batch as it is, mel frames per frame, and its hidden states."""
        num_frames, num_bins = features_BTM.shape[1:]
        height, width = self.filled(num_frames), num_bins + -num_bins % self.config.frame_multiple
        if self.only_size and (height, width) != self.only_size:
            raise ValueError(
                f"this backbone knows positions for pictures of {self.only_size} and got ({height}, {width}). Cut the "
                "clips into windows that fit (unibrivl.split_windows), or give it a square image_size: its positions "
                "are then interpolated to every length"
            )
        picture_BHW = nn.functional.pad(features_BTM, (0, width - num_bins, 0, height - num_frames))
        pixels_BCHW = (picture_BHW - self.config.input_mean)[:, None].to(self.backbone.dtype)
        output = self.backbone(
            pixels_BCHW.expand(-1, getattr(self.config.backbone_config, "num_channels", 3), -1, -1),
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **({"interpolate_pos_encoding": self.only_size is None} if self.interpolates else {}),
        )
        map_BNWD = as_grid(output.get("last_hidden_state"), height, width, self.config)
        stride = height // map_BNWD.shape[1]
        if map_BNWD.shape[-1] != self.config.hidden_size:
            raise ValueError(
                f"the backbone gives {map_BNWD.shape[-1]} channels and the configuration says hidden_size="
                f"{self.config.hidden_size}: pass MelEncoderConfig(hidden_size={map_BNWD.shape[-1]})"
            )
        hidden_states = output.hidden_states if output_hidden_states else None
        return map_BNWD.mean(2)[:, : math.ceil(num_frames / stride)], stride, hidden_states

    def _look_by_length(self, features_BTM, lengths_B, output_hidden_states):
        """Clips that fill up to the same length together, the others apart: none sees another's padding."""
        filled_B = [self.filled(length) for length in lengths_B.tolist()]
        looks, order = [], []
        for filled in sorted(set(filled_B)):
            rows = [row for row, length in enumerate(filled_B) if length == filled]
            looks.append(self.look(features_BTM[rows, :filled], output_hidden_states))
            order += rows
        places_B = torch.tensor(order, device=features_BTM.device).argsort()
        hidden_states = None
        if output_hidden_states:
            layers = zip(*(states for _, _, states in looks), strict=True)
            hidden_states = tuple(None if states[0] is None else stack_clips(states)[places_B] for states in layers)
        return stack_clips([frames for frames, _, _ in looks])[places_B], looks[0][1], hidden_states

    def filled(self, num_frames: int) -> int:
        """Frames of the picture that the backbone sees for a clip of `num_frames`; silence fills it up."""
        multiple: Any = self.config.frame_multiple
        least = self.only_size[0] if self.only_size else multiple
        return max(math.ceil(num_frames / multiple) * multiple, least)


def build_backbone(config) -> PreTrainedModel:
    """The image model of a configuration, without the pooling that no frame goes through."""
    model_class = MODEL_MAPPING.get(type(config), None)
    if getattr(model_class, "main_input_name", None) != "pixel_values":
        raise ValueError(
            f"{config.model_type!r} is no image model of AutoModel: take a resnet, efficientnet, convnext, "
            "mobilenet_v2, regnet, vit, swin or the like"
        )
    # What has no attention supports every kind of it: a composite model may ask for one on behalf of its other towers
    has_attention = hasattr(config, "num_attention_heads") or hasattr(config, "num_heads")
    if not has_attention:
        config._attn_implementation = "eager"
    has_pooling = "add_pooling_layer" in inspect.signature(model_class).parameters
    backbone = model_class._from_config(config, **({"add_pooling_layer": False} if has_pooling else {}))
    if not has_attention:
        backbone._supports_sdpa = backbone._supports_flash_attn = backbone._supports_flex_attn = True
    if isinstance(getattr(backbone, "pooler", None), (nn.AvgPool2d, nn.MaxPool2d)):
        backbone.pooler = nn.AdaptiveAvgPool2d(1)  # EfficientNet's fails on maps longer than its width
    for module in backbone.modules():
        if hasattr(module, "set_shift_and_window_size"):
            module.set_shift_and_window_size = keep_windows
    return backbone


def keep_windows(input_resolution) -> None:
    """In place of Swin's own rule, which shrinks windows to a small map and leaves them small for every later clip.

    Windows then are filled up where they are larger than the map, as in transformers' SwinBackbone.
    """


def clips_at_start(features_BTM, mask_BT):
    """Real frames first and silence behind them, and the number of real frames of each clip."""
    mask_BT = mask_BT.bool()
    order_BT = mask_BT.int().argsort(dim=1, descending=True, stable=True)
    features_BTM = features_BTM.masked_fill(~mask_BT[..., None], 0.0)
    return features_BTM.take_along_dim(order_BT[..., None], dim=1), mask_BT.sum(1)


def stack_clips(states: Sequence[torch.Tensor]) -> torch.Tensor:
    """One batch of batches of unlike length, filled up with 0 along time: dimension 2 of maps, 1 of tokens."""
    time = 2 if states[0].dim() == 4 else 1
    longest = max(state.shape[time] for state in states)
    after = [0, 0] * (states[0].dim() - time - 1)
    return torch.cat([nn.functional.pad(state, (*after, 0, longest - state.shape[time])) for state in states])


def as_grid(output, height: int, width: int, config: Any) -> torch.Tensor:
    """A map (B, C, H, W), or tokens with the time as their slow side, as (B, H, W, C): cells of equal, square size."""
    kind = config.backbone_config.model_type
    if output is None:
        raise ValueError(f"the class of {kind!r} in AutoModel gives no last_hidden_state: pick another backbone")
    if output.dim() == 4:
        rows, columns = output.shape[2:]
        if height * columns == width * rows and config.frame_multiple % (height // rows) == 0:
            return output.permute(0, 2, 3, 1)
        raise ValueError(
            f"the backbone made a map of {rows} x {columns} from {height} x {width}: pass MelEncoderConfig("
            "frame_multiple=...) with a multiple of what it reduces by"
        )
    multiple, most = config.frame_multiple, MOST_EXTRA_TOKENS if config.patch_size else 1
    sides = [config.patch_size] if config.patch_size else [n for n in range(1, multiple + 1) if multiple % n == 0]
    for side in sides:
        rows, columns = height // side, width // side
        extra = output.shape[1] - rows * columns
        if 0 <= extra <= most:
            return output[:, extra:].unflatten(1, (rows, columns))
    raise ValueError(
        f"the backbone made {output.shape[1]} tokens from {height} x {width}, which is no grid of square cells: "
        f"{kind!r} cannot be a mel encoder, or needs another frame_multiple"
    )


__all__ = ["MelEncoderModel", "MelEncoderOutput", "MelEncoderPreTrainedModel"]
