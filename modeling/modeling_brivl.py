"""BriVL's two towers: a picture, or a Chinese text, as one vector of the same space.

Picture: EfficientNet -> features of 37 regions -> self-attention block -> mean -> MLP. Text: BERT -> the same block
over tokens -> mean -> MLP. `pooler_output` is l2-normalised, `projection` is the MLP's output before that.

Shapes: B batch, N regions or tokens, D width, C channels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import BertConfig, BertModel, EfficientNetConfig
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_brivl import BriVLAttention, BriVLAttentionPool, BriVLLayer, BriVLProjection, unit_length
from .backbone_brivl import BriVLEfficientNet
from .configuration_brivl import BriVLConfig, BriVLTextConfig, BriVLVisionConfig
from .loading_unibrivl import CheckedLoading
from .regions_brivl import check_boxes, grid_boxes, region_features


@dataclass
class BriVLTowerOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`): (B, N, D), the regions or tokens after the self-attention block.
        pooler_output (`torch.FloatTensor`): (B, E), the embedding, l2-normalised.
        projection (`torch.FloatTensor`): (B, E), the embedding as the MLP gives it.
        backbone_output (`torch.FloatTensor`): the CNN's map (B, C, H, W), or BERT's tokens (B, N, D).
        regions (`torch.FloatTensor`): (B, N, C), the regions before the block; pictures only.
        hidden_states, attentions (`tuple[torch.FloatTensor]`, on request): of the self-attention block.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    projection: torch.FloatTensor | None = None
    backbone_output: torch.FloatTensor | None = None
    regions: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class BriVLPreTrainedModel(CheckedLoading):
    config: BriVLConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["BriVLLayer", "EfficientNetBlock", "BertEmbeddings", "BertLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": BriVLLayer, "attentions": BriVLAttention}


class BriVLVisionModel(BriVLPreTrainedModel):
    """Pictures, and regions of them if wanted -> embeddings."""

    config: BriVLVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: BriVLVisionConfig):
        super().__init__(config)
        backbone_config = EfficientNetConfig(
            width_coefficient=config.width_coefficient,
            depth_coefficient=config.depth_coefficient,
            hidden_dim=config.hidden_size,
            num_channels=config.num_channels,
            image_size=config.image_size,
            drop_connect_rate=0.0,
            batch_norm_momentum=0.1,  # torch counts momentum the other way round than EfficientNet's 0.99
        )
        backbone_config._attn_implementation = config._attn_implementation
        self.backbone = BriVLEfficientNet(backbone_config)
        self.region_projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_pool = BriVLAttentionPool(
            config,
            config.hidden_size,
            config.num_sa_layers,
            config.num_sa_heads,
            config.sa_intermediate_size,
            config.sa_dropout,
            config.layer_norm_eps,
        )
        self.projection = BriVLProjection(config.hidden_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.backbone.embeddings.convolution

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        boxes: torch.Tensor | None = None,
        box_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BriVLTowerOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor`): (B, 3, S, S), square pictures from the image processor, of any side
                from 33 on.
            boxes (`torch.Tensor`, *optional*): (N, 4) or (B, N, 4), regions (x1, y1, x2, y2) in pixels of the resized
                picture; the 6 x 6 grid and the whole picture by default.
            box_mask (`torch.Tensor`, *optional*): (B, N), 1 where a box is real.
        """
        channels = self.config.num_channels
        if pixel_values.dim() != 4 or pixel_values.shape[1] != channels or len(set(pixel_values.shape[2:])) != 1:
            raise ValueError(
                f"pixel_values must be (batch, {channels}, side, side), got {tuple(pixel_values.shape)}. "
                "BriVLImageProcessor makes pictures square"
            )
        size = pixel_values.shape[-1]
        if size < 33:
            raise ValueError(f"pictures of {size} pixels leave one point of the CNN's map: use 33 or more a side")
        if boxes is not None:
            check_boxes(boxes, len(pixel_values))
        map_BCHW = self.backbone(pixel_values.to(self.backbone.dtype))
        if boxes is None:
            boxes = grid_boxes(size, self.config.patch_grid_size, map_BCHW.device)
        regions_BNC = region_features(map_BCHW, boxes, size, self.config.roi_grid_size)
        regions_BNC = self.region_projection(regions_BNC.to(self.region_projection.weight.dtype))
        tokens_BND, pooled_BD = self.attention_pool(regions_BNC, box_mask, **kwargs)
        projected_BE = self.projection(pooled_BD)
        return BriVLTowerOutput(
            last_hidden_state=tokens_BND,
            pooler_output=unit_length(projected_BE),
            projection=projected_BE,
            backbone_output=map_BCHW,
            regions=regions_BNC,
        )


class BriVLTextModel(BriVLPreTrainedModel):
    """Chinese texts -> embeddings, in the pictures' space."""

    config: BriVLTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    input_modalities = ("text",)

    def __init__(self, config: BriVLTextConfig):
        super().__init__(config)
        fields = (
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
            "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
            "layer_norm_eps", "initializer_range", "pad_token_id",
        )  # fmt: skip
        backbone_config = BertConfig(**{name: getattr(config, name) for name in fields})
        backbone_config._attn_implementation = config._attn_implementation
        self.backbone = BertModel(backbone_config, add_pooling_layer=False)
        self.attention_pool = BriVLAttentionPool(
            config,
            config.hidden_size,
            config.num_sa_layers,
            config.num_sa_heads,
            config.sa_intermediate_size,
            config.sa_dropout,
            config.sa_layer_norm_eps,
        )
        self.projection = BriVLProjection(config.hidden_size, config.projection_dim)
        self.post_init()

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BriVLTowerOutput:
        """
        Args:
            input_ids (`torch.LongTensor`): (B, N), tokens with [CLS] and [SEP], padded to `config.max_length`.
            attention_mask (`torch.Tensor`, *optional*): (B, N), 1 on real tokens; by default all but the padding id.
            token_type_ids (`torch.LongTensor`, *optional*): (B, N), BERT's segments; zeros by default, as in BriVL.
        """
        if input_ids.dim() != 2 or input_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"input_ids must be (batch, up to {self.config.max_position_embeddings} tokens), got "
                f"{tuple(input_ids.shape)}. Tokenize with padding='max_length', truncation=True, "
                f"max_length={self.config.max_length}"
            )
        if attention_mask is None and self.config.pad_token_id is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        seen = None if self.config.attend_to_padding else attention_mask
        tokens_BND = self.backbone(
            input_ids, attention_mask=seen, token_type_ids=token_type_ids, return_dict=True
        ).last_hidden_state
        pooled_tokens_BND, pooled_BD = self.attention_pool(tokens_BND, attention_mask, **kwargs)
        projected_BE = self.projection(pooled_BD)
        return BriVLTowerOutput(
            last_hidden_state=pooled_tokens_BND,
            pooler_output=unit_length(projected_BE),
            projection=projected_BE,
            backbone_output=tokens_BND,
        )


@dataclass
class BriVLOutput(ModelOutput):
    """
    Args:
        image_embeds, text_embeds (`torch.FloatTensor`): (B, E), l2-normalised.
        logits_per_image (`torch.FloatTensor`): (images, texts), cosines.
        logits_per_text (`torch.FloatTensor`): its transpose.
        vision_model_output, text_model_output (`BriVLTowerOutput`): all that the towers gave.
    """

    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    logits_per_image: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    vision_model_output: BriVLTowerOutput | None = None
    text_model_output: BriVLTowerOutput | None = None


class BriVLModel(BriVLPreTrainedModel):
    """Both towers of BriVL-1.0. The objective is in training; this model compares."""

    config: BriVLConfig
    base_model_prefix = "brivl"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")

    def __init__(self, config: BriVLConfig):
        super().__init__(config)
        self.vision_model = BriVLVisionModel._from_config(config.vision_config)
        self.text_model = BriVLTextModel._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(self, pixel_values, boxes=None, box_mask=None, **kwargs: Unpack[TransformersKwargs]):
        """The image tower's output; `pooler_output` is the embedding."""
        return self.vision_model(pixel_values, boxes, box_mask, return_dict=True, **kwargs)

    @can_return_tuple
    def get_text_features(
        self, input_ids, attention_mask=None, token_type_ids=None, **kwargs: Unpack[TransformersKwargs]
    ):
        """The text tower's output; `pooler_output` is the embedding."""
        return self.text_model(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        box_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BriVLOutput:
        if pixel_values is None and input_ids is None:
            raise ValueError("pass pixel_values, input_ids, or both")
        vision = text = cosines = None
        if pixel_values is not None:
            vision = self.vision_model(pixel_values, boxes, box_mask, return_dict=True, **kwargs)
        if input_ids is not None:
            text = self.text_model(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)
        if vision is not None and text is not None:
            cosines = vision.pooler_output @ text.pooler_output.t()
        return BriVLOutput(
            image_embeds=None if vision is None else vision.pooler_output,
            text_embeds=None if text is None else text.pooler_output,
            logits_per_image=cosines,
            logits_per_text=None if cosines is None else cosines.t(),
            vision_model_output=vision,
            text_model_output=text,
        )


__all__ = [
    "BriVLModel", "BriVLOutput", "BriVLPreTrainedModel", "BriVLTextModel", "BriVLTowerOutput", "BriVLVisionModel",
]  # fmt: skip
