"""BriVL at toy size, as if trained, with pictures, texts and boxes; and its image tower written out step by step."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from unibrivl.modeling import BriVLConfig, BriVLModel, BriVLTextModel, BriVLVisionModel

VISION = {
    "width_coefficient": 0.1,
    "depth_coefficient": 0.3,
    "hidden_size": 128,
    "image_size": 96,
    "num_sa_layers": 2,
    "sa_intermediate_size": 48,
}
TEXT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "max_length": 12,
    "num_sa_layers": 2,
    "sa_intermediate_size": 48,
}


def build(cls=BriVLModel, seed=0, **fields):
    """A tiny model as if trained: its normalisations have seen pictures, its layers tell their inputs apart."""
    torch.manual_seed(seed)
    config = {BriVLVisionModel: VISION, BriVLTextModel: {**TEXT, "projection_dim": 128}}.get(cls)
    if config is None:
        model = cls(BriVLConfig(vision_config=VISION, text_config=TEXT))
    else:
        model = cls(cls.config_class(**{**config, **fields}))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        torch.nn.init.normal_(norm.weight, 1, 0.1)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
        norm.momentum = None  # a plain average, over the one batch that follows
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, module.in_features**-0.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    if norms:
        tower = model if cls is BriVLVisionModel else model.vision_model
        with torch.no_grad():
            tower.train().backbone(pictures(4, seed=9))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()


def pictures(number=3, side=96, seed=1):
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def texts():
    """Ids and mask of three texts of 12, 5 and 8 tokens, padded to 12."""
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(12) < torch.tensor([12, 5, 8])[:, None]).long()
    return ids * mask, mask


def inputs(cls):
    ids, mask = texts()
    return {
        BriVLVisionModel: {"pixel_values": pictures()},
        BriVLTextModel: {"input_ids": ids, "attention_mask": mask},
        BriVLModel: {"pixel_values": pictures(), "input_ids": ids, "attention_mask": mask},
    }[cls]


def some_boxes(side=96):
    """Boxes (3, 5, 4) inside and across the border of a picture, and their mask with 5, 2 and 3 real rows."""
    generator = torch.Generator().manual_seed(3)
    corners = (torch.rand(3, 5, 2, 2, generator=generator) * 1.2 - 0.1).sort(dim=2).values * side
    return corners.flatten(2), (torch.arange(5) < torch.tensor([5, 2, 3])[:, None]).long()


def embeddings(output):
    """All embeddings of an output, one below the other."""
    if hasattr(output, "pooler_output"):
        return output.pooler_output
    return torch.cat([output.image_embeds, output.text_embeds])


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def _literal():
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "literal_brivl.py"
    spec = importlib.util.spec_from_file_location("literal_brivl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


literal = _literal()
