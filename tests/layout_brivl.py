"""A toy BriVL in the original's layout: the official key list with one block a stage and a layer or two."""

from __future__ import annotations

import re

import parity_brivl as parity
import torch

from unibrivl.convert.brivl import convert_tensor, reason_to_drop
from unibrivl.modeling import BriVLConfig, BriVLModel

OFFICIAL = "brivl_b5_roberta_base"
# U+2028 and U+0085 end a line for str.splitlines, not for BERT
VOCAB = ["[PAD]", "\u2028", "\u0085", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"\u732b\u72d7\u53ebabcdefgh", "##a", "##b"]
TEXT = {
    "vocab_size": len(VOCAB), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
    "intermediate_size": 32, "max_position_embeddings": 96, "num_sa_layers": 1, "sa_intermediate_size": 24,
}  # fmt: skip
VISION = {
    "hidden_size": 128, "num_sa_layers": 1, "sa_intermediate_size": 24, "width_coefficient": 0.1,
    "depth_coefficient": 0.1, "image_size": 64,
}  # fmt: skip


def toy_model() -> BriVLModel:
    torch.manual_seed(0)
    model = BriVLModel(BriVLConfig(vision_config=VISION, text_config={**TEXT, "projection_dim": 128})).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that mean something
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def original_layout(model, prefix="") -> dict[str, torch.Tensor]:
    """The toy's weights under the original's names, momentum copies and what nobody uses included."""
    ours = model.state_dict()
    state = {}
    for key, shape in parity.original_shapes(OFFICIAL).items():
        query = key.replace("encoder_mom.", "encoder.")
        if not query.startswith(prefix) or re.search(r"\.blocks\.\d\.[1-9]", key):
            continue
        if query.endswith("position_ids"):
            tensor = torch.arange(96)[None]
        elif reason_to_drop(query):
            tensor = torch.zeros(64)
        else:
            names = convert_tensor(query, torch.empty(shape, device="meta"), list(range(8)))
            if not names.keys() <= ours.keys():
                continue  # a layer that this model does not have
            tensor = torch.cat([ours[name] for name in names]) if len(names) == 3 else ours[next(iter(names))]
        if query.endswith("max_pool.0.weight"):
            tensor = tensor[:, :, None, None]
        state[key] = tensor if key == query else (tensor + 1 if tensor.dim() else tensor)
    return state
