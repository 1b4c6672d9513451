"""The audio-token adapter: what is heard of a sound becomes words that a text encoder reads among its own.

    features of a sound -> a head for each text encoder of the base -> K vectors in the input space of that encoder

Nothing of the base changes; the vectors go in where rows of its token table would (`injection_audio_token`). So an
adapter belongs to the tables it was made for: their fingerprints are in its configuration, and `check_base` compares.

Shapes: B batch, T tokens of a sound, A their width, K words, D width of a token table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_audio_token import AudioTokenAdapterConfig
from .features_audio_token import SoundFeatures, sound_features
from .heads_audio_token import HEADS, ResamplerHead, ResidualHead, TurnedLinear, ZeroLinear, masked_mean
from .injection_audio_token import AudioPrompts, injected
from .loading_unibrivl import CheckedLoading
from .token_table_audio_token import mean_norm, same_table, table_fingerprint, table_of, told_of_tables


@dataclass
class AudioTokenOutput(ModelOutput):
    """
    Args:
        pooler_output (`torch.FloatTensor`): (B, A), the mean of the features.
        words (`dict[str, torch.FloatTensor]`): text encoder -> (B, K, D).
        weights (`dict[str, torch.FloatTensor]`): text encoder -> (B, K, T), what each token counted; of "attentive".
    """

    pooler_output: torch.FloatTensor | None = None
    words: dict[str, torch.FloatTensor] | None = None
    weights: dict[str, torch.FloatTensor] | None = None


class AudioTokenAdapter(CheckedLoading, PreTrainedModel):
    """
    Args:
        config: see `AudioTokenAdapterConfig`. `for_base` makes an adapter for text encoders that are there.
    """

    config: AudioTokenAdapterConfig
    config_class = AudioTokenAdapterConfig
    base_model_prefix = "audio_adapter"
    main_input_name = "features"
    input_modalities: tuple[str, ...] = ("audio",)
    accepts_loss_kwargs = False

    def __init__(self, config: AudioTokenAdapterConfig):
        super().__init__(config)
        head = HEADS[config.mode]
        widths, norms = config.token_widths or {}, config.token_norms or {}
        self.heads = nn.ModuleDict({name: head(config, width, norms[name]) for name, width in widths.items()})
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, TurnedLinear):
            init.orthogonal_(module.weight)
        elif isinstance(module, ZeroLinear):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ResidualHead):
            init.zeros_(module.offsets)
        elif isinstance(module, ResamplerHead):
            init.normal_(module.queries, std=module.queries.shape[-1] ** -0.5)

    @classmethod
    def for_base(
        cls, text_encoders: Mapping[str, nn.Module], base_name: str | None = None, **config_fields
    ) -> "AudioTokenAdapter":
        """A new adapter for the text encoders of a base.

        Args:
            text_encoders: under the names that the pipeline has for them: `{"text_encoder": pipe.text_encoder}`.
            base_name (*optional*): what to call the base, in errors and cards.
            config_fields: of `AudioTokenAdapterConfig`, such as `audio_width=512, mode="attentive"`.
        """
        tables = {name: table_of(encoder) for name, encoder in text_encoders.items()}
        fingerprints = {name: table_fingerprint(table) for name, table in tables.items()}
        offloaded = [name for name, written in fingerprints.items() if written is None]
        if offloaded:
            raise ValueError(f"the weights of {offloaded[0]} are offloaded: make the adapter before you offload them")
        config = AudioTokenAdapterConfig(
            token_widths={name: table.shape[1] for name, table in tables.items()},
            token_norms={name: mean_norm(table) for name, table in tables.items()},
            token_fingerprints=fingerprints,
            base_name=base_name,
            **config_fields,
        )
        return cls(config)

    @classmethod
    def from_pretrained(cls, *args, text_encoders=None, base_name: str | None = None, **kwargs):
        """As in transformers; refuses a base that is not the adapter's.

        Args:
            text_encoders (*optional*): of the base it will be used with; see `check_base`.
            base_name (*optional*): what to call that base.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        if text_encoders is not None:
            (loaded[0] if isinstance(loaded, tuple) else loaded).check_base(text_encoders, base_name)
        return loaded

    def check_base(self, text_encoders: Mapping[str, nn.Module], base_name: str | None = None) -> None:
        """Raises a ValueError, naming both, unless these are the token tables that the adapter was made for."""
        mine = self.config.base_name or "a base without a name"
        theirs = base_name or "the base at hand"
        recorded, widths = self.config.token_fingerprints or {}, self.config.token_widths or {}
        if missing := sorted(widths.keys() - text_encoders.keys()):
            raise ValueError(
                f"this adapter was made for {mine} and speaks to {', '.join(widths)}; {theirs} has "
                f"{', '.join(text_encoders) or 'no text encoder'} and lacks {missing[0]}: load the former"
            )
        tables = {name: table_of(text_encoders[name]) for name in widths}
        for name, table_VD in tables.items():
            fits = table_VD.shape[1] == widths[name]
            if fits and (name not in recorded or same_table(recorded[name], table_VD)):
                continue
            found = {one: table_fingerprint(table) or "offloaded" for one, table in tables.items()}
            shown = recorded or {one: f"?x{width}" for one, width in widths.items()}
            raise ValueError(
                f"this adapter was made for {mine} ({told_of_tables(shown)}), and {theirs} reads words by another "
                f"table ({told_of_tables(found)}): load the base it was made for, or train an adapter for this one"
            )

    # with the adapter a flat copy has what listens for it and speaks its words too
    injected = staticmethod(injected)

    def ears(self, audio_encoder, feature_extractor=None) -> SoundFeatures:
        """An audio encoder as this adapter listens with it; see `features_audio_token`."""
        ears = sound_features(audio_encoder, feature_extractor, space=self.config.features_space)
        if ears.width != self.config.audio_width:
            raise ValueError(
                f"this adapter hears features of {self.config.audio_width} numbers, of "
                f"{self.config.features_name or 'an audio encoder without a name'}, and {ears.name} gives "
                f"{ears.width}: pass the audio encoder that it was trained with"
            )
        return ears

    def prompts(self, tokenizer, max_length: int | None = None) -> AudioPrompts:
        """What turns texts with `<audio>` in them into ids, with room for this adapter's words."""
        return AudioPrompts(tokenizer, self.config.num_words, max_length)

    @can_return_tuple
    def forward(
        self, features: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> AudioTokenOutput:
        """
        Args:
            features (`torch.FloatTensor`): (B, T, A), the tokens of sounds, or (B, A), one vector of each.
            attention_mask (`torch.Tensor`, *optional*): (B, T), 1 on tokens that are real.
        """
        if features.dim() not in (2, 3) or features.shape[-1] != self.config.audio_width:
            raise ValueError(
                f"features are {tuple(features.shape)} and must be (batch, {self.config.audio_width}) or (batch, "
                f"tokens, {self.config.audio_width}), as {self.config.features_name or 'its audio encoder'} gives them"
            )
        if features.dim() == 2:
            features, attention_mask = features[:, None], None
        features = features.to(self.dtype)
        heard = {name: head(features, attention_mask) for name, head in self.heads.items()}
        weights = {name: one.weights for name, one in heard.items() if one.weights is not None}
        return AudioTokenOutput(
            pooler_output=masked_mean(features, attention_mask),
            words={name: one.words for name, one in heard.items()},
            weights=weights or None,
        )


__all__ = ["AudioTokenAdapter", "AudioTokenOutput"]
