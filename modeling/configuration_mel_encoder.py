"""The mel encoder's configuration: any image backbone of transformers, and the log-mel picture it looks at.

The front end's numbers stand here, beside the backbone that learns on them: `MelEncoderFeatureExtractor.for_config`
builds the feature extractor that belongs to a configuration.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .format_unibrivl import VersionedConfig

# A residual network of 1.2 million parameters: a minute of sound takes one core of a CPU about a quarter of a second
DEFAULT_BACKBONE: dict = {
    "model_type": "resnet",
    "num_channels": 1,
    "embedding_size": 32,
    "hidden_sizes": [64, 128, 256],
    "depths": [1, 1, 1],
    "layer_type": "basic",
}


def rounded(channels: float, divisor: int, least: int) -> int:
    """Channels as EfficientNet and MobileNet round them: to the divisor, never below nine tenths."""
    nearest = max(least, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def backbone_width(backbone: PreTrainedConfig) -> int | None:
    """Channels of the backbone's last map or tokens; None where its configuration does not tell."""
    kind = backbone.model_type
    if kind == "efficientnet":
        return rounded(1280 * backbone.width_coefficient, backbone.depth_divisor, backbone.depth_divisor)
    if kind == "mobilenet_v1":
        return max(int(1024 * backbone.depth_multiplier), backbone.min_depth)
    if kind == "mobilenet_v2":
        if backbone.finegrained_output and backbone.depth_multiplier < 1:
            return 1280
        return rounded(round(1280 * backbone.depth_multiplier), backbone.depth_divisible_by, backbone.min_depth)
    if kind == "mobilevit":
        return backbone.neck_hidden_sizes[-1]
    for name in ("hidden_sizes", "hidden_size", "embed_dims", "embed_dim"):
        width = getattr(backbone, name, None)
        if width is not None:
            return width[-1] if isinstance(width, (list, tuple)) else width
    return None


@strict
class MelEncoderConfig(VersionedConfig):
    """
    Args:
        backbone_config (`dict` or `PreTrainedConfig`): an image model of transformers, by `model_type` and its own
            fields; a small ResNet by default. With `num_channels` of 3 it sees the same picture three times.
        hidden_size (`int`): channels of the backbone's last map or tokens, found in its configuration.
        frame_multiple (`int`): frames and mel bins are padded with silence to multiples of this before the backbone
            sees them: its patch size, or 32 where it reduces in stages.
        padding_mode (`str`): `"exact"`: outside training clips of unlike length run at their own length, so a clip in
            a batch gives what the clip alone gives. `"silence"`: the whole batch runs at once, as in training, and a
            padded clip gives what the clip followed by digital silence gives.
        n_fft, win_length, hop_length (`int`): in samples.
        fmin, fmax (`float`): the range of the mel bins, in Hz.
        mel_floor (`float`): power below which a mel bin counts as silent.
        log_scale (`float`): powers of ten above the floor that make up 1 in `input_features`.
        input_mean (`float`): taken off the picture before the backbone sees it: image models want pictures about 0,
            and what their convolutions see beyond the border then is average sound.
    """

    model_type = "mel_encoder"
    base_config_key = "audio_config"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    hidden_size: int | None = None
    frame_multiple: int | None = None
    padding_mode: str = "exact"

    sampling_rate: int = 16000
    num_mel_bins: int = 64
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    fmin: float | int = 50.0  # PANNs paper: the lowest bin begins above hum and rumble
    fmax: float | int = 8000.0  # OURS: all that 16 kHz holds
    mel_floor: float = 1e-10  # Whisper code: floor of its log10
    log_scale: float | int = 4.0  # Whisper code: divisor of its log10
    input_mean: float | int = 1.9  # OURS: the mean over 640 real recordings of 50 classes is 1.91

    def __post_init__(self, **kwargs):
        if not isinstance(self.backbone_config, PreTrainedConfig):
            fields = dict(self.backbone_config or DEFAULT_BACKBONE)
            if "model_type" not in fields:
                raise ValueError('backbone_config needs a model_type, such as "resnet", "efficientnet" or "vit"')
            self.backbone_config = AutoConfig.for_model(**fields)
        if self.hidden_size is None:
            self.hidden_size = backbone_width(self.backbone_config)
        if self.patch_size is not None and not isinstance(self.patch_size, int):
            raise ValueError(f"patch_size of the backbone must be one number, got {self.patch_size}")
        if self.frame_multiple is None:
            self.frame_multiple = self.patch_size or 32
        super().__post_init__(**kwargs)

    @property
    def patch_size(self) -> int | None:
        """Side of the patches where they become the backbone's tokens one to one; None where it reduces in stages."""
        reduces = any(hasattr(self.backbone_config, name) for name in ("depths", "hidden_sizes", "output_stride"))
        return None if reduces else getattr(self.backbone_config, "patch_size", None)

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        backbone: Any = self.backbone_config
        kind, width = backbone.model_type, backbone_width(backbone)
        if self.hidden_size is None:
            raise ValueError(f"the configuration of a {kind!r} does not tell its channels: pass hidden_size")
        if kind == "efficientnet" and width != backbone.hidden_dim:
            raise ValueError(
                f"hidden_dim of an efficientnet of width_coefficient {backbone.width_coefficient} must be {width}, "
                f"got {backbone.hidden_dim}: transformers does not derive it"
            )
        if width not in (None, self.hidden_size):
            raise ValueError(f"hidden_size is {self.hidden_size} and this {kind!r} has {width} channels: leave it out")
        multiple = self.frame_multiple or 0
        if multiple < 1 or multiple % (self.patch_size or 1):
            raise ValueError(f"frame_multiple ({multiple}) must be a multiple of the patch size ({self.patch_size})")
        if self.padding_mode not in ("exact", "silence"):
            raise ValueError(f"padding_mode must be 'exact' or 'silence', got {self.padding_mode!r}")


__all__ = ["MelEncoderConfig", "backbone_width"]
