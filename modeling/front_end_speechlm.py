"""SpeechLM's ears: raw waveform -> convolutional frames, and which of those frames are real.

The parameters are transformers' Hubert front end; the arithmetic is arranged for speed and for padding:

- The GroupNorm of Base normalises every channel over time. Its input is a linear function of the samples, so its mean
  and variance follow from the mean and covariance of the 10-sample windows (10 x 10 numbers, in float64). They are
  folded into the weights of the first convolution, whose 32 kHz x 512 output is then written once instead of thrice.
- After that every layer is local in time: frames are computed time-major, each convolution a plain matrix product on a
  strided view, and without gradients in blocks that stay in the processor's cache.
- Clips of different length pass at their own length. Padding is never computed, so it cannot change a clip.

Shapes: B batch, S samples, T frames, C channels, K kernel.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

# OURS: frames per block on a CPU without gradients; 100 frames are 13 MB after the first layer (fastest of 10 to 500)
BLOCK_FRAMES = 100


def num_frames(num_samples: int, config) -> int:
    """Frames the front end makes of `num_samples` samples; 0 when there are too few for one."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1 if num_samples >= kernel else 0
    return num_samples


def frame_mask(attention_mask_BS: torch.Tensor, frames: int, config) -> torch.Tensor:
    """Which frames are real, as a bool mask (B, T).

    `padding_mode="exact"` counts a frame when every sample it sees is real: the frames of the clip alone. `"fairseq"`
    is the original's rule: the samples are cut into T equal chunks and a frame is padding when its whole chunk is.
    """
    real_BS = attention_mask_BS.bool()
    if config.padding_mode == "fairseq":
        chunk = real_BS.shape[1] // frames
        return real_BS[:, : frames * chunk].reshape(len(real_BS), frames, chunk).any(-1)
    lengths_B = real_BS.sum(1)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths_B = torch.where(lengths_B >= kernel, (lengths_B - kernel) // stride + 1, 0)
    return torch.arange(frames, device=real_BS.device) < lengths_B[:, None]


def clips_at_start(samples_BS: torch.Tensor, attention_mask_BS: torch.Tensor, config):
    """The batch with every clip at the start of its row, its mask, and the samples of each clip.

    A clip may stand anywhere in its row; masks with holes and clips too short for one frame are refused.
    """
    real_BS = attention_mask_BS.bool()
    lengths_B, first_B = real_BS.sum(1), real_BS.long().argmax(1)
    index_S = torch.arange(real_BS.shape[1], device=real_BS.device)
    if not torch.equal(real_BS, (index_S >= first_B[:, None]) & (index_S < (first_B + lengths_B)[:, None])):
        raise ValueError("attention_mask has holes: the ones of a row must be one run, the samples of one clip")
    lengths = lengths_B.tolist()
    if min(lengths) < config.frame_field:
        raise ValueError(
            f"a clip of {min(lengths)} samples is shorter than one frame ({config.frame_field} samples). "
            "SpeechLMFeatureExtractor pads such clips to one frame"
        )
    if first_B.any():
        order_BS = (index_S + first_B[:, None]) % real_BS.shape[1]
        samples_BS, real_BS = samples_BS.gather(1, order_BS), real_BS.gather(1, order_BS)
    return samples_BS, real_BS, lengths


def each_clip(function, inputs, lengths: list[int] | None):
    """`function` on every clip of a right-padded batch at the clip's own length; zeros where the batch was padded.

    Without lengths the batch goes through at once. On a processor a clip at a time is no slower than a batch, and the
    padding, often a third of a batch of real clips, is never computed.
    """
    if lengths is None or min(lengths) == inputs.shape[1]:
        return function(inputs)
    rows = [function(row[None, :length])[0] for row, length in zip(inputs, lengths, strict=True)]
    return pad_sequence(rows, batch_first=True)


def tap_matrices(weight_OCK: torch.Tensor, stride: int) -> list[torch.Tensor]:
    """The matrices that `strided_conv` multiplies: the kernel's taps in groups of `stride`, each (taps * C, O)."""
    groups = weight_OCK.split(stride, dim=2)
    return [group.permute(2, 1, 0).reshape(-1, weight_OCK.shape[0]) for group in groups]


def strided_conv(hidden_BTC: torch.Tensor, matrices: list[torch.Tensor], kernel: int, stride: int, out=None):
    """A time-major convolution as matrix products: `stride` neighbouring frames lie side by side in memory already.

    `out`, (B * frames, O), receives the result where no gradient is needed.
    """
    batch, frames, channels = hidden_BTC.shape
    frames = (frames - kernel) // stride + 1

    def taps_side_by_side(group: int) -> torch.Tensor:
        first, taps = group * stride, matrices[group].shape[0] // channels
        if taps == stride:
            rows = hidden_BTC[:, first : first + frames * stride]
        else:
            picked = [hidden_BTC[:, first + tap :: stride][:, :frames] for tap in range(taps)]
            rows = picked[0] if taps == 1 else torch.cat(picked, dim=-1)
        return rows.reshape(batch * frames, taps * channels)

    result = torch.mm(taps_side_by_side(0), matrices[0], out=out)
    for group in range(1, len(matrices)):
        rows = taps_side_by_side(group)
        result = result.add_(rows @ matrices[group]) if out is None else result.addmm_(rows, matrices[group])
    return result.view(batch, frames, -1)


class SpeechLMFeatureEncoder(HubertFeatureEncoder):
    """Hubert's front end with the same parameters and results: (B, S) samples -> (B, T, C) frames."""

    def __init__(self, config):
        super().__init__(config)
        self.config = config

    def forward(self, input_values_BS: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """`lengths` are the samples of each clip; None computes every row at full length, padding included."""
        frames_BTC = each_clip(self._frames, input_values_BS, lengths)
        missing = num_frames(input_values_BS.shape[1], self.config) - frames_BTC.shape[1]
        return nn.functional.pad(frames_BTC, (0, 0, 0, missing)) if missing else frames_BTC

    def _frames(self, samples_BS: torch.Tensor) -> torch.Tensor:
        samples_BS, first_weight, first_bias = self._first_layer(samples_BS)
        matrices = [
            tap_matrices(layer.conv.weight, stride)
            for layer, stride in zip(self.conv_layers[1:], self.config.conv_stride[1:], strict=True)
        ]
        if not self._in_blocks(samples_BS):
            return self._convolve(samples_BS, first_weight, first_bias, matrices)
        hop, field = self.config.frame_hop, self.config.frame_field
        frames = num_frames(samples_BS.shape[1], self.config)
        out_BTC = samples_BS.new_empty(len(samples_BS), frames, self.config.conv_dim[-1])
        buffers = self._block_buffers(samples_BS, min(frames, BLOCK_FRAMES))
        for row in range(len(samples_BS)):
            own = row if first_weight.dim() == 3 else slice(None)  # GroupNorm gives each clip weights of its own
            weight, bias = first_weight[own], first_bias[own] if first_bias is not None else None
            for start in range(0, frames, BLOCK_FRAMES):
                end = min(start + BLOCK_FRAMES, frames)
                samples = samples_BS[row, None, start * hop : (end - 1) * hop + field]
                out_BTC[row, start:end] = self._convolve(samples, weight, bias, matrices, buffers)[0]
        return out_BTC

    def _in_blocks(self, samples_BS) -> bool:
        """Blocks with buffers: on a CPU, when nothing records gradients, compiles, or casts on the way."""
        eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
        return eager and samples_BS.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _block_buffers(self, samples_BS, frames: int) -> list[torch.Tensor]:
        """One output buffer a layer, written again for every block: fresh memory costs more than the arithmetic."""
        size = (frames - 1) * self.config.frame_hop + self.config.frame_field
        buffers = []
        for kernel, stride, channels in zip(
            self.config.conv_kernel, self.config.conv_stride, self.config.conv_dim, strict=True
        ):
            size = (size - kernel) // stride + 1
            buffers.append(samples_BS.new_empty(size, channels))
        return buffers

    def _first_layer(self, samples_BS):
        """The samples, and the first convolution's weight (K, C) or (B, K, C) and bias (C), (B, C) or None."""
        layer = self.conv_layers[0]
        if self.config.feat_extract_norm == "layer":
            return samples_BS, layer.conv.weight[:, 0].t(), layer.conv.bias
        # A constant added to a clip, and a bias of the convolution, do not survive the normalisation: leave them out.
        precise = torch.float32 if samples_BS.device.type == "mps" else torch.float64
        samples_BS = samples_BS - samples_BS.to(precise).mean(1, keepdim=True).to(samples_BS.dtype)
        windows_BTK = samples_BS.to(precise).unfold(1, self.config.conv_kernel[0], self.config.conv_stride[0])
        mean_BK = windows_BTK.mean(1)
        centred_BTK = windows_BTK - mean_BK[:, None]
        covariance_BKK = centred_BTK.mT @ centred_BTK / centred_BTK.shape[1]
        weight_CK = layer.conv.weight[:, 0].to(precise)
        variance_BC = ((weight_CK @ covariance_BKK) * weight_CK).sum(-1)
        scale_BC = layer.layer_norm.weight.to(precise) * torch.rsqrt(variance_BC + layer.layer_norm.eps)
        bias_BC = layer.layer_norm.bias.to(precise) - scale_BC * (mean_BK @ weight_CK.t())
        weight_BKC = weight_CK.t() * scale_BC[:, None]
        return samples_BS, weight_BKC.to(samples_BS.dtype), bias_BC.to(samples_BS.dtype)

    def _convolve(self, samples_BS, first_weight, first_bias, matrices, buffers=None):
        """All layers; with `buffers` (one clip, no gradients) each layer's result overwrites its buffer."""
        windows_BTK = samples_BS.unfold(1, self.config.conv_kernel[0], self.config.conv_stride[0])
        if buffers is None:
            hidden_BTC = windows_BTK @ first_weight
            if first_bias is not None:
                hidden_BTC = hidden_BTC + (first_bias if first_bias.dim() == 1 else first_bias[:, None])
        else:
            hidden_TC = buffers[0][: windows_BTK.shape[1]]
            torch.mm(windows_BTK[0], first_weight, out=hidden_TC)
            hidden_BTC = (hidden_TC if first_bias is None else hidden_TC.add_(first_bias))[None]
        for index, layer in enumerate(self.conv_layers):
            if index > 0:
                kernel, stride = self.config.conv_kernel[index], self.config.conv_stride[index]
                frames = (hidden_BTC.shape[1] - kernel) // stride + 1
                out = None if buffers is None else buffers[index][:frames]
                hidden_BTC = strided_conv(hidden_BTC, matrices[index - 1], kernel, stride, out)
                if layer.conv.bias is not None:
                    hidden_BTC = hidden_BTC + layer.conv.bias
            if self.config.feat_extract_norm == "layer":
                hidden_BTC = layer.layer_norm(hidden_BTC)
            if buffers is not None and self.config.feat_extract_activation == "gelu":
                hidden_BTC = torch.ops.aten.gelu_(hidden_BTC)
            else:
                hidden_BTC = layer.activation(hidden_BTC)
        return hidden_BTC
