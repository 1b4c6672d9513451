"""BriVL's CNN: transformers' EfficientNet, padded right for pictures of any side, and quicker without gradients.

Names and shapes of the weights are transformers'. Without gradients on a CPU the same map is computed in another way:
normalisation folded into the convolutions, channels last, activations in place, and few pictures at a time, so that a
block's widest activation stays in the cache. Rounding aside nothing changes. A network that somebody has wrapped,
hooked, quantised or put into training runs as transformers wrote it.

Shapes: B batch, C channels, H x W the map.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import EfficientNetConfig, EfficientNetModel
from transformers import initialization as init
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetBlock, EfficientNetDepthwiseConv2d

PIECE_BYTES = 9 * 2**20  # of a block's widest activation; 6 to 12 MiB are alike, whole batches 1.5 times slower


class BriVLSamePad(nn.Module):
    """TensorFlow's SAME padding from the actual input, which transformers' static padding gets wrong off its sizes."""

    def __init__(self, kernel: int, stride: int = 2):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, pixels_BCHW):
        pads = []
        for size in (pixels_BCHW.shape[-1], pixels_BCHW.shape[-2]):
            total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return nn.functional.pad(pixels_BCHW, pads)


class BriVLEfficientNet(EfficientNetModel):
    """Pictures (B, 3, S, S) -> the last map (B, C, H, W), before any pooling."""

    _supports_sdpa = True  # it has no attention: whatever the towers use suits it

    def __init__(self, config: EfficientNetConfig):
        super().__init__(config)
        self.embeddings.padding = BriVLSamePad(3)
        for block in self.encoder.blocks:
            layer = block.depthwise_conv
            if layer.stride == 2:
                layer.depthwise_conv_pad = BriVLSamePad(layer.depthwise_conv.kernel_size[0])

    @torch.no_grad()
    def _init_weights(self, module):
        """TensorFlow's start of EfficientNet. transformers draws the gains of the normalisation around 0, after which
        a new network's map is a number too small for float32, and computing with such numbers takes ten times as long.
        """
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if can_fold(self, pixels_BCHW):
            return folded_map(self, pixels_BCHW)
        return self.encoder(self.embeddings(pixels_BCHW), return_dict=True).last_hidden_state


def can_fold(model: EfficientNetModel, pixels_BCHW: torch.Tensor) -> bool:
    """No gradient is wanted, everything is float32 on the CPU, and every layer is what it was built as."""
    if pixels_BCHW.device.type != "cpu" or pixels_BCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # a compiler folds by itself
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (pixels_BCHW, *model.parameters())):
        return False
    return all(type(block) is EfficientNetBlock for block in model.encoder.blocks) and all(
        as_built(module) for module in model.modules() if module is not model
    )


def as_built(module: nn.Module) -> bool:
    """Not training, no hooks, no replaced forward; a layer with weights is of the known class and has them at hand."""
    if module.training or module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    if not module._parameters:
        return not module._buffers
    if type(module) not in (nn.Conv2d, EfficientNetDepthwiseConv2d, nn.BatchNorm2d):
        return False
    held = (module.weight, module.bias)
    return all(tensor is None or (type(tensor) is nn.Parameter and tensor.dtype == torch.float32) for tensor in held)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Callable[[torch.Tensor], torch.Tensor]:
    """The convolution with the normalisation behind it, as one convolution."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = (conv.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    bias = norm.bias - norm.running_mean * scale
    return partial(
        nn.functional.conv2d,
        weight=weight,
        bias=bias,
        stride=conv.stride,
        padding=conv.padding,
        groups=conv.groups,
    )


def folded_block(block: EfficientNetBlock) -> Callable[[torch.Tensor], torch.Tensor]:
    """A block as a function; its weights are folded once for all pieces of a batch."""
    expand = folded(block.expansion.expand_conv, block.expansion.expand_bn) if block.expand else None
    layer, gate = block.depthwise_conv, block.squeeze_excite
    depthwise = folded(layer.depthwise_conv, layer.depthwise_norm)
    project = folded(block.projection.project_conv, block.projection.project_bn)

    def run(states_BCHW):
        hidden = nn.functional.silu(expand(states_BCHW), inplace=True) if expand else states_BCHW
        if layer.stride == 2:
            hidden = layer.depthwise_conv_pad(hidden)
        hidden = nn.functional.silu(depthwise(hidden), inplace=True)
        squeezed_BC = nn.functional.linear(hidden.mean((2, 3)), gate.reduce.weight.flatten(1), gate.reduce.bias)
        squeezed_BC = nn.functional.silu(squeezed_BC)
        gates_BC = nn.functional.linear(squeezed_BC, gate.expand.weight.flatten(1), gate.expand.bias).sigmoid()
        hidden = project(hidden.mul_(gates_BC[:, :, None, None]))
        return hidden.add_(states_BCHW) if block.projection.apply_dropout else hidden

    return run


def in_pieces(function, states_BCHW: torch.Tensor, channels: int) -> torch.Tensor:
    """`function` on as many pictures at a time as have `channels` channels of this side in PIECE_BYTES."""
    height, width = states_BCHW.shape[2:]
    count = max(1, PIECE_BYTES // (channels * height * width * states_BCHW.element_size()))
    pieces = [function(piece) for piece in states_BCHW.split(count)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def folded_map(model: EfficientNetModel, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    stem, encoder = model.embeddings, model.encoder
    convolve = folded(stem.convolution, stem.batchnorm)
    pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
    # the stem halves the side: a quarter of its channels on the side of the picture
    states_BCHW = in_pieces(
        lambda pixels: nn.functional.silu(convolve(stem.padding(pixels)), inplace=True), pixels_BCHW, stem.out_dim // 4
    )
    for block in encoder.blocks:
        channels = block.depthwise_conv.depthwise_conv.in_channels
        states_BCHW = in_pieces(folded_block(block), states_BCHW, channels)
    top = folded(encoder.top_conv, encoder.top_bn)
    return nn.functional.silu(top(states_BCHW), inplace=True)


__all__ = ["BriVLEfficientNet", "BriVLSamePad"]
