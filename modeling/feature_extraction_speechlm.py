"""SpeechLM's feature extractor: clips of sound -> one padded batch of samples with its mask.

Large was trained on clips normalised to zero mean and unit variance with eps 1e-5 (transformers' Wav2Vec2 extractor
has 1e-7, which differs much on quiet clips); Base on samples as they are.
"""

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from .clips_unibrivl import as_clips, check_rate, clip_samples
from .code_unibrivl import CarriesCode


class SpeechLMFeatureExtractor(CarriesCode, SequenceFeatureExtractor):
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
        clips = as_clips(raw_speech)
        check_rate(clips, sampling_rate, self.sampling_rate)
        samples = [self._prepare(clip, index) for index, clip in enumerate(clips)]
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

    def _prepare(self, clip, index: int) -> np.ndarray:
        samples = clip_samples(clip, index)
        if samples.size < self.min_samples:
            samples = np.pad(samples, (0, self.min_samples - samples.size))
        if self.do_normalize:
            centred = samples - samples.mean(dtype=np.float64)
            samples = (centred / np.sqrt(np.square(centred).mean(dtype=np.float64) + self.eps)).astype(np.float32)
        return samples


__all__ = ["SpeechLMFeatureExtractor"]
