"""SpeechLM's ears: raw waveform -> convolutional frames, and which of those frames are real.

The parameters are transformers' Hubert front end; the arithmetic is arranged for speed and for padding:

- The GroupNorm of Base normalises every channel over time. Its input is a linear function of the samples, so its mean
  and variance follow from the mean and covariance of the 10-sample windows (10 x 10 numbers, in float64). They are
  folded into the weights of the first convolution, whose 32 kHz x 512 output is then written once instead of thrice.
- After that every layer is local in time: frames are computed time-major, each convolution a plain matrix product on a
  strided view, and without gradients in blocks that stay in the processor's cache.
- Clips of different length pass at their own length, short ones side by side in one block. Padding is never computed,
  so it cannot change a clip.

Shapes: B batch, S samples, T frames, C channels, K kernel.
"""

from functools import partial

import torch
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

from .packing_speechlm import each_clip

# OURS: numbers after the first layer in a block on a CPU without gradients: 13 MB, 100 frames of Base (fastest of 10
# to 500)
BLOCK_NUMBERS = 100 * 64 * 512


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
        matrices = [
            tap_matrices(layer.conv.weight, stride)
            for layer, stride in zip(self.conv_layers[1:], self.config.conv_stride[1:], strict=True)
        ]
        width = input_values_BS.shape[1]
        if self._in_blocks(input_values_BS):
            return self._frames_in_blocks(input_values_BS, lengths or [width] * len(input_values_BS), matrices)
        if lengths is None or min(lengths) == width:
            return self._frames(input_values_BS, matrices)
        frames_of = partial(self._frames, matrices=matrices)
        return each_clip(frames_of, input_values_BS, lengths, num_frames(width, self.config))

    def _frames(self, samples_BS: torch.Tensor, matrices: list[list[torch.Tensor]]) -> torch.Tensor:
        samples_BS, weight, bias = self._first_layer(samples_BS)
        hidden_BTC = samples_BS.unfold(1, self.config.conv_kernel[0], self.config.conv_stride[0]) @ weight
        if bias is not None:
            hidden_BTC = hidden_BTC + (bias if bias.dim() == 1 else bias[:, None])
        return self._following_layers(hidden_BTC, matrices)

    def _in_blocks(self, samples_BS) -> bool:
        """Blocks with buffers: on a CPU, when nothing records gradients, compiles, or casts on the way."""
        eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
        return eager and samples_BS.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _frames_in_blocks(self, samples_BS, lengths: list[int], matrices) -> torch.Tensor:
        """Clip after clip, long ones in pieces, short ones together, as many frames at once as the cache holds."""
        config = self.config
        kernel, stride = config.conv_kernel[0], config.conv_stride[0]
        hop = config.frame_hop // stride  # rows of the first layer from one frame to the next
        more = -(-(config.frame_field - kernel + stride) // config.frame_hop) - 1  # room, in frames, at a piece's end
        frames = [num_frames(length, config) for length in lengths]
        most = min(max(1, BLOCK_NUMBERS // (hop * max(config.conv_dim))), sum(frames) + more * len(frames))
        out_BTC = samples_BS.new_zeros(len(lengths), num_frames(samples_BS.shape[1], config), config.conv_dim[-1])
        buffers = self._block_buffers(samples_BS, (most + more) * hop)
        block: list[tuple[int, torch.Tensor]] = []  # where in the buffers a piece begins, and where its frames go
        taken = 0
        for row, length in enumerate(lengths):
            clip_1S, weight, bias = self._first_layer(samples_BS[row : row + 1, :length])
            windows_TK = clip_1S[0].unfold(0, kernel, stride)
            weight, bias = weight[-1] if weight.dim() == 3 else weight, bias if bias is None else bias.reshape(-1)
            for start in range(0, frames[row], most):
                end = min(start + most, frames[row])
                if block and taken + end - start > most:
                    self._finish_block(block, taken * hop, matrices, buffers)
                    block, taken = [], 0
                rows_TK = windows_TK[start * hop : (end + more) * hop]
                first_TC = buffers[0][taken * hop : taken * hop + len(rows_TK)]
                torch.mm(rows_TK, weight, out=first_TC)
                if bias is not None:
                    first_TC.add_(bias)
                block.append((taken, out_BTC[row, start:end]))
                taken += end - start + more
        if block:
            self._finish_block(block, taken * hop, matrices, buffers)
        return out_BTC

    def _finish_block(self, block, rows: int, matrices, buffers) -> None:
        """The other layers, once for all pieces of a block; the frames that see two pieces are left out."""
        frames_TC = self._following_layers(buffers[0][None, :rows], matrices, buffers)[0]
        for begin, target_TC in block:
            target_TC.copy_(frames_TC[begin : begin + len(target_TC)])

    def _block_buffers(self, samples_BS, rows: int) -> list[torch.Tensor]:
        """One output buffer a layer, written again for every block: fresh memory costs more than the arithmetic."""
        buffers = [samples_BS.new_zeros(rows, self.config.conv_dim[0])]
        for channels, stride in zip(self.config.conv_dim[1:], self.config.conv_stride[1:], strict=True):
            rows = rows // stride
            buffers.append(samples_BS.new_empty(rows, channels))
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

    def _following_layers(self, hidden_BTC, matrices, buffers=None):
        """From the first convolution's result on; with `buffers` each layer's result overwrites its buffer."""
        normalised = self.config.feat_extract_norm == "layer"
        in_place = buffers is not None and self.config.feat_extract_activation == "gelu"
        shapes = list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))
        for index, layer in enumerate(self.conv_layers):
            if index > 0:
                kernel, stride = shapes[index]
                frames = (hidden_BTC.shape[1] - kernel) // stride + 1
                out = None if buffers is None else buffers[index][:frames]
                hidden_BTC = strided_conv(hidden_BTC, matrices[index - 1], kernel, stride, out)
                if layer.conv.bias is not None:
                    hidden_BTC = hidden_BTC + layer.conv.bias
            if normalised:
                hidden_BTC = layer.layer_norm(hidden_BTC)
            hidden_BTC = torch.ops.aten.gelu_(hidden_BTC) if in_place else layer.activation(hidden_BTC)
        return hidden_BTC
