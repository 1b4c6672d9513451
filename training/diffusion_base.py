"""A frozen base of Stable Diffusion, as adapters to it are trained: words in, a prediction of noise out.

    base = DiffusionBase.from_pretrained(folder)
    condition = base.condition(prompts, words)             # through the frozen text encoders, gradients flow to words
    found = base.predict(noisy, times, condition)          # through the frozen UNet

Stable Diffusion 1, 2 and XL. Nothing of it trains: its weights are frozen and it stays in eval mode.

Shapes: B batch, N sounds, K words of each, D width of a token table, C latent channels, h x w a latent, H x W a
picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

from unibrivl.modeling.injection_audio_token import AudioPrompt, AudioPrompts, injected
from unibrivl.modeling.token_table_audio_token import embedding_module

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
AT_ONCE = 16  # pictures that are encoded together


class DiffusionBase:
    """
    Args:
        unet, vae, scheduler: of a pipeline of diffusers.
        text_encoders, tokenizers: by the names that the pipeline has for the encoders.
        name: what errors and configurations call it.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        scheduler: Any,
        text_encoders: Mapping[str, Any],
        tokenizers: Mapping[str, Any],
        name: str = "",
    ):
        self.unet, self.vae, self.scheduler, self.name = unet, vae, scheduler, name
        self.text_encoders, self.tokenizers = dict(text_encoders), dict(tokenizers)
        self.is_xl = getattr(unet.config, "addition_embed_type", None) == "text_time"
        if self.is_xl is not (len(self.text_encoders) == 2):
            raise ValueError(
                f"{name or 'this base'} has {len(self.text_encoders)} text encoders and a UNet of Stable Diffusion "
                f"{'XL, which takes two' if self.is_xl else '1 or 2, which takes one'}"
            )
        for part in self.parts:
            part.requires_grad_(False)
            part.eval()

    @classmethod
    def of_pipeline(cls, pipe: Any, name: str | None = None) -> DiffusionBase:
        """The components of a pipeline that is there; their weights are frozen."""
        if getattr(pipe, "unet", None) is None:
            raise ValueError(
                f"a {type(pipe).__name__} has no UNet, and words are learned through one: take a base of Stable "
                "Diffusion 1, 2 or XL"
            )
        encoders = {one: getattr(pipe, one, None) for one in TEXT_ENCODERS}
        encoders = {one: encoder for one, encoder in encoders.items() if encoder is not None}
        tokenizers = {one: getattr(pipe, TOKENIZERS[one]) for one in encoders}
        named = name or getattr(pipe, "name_or_path", None) or getattr(pipe.config, "_name_or_path", None) or ""
        return cls(pipe.unet, pipe.vae, pipe.scheduler, encoders, tokenizers, shown(str(named)))

    @classmethod
    def from_pretrained(cls, source: str, dtype: torch.dtype = torch.float32, **kwargs) -> DiffusionBase:
        """A folder or name of Stable Diffusion; "embedded" is the model in this package. Other parts stay away."""
        from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

        from unibrivl.embedded import embedded

        place = str(embedded()) if source == "embedded" else source
        parts = DiffusionPipeline.load_config(place, **kwargs)
        if "unet" not in parts:
            raise ValueError(f"{source} has no UNet: take a base of Stable Diffusion 1, 2 or XL")
        kind = StableDiffusionXLPipeline if "text_encoder_2" in parts else StableDiffusionPipeline
        spared = {} if "text_encoder_2" in parts else {"safety_checker": None, "feature_extractor": None}
        pipe = kind.from_pretrained(place, torch_dtype=dtype, image_encoder=None, **spared, **kwargs)
        return cls.of_pipeline(pipe, source)

    @property
    def parts(self) -> list[Any]:
        return [self.unet, self.vae, *self.text_encoders.values()]

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device) -> DiffusionBase:
        for part in self.parts:
            part.to(device)
        return self

    # ---- words

    def prompts(self, num_words: int) -> dict[str, AudioPrompts]:
        """What turns texts into ids for each text encoder."""
        return {name: AudioPrompts(tokenizer, num_words) for name, tokenizer in self.tokenizers.items()}

    def condition(
        self,
        prompts: Mapping[str, AudioPrompt],
        words: Mapping[str, torch.Tensor],
        size: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """What the UNet is told, as its arguments.

        Args:
            prompts: for each text encoder.
            words: text encoder -> (B, N, K, D), or another form that `injected` takes.
            size (*optional*): H and W of the picture, which XL is told; by default the base's own.
        """
        states, pooled_BP = [], None
        with ExitStack() as stack:
            for name, encoder in self.text_encoders.items():
                prompt = prompts[name].to(embedding_module(encoder).weight.device)
                if len(prompt.rows):
                    stack.enter_context(injected(encoder, prompt, words[name]))
                mask = prompt.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
                output = encoder(prompt.input_ids, attention_mask=mask, output_hidden_states=self.is_xl)
                states.append(output.hidden_states[-2] if self.is_xl else output[0])
                pooled_BP = output[0]
        told: dict[str, Any] = {"encoder_hidden_states": torch.cat(states, -1)}
        if self.is_xl:
            assert pooled_BP is not None
            height, width = size or (self.side, self.side)
            time_ids = torch.tensor([[height, width, 0, 0, height, width]], device=pooled_BP.device)
            told["added_cond_kwargs"] = {
                "text_embeds": pooled_BP.to(self.unet.dtype),
                "time_ids": time_ids.expand(len(pooled_BP), -1).to(self.unet.dtype),
            }
        told["encoder_hidden_states"] = told["encoder_hidden_states"].to(self.unet.dtype)
        return told

    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Mapping[str, Any]) -> torch.Tensor:
        """(B, C, h, w) in float32 at least."""
        found = self.unet(noisy.to(self.unet.dtype), times_B, **condition).sample
        return found if found.dtype == torch.float64 else found.float()

    # ---- pictures

    @property
    def scale(self) -> int:
        """Pixels of a latent's side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def side(self) -> int:
        """Of the pictures that it was trained on, in pixels."""
        size = self.unet.config.sample_size
        return self.scale * int(size if isinstance(size, int) else size[0])

    def pixels(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(B, 3, H, W) in 0..1: the middle square at the base's size."""
        side, rows = self.side, []
        for picture in pictures:
            picture = picture.convert("RGB")
            short = min(picture.size)
            left, top = (picture.width - short) // 2, (picture.height - short) // 2
            square = picture.crop((left, top, left + short, top + short))
            rows.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255)
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    @torch.no_grad()
    def latents(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) in float32, of about unit deviation: what the UNet is shown, without noise."""
        found = []
        for start in range(0, len(pixels_B3HW), AT_ONCE):
            some = 2 * pixels_B3HW[start : start + AT_ONCE] - 1
            encoded = self.vae.encode(some.to(next(self.vae.parameters())))
            found.append(encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents)
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return self.vae.config.scaling_factor * (torch.cat(found).float() - shift)


def shown(name: str) -> str:
    """Of a folder its own name: what is saved with words goes to others."""
    return os.path.basename(os.path.normpath(name)) if os.path.isdir(name) else name


@contextmanager
def as_it_was(pipe: Any) -> Iterator[None]:
    """Afterwards the weights of a pipeline train, or do not, as before, and its parts are in the mode they were in."""
    modules = [one for one in getattr(pipe, "components", {}).values() if isinstance(one, torch.nn.Module)]
    trained = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    training = [layer for module in modules for layer in module.modules() if layer.training]
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
        for layer in training:
            layer.training = True
