"""BrewCLIP at toy size: a Whisper, a HuBERT and a CLIP of the real classes, with sounds, transcripts and pictures."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import tiny_text
import tiny_towers
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from unibrivl.modeling import BrewCLIPConfig, BrewCLIPModel, BrewCLIPProcessor

RATE_HZ = 16_000
SECONDS = 1.0  # that the tiny Whisper hears at once
SIDE = 32
AUDIO = tiny_towers.AUDIO["whisper"]
TEXT = tiny_text.text_config(projection_dim=24).to_dict()
VISION = {"model_type": "clip_vision_model", **tiny_towers.PATCHES, "projection_dim": 24}
EOS = TEXT["eos_token_id"]


def config(**fields) -> BrewCLIPConfig:
    sizes = {"num_attention_heads": 4, "intermediate_size": 40, "dropout": 0.1}
    towers = {"audio_config": AUDIO, "vision_config": VISION, "text_config": TEXT}
    return BrewCLIPConfig(**{**towers, **sizes, **fields})


def build(**fields) -> BrewCLIPModel:
    """With weights as if trained: at their first values channels and prompts hardly speak."""
    torch.manual_seed(0)
    return shaken(BrewCLIPModel(config(**fields)))


def shaken(model: BrewCLIPModel) -> BrewCLIPModel:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and name != "temperature":
                weight.add_(torch.randn_like(weight) * (0.3 if weight.dim() < 2 else weight.shape[-1] ** -0.5) / 2)
    return model.eval()


def whisper() -> WhisperForConditionalGeneration:
    torch.manual_seed(1)
    fields = {name: value for name, value in AUDIO.items() if name != "model_type"}
    model = WhisperForConditionalGeneration(
        WhisperConfig(**fields, max_target_positions=16, begin_suppress_tokens=None)
    )
    model.generation_config = GenerationConfig(
        decoder_start_token_id=3, eos_token_id=2, pad_token_id=0, bos_token_id=1, max_length=8, is_multilingual=False,
        no_timestamps_token_id=60,
    )  # fmt: skip
    return model.eval()


def clip() -> CLIPModel:
    torch.manual_seed(2)
    vision = {name: value for name, value in VISION.items() if name != "model_type"}
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    text = {name: TEXT[name] for name in (*names, "bos_token_id", "eos_token_id", "projection_dim")}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def feature_extractor() -> WhisperFeatureExtractor:
    """Of 100 spectra, so that a second is all that is heard at once."""
    return WhisperFeatureExtractor(feature_size=AUDIO["num_mel_bins"], chunk_length=int(SECONDS))


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def asr_tokenizer() -> PreTrainedTokenizerFast:
    """64 tokens: four special ones and words of one letter."""
    marks = ["<pad>", "<start>", "<end>", "<say>", *string.ascii_letters, *string.digits[:8]]
    made = Tokenizer(models.WordLevel({mark: number for number, mark in enumerate(marks)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<start>", eos_token="<end>",
        additional_special_tokens=["<say>"],
    )  # fmt: skip


def processor() -> BrewCLIPProcessor:
    return BrewCLIPProcessor(feature_extractor(), image_processor(), tiny_text.tokenizer())


def save_backbones(folder: Path) -> tuple[str, str]:
    """A Whisper and a CLIP, each in a folder with what prepares its input; their names."""
    whisper().save_pretrained(folder / "whisper")
    feature_extractor().save_pretrained(folder / "whisper")
    clip().save_pretrained(folder / "clip")
    tiny_text.tokenizer().save_pretrained(folder / "clip")
    image_processor().save_pretrained(folder / "clip")
    return str(folder / "whisper"), str(folder / "clip")


def clips(*seconds: float) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.normal(0, 0.1, int(one * RATE_HZ)).astype(np.float32) for one in seconds]


def transcripts(*lengths: int) -> list[str]:
    """Each of so many tokens: a word of one letter is one."""
    generator = np.random.default_rng(4)
    return [" ".join(generator.choice(list(string.ascii_lowercase), length)) for length in lengths]


def pixels(number: int) -> torch.Tensor:
    return torch.randn(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def batch(*seconds: float, words: int = 4) -> dict[str, torch.Tensor]:
    """Sounds and transcripts as the processor makes them."""
    made = processor()(audio=clips(*seconds), text=transcripts(*[words + place for place in range(len(seconds))]),
                       sampling_rate=RATE_HZ)  # fmt: skip
    return dict(made)
