"""CAV-MAE's feature extractor: clips of sound -> normalised log-mel frames, (batch, frames, 128).

Padding comes before the normalisation, as in the original: the rows behind the end of a clip are 0 among logs of power
and 1.133 afterwards. The model was trained with them. The original also takes the mean off the whole clip first; every
frame loses its own mean anyway, so that is left out and a frame depends on nothing but itself.

Shapes: S samples, T frames, M mel bins.
"""

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor

from .clips_unibrivl import as_clips, check_rate, clip_samples
from .code_unibrivl import CarriesCode
from .fbank_cavmae import FBANK_PRESETS, FRAME_LENGTH, FRAME_SHIFT, RATE_HZ, kaldi_fbank, num_fbank_frames


class CAVMAEFeatureExtractor(CarriesCode, SequenceFeatureExtractor):
    """
    Args:
        num_mel_bins (`int`): bins of the filterbank.
        max_length (`int`): frames of the model, 1024: 10.26 s. Shorter clips are filled up, longer ones refused.
        sampling_rate (`int`): 16000; another rate is refused, never resampled here.
        mean, std (`float`): taken off the frames, and what they are then divided by; CAV-MAE's, over AudioSet.
        window (`str`): "hann", or "povey" for BEATs.
        scale (`float`): what samples in -1..1 are multiplied by first; BEATs wants 32768.
        pad_to_multiple_of (`int`): frames of a patch; every length that comes out is a multiple.
    """

    model_input_names = ["input_values"]
    default_padding = "max_length"

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = RATE_HZ,
        padding_value: float = 0.0,
        num_mel_bins: int = 128,
        max_length: int = 1024,
        mean: float = FBANK_PRESETS["cavmae"]["mean"],
        std: float = FBANK_PRESETS["cavmae"]["std"],
        window: str = "hann",
        scale: float = 1.0,
        pad_to_multiple_of: int = 16,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if sampling_rate != RATE_HZ:
            raise ValueError(
                f"this filterbank is one of {RATE_HZ} Hz, got sampling_rate={sampling_rate}: leave it out"
            )
        if max_length < 1 or pad_to_multiple_of < 1 or max_length % pad_to_multiple_of:
            raise ValueError(
                f"max_length ({max_length} frames) must be a multiple of pad_to_multiple_of ({pad_to_multiple_of}), "
                "the frames of a patch"
            )
        if std <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.mean = mean
        self.std = std
        self.window = window
        self.scale = scale
        self.pad_to_multiple_of = pad_to_multiple_of

    @classmethod
    def beats(cls, **kwargs) -> "CAVMAEFeatureExtractor":
        """The front end of BEATs, whose frames come unpadded and of any number."""
        return cls(**{**FBANK_PRESETS["beats"], "pad_to_multiple_of": 1, **kwargs})

    def __call__(
        self,
        raw_speech,
        sampling_rate: int | None = None,
        padding: bool | str = "max_length",
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one clip or a list of clips; a clip is a 1-D array, tensor or list of floats, or anything with
                `samples` and `rate_hz` such as what `unibrivl.load_audio` returns. Below 25 ms silence follows it.
            sampling_rate (`int`, *optional*): the clips' rate. Needed where they do not carry their own.
            padding (`bool` or `str`): `"max_length"`, as the model was trained; `True` up to the longest clip of the
                batch; `False`: each clip at its own length. Always up to whole patches.
            max_length (`int`, *optional*): in frames.
            truncation (`bool`): cut clips that are longer. Without it they are an error: what is not heard is nobody's
                choice but the caller's, who cuts windows (`unibrivl.split_windows`) or, for a model that interpolates
                its positions, pads to the longest.
        """
        clips = as_clips(raw_speech)
        check_rate(clips, sampling_rate, self.sampling_rate, required=True)
        if padding not in (True, False, "max_length", "longest", "do_not_pad"):
            raise ValueError(f"padding must be 'max_length', 'longest' or 'do_not_pad', got {padding!r}")
        longest = self.max_length if max_length is None else max_length
        multiple = pad_to_multiple_of or self.pad_to_multiple_of
        frames = [self.log_mel(clip_samples(clip, index)) for index, clip in enumerate(clips)]
        bounded = padding == "max_length" or max_length is not None or truncation
        for index, frames_TM in enumerate(frames):
            if bounded and not truncation and len(frames_TM) > longest:
                raise ValueError(
                    f"clip {index} has {len(frames_TM)} frames and the model hears {longest}, "
                    f"{(longest * FRAME_SHIFT + FRAME_LENGTH - FRAME_SHIFT) / self.sampling_rate:.2f} s: cut it with "
                    "unibrivl.split_windows, or pass truncation=True to lose the rest, or padding='longest' to a "
                    "model with interpolate_pos_encoding=True"
                )
        if truncation:
            frames = [frames_TM[:longest] for frames_TM in frames]
        lengths = [-(-len(frames_TM) // multiple) * multiple for frames_TM in frames]
        if padding == "max_length":
            lengths = [longest] * len(frames)
        elif padding in (True, "longest"):
            lengths = [max(lengths)] * len(frames)
        padded = [self.normalized(frames_TM, length) for frames_TM, length in zip(frames, lengths, strict=True)]
        if return_tensors is None:
            return BatchFeature({"input_values": padded})
        if len(set(lengths)) > 1:
            raise ValueError("clips of several lengths make no batch: pass padding='longest' or 'max_length'")
        return BatchFeature({"input_values": np.stack(padded)}, tensor_type=return_tensors)

    def log_mel(self, samples_S: np.ndarray) -> torch.Tensor:
        """The frames of one clip, (T, M) float32, before padding and normalisation. The transform is in float64."""
        samples = torch.from_numpy(samples_S.astype(np.float64))
        if num_fbank_frames(len(samples)) == 0:
            samples = torch.nn.functional.pad(samples, (0, FRAME_LENGTH - len(samples)))
        with torch.inference_mode():
            return kaldi_fbank(samples, self.window, self.num_mel_bins, self.scale, mel_dtype=torch.float32)

    def normalized(self, frames_TM: torch.Tensor, length: int) -> np.ndarray:
        """Rows of the padding value up to `length`, then mean off and divided."""
        padded_TM = torch.full((length, self.num_mel_bins), float(self.padding_value))
        padded_TM[: len(frames_TM)] = frames_TM
        return padded_TM.sub_(self.mean).div_(self.std).numpy()


__all__ = ["CAVMAEFeatureExtractor"]
