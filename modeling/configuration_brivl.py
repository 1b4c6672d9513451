"""BriVL's configurations: an image tower of EfficientNet and 37 regions, and a text tower of BERT.

The defaults are BriVL-1.0, the only public weights (EfficientNet-B5, 2048 numbers, 380 pixels). `BRIVL_VISION_PRESETS`
holds the CNN of the papers, B7. Sizes are pinned by the key lists of the official checkpoint.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .format_unibrivl import VersionedConfig

# EfficientNet's own scaling (width, depth) and what follows from it; image sizes: BriVL's code (B5), the paper (B7)
BRIVL_VISION_PRESETS: dict[str, dict] = {
    "b5": {},
    "b7": {"width_coefficient": 2.0, "depth_coefficient": 3.1, "hidden_size": 2560, "image_size": 360},
}


def scaled_channels(width_coefficient: float) -> int:
    """Channels of EfficientNet's last map: 1280 times the width, to the nearest 8 and never a tenth too few."""
    wanted = 1280 * width_coefficient
    channels = max(8, int(wanted + 4) // 8 * 8)
    return channels + 8 if channels < 0.9 * wanted else channels


def check_heads(config) -> None:
    if config.hidden_size % config.num_sa_heads:
        raise ValueError(
            f"hidden_size ({config.hidden_size}) must be a multiple of num_sa_heads ({config.num_sa_heads})"
        )


@strict
class BriVLVisionConfig(VersionedConfig):
    """
    Args:
        width_coefficient, depth_coefficient (`float`): EfficientNet's scaling, 1.6 and 2.2 for B5.
        hidden_size (`int`): channels of the CNN and width of the embedding: 1280 times the width, rounded to 8.
        image_size (`int`): side of the square picture the processor makes; the tower takes any size.
        patch_grid_size (`int`): regions a side; with the whole picture 6 x 6 + 1 = 37.
        roi_grid_size (`int`): sampling points a side within a region.
        num_sa_layers, num_sa_heads, sa_intermediate_size (`int`): the self-attention block over the regions.
        sa_dropout (`float`): its dropout, in training.
    """

    model_type = "brivl_vision"
    base_config_key = "vision_config"

    width_coefficient: float | int = 1.6  # EfficientNet-B5
    depth_coefficient: float | int = 2.2  # EfficientNet-B5
    hidden_size: int = 2048
    num_channels: int = 3
    image_size: int = 380
    patch_grid_size: int = 6
    roi_grid_size: int = 4
    num_sa_layers: int = 4
    num_sa_heads: int = 4
    sa_intermediate_size: int = 2048
    sa_dropout: float | int = 0.1  # BriVL code: torch's TransformerEncoderLayer default
    layer_norm_eps: float = 1e-5  # BriVL code: torch's LayerNorm default
    initializer_range: float = 0.02  # OURS: the public code trains from ImageNet weights and states none

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        check_heads(self)
        if self.hidden_size != scaled_channels(self.width_coefficient):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be what an EfficientNet of width {self.width_coefficient} "
                f"ends in: {scaled_channels(self.width_coefficient)}"
            )

    @property
    def num_hidden_layers(self) -> int:
        return self.num_sa_layers

    @property
    def num_attention_heads(self) -> int:
        return self.num_sa_heads


@strict
class BriVLTextConfig(VersionedConfig):
    """
    Args:
        vocab_size ... layer_norm_eps: BERT's own fields (hfl/chinese-roberta-wwm-ext; "RoBERTa" in name only).
        projection_dim (`int`): width of the embedding, the image tower's.
        max_length (`int`): tokens a text is padded to.
        attend_to_padding (`bool`): BERT sees no mask, so real tokens attend to the padding and a text's vector depends
            on the padded length. The published weights need it, with every text padded to `max_length`.
        num_sa_layers, num_sa_heads, sa_intermediate_size, sa_dropout: the self-attention block over the tokens.
    """

    model_type = "brivl_text"
    base_config_key = "text_config"

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1  # BriVL code: hfl/chinese-roberta-wwm-ext's config
    attention_probs_dropout_prob: float | int = 0.1  # BriVL code: hfl/chinese-roberta-wwm-ext's config
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12  # BriVL code: BERT's default
    initializer_range: float = 0.02  # BriVL code: BERT's default
    pad_token_id: int | None = 0
    projection_dim: int = 2048
    max_length: int = 80
    attend_to_padding: bool = True
    num_sa_layers: int = 4
    num_sa_heads: int = 4
    sa_intermediate_size: int = 2048
    sa_dropout: float | int = 0.1  # BriVL code: torch's TransformerEncoderLayer default
    sa_layer_norm_eps: float = 1e-5  # BriVL code: torch's LayerNorm default

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        check_heads(self)


@strict
class BriVLConfig(VersionedConfig):
    """Both towers: each a config, a dictionary of its fields, or None for BriVL-1.0's.

    A text tower that is not told its `projection_dim` takes the image tower's width.
    """

    model_type = "brivl"
    sub_configs = {"vision_config": BriVLVisionConfig, "text_config": BriVLTextConfig}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    initializer_range: float = 0.02  # OURS: the public code trains from ImageNet weights and states none

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = BriVLVisionConfig(**(self.vision_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            width = getattr(self.vision_config, "hidden_size", None)
            self.text_config = BriVLTextConfig(**{"projection_dim": width, **(self.text_config or {})})
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        for name, wanted in (("vision_config", "brivl_vision"), ("text_config", "brivl_text")):
            if (found := getattr(self, name).model_type) != wanted:
                raise ValueError(f"{name} must be a {wanted!r} configuration, got {found!r}: UniBriVL joins others")
        if self.text_config.projection_dim != self.vision_config.hidden_size:
            raise ValueError(
                f"text_config.projection_dim ({self.text_config.projection_dim}) must be the image tower's width "
                f"({self.vision_config.hidden_size}): the two are compared"
            )


__all__ = ["BRIVL_VISION_PRESETS", "BriVLConfig", "BriVLTextConfig", "BriVLVisionConfig"]
