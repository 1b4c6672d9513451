"""BrewCLIP as a matcher: spoken sounds, pictures and written texts into CLIP's space, and what each channel heard.

Shapes: B batch, E embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .configuration_brewclip import check_channels
from .matcher_unibrivl import OneSpaceMatcher, as_texts, fewest_samples, normalize, takes_padding
from .transcription_brewclip import Transcriber

WINDOW_S = 30.0  # Whisper's


@dataclass(frozen=True)
class HeardSpeech:
    """
    Args:
        transcripts (`list[str]`, *optional*): what was said in each sound; None where no channel asked.
        fused (`torch.Tensor`): (B, E), the vectors of sounds.
        channels (`dict`): each channel's own vectors, (B, E), of length one.
    """

    transcripts: list[str] | None
    fused: torch.Tensor
    channels: dict[str, torch.Tensor]


class BrewCLIPMatcher(OneSpaceMatcher):
    """
    Args:
        model (`BrewCLIPModel`): all towers and channels.
        processor (`BrewCLIPProcessor`): with the parts for what is to be encoded.
        transcriber (*optional*): clips of samples -> what is said in each. By default the model's Whisper, loaded when
            a sound is first heard; its encoder is the model's own.
        channels (*optional*): which to use; the configuration's by default.
        fusion_weight (`float`, *optional*): of the end-to-end channel, in the place of what was learned.
    """

    name = "BrewCLIP"

    def __init__(
        self,
        model,
        processor,
        transcriber: Callable[[Sequence[np.ndarray]], list[str]] | None = None,
        channels: Sequence[str] | None = None,
        fusion_weight: float | None = None,
    ):
        super().__init__(model, processor)
        self.channels = check_channels(channels or model.config.channels, model.config.channels)
        self.fusion_weight, self.given, self._transcriber = fusion_weight, transcriber, transcriber
        if processor.feature_extractor is not None:
            self.window_s = WINDOW_S if self.longest_s is None else min(WINDOW_S, self.longest_s)
            self.batch_by = "padding" if takes_padding(model.config.audio_config) else "length"
            self.min_samples = fewest_samples(model.config.audio_config)

    @property
    def settings(self) -> dict[str, Any]:
        config = self.model.config  # and not what is loaded by and by: vectors must be called the same all along
        own = {"asr_model": self.asr_name, "asr_revision": config.asr_revision or config.audio_revision}
        written = own if self.given is None else getattr(self.given, "settings", repr(type(self.given)))
        return {
            "channels": list(self.channels),
            "fusion_weight": self.fusion_weight,
            "asr": written if "text" in self.channels else None,
        }

    @property
    def asr_name(self) -> str | None:
        """The Whisper that writes down what is said, unless another transcriber was passed."""
        config = self.model.config
        is_whisper = config.audio_config.model_type == "whisper"
        return config.asr_name or (config.audio_name if is_whisper else None)

    @property
    def transcriber(self) -> Callable[[Sequence[np.ndarray]], list[str]]:
        if self._transcriber is None:
            config, name = self.model.config, self.asr_name
            if name is None:
                raise ValueError(
                    f"this model hears with a {config.audio_config.model_type} and names no Whisper that would write "
                    "down what is said: pass transcriber=, set config.asr_name, or listen with channels=('e2e',)"
                )
            revision = config.audio_revision if config.asr_name is None else config.asr_revision
            encoder = self.model.audio_model if config.asr_name is None and self._is_the_asrs() else None
            self._transcriber = Transcriber.from_pretrained(name, encoder=encoder, **revision_of(revision))
        if isinstance(self._transcriber, Transcriber):
            weight = next(self.model.audio_model.parameters())
            self._transcriber.model.to(device=weight.device, dtype=weight.dtype)
        return self._transcriber

    def _is_the_asrs(self) -> bool:
        """Whether the audio tower is still the encoder that the Whisper's decoder knows."""
        names = (name for name, _ in self.model.audio_model.named_parameters())
        return self.model.config.freeze_audio_model and not any("lora_" in name for name in names)

    def hear(self, clips, transcripts: Sequence[str] | None = None, *, gradients: bool = False) -> HeardSpeech:
        """Sounds with all that is known of them.

        Args:
            clips: one clip of samples or a list.
            transcripts (*optional*): what is said in each, where that is known; else it is written down.
        """
        if "audio" not in self.kinds:
            raise self._cannot("audio")
        samples = self._clips(clips)
        batch: dict[str, torch.Tensor] = {}
        if "text" in self.channels:
            transcripts = self.transcriber(samples) if transcripts is None else list(transcripts)
            if len(transcripts) != len(samples):
                raise ValueError(f"{len(samples)} sounds and {len(transcripts)} transcripts: pass one for each")
            if "text" not in self.kinds:
                raise ValueError("this processor has no tokenizer to read transcripts by: set processor.tokenizer")
            batch |= self._to_device(self.processor(text=transcripts))
            batch.pop("text_attention_mask")
        if set(self.channels) - {"text"}:
            batch |= self._to_device(self.processor(audio=samples, sampling_rate=self.sampling_rate))
        with torch.set_grad_enabled(gradients):
            heard = self.model.get_audio_features(**batch, channels=self.channels, fusion_weight=self.fusion_weight)
        named = {
            "text" if "text" in self.channels else "keywords": heard.text_channel_embeds,
            "e2e": heard.e2e_channel_embeds,
        }
        return HeardSpeech(
            transcripts=list(transcripts) if "text" in self.channels and transcripts is not None else None,
            fused=normalize(heard.pooler_output),
            channels={name: normalize(one) for name, one in named.items() if one is not None},
        )

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        return self.hear(clips, gradients=gradients).fused

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        """A written text is read as a transcript is."""
        if "text" not in self.kinds:
            raise self._cannot("text")
        batch = self._to_device(self.processor(text=as_texts(texts)))
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_text_features(**batch).pooler_output)


def revision_of(revision: str | None) -> dict[str, str]:
    return {} if revision is None else {"revision": revision}


__all__ = ["BrewCLIPMatcher", "HeardSpeech"]
