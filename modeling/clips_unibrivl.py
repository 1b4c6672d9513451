"""Clips of sound at the border of a feature extractor: what counts as a clip, at what rate, and what is refused.

Shared by every feature extractor that hears, so that all of them accept the same kinds of clips and fail with the same
words. Nothing is resampled, mixed or normalised here.
"""

import numpy as np
from transformers.utils import logging

logger = logging.get_logger(__name__)


def as_clips(raw_speech) -> list:
    """One clip or a list of clips -> a list of clips.

    A clip is a 1-D array, tensor or list of floats, or anything with `samples` and `rate_hz`.
    """
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


def check_rate(clips: list, sampling_rate: int | None, model_rate: int, required: bool = False) -> None:
    """Refuses every rate but the model's, the clips' own and the caller's; none at all if one is `required`."""
    rates = {clip.rate_hz for clip in clips if hasattr(clip, "rate_hz")}
    if sampling_rate is not None:
        rates.add(sampling_rate)
    elif not rates and required:
        raise ValueError(
            f"nothing tells the clips' rate: pass sampling_rate={model_rate} if that is it, or what "
            f"unibrivl.load_audio(source, rate_hz={model_rate}) returns, which carries its own"
        )
    elif not rates:
        logger.warning_once(
            f"No sampling_rate was passed: the clips are taken to be at {model_rate} Hz. "
            "At another rate the model hears them too fast or too slow, and nothing would tell."
        )
    for rate in rates - {model_rate}:
        raise ValueError(
            f"this model hears {model_rate} Hz and got {rate} Hz. "
            f"Call unibrivl.load_audio(source, rate_hz={model_rate}) "
            f"or waveform.resample({model_rate})."
        )


def clip_samples(clip, index: int) -> np.ndarray:
    """The samples of one clip, (S,) float32; `index` names the clip in an error."""
    clip = getattr(clip, "samples", clip)
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
    return samples


def most_samples(extractor) -> int | None:
    """Of how many samples a feature extractor hears every one: Whisper's, CLAP's and AST's cut off what follows."""
    if hasattr(extractor, "num_mel_bins") and hasattr(extractor, "max_length"):  # AST: Kaldi's frames, 25 ms every 10
        return extractor.max_length * 160 + 399
    return getattr(extractor, "n_samples", None) or getattr(extractor, "nb_max_samples", None)
