"""SpeechLM's configuration: a Speech Transformer and a Shared Transformer over HuBERT's convolutional front end.

The defaults are SpeechLM-P Base. `SPEECHLM_PRESETS` holds what the other published sizes change. Sizes are pinned by
the key lists of the official checkpoints; every other constant names where it comes from.
"""

from huggingface_hub.dataclasses import strict

from .format_unibrivl import VersionedConfig

# Facts of the published configurations (microsoft/SpeechT5, SpeechLM/): what differs from the defaults below.
SPEECHLM_PRESETS: dict[str, dict] = {
    "base-p": {},
    "base-h": {"unit_vocab_size": 505, "label_rate": 50},
    "large-p": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_speech_layers": 12,
        "num_shared_layers": 12,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "label_rate": 50,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.0,
        "feature_grad_mult": 1.0,
        "attention_scaling": 32,
    },
}


@strict
class SpeechLMConfig(VersionedConfig):
    """Sizes and behaviour of a SpeechLM model.

    Args:
        do_stable_layer_norm (`bool`): pre-norm layers, and a LayerNorm on the relative positions (Large).
        feat_extract_norm (`str`): `"group"` (Base) or `"layer"` (Large) normalisation in the front end.
        max_relative_position (`int`): relative positions are clipped to [-this, this - 1].
        max_source_positions (`int`): frames after this many share the last absolute position.
        use_unit_embeddings (`bool`): whether there is a unit table. Microsoft's "cleaned" files have none: such a
            model hears sound and refuses unit ids.
        padding_mode (`str`): `"exact"`: statistics and masks see valid samples only, so a padded clip equals the clip
            alone. `"fairseq"`: the original's arithmetic, statistics over the padding and its frame mask.
        attention_scaling (`int`): the eager path divides the queries by this before the product and multiplies the
            float32 scores by it afterwards: the identity, safe from float16 overflow.
        label_rate (`int`): unit labels per second of the pre-training targets.
    """

    model_type = "speechlm"
    base_config_key = "audio_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 8
    num_speech_layers: int = 6
    num_shared_layers: int = 6
    hidden_act: str = "gelu"
    do_stable_layer_norm: bool = False
    layer_norm_eps: float = 1e-5  # fairseq: nn.LayerNorm's default

    # Front end, in the names of transformers' Hubert, whose modules are reused
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: list[int] | tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_kernel: list[int] | tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: list[int] | tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_proj_layer_norm: bool = True
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    conv_pos_batch_norm: bool = False
    sampling_rate: int = 16000

    max_relative_position: int = 160
    max_source_positions: int = 3000
    use_unit_embeddings: bool = True
    padding_mode: str = "exact"
    attention_scaling: int = 1

    # Units, letters and heads
    unit_vocab_size: int = 369
    unit_proj_size: int = 256
    ctc_vocab_size: int = 33
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    unk_token_id: int = 3
    ctc_blank_token_id: int = 0

    # Regularisation and pre-training
    hidden_dropout: float | int = 0.1  # SpeechLM base config: dropout
    attention_dropout: float | int = 0.1  # SpeechLM base config: attention_dropout
    activation_dropout: float | int = 0.0  # SpeechLM base config: activation_dropout
    feat_proj_dropout: float | int = 0.1  # SpeechLM base config: dropout_input
    ctc_dropout: float | int = 0.1  # SpeechLM code: dropout of the CTC head
    layerdrop: float | int = 0.1  # SpeechLM base config: encoder_layerdrop
    feature_grad_mult: float | int = 0.1  # SpeechLM base config: feature_grad_mult
    label_rate: int = 100  # SpeechLM base P: 10 ms Kaldi alignments
    logit_temp: float | int = 0.1  # SpeechLM paper eq. 4
    mask_time_prob: float | int = 0.8  # SpeechLM base config: mask_prob; 8 % of the frames start a span
    mask_time_length: int = 10  # fairseq HuBERT: mask_length
    swap_prob: float | int = 0.4  # SpeechLM code: half of mask_prob
    swap_length: int = 5  # SpeechLM code: half of mask_length
    feature_penalty_weight: float | int = 10.0  # SpeechLM criterion: loss_weights
    text_ctc_weight: float | int = 0.1  # SpeechLM criterion: text_weight

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise ValueError(
                "conv_dim, conv_kernel and conv_stride describe the same layers and must have one length, got "
                f"{len(self.conv_dim)}, {len(self.conv_kernel)} and {len(self.conv_stride)}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        for name, allowed in {"padding_mode": ("exact", "fairseq"), "feat_extract_norm": ("group", "layer")}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")

    @property
    def num_feat_extract_layers(self) -> int:
        return len(self.conv_dim)

    @property
    def num_hidden_layers(self) -> int:
        return self.num_speech_layers + self.num_shared_layers

    @property
    def frame_hop(self) -> int:
        """Samples from one frame to the next: 320, which is 20 ms."""
        hop = 1
        for stride in self.conv_stride:
            hop *= stride
        return hop

    @property
    def frame_field(self) -> int:
        """Samples one frame sees, and the shortest input: 400, which is 25 ms."""
        field = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            field = (field - 1) * stride + kernel
        return field


__all__ = ["SPEECHLM_PRESETS", "SpeechLMConfig"]
