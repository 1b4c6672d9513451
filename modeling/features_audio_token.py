"""What gives an adapter its features: any audio encoder as `SoundFeatures`, one vector or many tokens of a sound.

    ears = sound_features(model, feature_extractor)          # UniBriVL, or any audio encoder of transformers
    ears.tokens(clips)                                       # (B, T, A) and which of them are real
    ears.pooled(clips)                                       # (B, A)

Features are as the encoder gives them: the adapter takes care of their length.

Shapes: B batch, T tokens of a sound, A their width.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from .clips_unibrivl import as_clips, check_rate, clip_samples
from .configuration_audio_token import SPACES
from .configuration_unibrivl import audio_width
from .matcher_unibrivl import fewest_samples
from .towers_unibrivl import frame_mask_of, frames_of, load_audio_tower, run_audio_tower


@runtime_checkable
class SoundFeatures(Protocol):
    """An audio encoder, as an adapter wants it.

    Attributes:
        name: what errors and configurations call it.
        sampling_rate: of the clips it takes, in Hz.
        width: of its features, A.
    """

    name: str
    sampling_rate: int
    width: int

    def tokens(self, clips: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """One clip or a list -> (B, T, A), and (B, T), 1 on the tokens that are real."""
        ...

    def pooled(self, clips: Any) -> torch.Tensor:
        """One clip or a list -> (B, A)."""
        ...


class ModelFeatures:
    """What all of ours share. Clips of one length share a batch, so that no padding comes near a sound.

    Args:
        model: in eval mode from here on.
        feature_extractor: of transformers, with its `sampling_rate`.
        name (*optional*): by default the model's class.
    """

    width: int
    min_samples = 1  # shorter clips are followed by silence up to it

    def __init__(self, model: Any, feature_extractor: Any, name: str | None = None):
        self.model, self.feature_extractor = model.eval(), feature_extractor
        self.name = name or type(model).__name__
        self.sampling_rate = feature_extractor.sampling_rate

    def of_batch(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Tokens (B, T, A), their mask, and the vector of each sound (B, A)."""
        raise NotImplementedError

    @torch.no_grad()
    def heard(self, clips: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each clip its real tokens (T, A) and its vector (A,)."""
        clips = as_clips(clips)
        check_rate(
            clips,
            None if any(hasattr(clip, "rate_hz") for clip in clips) else self.sampling_rate,
            self.sampling_rate,
        )
        samples = [clip_samples(clip, index) for index, clip in enumerate(clips)]
        samples = [np.pad(one, (0, max(0, self.min_samples - len(one)))) for one in samples]
        places: dict[int, list[int]] = {}
        for place, one in enumerate(samples):
            places.setdefault(len(one), []).append(place)
        found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for mine in places.values():
            batch = self.feature_extractor(
                [samples[place] for place in mine], sampling_rate=self.sampling_rate, return_tensors="pt"
            )
            device = next(self.model.parameters()).device
            tokens_BTA, mask_BT, pooled_BA = self.of_batch({name: value.to(device) for name, value in batch.items()})
            for row, place in enumerate(mine):
                tokens_TA = tokens_BTA[row] if mask_BT is None else tokens_BTA[row][mask_BT[row].bool()]
                found[place] = (tokens_TA.float(), pooled_BA[row].float())
        return [found[place] for place in range(len(samples))]

    def tokens(self, clips: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return padded_tokens([tokens_TA for tokens_TA, _ in self.heard(clips)])

    def pooled(self, clips: Any) -> torch.Tensor:
        return torch.stack([pooled_A for _, pooled_A in self.heard(clips)])


class TowerFeatures(ModelFeatures):
    """An audio encoder alone: SpeechLM, HuBERT, wav2vec 2.0, WavLM, Whisper, AST, CLAP's, PE audio, a mel encoder.

    Tokens are its frames, the vector of a sound is their mean.
    """

    def __init__(self, model: Any, feature_extractor: Any, name: str | None = None):
        super().__init__(model, feature_extractor, name)
        width = audio_width(model.config)
        if width is None:
            raise ValueError(f"{self.name} names no hidden_size, so it is no audio encoder: pass its encoder")
        self.width, self.min_samples = width, fewest_samples(model.config)

    def of_batch(self, batch):
        sound = batch.pop("input_values", None)
        sound = batch.pop("input_features") if sound is None else sound
        mask, padding = batch.pop("attention_mask", None), batch.pop("padding_mask", None)
        mask = padding if mask is None else mask
        output = run_audio_tower(self.model, sound, mask, **batch)
        tokens_BTA = frames_of(self.model, output.last_hidden_state)
        mask_BT = frame_mask_of(self.model, output, tokens_BTA.shape[1], mask)
        real_BT = torch.ones_like(tokens_BTA[..., 0]) if mask_BT is None else mask_BT.to(tokens_BTA)
        pooled_BA = (tokens_BTA * real_BT[..., None]).sum(1) / real_BT.sum(1, keepdim=True).clamp(min=1)
        return tokens_BTA, mask_BT, pooled_BA


class SpaceFeatures(ModelFeatures):
    """A model that gives sounds a place beside pictures or texts: UniBriVL, or another with `get_audio_features`.

    Args:
        space (`str`): "features", the frames and their mean as probes see them; "native", of a UniBriVLModel, the one
            vector in the space of its image tower, which there is the only token.
    """

    def __init__(self, model: Any, feature_extractor: Any, name: str | None = None, space: str = "features"):
        super().__init__(model, feature_extractor, name)
        if space not in SPACES:
            raise ValueError(f"space must be {' or '.join(map(repr, SPACES))}, got {space!r}")
        if space == "native" and not hasattr(model, "get_native_audio_features"):
            raise ValueError(f"{self.name} has no space of pictures beside its own: pass space='features'")
        self.space = space
        config = model.config
        width = config.native_dim if space == "native" else getattr(config, "embed_dim", None)
        self.width = config.hidden_size if width is None else width
        if getattr(config, "audio_config", None) is not None:
            self.min_samples = fewest_samples(config.audio_config)

    def of_batch(self, batch):
        if self.space == "native":
            pooled_BA = self.model.get_native_audio_features(**batch).pooler_output
            return pooled_BA[:, None], None, pooled_BA
        hear = getattr(
            self.model, "get_audio_features", self.model
        )  # UniBriVL's language tower hears when it is called
        output = hear(**batch)
        features_BA = getattr(output, "features", None)
        pooled_BA = output.pooler_output if features_BA is None else features_BA
        return output.last_hidden_state, getattr(output, "frame_mask", None), pooled_BA


def padded_tokens(tokens: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (T, A) of each sound as one batch, and which of them are real."""
    mask_BT = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long, device=tokens[0].device)
    padded_BTA = tokens[0].new_zeros(*mask_BT.shape, tokens[0].shape[1])
    for row, tokens_TA in enumerate(tokens):
        padded_BTA[row, : len(tokens_TA)], mask_BT[row, : len(tokens_TA)] = tokens_TA, 1
    return padded_BTA, mask_BT


def sound_features(
    model: Any, feature_extractor: Any = None, *, space: str = "features", name: str | None = None
) -> SoundFeatures:
    """Any audio encoder as `SoundFeatures`.

    Args:
        model: UniBriVL, its language tower, CLAP, PE-AV, wav2vec 2.0, ...; or what already is `SoundFeatures`. Of a
            whole model of transformers its audio encoder is taken.
        feature_extractor (*optional*): what prepares its sounds; a processor that holds one will do.
        space (`str`): of UniBriVL; see `SpaceFeatures`.
        name (*optional*): what to call it in errors.
    """
    if all(hasattr(model, method) for method in ("tokens", "pooled", "width", "sampling_rate")):
        return model
    feature_extractor = getattr(feature_extractor, "feature_extractor", None) or feature_extractor
    if getattr(feature_extractor, "sampling_rate", None) is None:
        raise ValueError(
            f"{type(model).__name__} needs what prepares its sounds: pass its feature extractor or its processor"
        )
    kind = getattr(model.config, "model_type", "")
    if kind == "unibrivl" or kind.startswith("cav"):
        return SpaceFeatures(model, feature_extractor, name, space)
    return TowerFeatures(load_audio_tower(model), feature_extractor, name or type(model).__name__)


__all__ = ["ModelFeatures", "SoundFeatures", "SpaceFeatures", "TowerFeatures", "padded_tokens", "sound_features"]
