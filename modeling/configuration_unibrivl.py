"""UniBriVL's configuration: which towers stand in one space, and the parts that join them.

Any audio encoder and any image encoder of transformers, or of this package, fits: a tower is a configuration, or a
dictionary with its `model_type`. The defaults are the paper's: SpeechLM against BriVL's public image tower.
"""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, ClapAudioConfig, PreTrainedConfig, Siglip2TextConfig, SiglipTextConfig

from .configuration_brivl import BriVLTextConfig, BriVLVisionConfig
from .configuration_cavmae import CAVMAEAudioConfig, CAVMAEImageConfig
from .configuration_mel_encoder import MelEncoderConfig, backbone_width
from .configuration_speechlm import SPEECHLM_PRESETS, SpeechLMConfig
from .format_unibrivl import VersionedConfig

# "base" is for trials; "paper" is SpeechLM-P Large and pictures of 360 pixels (UniBriVL 3.2, 3.4)
UNIBRIVL_PRESETS: dict[str, dict] = {
    "base": {},
    "paper": {
        "audio_config": {"model_type": "speechlm", **SPEECHLM_PRESETS["large-p"]},
        "vision_config": {"model_type": "brivl_vision", "image_size": 360},
    },
}

# configurations that AutoConfig does not know everywhere: ours in a flat copy, some of transformers' in older versions
OWN_CONFIGS = {
    config_class.model_type: config_class
    for config_class in (
        *(SpeechLMConfig, MelEncoderConfig, CAVMAEAudioConfig, CAVMAEImageConfig, BriVLVisionConfig, BriVLTextConfig),
        *(ClapAudioConfig, SiglipTextConfig, Siglip2TextConfig),
    )
}


def tower_config(fields: dict | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    """A tower's configuration from its fields; `default` is the model_type of fields that name none."""
    if isinstance(fields, PreTrainedConfig):
        return fields
    fields = dict(fields or {})
    model_type = fields.pop("model_type", default)
    own = OWN_CONFIGS.get(model_type)
    return own(**fields) if own else AutoConfig.for_model(model_type, **fields)


def audio_width(config: PreTrainedConfig) -> int | None:
    """Width of the frames that an audio tower of this configuration gives."""
    if getattr(config, "add_adapter", False):  # wav2vec 2.0 and its kin
        return config.output_hidden_size
    return getattr(config, "hidden_size", None)


def image_width(config: PreTrainedConfig) -> int | None:
    """Width of the embedding that an image tower of this configuration gives, or None if it cannot be told."""
    return config.projection_dim if config.model_type == "clip_vision_model" else backbone_width(config)


def text_width(config: PreTrainedConfig) -> int | None:
    """Width of the embedding that a native text tower gives."""
    for name in ("projection_dim", "projection_size", "hidden_size"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return None


@strict
class UniBriVLConfig(VersionedConfig):
    """
    Args:
        audio_config: the language tower's backbone: SpeechLM by default (it also reads text, as units), or any audio
            encoder of transformers (hubert, wav2vec2, wavlm, whisper, clap_audio_model, ...) or a `mel_encoder`.
        vision_config: the image tower: BriVL's by default, or clip_vision_model, siglip_vision_model, dinov2, vit, ...
        text_config (*optional*): the text tower that shares the image tower's space, if it has one: brivl_text,
            clip_text_model, siglip_text_model.
        decoder_config (*optional*): a causal language model, for `UniBriVLForAudioCaptioning` alone.
        embed_dim (`int`): width of the shared space and of the features that probes see.
        image_embed_dim (`int`, *optional*): width of the image tower's own space; known for the towers named above.
        num_sa_layers, num_sa_heads, sa_intermediate_size, sa_dropout: the self-attention block over the frames; no
            layers, no block.
        use_layer_mix (`bool`): frames are a learned average over all layers, where all have one width; else, and for
            other towers always, the tower's last hidden state.
        layer_mix_norm (`bool`): normalise each layer's frames before they are averaged.
        text_route (`str`): how a label text meets a sound by default: `"units"` through the language tower, `"native"`
            through `text_config`'s tower, in the image tower's space.
        temperature (`float`): what scores are divided by before a softmax, in training and in classification.
        freeze_vision_model, freeze_text_model, freeze_audio_model (`bool`): towers that do not train; they stay in
            eval mode too.
        freeze_audio_tower (`bool`): the same for the language tower's backbone alone: its head trains.
        freeze_decoder (`bool`): the same for the language model that writes captions.
        classifier_hidden_size, classifier_dropout: the probe of `UniBriVLForAudioClassification`.
        prefix_length (`int`): vectors that tell the language model of a sound.
    """

    model_type = "unibrivl"
    sub_configs = {
        "audio_config": AutoConfig,
        "vision_config": AutoConfig,
        "text_config": AutoConfig,
        "decoder_config": AutoConfig,
    }

    audio_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    decoder_config: dict | PreTrainedConfig | None = None
    embed_dim: int = 512
    image_embed_dim: int | None = None
    num_sa_layers: int = 4
    num_sa_heads: int = 4
    sa_intermediate_size: int = 2048
    sa_dropout: float | int = 0.1  # BriVL code: torch's TransformerEncoderLayer default
    sa_layer_norm_eps: float = 1e-5  # BriVL code: torch's LayerNorm default
    use_layer_mix: bool = True
    layer_mix_norm: bool = False
    text_route: str = "units"
    temperature: float | int = 0.07  # UniBriVL paper 3.4: BriVL's, fixed
    freeze_audio_model: bool = False
    freeze_audio_tower: bool = False
    freeze_vision_model: bool = True
    freeze_text_model: bool = True
    freeze_decoder: bool = False
    initializer_range: float = 0.02  # OURS: BERT's, as in the towers
    classifier_hidden_size: int = 512
    classifier_dropout: float | int = 0.1  # Wav2CLIP: dropout of its MLP, which the probe takes over
    prefix_length: int = 10

    def __post_init__(self, **kwargs):
        self.audio_config = tower_config(self.audio_config, "speechlm")
        self.vision_config = tower_config(self.vision_config, "brivl_vision")
        if self.text_config is not None:
            self.text_config = tower_config(self.text_config, "brivl_text")
        if self.decoder_config is not None:
            self.decoder_config = tower_config(self.decoder_config, "gpt2")
        if self.image_embed_dim is None:
            self.image_embed_dim = image_width(self.vision_config)
        if kwargs.get("attn_implementation") is None:
            kwargs["attn_implementation"] = {}  # None would make towers that are already built forget theirs
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        if self.embed_dim % self.num_sa_heads:
            raise ValueError(f"embed_dim ({self.embed_dim}) must be a multiple of num_sa_heads ({self.num_sa_heads})")
        if audio_width(self.audio_config) is None:
            raise ValueError(
                f"a {self.audio_config.model_type!r} names no hidden_size, so it is no audio encoder: pass the "
                "configuration of its encoder"
            )
        if self.image_embed_dim is None:
            raise ValueError(
                f"the embedding width of a {self.vision_config.model_type!r} is not known: name an image encoder, "
                "such as 'clip_vision_model', or set image_embed_dim"
            )
        if self.text_route not in ("units", "native"):
            raise ValueError(f"text_route must be 'units' or 'native', got {self.text_route!r}")
        if self.text_config is not None and text_width(self.text_config) != self.image_embed_dim:
            raise ValueError(
                f"the text tower gives {text_width(self.text_config)} numbers and the image tower "
                f"{self.image_embed_dim}: text_config must be the text tower of the image tower's own space"
            )

    @property
    def native_dim(self) -> int:
        """`image_embed_dim`, which is a number once the configuration has been checked."""
        assert self.image_embed_dim is not None
        return self.image_embed_dim


__all__ = ["UNIBRIVL_PRESETS", "UniBriVLConfig", "audio_width", "image_width", "tower_config"]
