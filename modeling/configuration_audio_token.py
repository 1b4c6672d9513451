"""Configuration of the audio-token adapter: from what a sound's features are, to words of which text encoder."""

from huggingface_hub.dataclasses import strict

from .format_unibrivl import VersionedConfig

MODES = ("residual", "attentive", "resampler")
SPACES = ("features", "native")  # what of a UniBriVL the features are
TABLE_NORM = 0.4  # AAI: about the length of a row of CLIP-L's table; adapters made for a base measure theirs


@strict
class AudioTokenAdapterConfig(VersionedConfig):
    """
    Args:
        mode (`str`): "residual", the features themselves at the length of a row, and a correction that begins at
            nothing (AAI); "attentive", AudioToken's embedder; "resampler", queries that look at all tokens.
        audio_width (`int`): of the features.
        num_words (`int`): pseudo-words that a sound becomes.
        token_widths (`dict`): name of each text encoder in the pipeline -> width of its token table: 768 for Stable
            Diffusion 1, 1024 for 2; 768 and 1280 (`text_encoder_2`) for XL.
        token_norms (`dict`, *optional*): mean length of the rows of each table.
        base_name (`str`, *optional*): what the adapter was made for, in words: the name of a base.
        token_fingerprints (`dict`, *optional*): of its token tables; see `token_table_audio_token`.
        features_name (`str`, *optional*): what the features were made by.
        features_space (`str`): of a UniBriVL: "features", as probes see them, or "native", in its image tower's space.
        hidden_size (`int`): of the correction, or of the resampler.
        num_resampler_layers, num_resampler_heads (`int`): of the resampler.
        attention_dropout: in AudioToken's unary branch, in training only.
    """

    model_type = "audio_token_adapter"

    mode: str = "residual"
    audio_width: int = 768
    num_words: int = 1
    token_widths: dict[str, int] | None = None
    token_norms: dict[str, float] | None = None
    base_name: str | None = None
    token_fingerprints: dict[str, str] | None = None
    features_name: str | None = None
    features_space: str = "features"
    hidden_size: int = 1024
    num_resampler_layers: int = 4
    num_resampler_heads: int = 16
    attention_dropout: float | int = 0.5  # AudioToken code: torch's default, there on in inference too
    layer_norm_eps: float = 1e-5  # torch: LayerNorm's default
    initializer_range: float = 0.02  # OURS: BERT's, as in the towers

    def __post_init__(self, **kwargs):
        if self.token_widths is None:
            self.token_widths = {"text_encoder": 768}
        given = self.token_norms or {}
        self.token_norms = {name: float(given.get(name, TABLE_NORM)) for name in self.token_widths}
        super().__post_init__(**kwargs)

    @property
    def takes_tokens(self) -> bool:
        """Whether it wants all tokens of a sound, and not one vector."""
        return self.mode != "residual"

    def validate_architecture(self):
        """Consistency of fields with one another; `strict` calls it after the types are checked."""
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if self.features_space not in SPACES:
            raise ValueError(f"features_space must be one of {', '.join(SPACES)}; got {self.features_space!r}")
        if not self.token_widths:
            raise ValueError("token_widths names no text encoder: pass {'text_encoder': 768} or what the base has")
        for name in ("audio_width", "num_words", "hidden_size", "num_resampler_layers", "num_resampler_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.mode == "resampler" and self.hidden_size % self.num_resampler_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_resampler_heads "
                f"({self.num_resampler_heads})"
            )


__all__ = ["MODES", "SPACES", "AudioTokenAdapterConfig"]
