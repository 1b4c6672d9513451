"""CAV-MAE's configurations: the whole network of sound and picture, and its audio side alone as a tower.

The defaults are the released weights: 11 layers for each modality and one joint layer, patches of 16, 1024 frames of
128 mel bins. Sizes are pinned by the key lists of the official checkpoints; heads are in no file.
"""

from huggingface_hub.dataclasses import strict

from .format_unibrivl import VersionedConfig

MASK_MODES = ("unstructured", "time", "freq", "tf")
CLASSIFIER_MODES = ("multimodal", "audioonly", "videoonly", "missingaudioonly", "missingvideoonly")


@strict
class CAVMAESharedConfig(VersionedConfig):
    """
    Args:
        num_hidden_layers (`int`): layers that a token goes through: those of its modality and the joint ones.
        num_joint_layers (`int`): the last of them, whose weights all streams share and which have norms for each.
        num_mel_bins, max_audio_frames (`int`): the picture of a sound: 128 x 1024. Shorter sounds take the first
            positions; longer ones need `interpolate_pos_encoding=True`.
        sampling_rate (`int`): what the feature extractor hears.
        train_position_embeddings (`bool`, *optional*): positions learn; by default as in the original, where they do
            in a classifier and do not in pre-training.
        keep_unused_norms (`bool`): build the norms that the original has and never uses, for files that must go back
            to the original's format with every byte.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_joint_layers: int = 1
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5  # CAV-MAE code: torch's LayerNorm default, not MAE's 1e-6
    patch_size: int = 16
    num_mel_bins: int = 128
    max_audio_frames: int = 1024
    sampling_rate: int = 16000
    train_position_embeddings: bool | None = None
    keep_unused_norms: bool = False
    initializer_range: float = 0.02  # CAV-MAE code: of its tokens; it takes its layers from an ImageNet MAE

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        check_width("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        if not 0 < self.num_joint_layers < self.num_hidden_layers:
            raise ValueError(
                f"num_joint_layers ({self.num_joint_layers}) must be above 0 and below num_hidden_layers "
                f"({self.num_hidden_layers})"
            )
        for name in ("num_mel_bins", "max_audio_frames"):
            if getattr(self, name) < 1 or getattr(self, name) % self.patch_size:
                raise ValueError(f"{name} ({getattr(self, name)}) must be a multiple of the patch ({self.patch_size})")

    @property
    def num_modality_layers(self) -> int:
        return self.num_hidden_layers - self.num_joint_layers

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Patches of a whole sound: rows of frequency, columns of time. Token r * columns + c is row r, column c."""
        return self.num_mel_bins // self.patch_size, self.max_audio_frames // self.patch_size


def check_width(width_name: str, width: int, heads_name: str, heads: int) -> None:
    if heads < 1 or width % heads or width % 4:
        raise ValueError(
            f"{width_name} ({width}) must be a multiple of {heads_name} ({heads}), and of 4 for its positions"
        )


def check_image_size(side: int, patch: int) -> None:
    if side < 1 or side % patch:
        raise ValueError(f"image_size ({side}) must be a multiple of the patch ({patch})")


class CAVMAESideConfig(CAVMAESharedConfig):
    """One side alone, which owns a copy of the joint layers: a tower. It reads a whole model's file too."""

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Of a whole model's file the fields of this side."""
        found, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if found.get("model_type") == CAVMAEConfig.model_type:
            whole = CAVMAEConfig().to_dict().keys() - cls().to_dict().keys()
            found = {name: value for name, value in found.items() if name not in whole}
            found["model_type"] = cls.model_type
        return found, kwargs


@strict
class CAVMAEAudioConfig(CAVMAESideConfig):
    """The audio side; see `CAVMAESideConfig`."""

    model_type = "cavmae_audio"
    base_config_key = "audio_config"


@strict
class CAVMAEImageConfig(CAVMAESideConfig):
    """The image side; see `CAVMAESideConfig`.

    Args:
        image_size, num_channels (`int`): of the square picture.
    """

    model_type = "cavmae_image"
    base_config_key = "vision_config"

    image_size: int = 224
    num_channels: int = 3

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        super().validate_architecture()
        check_image_size(self.image_size, self.patch_size)

    @property
    def image_grid(self) -> tuple[int, int]:
        return self.image_size // self.patch_size, self.image_size // self.patch_size


@strict
class CAVMAEConfig(CAVMAESharedConfig):
    """
    Args:
        image_size, num_channels (`int`): of the square picture.
        decoder_hidden_size, decoder_num_hidden_layers, decoder_num_attention_heads, decoder_intermediate_size: the
            decoder of pre-training.
        audio_mask_ratio, image_mask_ratio (`float`): the part of the tokens that pre-training hides.
        mask_mode (`str`): which of a sound: `"unstructured"`, any; whole columns of `"time"`, whole rows of `"freq"`,
            or both at 0.7 of the ratio, `"tf"`.
        norm_pix_loss (`bool`): what is rebuilt are patches normalised one by one. The in-painting weights: False.
        reconstruction_loss_weight, contrastive_loss_weight (`float`): the two terms of the loss.
        contrastive_temperature (`float`): what cosines are divided by.
        bidirectional_contrast (`bool`): each sound looks for its picture too. The original: only pictures look.
        original_pretrain_quirk (`bool`): with several joint layers, pre-training lets a single modality through the
            last of them alone, as the original's code does; with one joint layer there is no difference.
        classifier_mode (`str`): what a classifier makes of a sound and a picture: `"multimodal"`, `"audioonly"`,
            `"videoonly"`, and for a classifier of both that is given one, `"missingaudioonly"` (a sound and no
            picture), `"missingvideoonly"`.
    """

    model_type = "cavmae"

    image_size: int = 224
    num_channels: int = 3
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    audio_mask_ratio: float | int = 0.75  # CAV-MAE code: both modalities alike
    image_mask_ratio: float | int = 0.75  # CAV-MAE code: both modalities alike
    mask_mode: str = "unstructured"
    norm_pix_loss: bool = True
    reconstruction_loss_weight: float | int = 1.0  # CAV-MAE code: mae_loss_weight
    contrastive_loss_weight: float | int = 0.01  # CAV-MAE code: contrast_loss_weight
    contrastive_temperature: float | int = 0.05  # CAV-MAE code
    bidirectional_contrast: bool = False
    original_pretrain_quirk: bool = False
    classifier_mode: str = "multimodal"

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        super().validate_architecture()
        check_width(
            "decoder_hidden_size",
            self.decoder_hidden_size,
            "decoder_num_attention_heads",
            self.decoder_num_attention_heads,
        )
        check_image_size(self.image_size, self.patch_size)
        for name in ("audio_mask_ratio", "image_mask_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if self.mask_mode not in MASK_MODES:
            raise ValueError(f"mask_mode must be one of {', '.join(MASK_MODES)}, got {self.mask_mode!r}")
        if self.classifier_mode not in CLASSIFIER_MODES:
            raise ValueError(f"classifier_mode must be one of {', '.join(CLASSIFIER_MODES)}")

    @property
    def image_grid(self) -> tuple[int, int]:
        return self.image_size // self.patch_size, self.image_size // self.patch_size


__all__ = ["CLASSIFIER_MODES", "MASK_MODES", "CAVMAEAudioConfig", "CAVMAEConfig", "CAVMAEImageConfig"]
