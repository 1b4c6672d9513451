"""Kaldi's log-mel filterbank in torch: batched, differentiable, float32 or float64, any device, without torchaudio.

frames of 25 ms every 10 ms, inside the clip -> mean off -> pre-emphasis -> window -> power spectrum -> mel bins -> log

CAV-MAE hears waves in -1..1 through a Hann window, BEATs waves in the range of 16-bit integers through Povey's. Both
are settings of one function, `FBANK_PRESETS`.

Shapes: B batch (any number of leading axes), S samples, T frames, N all frames, K frames of a block, W samples of a
window, F numbers of a spectrum, M mel bins.
"""

import functools
import math

import torch

FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH = 400, 160, 512  # samples at 16 kHz: 25 ms, 10 ms, the next power of two
RATE_HZ = 16000
LOWEST_HZ = 20.0  # Kaldi's --low-freq
PREEMPHASIS = 0.97  # Kaldi's default
# Kaldi's floor of a mel bin before the log: the gap between 1 and the next float32. Its log is -15.942385
MEL_FLOOR = torch.finfo(torch.float32).eps
# Frames of one matrix product on a CPU, where no gradients are taken. Few enough that they stay in the cache, and
# always this many, so that a frame has the same bits whatever follows it
BLOCK = 128

# the original front ends: scale of the samples, window, and what is taken off and divided by after the log
FBANK_PRESETS: dict[str, dict] = {
    "cavmae": {"scale": 1.0, "window": "hann", "mean": -5.081, "std": 4.4849},
    "beats": {"scale": 32768.0, "window": "povey", "mean": 15.41663, "std": 2 * 6.55582},
}


def num_fbank_frames(num_samples: int) -> int:
    """Frames that lie wholly inside a clip: none below 25 ms."""
    return 0 if num_samples < FRAME_LENGTH else 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT


def kaldi_fbank(
    samples_BS: torch.Tensor,
    window: str = "hann",
    num_mel_bins: int = 128,
    scale: float = 1.0,
    mel_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The log-mel frames of clips of one length, (B, T, M), or (T, M) of one clip. Gradients go through.

    Args:
        samples_BS (`torch.Tensor`): float32 or float64, whose precision everything up to the spectrum has. In float32
            its rounding fills the quiet bins beside a loud tone: up to 1e-3 in the log.
        window (`str`): "hann" or "povey", both symmetric.
        num_mel_bins (`int`): triangles on Kaldi's mel scale from 20 Hz to 8 kHz, not normalised. With 128 of them one,
            index 3, lies between two frequencies of the transform and is always at the floor: so it is in Kaldi.
        scale (`float`): what samples are multiplied by; 32768 where the numbers of 16-bit files are expected.
        mel_dtype (*optional*): precision of the mel bins and the result; that of the samples by default. Powers are
            sums of squares, so float32 costs 1e-7 in the log and half the time.
    """
    if samples_BS.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the filterbank needs float32 or float64, got {samples_BS.dtype}: call .float() first")
    num_frames = num_fbank_frames(samples_BS.shape[-1])
    if num_frames == 0:
        raise ValueError(
            f"a clip of {samples_BS.shape[-1]} samples has no frame of {FRAME_LENGTH}: pad it with silence to 25 ms"
        )
    dtype, device = samples_BS.dtype, samples_BS.device
    bank_FM = mel_bank(num_mel_bins, mel_dtype or dtype, device)
    window_W = fbank_window(window, dtype, device)
    if scale != 1:
        samples_BS = samples_BS * scale
    frames_BTW = samples_BS.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    if device.type != "cpu" or samples_BS.requires_grad or torch.compiler.is_compiling():
        return log_mel(frames_BTW, window_W, bank_FM)
    mel_BTM = bank_FM.new_empty(*frames_BTW.shape[:-1], num_mel_bins)
    clips_NS, mel_NTM = samples_BS.reshape(-1, samples_BS.shape[-1]), mel_BTM.view(-1, num_frames, num_mel_bins)
    write_log_mel(clips_NS, mel_NTM, window_W, bank_FM)
    return mel_BTM


def log_mel(frames_KW: torch.Tensor, window_W: torch.Tensor, bank_FM: torch.Tensor) -> torch.Tensor:
    """Log-mel frames (..., K, M) of frames cut out of the samples."""
    frames_KW = frames_KW - frames_KW.mean(-1, keepdim=True)
    # Both windows begin with 0, so what precedes a frame does not matter and neither does its first sample
    windowed_KW = torch.sub(frames_KW[..., 1:], frames_KW[..., :-1], alpha=PREEMPHASIS) * window_W[1:]
    parts_KF = torch.view_as_real(torch.fft.rfft(windowed_KW, FFT_LENGTH)).flatten(-2)
    return (parts_KF.square().to(bank_FM.dtype) @ bank_FM).clamp(min=MEL_FLOOR).log()


def write_log_mel(
    clips_NS: torch.Tensor, mel_NTM: torch.Tensor, window_W: torch.Tensor, bank_FM: torch.Tensor
) -> None:
    """`log_mel` of clips into `mel_NTM`, a block of frames at a time, all in the same memory: it stays in the cache,
    and the system need not clear new pages for every step. Nothing here knows of gradients."""
    window_W = window_W[1:]
    centred_KW = clips_NS.new_zeros(BLOCK, FRAME_LENGTH)
    padded_KN = clips_NS.new_zeros(BLOCK, FFT_LENGTH)
    windowed_KW = padded_KN[:, : len(window_W)]
    spectrum_KF = torch.fft.rfft(padded_KN)
    parts_KF = torch.view_as_real(spectrum_KF).flatten(1)
    powers_KF, mel_KM = bank_FM.new_empty(parts_KF.shape), bank_FM.new_empty(BLOCK, bank_FM.shape[1])
    for samples_S, mel_TM in zip(clips_NS, mel_NTM, strict=True):
        blocks = samples_S.unfold(0, FRAME_LENGTH, FRAME_SHIFT).split(BLOCK)
        for frames_KW, wanted_KM in zip(blocks, mel_TM.split(BLOCK), strict=True):
            torch.sub(frames_KW, frames_KW.mean(1, keepdim=True), out=centred_KW[: len(frames_KW)])
            torch.sub(centred_KW[:, 1:], centred_KW[:, :-1], alpha=PREEMPHASIS, out=windowed_KW)
            windowed_KW *= window_W
            torch.fft.rfft(padded_KN, out=spectrum_KF)
            powers_KF.copy_(parts_KF.square_())
            torch.mm(powers_KF, bank_FM, out=mel_KM)
            torch.log(mel_KM[: len(wanted_KM)].clamp_(min=MEL_FLOOR), out=wanted_KM)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept serves training too
def fbank_window(name: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    hann_W = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64)
    if name not in ("hann", "povey"):
        raise ValueError(f"window must be 'hann' or 'povey', got {name!r}")
    return (hann_W if name == "hann" else hann_W**0.85).to(device, dtype)  # Kaldi's "povey": Hann to the power of 0.85


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def mel_bank(num_mel_bins: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(F, M): triangles that are straight on the mel scale; each row twice, for a real and an imaginary part.

    The last frequency, half the rate, counts for nothing, as in Kaldi.
    """
    lowest, highest = kaldi_mel(LOWEST_HZ), kaldi_mel(RATE_HZ / 2)
    step = (highest - lowest) / (num_mel_bins + 1)
    left_M = lowest + step * torch.arange(num_mel_bins, dtype=torch.float64)
    hz_F = torch.arange(FFT_LENGTH // 2 + 1, dtype=torch.float64) * RATE_HZ / FFT_LENGTH
    places_FM = (1127.0 * (hz_F / 700.0).log1p()[:, None] - left_M) / step  # 0 at the left foot, 1 at the top
    bank_FM = torch.minimum(places_FM, 2.0 - places_FM).clamp(min=0.0)
    bank_FM[-1] = 0.0
    return bank_FM.repeat_interleave(2, dim=0).to(device, dtype)


def kaldi_mel(hz: float) -> float:
    return 1127.0 * math.log1p(hz / 700.0)


__all__ = ["FBANK_PRESETS", "kaldi_fbank", "mel_bank", "num_fbank_frames"]
