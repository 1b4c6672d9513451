"""Augmentation of sounds, for training only: waveforms one by one, features and mixtures by the batch.

    sound_S = SoundAugmentation(crop_s=5.0)(waveform.samples, waveform.rate_hz, np.random.default_rng(draw.seed))

Everything random comes from the generator, and each example takes the same count of numbers from it, whatever it
holds and whichever changes are off: the examples after it are drawn alike. Noise and Beta draws take as many as they
like from generators of their own, whose seeds are such numbers.

Shapes: T samples of a sound or frames of features, B batch, F features of a frame, N spans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SoundAugmentation:
    """Changes of one waveform, in the order of the arguments; gain last. A value of 0 or None turns each off.

    The shift turns the sound round: what leaves at one end comes in at the other. Filling with zeros would lose what
    is at the end, which may be the only bark of a clip labelled "dog"; the price is a seam.

    Args:
        crop_s (`float`, *optional*): length of what comes out, a random part of a longer sound. None keeps the length.
        fill (`"silence"`, `"repeat"` or `"none"`): what makes a sound of crop_s out of a shorter one: zeros behind it,
            the sound again and again, or nothing, so that it stays short.
        shift_s (`float`): turned round by up to so many seconds, either way.
        noise_prob (`float`): chance of white noise.
        min_snr_db, max_snr_db (`float`): power of the sound over that of the noise, drawn evenly between them.
            Silence stays silent.
        num_bands, band_hz (`int`, `float`): so many bands are taken out, each up to band_hz wide.
        num_spans, span_s (`int`, `float`): so many spans are silenced, each up to span_s long.
        polarity_prob (`float`): chance of turning the waveform upside down.
        gain_db (`float`): made louder or softer by up to so much; nothing is clipped.
    """

    crop_s: float | None = None
    fill: Literal["silence", "repeat", "none"] = "silence"
    shift_s: float = 0.1  # OURS: as the baseline of Speech Commands does
    noise_prob: float = 0.5  # OURS: clean sounds are what it is evaluated on
    min_snr_db: float = 10.0  # OURS: the sound is still what one hears
    max_snr_db: float = 40.0  # OURS: about the noise of a telephone's microphone
    num_bands: int = 1
    band_hz: float = 800.0  # OURS: a tenth of what 16 kHz can hold
    num_spans: int = 2
    span_s: float = 0.1  # OURS: a syllable, not a word
    polarity_prob: float = 0.5  # OURS: no ear can tell
    gain_db: float = 6.0  # OURS: from half to twice the amplitude

    def __post_init__(self):
        if self.crop_s is not None and not 0 < self.crop_s < math.inf:
            raise ValueError(f"crop_s is a length in seconds, or None to keep the sound's; got {self.crop_s}")
        if self.fill not in ("silence", "repeat", "none"):
            raise ValueError(f'fill is "silence", "repeat" or "none"; got {self.fill!r}')
        for name in ("shift_s", "num_bands", "band_hz", "num_spans", "span_s", "gain_db"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 (off) or more; got {getattr(self, name)}")
        for name in ("noise_prob", "polarity_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1; got {getattr(self, name)}")
        if not -math.inf < self.min_snr_db <= self.max_snr_db < math.inf:
            raise ValueError(f"min_snr_db {self.min_snr_db} must be at most max_snr_db {self.max_snr_db}")

    @classmethod
    def off(cls) -> SoundAugmentation:
        """No change at all; turn on what you want with `dataclasses.replace`."""
        return cls(shift_s=0, noise_prob=0, num_bands=0, num_spans=0, polarity_prob=0, gain_db=0)

    def __call__(self, samples_T: np.ndarray, sampling_rate: int, chance: np.random.Generator) -> np.ndarray:
        """A changed copy, float32: of crop_s seconds, or as long as `samples_T`."""
        check_samples(samples_T)
        uniform_N = chance.random(6 + 2 * (self.num_bands + self.num_spans))
        noise_seed = int(chance.integers(MAX_SEED))
        crop, shift, noisy, snr, turned, gain = uniform_N[:6]
        bands_N2, spans_N2 = np.split(uniform_N[6:].reshape(-1, 2), [self.num_bands])

        size = len(samples_T) if self.crop_s is None else max(1, round(self.crop_s * sampling_rate))
        changed_T = cut(samples_T, size, float(crop), self.fill)
        if self.shift_s:
            changed_T = np.roll(changed_T, round((2 * shift - 1) * self.shift_s * sampling_rate))
        if noisy < self.noise_prob:
            snr_db = self.min_snr_db + (self.max_snr_db - self.min_snr_db) * snr
            add_noise(changed_T, snr_db, np.random.Generator(np.random.SFC64(noise_seed)))
        if self.num_bands and self.band_hz:
            changed_T = remove_bands(changed_T, sampling_rate, bands_N2, self.band_hz)
        if self.num_spans and self.span_s:
            silence_spans(changed_T, spans_N2, self.span_s * sampling_rate)
        factor = 10 ** ((2 * gain - 1) * self.gain_db / 20) * (-1 if turned < self.polarity_prob else 1)
        if factor != 1:
            changed_T *= np.float32(factor)
        return changed_T


def check_samples(samples_T: np.ndarray) -> None:
    if not isinstance(samples_T, np.ndarray) or samples_T.dtype != np.float32 or samples_T.ndim != 1:
        found = (
            f"{samples_T.dtype} {samples_T.shape}" if isinstance(samples_T, np.ndarray) else type(samples_T).__name__
        )
        raise ValueError(f"a sound is a float32 array (samples,), not {found}. load_audio(...).samples is one")
    if not len(samples_T):
        raise ValueError("the sound is empty: leave it out before augmenting")
    if not math.isfinite(float(np.dot(samples_T, samples_T))):
        raise ValueError("the sound holds NaN, infinite or huge samples: load_audio(...) gives finite ones in -1..1")


def crop_start(num_samples: int, size: int, uniform: float) -> int:
    """Where a part of `size` begins: each possible beginning with equal chance, 0 if there is only one."""
    return int(uniform * max(1, num_samples - size + 1))


def cut(samples_T: np.ndarray, size: int, uniform: float, fill: str = "silence") -> np.ndarray:
    """A copy of `size` samples: a part of a longer sound, a shorter one filled; see `SoundAugmentation`."""
    if len(samples_T) >= size:
        start = crop_start(len(samples_T), size, uniform)
        return samples_T[start : start + size].copy()
    if fill == "none":
        return samples_T.copy()
    if fill == "repeat":
        return np.resize(samples_T, size)
    filled_T: np.ndarray = np.zeros(size, np.float32)
    filled_T[: len(samples_T)] = samples_T
    return filled_T


def add_noise(samples_T: np.ndarray, snr_db: float, chance: np.random.Generator) -> None:
    """White noise, in place, at exactly this ratio of powers over the whole of the sound.

    Evenly distributed: as white as Gaussian noise, and drawn in a fourth of the time.
    """
    power = float(np.dot(samples_T, samples_T))
    if power == 0:
        return
    noise_T = chance.random(len(samples_T), np.float32) - np.float32(0.5)
    noise_power = float(np.dot(noise_T, noise_T)) or 1.0
    noise_T *= np.float32(math.sqrt(power / noise_power / 10 ** (snr_db / 10)))
    samples_T += noise_T


def remove_bands(
    samples_T: np.ndarray,
    sampling_rate: int,
    uniform_N2: np.ndarray,
    band_hz: float,
    edge_hz: float = 50.0,  # OURS: a harder edge rings for longer than 20 ms
) -> np.ndarray:
    """The sound without bands up to `band_hz` wide, as SpecAugment masks channels; (width, place) from `uniform_N2`.

    The gain falls and rises linearly over `edge_hz` on either side of a band.
    """
    size = fast_size(len(samples_T))
    spectrum_F = np.fft.rfft(samples_T, size)
    step_hz, top_hz = sampling_rate / size, sampling_rate / 2
    for width, place in uniform_N2:
        wide_hz = width * min(band_hz, top_hz)
        low_hz = place * (top_hz - wide_hz)
        first = max(0, math.ceil((low_hz - edge_hz) / step_hz))
        last = min(len(spectrum_F), math.floor((low_hz + wide_hz + edge_hz) / step_hz) + 1)
        hz = np.arange(first, last) * step_hz
        outside_hz = np.maximum(np.maximum(low_hz - hz, hz - low_hz - wide_hz), 0)
        spectrum_F[first:last] *= outside_hz / edge_hz
    return np.fft.irfft(spectrum_F, size)[: len(samples_T)].astype(np.float32)


def fast_size(num_samples: int) -> int:
    """The smallest power of two, or 3/4 or 5/8 of one, that holds so many samples: quick to transform."""
    power = 1 << max(3, (num_samples - 1).bit_length())
    return next(size for size in (power * 5 // 8, power * 3 // 4, power) if size >= num_samples)


def silence_spans(samples_T: np.ndarray, uniform_N2: np.ndarray, max_samples: float) -> None:
    """Zeros, in place, over spans up to `max_samples` long; (length, place) from `uniform_N2`."""
    for length, place in uniform_N2:
        size = int(length * (min(max_samples, len(samples_T)) + 1))
        start = crop_start(len(samples_T), size, place)
        samples_T[start : start + size] = 0


@dataclass(frozen=True)
class FeatureMasking:
    """SpecAugment's masks of a batch of features, such as log-mels; no warping of time.

    Args:
        num_times, max_frames (`int`): so many spans of frames, each of 0 to max_frames.
        max_share (`float`): and never longer than this part of the sound.
        num_bands, max_features (`int`): so many bands of features, each of 0 to max_features.
        value (`float`): what stands in a mask; 0 is the mean of features that were normalised.
    """

    num_times: int = 2  # SpecAugment Table 1, policy LD
    max_frames: int = 100  # SpecAugment Table 1, policy LD
    max_share: float = 1.0  # SpecAugment Table 1, policy LD
    num_bands: int = 2  # SpecAugment Table 1, policy LD
    max_features: int = 27  # SpecAugment Table 1, policy LD: of 80
    value: float = 0.0  # SpecAugment Sec. 2: the mean of normalised log-mels

    def __post_init__(self):
        for name in ("num_times", "max_frames", "num_bands", "max_features"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (off) or more; got {getattr(self, name)}")
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"max_share is a part of the sound, from 0 to 1; got {self.max_share}")

    def __call__(
        self, features_BTF: torch.Tensor, chance: np.random.Generator, lengths_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A masked copy. `lengths_B` counts the frames that are sound: masks keep to them, padding stays as it is."""
        mask_BTF = self.mask(features_BTF, chance, lengths_B)
        return features_BTF.masked_fill(mask_BTF, self.value)

    def mask(
        self, features_BTF: torch.Tensor, chance: np.random.Generator, lengths_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """True (B, T, F) where `features_BTF` is to be masked, on its device."""
        check_features(features_BTF)
        batch, frames, features = features_BTF.shape
        if lengths_B is None:
            lengths_B = torch.full((batch,), frames)
        lengths = lengths_B.cpu().numpy().astype(np.int64)
        if lengths.shape != (batch,) or lengths.min() < 0 or lengths.max() > frames:
            raise ValueError(f"lengths_B must be {batch} numbers from 0 to {frames}, got {lengths.tolist()}")
        uniform_BN2 = chance.random((batch, self.num_times + self.num_bands, 2))
        longest_B = np.minimum(self.max_frames, np.floor(self.max_share * lengths))
        times_BT = spans(uniform_BN2[:, : self.num_times], longest_B, lengths, frames)
        widest_B = np.full(batch, min(self.max_features, features))
        bands_BF = spans(uniform_BN2[:, self.num_times :], widest_B, np.full(batch, features), features)
        inside_BT = np.arange(frames) < lengths[:, None]
        masked = (times_BT[:, :, None] | bands_BF[:, None]) & inside_BT[:, :, None]
        return torch.from_numpy(masked).to(features_BTF.device)


def check_features(features_BTF: torch.Tensor) -> None:
    if features_BTF.dim() != 3 or not features_BTF.is_floating_point():
        raise ValueError(
            f"expected float features (batch, frames, features), got {tuple(features_BTF.shape)} of "
            f"{features_BTF.dtype}"
        )
    if not features_BTF.numel():
        raise ValueError(f"no features to mask: their shape is {tuple(features_BTF.shape)}")
    if not features_BTF.isfinite().all():
        raise ValueError("the features hold NaN or infinite numbers: the log of silence needs a floor")


def spans(uniform_BN2: np.ndarray, longest_B: np.ndarray, lengths_B: np.ndarray, size: int) -> np.ndarray:
    """True (B, size) inside of any of N spans: 0 to `longest_B` long, anywhere within the first `lengths_B`."""
    long_BN = np.floor(uniform_BN2[..., 0] * (longest_B[:, None] + 1))
    start_BN = np.floor(uniform_BN2[..., 1] * (lengths_B[:, None] - long_BN + 1))
    place = np.arange(size)
    inside_BNT = (place >= start_BN[..., None]) & (place < (start_BN + long_BN)[..., None])
    return inside_BNT.any(1)


class Mixed(NamedTuple):
    """A batch mixed with itself: `weight_B * own + (1 - weight_B) * own[partner_B]`, for the losses too."""

    sounds: torch.Tensor
    partner_B: torch.Tensor
    weight_B: torch.Tensor


def mixup(
    sounds_B: torch.Tensor,
    chance: np.random.Generator,
    alpha: float = 0.2,  # mixup paper Sec. 3.1: 0.1 to 0.4 served best
) -> Mixed:
    """Each sound with another of its batch, by weights from Beta(alpha, alpha).

    Of a padded batch, a mixture is as long as the longer of both. With alpha 0 nothing is mixed.

    Args:
        sounds_B (`torch.Tensor` of shape `(batch, ...)`): waveforms or features.
        alpha (`float`): above 0; small ones leave most sounds nearly alone, 1 is any weight with equal chance.
    """
    if not sounds_B.dim() or not sounds_B.numel() or not sounds_B.is_floating_point():
        raise ValueError(f"expected a float batch of sounds, got {tuple(sounds_B.shape)} of {sounds_B.dtype}")
    if not sounds_B.isfinite().all():
        raise ValueError("the batch holds NaN or infinite numbers: load_audio(...) gives finite samples")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be 0 (off) or more; got {alpha}")
    batch = len(sounds_B)
    order_B, seeds_B = chance.random(batch).argsort(), chance.integers(MAX_SEED, size=batch)
    partner_B: np.ndarray = np.empty(batch, np.int64)
    partner_B[order_B] = np.roll(order_B, 1)  # a ring: nobody's partner is itself unless alone
    weights = [np.random.default_rng(int(seed)).beta(alpha, alpha) if alpha else 1.0 for seed in seeds_B]
    partner = torch.from_numpy(partner_B).to(sounds_B.device)
    weight_B = torch.tensor(weights, dtype=sounds_B.dtype, device=sounds_B.device)
    weight = weight_B.reshape(-1, *[1] * (sounds_B.dim() - 1))
    return Mixed(weight * sounds_B + (1 - weight) * sounds_B[partner], partner, weight_B)
