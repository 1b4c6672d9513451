"""CAVT-MAE's configuration: CAV-MAE's two sides and a text encoder, in whose spaces a sound finds its place.

The defaults are AAI's: CAV-MAE at its released size and the text encoder of Stable Diffusion 1, all of width 768.
"""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .configuration_cavmae import CAVMAEAudioConfig, CAVMAEImageConfig
from .format_unibrivl import VersionedConfig

TEXT_FEATURES = ("pooled", "mean_tokens", "token_table")
TARGETS = ("multi_positive", "one_hot")
DISTILL_FORMS = ("kl", "ce")
# Stable Diffusion 1's text encoder: CLIP ViT-L/14's, without its projection
TEXT_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


@strict
class CAVTMAEConfig(VersionedConfig):
    """
    Args:
        audio_config: `CAVMAEAudioConfig`, or its fields.
        vision_config: `CAVMAEImageConfig`, or its fields.
        text_config: of any text encoder of transformers; Stable Diffusion 1's by default.
        text_feature (`str`): what a text is: `"pooled"`, the encoder's pooled state (CLIP's at the end of the text);
            `"mean_tokens"`, the mean over its tokens; `"token_table"`, the mean of its words' rows in the table of
            input embeddings, for which the encoder is not run.
        projection_dim (`int`, *optional*): a linear layer behind each of the three, which begins as the identity, and
            the width of the space. None: none, and all three must have one width.
        tie_unified_block (`bool`): both sides share attention and MLP of the joint layers, as CAV-MAE has them. Then
            training sounds moves pictures, frozen or not.
        freeze_unified_block (`bool`): the joint layers that hear do not train.
        freeze_audio_model, freeze_vision_model, freeze_text_model (`bool`): towers that do not train; they stay in
            eval mode too.
        temperature (`float`): what cosines are divided by; where training begins if it is learned.
        learn_temperature (`bool`): whether it is. It stays between `min_temperature` and `max_temperature`.
        alpha (`float`): weight of the momentum copy's targets, with `return_loss=True` and in training.
        targets (`str`): `"multi_positive"`: sounds and texts of one label are all right; `"one_hot"`: each only its
            own, as AAI's formula has it.
        distill_form (`str`): `"kl"`, divergence from the copy's targets, or `"ce"`, cross-entropy against them, as
            ALBEF computes it: gradients are the same.
    """

    model_type = "cavtmae"
    sub_configs = {
        "audio_config": CAVMAEAudioConfig,
        "vision_config": CAVMAEImageConfig,
        "text_config": AutoConfig,
    }

    audio_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    text_feature: str = "pooled"
    projection_dim: int | None = None
    tie_unified_block: bool = False
    freeze_unified_block: bool = False
    freeze_audio_model: bool = False
    freeze_vision_model: bool = True
    freeze_text_model: bool = True
    temperature: float | int = 0.07  # ALBEF: where it begins; AAI gives none
    learn_temperature: bool = True
    min_temperature: float | int = 0.001  # ALBEF code: its clamp
    max_temperature: float | int = 0.5  # ALBEF code: its clamp
    alpha: float | int = 0.4  # ALBEF: default; AAI gives none
    targets: str = "multi_positive"
    distill_form: str = "kl"
    initializer_range: float = 0.02  # OURS: of CAV-MAE's towers, which have their own

    def __post_init__(self, **kwargs):
        self.audio_config = side_config(self.audio_config, CAVMAEAudioConfig)
        self.vision_config = side_config(self.vision_config, CAVMAEImageConfig)
        if not isinstance(self.text_config, PreTrainedConfig):
            fields = dict(TEXT_DEFAULTS if self.text_config is None else self.text_config)
            self.text_config = AutoConfig.for_model(fields.pop("model_type", "clip_text_model"), **fields)
        if kwargs.get("attn_implementation") is None:
            kwargs["attn_implementation"] = {}  # None would make towers that are already built forget theirs
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        for name, known in (("text_feature", TEXT_FEATURES), ("targets", TARGETS), ("distill_form", DISTILL_FORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 < self.min_temperature <= self.temperature <= self.max_temperature:
            raise ValueError(
                f"temperature ({self.temperature}) must lie between min_temperature ({self.min_temperature}), above "
                f"0, and max_temperature ({self.max_temperature})"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is a share, from 0 to 1; got {self.alpha}")
        if self.projection_dim is None and len(set(self.widths)) > 1:
            raise ValueError(
                "sounds, pictures and texts have {}, {} and {} numbers: name one width for all, projection_dim, or "
                "take towers of one width".format(*self.widths)
            )
        hears, sees = (
            {name: getattr(config, name) for name in ("hidden_size", "num_joint_layers", "intermediate_size")}
            for config in (self.audio_config, self.vision_config)
        )
        if self.tie_unified_block and hears != sees:
            raise ValueError(f"joint layers of {hears} and {sees} cannot be one: set tie_unified_block=False")

    @property
    def widths(self) -> tuple[int, int, int]:
        """Numbers of a sound, a picture and a text before their projections."""
        return self.audio_config.hidden_size, self.vision_config.hidden_size, text_width(self.text_config)

    @property
    def embed_dim(self) -> int:
        """Width of the space."""
        return self.widths[0] if self.projection_dim is None else self.projection_dim

    @property
    def native_dim(self) -> int:
        """Numbers of a picture before its projection: what may be computed once where the image side is frozen."""
        return self.widths[1]


def side_config(fields: dict | PreTrainedConfig | None, config_class) -> PreTrainedConfig:
    if isinstance(fields, PreTrainedConfig):
        if fields.model_type != config_class.model_type:
            raise ValueError(
                f"a {fields.model_type!r} configuration is no {config_class.model_type!r}: pass its fields"
            )
        return fields
    fields = dict(fields or {})
    named = fields.pop("model_type", config_class.model_type)
    if named != config_class.model_type:
        raise ValueError(f"model_type is {named!r} and must be {config_class.model_type!r}")
    return config_class(**fields)


def text_width(config: PreTrainedConfig) -> int:
    """Numbers of a token's state; T5 and its kin call it d_model."""
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    if width is None:
        raise ValueError(f"a {config.model_type!r} names no hidden_size: pass the configuration of a text encoder")
    return width


__all__ = ["CAVTMAEConfig"]
