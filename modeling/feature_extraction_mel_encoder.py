"""The mel encoder's feature extractor: clips of sound -> log-mel frames, 0 for silence, the same for every data set.

One frame begins every `hop_length` samples inside the clip; what a frame sees beyond the end is silence. So a clip of
S samples has ceil(S / hop_length) frames, and they are those of the same clip followed by digital silence. Power is
counted in powers of ten above a fixed floor and divided by a fixed number: no mean, maximum or variance of the clip or
of a data set enters, so 10 dB more are the same step everywhere and loudness survives.

Shapes: S samples, T frames, K frames of a block, W samples of a window, N of the transform, F numbers of a
spectrum (a real and an imaginary part a frequency), M mel bins.
"""

import math

import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from .clips_unibrivl import as_clips, check_rate, clip_samples
from .code_unibrivl import CarriesCode
from .configuration_mel_encoder import MelEncoderConfig

# Frames of one matrix product. Always this many, so that a frame has the same bits whatever follows it; and few enough
# that they stay in the cache.
BLOCK = 128
FIELDS = ("sampling_rate", "n_fft", "win_length", "hop_length", "fmin", "fmax", "mel_floor", "log_scale")


class MelEncoderFeatureExtractor(CarriesCode, SequenceFeatureExtractor):
    """
    Args:
        feature_size (`int`): mel bins, triangles of height 1 on the HTK scale: noise that falls with 1/f, as most of
            nature does, is about level over them.
        sampling_rate (`int`): the rate the model hears, in Hz. Another rate is refused, never resampled here.
        n_fft, win_length, hop_length (`int`): the transform, its Hann window and its step, in samples.
        fmin, fmax (`float`): the range of the mel bins, in Hz.
        mel_floor (`float`): power below which a mel bin counts as silent, full scale being a wave between -1 and 1.
        log_scale (`float`): powers of ten above the floor that make up 1.
    """

    model_input_names = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        fmin: float = 50.0,
        fmax: float = 8000.0,
        mel_floor: float = 1e-10,
        log_scale: float = 4.0,
        return_attention_mask: bool = True,
        **kwargs,
    ):
        if padding_value != 0:
            raise ValueError(f"padding_value must be 0, which is silence, got {padding_value}")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.fmin = fmin
        self.fmax = fmax
        self.mel_floor = mel_floor
        self.log_scale = log_scale
        self.return_attention_mask = return_attention_mask
        self._check_front_end()
        # transformers leaves attributes of these two names out of what it saves
        self.window = torch.hann_window(win_length, dtype=torch.float64)
        self.mel_filters = self._mel_filters()

    @classmethod
    def for_config(cls, config: MelEncoderConfig, **kwargs) -> "MelEncoderFeatureExtractor":
        """The feature extractor of a configuration: what it makes is what the model was built for."""
        return cls(config.num_mel_bins, **{name: getattr(config, name) for name in FIELDS}, **kwargs)

    def _check_front_end(self) -> None:
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                "hop_length, win_length and n_fft must grow in this order, or sound goes unheard: got "
                f"{self.hop_length}, {self.win_length} and {self.n_fft}"
            )
        if not 0 <= self.fmin < self.fmax <= self.sampling_rate / 2:
            raise ValueError(
                f"fmin ({self.fmin}) and fmax ({self.fmax}) must lie in this order between 0 and "
                f"{self.sampling_rate / 2} Hz, half the sampling rate"
            )
        if self.mel_floor <= 0 or self.log_scale <= 0:
            raise ValueError(f"mel_floor ({self.mel_floor}) and log_scale ({self.log_scale}) must be above 0")

    def _mel_filters(self) -> torch.Tensor:
        """(F, M), divided by the floor; each row twice, for the squares of the real and of the imaginary part."""
        bank_FM = mel_filter_bank(
            num_frequency_bins=self.n_fft // 2 + 1,
            num_mel_filters=self.feature_size,
            min_frequency=self.fmin,
            max_frequency=self.fmax,
            sampling_rate=self.sampling_rate,
        )
        empty = int((bank_FM.max(axis=0) == 0).sum())
        if empty:
            raise ValueError(
                f"{empty} of {self.feature_size} mel bins are narrower than the step of the transform and would never "
                f"hear anything: raise n_fft ({self.n_fft}), raise fmin ({self.fmin}) or take fewer bins"
            )
        return torch.from_numpy(bank_FM / self.mel_floor).float().repeat_interleave(2, dim=0)

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
            max_length, pad_to_multiple_of (`int`, *optional*): in frames.
        """
        clips = as_clips(raw_speech)
        check_rate(clips, sampling_rate, self.sampling_rate)
        frames = [self.log_mel(torch.tensor(clip_samples(clip, index))) for index, clip in enumerate(clips)]
        return self.pad(
            BatchFeature({"input_features": [frames_TM.numpy() for frames_TM in frames]}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=self.return_attention_mask
            if return_attention_mask is None
            else return_attention_mask,
            return_tensors=return_tensors,
        )

    def log_mel(self, samples_S: torch.Tensor) -> torch.Tensor:
        """The frames of one clip, (T, M) float32.

        The transform is in float64: in float32 its rounding, and not the sound, would fill the quiet bins beside a
        loud tone.
        """
        num_frames = math.ceil(len(samples_S) / self.hop_length)
        num_blocks = math.ceil(num_frames / BLOCK)
        padded = (num_blocks * BLOCK - 1) * self.hop_length + self.win_length
        frames_TW = torch.nn.functional.pad(samples_S, (0, padded - len(samples_S))).unfold(
            0, self.win_length, self.hop_length
        )
        mel_TM = torch.empty(num_blocks * BLOCK, self.feature_size)
        windowed_KN = torch.zeros(BLOCK, self.n_fft, dtype=torch.float64)
        for frames_KW, mel_KM in zip(frames_TW.split(BLOCK), mel_TM.split(BLOCK), strict=True):
            torch.mul(frames_KW, self.window, out=windowed_KN[:, : self.win_length])
            parts_KF = torch.view_as_real(torch.fft.rfft(windowed_KN)).flatten(1)
            torch.matmul(parts_KF.square_().float(), self.mel_filters, out=mel_KM)
        return mel_TM[:num_frames].clamp_(min=1.0).log10_().div_(self.log_scale)


__all__ = ["MelEncoderFeatureExtractor"]
