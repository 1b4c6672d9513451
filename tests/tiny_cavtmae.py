"""CAVT-MAE at toy size, as if trained, with sounds, pictures and texts of it, and what prepares them."""

from __future__ import annotations

import tiny_cavmae
import torch
from tiny_cavmae import BOTH, SHARED
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from unibrivl.modeling import (
    CAVMAEFeatureExtractor,
    CAVMAEImageProcessor,
    CAVTMAEConfig,
    CAVTMAEModel,
    UniBriVLProcessor,
)

TEXT = {
    "model_type": "clip_text_model",
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 63, "pad_token_id": 63},
}
IMAGE = {**SHARED, "image_size": BOTH["image_size"]}


def config(**fields) -> CAVTMAEConfig:
    return CAVTMAEConfig(**{"audio_config": SHARED, "vision_config": IMAGE, "text_config": TEXT, **fields})


def shaken(model):
    """Norms and linear layers whose inputs show."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, module.in_features**-0.5)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def build(seed=0, **fields) -> CAVTMAEModel:
    torch.manual_seed(seed)
    return shaken(CAVTMAEModel(config(**fields)))


def texts(number=3):
    """Token ids of unlike length between begin and end, padded with the end as CLIP's are; and their mask."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.full((number, 8), 63)
    mask = torch.zeros(number, 8, dtype=torch.long)
    for row in range(number):
        length = 3 + row % 4
        ids[row, 0] = 0
        ids[row, 1 : 1 + length] = torch.randint(1, 63, (length,), generator=generator)
        mask[row, : length + 2] = 1
    return {"input_ids": ids, "text_attention_mask": mask}


def everything(number=3):
    return {
        "input_values": tiny_cavmae.sounds(number),
        "pixel_values": tiny_cavmae.pictures(number),
        **texts(number),
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Of a word each for a handful of words, between begin and end."""
    words = ["<start>", *"a photo of dog rain cat the sound rooster zero one two".split(), "<unknown>"]
    numbers = {word: number for number, word in enumerate(words)} | {"<end>": 63}
    whole = Tokenizer(models.WordLevel(numbers, unk_token="<unknown>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    whole.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 63)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, bos_token="<start>", eos_token="<end>", pad_token="<end>", unk_token="<unknown>"
    )


def processor() -> UniBriVLProcessor:
    return UniBriVLProcessor(
        CAVMAEFeatureExtractor(num_mel_bins=32, max_length=64),
        CAVMAEImageProcessor(size=32, crop_size=32),
        tokenizer(),
        text_max_length=16,
    )
