"""SpeechLM's feature extractor: clips of sound -> one padded batch of samples with its mask.

Large was trained on clips normalised to zero mean and unit variance with eps 1e-5 (transformers' Wav2Vec2 extractor
has 1e-7, which differs much on quiet clips); Base on samples as they are.
"""

import numpy as np
from transformers import AutoFeatureExtractor, BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

from .configuration_speechlm import SpeechLMConfig

logger = logging.get_logger(__name__)


class SpeechLMFeatureExtractor(SequenceFeatureExtractor):
    """
    Args:
        sampling_rate (`int`): the rate the model hears, in Hz. Another rate is refused, never resampled here.
        do_normalize (`bool`): zero mean and unit variance per clip (Large).
        eps (`float`): added to the variance.
        min_samples (`int`): shorter clips are padded with silence to this length, one frame, and count as heard.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        do_normalize: bool = False,
        eps: float = 1e-5,
        min_samples: int = 400,
        return_attention_mask: bool = True,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.do_normalize = do_normalize
        self.eps = eps
        self.min_samples = min_samples
        self.return_attention_mask = return_attention_mask

    def __call__(
        self,
        raw_speech,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one clip or a list of clips; a clip is a 1-D array, tensor or list of floats, or anything with
                `samples` and `rate_hz` such as what `unibrivl.load_audio` returns.
            sampling_rate (`int`, *optional*): the clips' rate. Not needed for clips that carry their own.
        """
        clips = self._as_clips(raw_speech)
        self._check_rate(clips, sampling_rate)
        samples = [self._prepare(getattr(clip, "samples", clip), index) for index, clip in enumerate(clips)]
        return self.pad(
            BatchFeature({"input_values": samples}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=self.return_attention_mask
            if return_attention_mask is None
            else return_attention_mask,
            return_tensors=return_tensors,
        )

    @staticmethod
    def _as_clips(raw_speech) -> list:
        if hasattr(raw_speech, "samples"):
            return [raw_speech]
        if isinstance(raw_speech, (list, tuple)):
            if len(raw_speech) == 0:
                raise ValueError("no sound: pass at least one clip")
            is_one_clip = not hasattr(raw_speech[0], "samples") and np.ndim(raw_speech[0]) == 0
            return [raw_speech] if is_one_clip else list(raw_speech)
        if np.ndim(raw_speech) == 2:
            raise ValueError(
                f"got an array of shape {tuple(raw_speech.shape)}: is it stereo, or a batch? "
                "Pass a list of 1-D clips, or mix to one channel first (unibrivl.load_audio does)"
            )
        return [raw_speech]

    def _check_rate(self, clips: list, sampling_rate: int | None):
        rates = {clip.rate_hz for clip in clips if hasattr(clip, "rate_hz")}
        if sampling_rate is not None:
            rates.add(sampling_rate)
        elif not rates:
            logger.warning_once(
                f"No sampling_rate was passed: the clips are taken to be at {self.sampling_rate} Hz. "
                "At another rate the model hears them too fast or too slow, and nothing would tell."
            )
        for rate in rates - {self.sampling_rate}:
            raise ValueError(
                f"this model hears {self.sampling_rate} Hz and got {rate} Hz. "
                f"Call unibrivl.load_audio(source, rate_hz={self.sampling_rate}) "
                f"or waveform.resample({self.sampling_rate})."
            )

    def _prepare(self, clip, index: int) -> np.ndarray:
        if hasattr(clip, "detach"):
            clip = clip.detach().cpu().float().numpy()
        samples = np.asarray(clip, dtype=np.float32)
        if samples.ndim == 2 and samples.shape[1] == 1:
            samples = samples[:, 0]
        if samples.ndim != 1:
            raise ValueError(f"clip {index} has shape {samples.shape}: a clip is one channel, a 1-D array of samples")
        if samples.size == 0:
            raise ValueError(f"clip {index} is empty")
        if not np.isfinite(samples).all():
            raise ValueError(f"clip {index} holds NaN or infinite samples; unibrivl doctor finds such files")
        if samples.size < self.min_samples:
            samples = np.pad(samples, (0, self.min_samples - samples.size))
        if self.do_normalize:
            centred = samples - samples.mean(dtype=np.float64)
            samples = (centred / np.sqrt(np.square(centred).mean(dtype=np.float64) + self.eps)).astype(np.float32)
        return samples


AutoFeatureExtractor.register(SpeechLMConfig, SpeechLMFeatureExtractor, exist_ok=True)

__all__ = ["SpeechLMFeatureExtractor"]
