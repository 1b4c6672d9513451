"""PE-AV (`PeAudioVideoModel` of transformers) as a matcher: sound, single pictures as videos of one frame, and text.

Its audio, video and text vectors live in one space; a text has one vector for comparison with sounds and another for
pictures. Pictures are prepared here, since transformers' video processor needs torchvision. Texts and pictures go
through the towers and heads that `PeAudioVideoModel.forward` uses: its own `get_text_audio_embeds`,
`get_text_video_embeds` and `get_video_embeds` call methods that do not exist (transformers 5.4 to 5.23).

Shapes: B batch, E embedding, H x W a picture.
"""

from dataclasses import dataclass

import torch

from .matcher_unibrivl import MatcherBase, as_texts, normalize
from .pictures_unibrivl import as_pixel_values


@dataclass
class FramePreparation:
    """A picture as one frame: resized to the tower's side, bilinear, and normalised. The defaults are PE's own."""

    side: int
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    do_center_square: bool = False
    resample: int = 2

    @property
    def size(self) -> dict[str, int]:
        return {"height": self.side, "width": self.side}

    @classmethod
    def from_processor(cls, video_processor, side: int) -> "FramePreparation":
        """The settings of a saved video processor, where one is there."""
        size = getattr(video_processor, "size", None)
        if size is None:
            return cls(side)
        return cls(
            side=int(dict(size).get("height") or dict(size).get("shortest_edge") or side),
            image_mean=tuple(video_processor.image_mean),
            image_std=tuple(video_processor.image_std),
        )

    def to_dict(self) -> dict:
        return dict(self.__dict__)


class PEAVMatcher(MatcherBase):
    """
    Args:
        model (`PeAudioVideoModel`): with its audio, video and text towers.
        processor: what carries its `feature_extractor` and `tokenizer`, and `image_processor` (`FramePreparation`).
    """

    kinds = ("audio", "image", "text")
    name = "PE-AV"
    texts_differ = True

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = processor
        self.sampling_rate = processor.feature_extractor.sampling_rate
        # it is trained with a sigmoid and per-pair scales; the scale of sound and text is what classify needs
        self.logit_scale = float(model.audio_model.text_audio_logit_scale.detach().float().reshape(-1)[0])

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        samples = self._clips(clips)
        batch = self.processor.feature_extractor(samples, sampling_rate=self.sampling_rate, return_tensors="pt")
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_audio_embeds(**self._to_device(batch)))

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        pixels_B3HW = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            videos = self.model.video_model.video_encoder(pixel_values_videos=pixels_B3HW[:, None])  # of one frame
            return normalize(self.model.video_model.video_head(videos.pooler_output))

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        if against not in ("audio", "image"):
            raise ValueError(f"against must be 'audio' or 'image', got {against!r}")
        batch = self.processor.tokenizer(as_texts(texts), padding=True, truncation=True, return_tensors="pt")
        inputs = self._to_device({name: batch[name] for name in ("input_ids", "attention_mask")})
        towers = self.model
        head = towers.audio_model.text_audio_head if against == "audio" else towers.video_model.text_video_head
        with torch.set_grad_enabled(gradients):
            states_BTD = towers.text_model(**inputs, output_hidden_states=True).hidden_states[-1]
            return normalize(head(states_BTD[:, 0]))


__all__ = ["FramePreparation", "PEAVMatcher"]
