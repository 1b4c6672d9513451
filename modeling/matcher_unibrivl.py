"""Matchers: anything that puts sound, picture and text into one space, behind one small protocol.

A matcher takes raw things (clips of sound at its rate, pictures, strings) and gives l2-normalised vectors; similarity
is their dot product. Search, classification, ranking and every strategy of generation ask for no more than this, so a
model that has no pictures or no sounds can still serve where they are not needed.

Shapes: B batch, E embedding, C channels, H x W a picture.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from .clips_unibrivl import as_clips, check_rate, clip_samples, most_samples
from .pictures_unibrivl import as_pixel_values

# audio towers that give a clip in a padded batch what they give it alone; measured, see tests/embedder
PADDABLE = ("speechlm", "mel_encoder", "whisper", "clap_audio_model", "audio-spectrogram-transformer")
PADDABLE_WITH_LAYER_NORM = ("hubert", "wav2vec2", "wavlm")  # with GroupNorm the padding enters the statistics


@runtime_checkable
class Matcher(Protocol):
    """Sound, picture and text in one space.

    Attributes:
        name: what the vectors are labelled with in errors and reports.
        sampling_rate: of the clips it takes, in Hz; None if it hears nothing.
        kinds: which of "audio", "image" and "text" it can encode.
        logit_scale: what cosines are multiplied by before a softmax: the temperature it was trained with.
        batch_by: "padding" if clips of unlike length may share a batch and each still gets the vector it gets alone;
            "length" if only clips of one length may.
        longest_s: the most seconds of a clip that its feature extractor hears; None if there is no such limit.
        texts_differ: whether a text has one vector for comparison with sounds and another for pictures.
    """

    name: str
    sampling_rate: int | None
    kinds: tuple[str, ...]
    logit_scale: float
    batch_by: str
    longest_s: float | None
    texts_differ: bool

    def encode_audio(self, clips: Any, *, gradients: bool = False) -> torch.Tensor:
        """One clip or a list -> (B, E)."""
        ...

    def encode_image(self, pictures: Any, *, gradients: bool = False) -> torch.Tensor:
        """One picture or a list, or a batch of tensors (B, 3, H, W) in 0..1 that gradients can flow to -> (B, E)."""
        ...

    def encode_text(self, texts: str | list[str], *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        """One text or a list -> (B, E), for comparison with sounds, or with pictures (`against="image"`)."""
        ...

    def similarity(self, left_AE: torch.Tensor, right_BE: torch.Tensor) -> torch.Tensor:
        """Cosines (A, B)."""
        ...


class MatcherBase:
    """What all matchers of ours share: where they run, how raw input becomes tensors, how vectors are compared."""

    name = "matcher"
    kinds: tuple[str, ...] = ()
    sampling_rate: int | None = None
    logit_scale = 1.0
    batch_by = "length"  # the safe one of the two: many towers let padding leak into what they make of a clip
    longest_s: float | None = None
    window_s: float | None = None  # what of a long sound it is best shown at once, where it says so
    texts_differ = False
    min_samples = 1  # shorter clips are followed by silence up to it

    def __init__(self, model: nn.Module):
        if model.training:
            model.eval()
        self.model = model

    @property
    def parts(self) -> dict[str, Any]:
        """What prepares the input, by name: with the model it decides every vector."""
        names = ("feature_extractor", "image_processor", "video_processor", "tokenizer", "unit_tokenizer")
        return {name: getattr(getattr(self, "processor", None), name, None) for name in names}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the vectors beyond the model and the parts."""
        return {}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def similarity(self, left_AE: torch.Tensor, right_BE: torch.Tensor) -> torch.Tensor:
        if left_AE.shape[-1] != right_BE.shape[-1]:
            raise ValueError(
                f"vectors of {left_AE.shape[-1]} and of {right_BE.shape[-1]} numbers are not of one space: encode "
                "both with the same model"
            )
        return left_AE @ right_BE.to(left_AE).T

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        raise self._cannot("audio")

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        raise self._cannot("image")

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        raise self._cannot("text")

    def _cannot(self, kind: str) -> ValueError:
        return ValueError(f"{self.name} encodes {', '.join(self.kinds)}, not {kind}: load a model with that tower")

    def _clips(self, clips) -> list:
        """Clips as float32 arrays, their rates checked; a clip without a rate is taken to be at the model's."""
        if self.sampling_rate is None:
            raise self._cannot("audio")
        clips = as_clips(clips)
        check_rate(clips, None if any(hasattr(clip, "rate_hz") for clip in clips) else self.sampling_rate,
                   self.sampling_rate)  # fmt: skip
        samples = [clip_samples(clip, index) for index, clip in enumerate(clips)]
        return [np.pad(one, (0, max(0, self.min_samples - len(one)))) for one in samples]

    def _to_device(self, batch) -> dict[str, torch.Tensor]:
        return {name: value.to(self.device) for name, value in batch.items()}


class OneSpaceMatcher(MatcherBase):
    """What matchers share whose model has `get_image_features` and a temperature, and a processor with parts.

    Args:
        model: the towers.
        processor (`UniBriVLProcessor`): with the parts for what is to be encoded.
    """

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = processor
        extractor = processor.feature_extractor
        held = {"audio": extractor, "image": processor.image_processor, "text": processor.tokenizer}
        self.kinds = tuple(kind for kind, part in held.items() if part is not None)
        self.logit_scale = 1 / float(model.clamped_temperature().detach().float())
        if extractor is not None:
            self.sampling_rate = extractor.sampling_rate
            longest = most_samples(extractor)
            self.longest_s = None if longest is None else longest / extractor.sampling_rate

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        if "image" not in self.kinds:
            raise self._cannot("image")
        pixels = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_image_features(pixels).pooler_output)


def as_texts(texts) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("texts must be strings with something in them: one, or a list of at least one")
    return texts


def normalize(vectors_BE: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(vectors_BE.float(), dim=-1)


class UniBriVLMatcher(MatcherBase):
    """UniBriVL as a matcher.

    Args:
        model (`UniBriVLModel`): both towers.
        processor (`UniBriVLProcessor`): with the parts for what is to be encoded.
        space (`str`): `"match"`, whose dot product is the matching score, the mean of the cosines in the two spaces
            below; `"shared"`, the language tower's (a, f(v)); `"native"`, the image tower's (g(a), v), where texts go
            through the image tower's own text tower.
    """

    def __init__(self, model, processor, space: str = "match"):
        super().__init__(model)
        if space not in ("match", "shared", "native"):
            raise ValueError(f"space must be 'match', 'shared' or 'native', got {space!r}")
        self.processor = processor
        self.space = space
        self.name = f"UniBriVL ({space} space)"
        reads = processor.unit_tokenizer is not None or processor.tokenizer is not None
        hears, sees = processor.feature_extractor is not None, processor.image_processor is not None
        self.kinds = tuple(kind for kind, has in (("audio", hears), ("image", sees), ("text", reads)) if has)
        self.sampling_rate = processor.feature_extractor.sampling_rate if hears else None
        self.logit_scale = 1 / model.config.temperature
        if hears:
            audio_config = model.config.audio_config
            self.batch_by = "padding" if takes_padding(audio_config) else "length"
            self.min_samples = fewest_samples(audio_config)
            longest = most_samples(processor.feature_extractor)
            self.longest_s = None if longest is None else longest / processor.feature_extractor.sampling_rate

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "space": self.space,
            "text_padding": self.processor.text_padding,
            "text_max_length": self.processor.text_max_length,
        }

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        if "audio" not in self.kinds:
            raise self._cannot("audio")
        batch = self._to_device(self.processor(audio=self._clips(clips), sampling_rate=self.sampling_rate))
        with torch.set_grad_enabled(gradients):
            shared_BE = self.model.get_audio_features(**batch).pooler_output
            return self._join(shared_BE, lambda: self.model.project_audio(shared_BE))

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        if "image" not in self.kinds:
            raise self._cannot("image")
        pixels = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            native_BV = self.model.get_native_image_features(pixels).pooler_output
            return self._join(None, lambda: native_BV, lambda: self.model.project_image(native_BV))

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        if "text" not in self.kinds:
            raise self._cannot("text")
        batch = self._to_device(self.processor(text=as_texts(texts)))
        with torch.set_grad_enabled(gradients):
            if self._through_units(batch):
                shared_BE = self.model.get_text_features(batch["unit_ids"], batch["unit_attention_mask"]).pooler_output
                return self._join(shared_BE, lambda: self.model.project_audio(shared_BE))
            # a text of the native tower stands where a picture would: f takes it to the shared space
            native_BV = self.model.get_native_text_features(
                batch["input_ids"], batch["text_attention_mask"]
            ).pooler_output
            return self._join(None, lambda: native_BV, lambda: self.model.project_image(native_BV))

    def native_part(self, vectors_BE: torch.Tensor) -> torch.Tensor:
        """Of this matcher's vectors what is in the image tower's own space, (B, V): of a sound g(a)."""
        if self.space == "native":
            return vectors_BE
        if self.space == "shared":
            return normalize(self.model.project_audio(vectors_BE.to(self.device)))
        return normalize(vectors_BE[..., -self.model.config.image_embed_dim :])

    @torch.no_grad()
    def native_length(self) -> float:
        """How long the image tower's embeddings are before they are brought to length one, by that of one picture."""
        from .towers_unibrivl import image_embedding  # all towers of all kinds: most who ask a matcher need none

        ramp_S = torch.linspace(0, 1, 64)
        picture_13SS = torch.stack([ramp_S.expand(64, 64), ramp_S.expand(64, 64).T, ramp_S.flip(0).expand(64, 64)])[
            None
        ]
        pixels = as_pixel_values(picture_13SS, self.processor.image_processor).to(self.device)
        tower = self.model.vision_model
        output = tower(pixels.to(tower.dtype), return_dict=True)
        return float(image_embedding(tower, output).float().norm())

    def _through_units(self, batch) -> bool:
        if "unit_ids" not in batch or "input_ids" not in batch:
            return "unit_ids" in batch
        return self.space != "native" and self.model.config.text_route == "units"

    def _join(self, shared_BE, native, shared=None) -> torch.Tensor:
        """The vector of this matcher's space; the two spaces are joined so that the dot product is the mean cosine."""
        if self.space == "native":
            return normalize(native())
        shared_BE = shared() if shared_BE is None else shared_BE
        if self.space == "shared":
            return normalize(shared_BE)
        return torch.cat([normalize(shared_BE), normalize(native())], dim=-1) / 2**0.5


def takes_padding(audio_config) -> bool:
    """Whether padding leaves the vectors of an audio tower as they are."""
    if audio_config.model_type in PADDABLE_WITH_LAYER_NORM:
        return audio_config.feat_extract_norm == "layer"
    return audio_config.model_type in PADDABLE and getattr(audio_config, "padding_mode", "exact") == "exact"


def fewest_samples(audio_config) -> int:
    """How many samples an audio tower needs to make one frame."""
    if audio_config.model_type == "audio-spectrogram-transformer":
        return 400  # one frame of its filter bank, 25 ms
    samples = 1
    kernels, strides = (getattr(audio_config, name, None) or () for name in ("conv_kernel", "conv_stride"))
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples


class CLIPMatcher(MatcherBase):
    """Any model of transformers with `get_image_features` and `get_text_features`: pictures and texts, no sound."""

    kinds = ("image", "text")

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = processor
        self.name = type(model).__name__
        scale = getattr(model, "logit_scale", None)
        self.logit_scale = 1.0 if scale is None else float(scale.detach().float().exp().reshape(-1)[0])

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        pixels = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            return normalize(_pooled(self.model.get_image_features(pixel_values=pixels)))

    def encode_text(self, texts, *, against: str = "image", gradients: bool = False) -> torch.Tensor:
        padding = "max_length" if self.model.config.model_type.startswith("siglip") else True
        batch = self.processor.tokenizer(as_texts(texts), padding=padding, truncation=True, return_tensors="pt")
        with torch.set_grad_enabled(gradients):
            return normalize(_pooled(self.model.get_text_features(**self._to_device(batch))))


def _pooled(output) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


__all__ = ["CLIPMatcher", "Matcher", "MatcherBase", "OneSpaceMatcher", "UniBriVLMatcher", "as_texts", "normalize"]
