"""BrewCLIP's configuration: which frozen towers hear, read and see, and the little that learns between them.

The defaults are the paper's backbones and our reading of it; `BREWCLIP_PRESETS` has the released code's form and, of
the same parts, SpeechCLIP's two models.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .configuration_unibrivl import audio_width, image_width, text_width, tower_config
from .format_unibrivl import VersionedConfig

CHANNELS = ("text", "e2e", "keywords")
PROMPTS_TO_AUDIO = ("linear", "identity", "none")
FUSIONS = ("weighted", "sum", "gate", "mlp")
LONG_TEXTS = ("chunk", "chunk_max", "truncate")
LONG_SOUNDS = ("window", "truncate")
# outer (sound and picture), each channel and the picture, the two channels
LOSS_WEIGHTS: dict[str, tuple[float, float, float]] = {
    "paper": (0.75, 0.0, 0.25),  # BrewCLIP code: its weights, the agreement counted once
    "released": (0.75, 0.0, 0.5),  # BrewCLIP code: the agreement counted in both directions
    "outer": (1.0, 0.0, 0.0),  # BrewCLIP code: the state it was released in
    "robust": (0.6, 0.2, 0.2),  # OURS: channels that must also stand alone
}
LAYER_WIDTHS = {768: 4096}  # BrewCLIP code: of the encoder layer beside CLIP-L; beside others four times the width

BREWCLIP_PRESETS: dict[str, dict[str, Any]] = {
    "brewclip": {},
    "released": {
        "prompt_audio": "identity",
        "prompt_vision": True,
        "mask_padding": False,
        "fusion": "sum",
        "long_text": "truncate",
        "long_audio": "truncate",
        "loss_weights": "outer",
    },
    "speechclip-parallel": {
        "channels": ["e2e"],
        "num_prompts": 0,
        "project_frames": False,
        "use_layer_mix": True,
        "loss_weights": "outer",
    },
    "speechclip-cascaded": {
        "channels": ["keywords"],
        "num_prompts": 0,
        "use_layer_mix": True,
        "loss_weights": "outer",
    },
}


@strict
class BrewCLIPConfig(VersionedConfig):
    """
    Args:
        audio_config: what hears, for the end-to-end channel: the encoder of a Whisper, or any audio encoder that
            UniBriVL takes (hubert, wavlm, mel_encoder, ...).
        vision_config, text_config: both sides of a CLIP. The image side may be another in whose space the text side
            has its vectors; the text side is CLIP's, for its causal mask and its pooling at the end of a text.
        audio_name, image_name, text_name (*optional*): where each tower comes from, on the Hub or in a folder. A
            frozen tower that has a name is not saved but fetched from there.
        audio_revision, image_revision, text_revision (*optional*): the commits of those on the Hub.
        asr_name, asr_revision (*optional*): the Whisper that writes down what is said; that of `audio_name` by
            default.
        channels (`list[str]`): what a sound's vector is made of: `"text"`, the transcript through the text tower;
            `"e2e"`, the sound itself; `"keywords"`, SpeechCLIP's cascade, sounds as words of the text tower.
        num_prompts (`int`): learned vectors before the words of a transcript, shared with the other places.
        prompt_audio (`str`): how they get into the end-to-end channel: `"linear"`, which begins as the identity;
            `"identity"`, as they are, or `"none"`.
        prompt_vision (`bool`): they stand behind a picture's patches too, through a linear layer. Pictures' vectors
            then change in training and cannot be kept.
        project_frames (`bool`): the frames are brought to the text tower's width; without, the channel has theirs.
        use_layer_mix, layer_mix_norm (`bool`): frames are a learned average over all hidden states of the tower, its
            layers' input included, and each is normalised before.
        frame_pool (`int`): so many frames of the audio tower become one, their mean: kept ones take so much less room.
        num_e2e_layers, num_attention_heads, intermediate_size, dropout: the end-to-end channel's encoder.
        mask_padding (`bool`): it does not look at the frames of padding.
        num_keywords (`int`), keyword_temperature: words that a sound becomes in the cascade, and the softmax that
            training sees in the place of the choice.
        fusion (`str`): `"weighted"`, directions added with a learned weight; `"sum"`, vectors as they are; `"gate"` or
            `"mlp"`, learned from both.
        fusion_weight: where the weight of the end-to-end channel begins.
        long_text (`str`): a transcript that does not fit: `"chunk"`, the mean over equal parts; `"chunk_max"`, the
            same vector, but in `logits_per_audio` the best part's score; `"truncate"`, its beginning.
        long_audio (`str`): `"window"`, the mean over windows; `"truncate"`, the beginning.
        temperature, learn_temperature, min_temperature: what cosines are divided by.
        loss_weights (`str`): of `return_loss=True`: `"paper"`, `"released"`, `"outer"` or `"robust"`.
        freeze_audio_model, freeze_vision_model, freeze_text_model (`bool`): towers that do not train.
        freeze_brewclip (`bool`): of a classifier: only the head trains.
    """

    model_type = "brewclip"
    sub_configs = {"audio_config": AutoConfig, "vision_config": AutoConfig, "text_config": AutoConfig}

    audio_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    audio_name: str | None = None
    image_name: str | None = None
    text_name: str | None = None
    audio_revision: str | None = None
    image_revision: str | None = None
    text_revision: str | None = None
    asr_name: str | None = None
    asr_revision: str | None = None
    channels: list[str] | tuple[str, ...] = ("text", "e2e")
    num_prompts: int = 4
    prompt_audio: str = "linear"
    prompt_vision: bool = False
    project_frames: bool = True
    use_layer_mix: bool = False
    layer_mix_norm: bool = False
    frame_pool: int = 1
    num_e2e_layers: int = 1
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    dropout: float | int = 0.1  # BrewCLIP code: torch's TransformerEncoderLayer default
    layer_norm_eps: float = 1e-5  # BrewCLIP code: torch's LayerNorm default
    mask_padding: bool = True
    num_keywords: int = 8
    keyword_temperature: float | int = 0.1  # SpeechCLIP code: tau of its quantiser
    fusion: str = "weighted"
    fusion_weight: float | int = 0.1  # OURS: it begins as the transcript alone, nearly
    long_text: str = "chunk"
    long_audio: str = "window"
    temperature: float | int = 0.07  # BrewCLIP code: fixed
    learn_temperature: bool = False
    min_temperature: float | int = 0.01  # CLIP: logit_scale is at most 100
    loss_weights: str = "paper"
    freeze_audio_model: bool = True
    freeze_vision_model: bool = True
    freeze_text_model: bool = True
    freeze_brewclip: bool = False
    initializer_range: float = 0.02  # OURS: CLIP's, for prompts and for the vector that pools

    def __post_init__(self, **kwargs):
        self.audio_config = tower_config(self.audio_config, "whisper")
        self.vision_config = tower_config(self.vision_config, "clip_vision_model")
        self.text_config = tower_config(self.text_config, "clip_text_model")
        self.channels = list(self.channels)
        if kwargs.get("attn_implementation") is None:
            kwargs["attn_implementation"] = {}  # None would make towers that are already built forget theirs
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        for name, known in (
            ("prompt_audio", PROMPTS_TO_AUDIO),
            ("fusion", FUSIONS),
            ("long_text", LONG_TEXTS),
            ("long_audio", LONG_SOUNDS),
            ("loss_weights", tuple(LOSS_WEIGHTS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        check_channels(self.channels, CHANNELS)
        if {"text", "keywords"} <= set(self.channels):
            raise ValueError("the transcript and the keywords cannot both be the words of a sound: leave one out")
        if self.text_config.model_type != "clip_text_model":
            raise ValueError(
                f"the text tower is a {self.text_config.model_type!r} and must be CLIP's (clip_text_model): prompts "
                "count on its causal mask and on its pooling at the end of a text"
            )
        if image_width(self.vision_config) != self.embed_dim:
            raise ValueError(
                f"the image tower gives {image_width(self.vision_config)} numbers and the text tower "
                f"{self.embed_dim}: they must be two sides of one space"
            )
        if self.prompt_vision and self.vision_config.model_type != "clip_vision_model":
            raise ValueError(
                f"prompt_vision needs CLIP's image tower, and this one is a {self.vision_config.model_type!r}: set "
                "prompt_vision=False"
            )
        if self.num_prompts < 0 or self.text_capacity < 1:
            raise ValueError(
                f"num_prompts is {self.num_prompts} and must be from 0 to {self.text_context - 3}, so that a word has "
                f"room among the {self.text_context} places of a text"
            )
        if self.frame_pool < 1:
            raise ValueError(f"frame_pool is how many frames become one, from 1; got {self.frame_pool}")
        if not 0 < self.num_keywords <= self.text_context - 2:
            raise ValueError(f"num_keywords is {self.num_keywords} and must be from 1 to {self.text_context - 2}")
        if self.audio_width is None:
            raise ValueError(f"a {self.audio_config.model_type!r} names no hidden_size, so it is no audio encoder")
        if self.e2e_width % self.num_attention_heads:
            raise ValueError(
                f"the end-to-end channel's width ({self.e2e_width}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        if not 0 < self.min_temperature <= self.temperature:
            raise ValueError(
                f"temperature ({self.temperature}) must be at least min_temperature ({self.min_temperature}), which "
                "is above 0"
            )

    @property
    def audio_width(self) -> int | None:
        """Of the frames that the audio tower gives."""
        return audio_width(self.audio_config)

    @property
    def e2e_width(self) -> int:
        """Of the end-to-end channel's layer."""
        return self.text_config.hidden_size if self.project_frames else int(self.audio_width or 0)

    @property
    def e2e_intermediate_size(self) -> int:
        width = self.e2e_width
        return self.intermediate_size or LAYER_WIDTHS.get(width, 4 * width)

    @property
    def embed_dim(self) -> int:
        """Width of the space."""
        return text_width(self.text_config) or 0

    @property
    def native_dim(self) -> int:
        """Numbers of a picture, which may be computed once where the image side is frozen and has no prompts."""
        return self.embed_dim

    @property
    def text_context(self) -> int:
        """Places of a text, its two ends included."""
        return self.text_config.max_position_embeddings

    @property
    def text_capacity(self) -> int:
        """Tokens of a transcript that fit beside the prompts."""
        return self.text_context - 2 - self.num_prompts


def check_channels(channels, known) -> tuple[str, ...]:
    """At least one of the known ones, none twice."""
    channels = (channels,) if isinstance(channels, str) else tuple(channels)
    if not channels or len(set(channels)) < len(channels) or not set(channels) <= set(known):
        raise ValueError(f"channels must be some of {', '.join(known)}, each once; got {list(channels)}")
    return channels


__all__ = ["BREWCLIP_PRESETS", "CHANNELS", "LOSS_WEIGHTS", "BrewCLIPConfig", "check_channels"]
