"""Latent diffusion as an objective of words: what the frozen base draws from them, against pictures of the sound.

    words = adapter(features)            latents with noise  ->  frozen UNet, told "a photo of <words>"  ->  error

What the UNet is asked for, and how noise is mixed in, follows from the base's own scheduler.

Shapes: B batch, T steps of noise, A width of features, K words, D width of a token table, C channels, h x w a latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unibrivl.modeling.token_table_audio_token import table_of
from unibrivl.training.gather import Shares
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import Objective


@dataclass(frozen=True)
class Noising:
    """How a scheduler mixes noise in, and what it has the UNet predict.

    Args:
        target: "epsilon", the noise; "v_prediction", the velocity between latents and noise; "flow", the way from
            latents to noise.
        signal_T, spread_T: shares of latents and of noise at each step.
        times_T: what the UNet is told the step is.
    """

    target: str
    signal_T: torch.Tensor
    spread_T: torch.Tensor
    times_T: torch.Tensor

    @classmethod
    def of(cls, scheduler: Any) -> Noising:
        config = scheduler.config
        steps = int(config.num_train_timesteps)
        alphas_T = getattr(scheduler, "alphas_cumprod", None)
        kind = getattr(config, "prediction_type", None)
        if kind == "flow_prediction" or (alphas_T is None and hasattr(config, "shift")):
            spread_T = torch.arange(1, steps + 1, dtype=torch.float32) / steps
            shift = float(getattr(config, "shift", None) or getattr(config, "flow_shift", None) or 1)
            spread_T = shift * spread_T / (1 + (shift - 1) * spread_T)
            return cls("flow", 1 - spread_T, spread_T, steps * spread_T)
        if alphas_T is None or kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"a {type(scheduler).__name__} that predicts {kind!r} is not known here: take a base with a scheduler "
                "of epsilon, v_prediction or flow matching"
            )
        alphas_T = alphas_T.float()
        return cls(kind, alphas_T.sqrt(), (1 - alphas_T).sqrt(), torch.arange(steps))

    def __len__(self) -> int:
        return len(self.times_T)

    def mix(
        self, latents: torch.Tensor, noise: torch.Tensor, step_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents and what is to be predicted, (B, C, h, w) each, and (B,) what the UNet is told."""
        step_B = step_B.to(latents.device)
        signal, spread = (
            one.to(latents)[step_B].reshape(-1, *[1] * (latents.dim() - 1)) for one in (self.signal_T, self.spread_T)
        )
        targets = {
            "epsilon": lambda: noise,
            "v_prediction": lambda: signal * noise - spread * latents,
            "flow": lambda: noise - latents,
        }
        return signal * latents + spread * noise, targets[self.target](), self.times_T.to(latents.device)[step_B]

    def weights(self, step_B: torch.Tensor, gamma: float) -> torch.Tensor:
        """(B,), min-SNR: steps with hardly any noise count less."""
        if self.target == "flow":
            raise ValueError("min-SNR weights are for epsilon and v_prediction: set objective.snr_gamma=none")
        signal_B, spread_B = self.signal_T.to(step_B.device)[step_B], self.spread_T.to(step_B.device)[step_B]
        ratio_B = (signal_B / spread_B.clamp(min=1e-8)).square()  # OURS: the first step has hardly any noise
        least_B = ratio_B.clamp(max=gamma)
        if self.target == "v_prediction":
            return least_B / (ratio_B + 1)
        # with no signal at all (a schedule that ends there) there is nothing to weigh: the limit is one
        return torch.where(ratio_B > 0, least_B / ratio_B.clamp(min=1e-20), 1.0)  # OURS: below any ratio


def mean_sizes(words_BKD: torch.Tensor) -> torch.Tensor:
    """(B,), of AudioToken's L1: the mean of all absolute numbers of a sound's words."""
    return words_BKD.abs().mean((1, 2))


def mean_squares(words_BKD: torch.Tensor) -> torch.Tensor:
    """(B,), of AudioToken's L2: the mean of the words' squared lengths."""
    return words_BKD.square().sum(-1).mean(1)


def label_cosines(words_BKD: torch.Tensor, label_BD: torch.Tensor) -> torch.Tensor:
    """(B,), how alike a sound's words are to the rows of its label."""
    return nn.functional.cosine_similarity(words_BKD, label_BD[:, None].expand_as(words_BKD), dim=-1).mean(1)


def label_penalty(cosines_G: torch.Tensor) -> torch.Tensor:
    """AudioToken's cosine penalty, of a whole batch: a square of the mean, not a mean of squares."""
    return (1 - cosines_G.mean()).square()


def averaged(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Over the text encoders."""
    return torch.stack(list(terms)).mean()


class LatentDiffusionLoss(Objective):
    """The error of the base's prediction, and what keeps words among words.

    Args:
        model: an `AudioTokenAdapter`, or what holds one and a LoRA of the base.
        base: a `DiffusionBase`; it stays outside the model, and nothing of it trains but that LoRA.
        snr_gamma (`float`, *optional*): of min-SNR weights; by default all steps count alike, as in AudioToken.
        l1, l2, label (`float`): of AudioToken's regularisers; `label` needs `label_text` in the batch.

    Inputs: `features`, (B, T, A) or (B, A), with `feature_mask`; `latents` and `noise`, (B, C, h, w); `timestep`;
    `text`, with `<audio>` in each that may speak of the sound; `label_text`, names of the sounds.
    Terms: `noise`, and `l1`, `l2`, `label` where they are asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        base: Any,
        snr_gamma: float | None = None,
        l1: float = 0.01,  # AudioToken code: lambda_a
        l2: float = 0.0,  # AudioToken code: lambda_b
        label: float = 0.0,  # AudioToken code: lambda_c is 0.01, and off unless asked for
    ):
        super().__init__(model)
        self.base, self.snr_gamma, self.l1, self.l2, self.label = base, snr_gamma, l1, l2, label
        self.noising = Noising.of(base.scheduler)
        self.prompts = base.prompts(bare(model).config.num_words)
        self.rows_of: dict[tuple[str, str], torch.Tensor] = {}
        if snr_gamma is not None:
            if not snr_gamma > 0:
                raise ValueError(f"snr_gamma is the most that a ratio counts, above 0; got {snr_gamma}")
            self.noising.weights(torch.zeros(1, dtype=torch.long), snr_gamma)

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        latents = batch["latents"]
        if self.base.device != latents.device:
            self.base.to(latents.device)
        words = model(batch["features"], batch.get("feature_mask")).words
        prompts = {name: prompt(batch["text"]) for name, prompt in self.prompts.items()}
        size = tuple(self.base.scale * side for side in latents.shape[-2:])
        told = self.base.condition(prompts, {name: found[:, None] for name, found in words.items()}, size)
        noisy, target, times_B = self.noising.mix(latents, batch["noise"], batch["timestep"])
        errors_B = (self.base.predict(noisy, times_B, told) - target).square().flatten(1).mean(1)
        if self.snr_gamma is not None:
            errors_B = errors_B * self.noising.weights(batch["timestep"], self.snr_gamma)
        shares = Shares.of(errors_B)
        terms = {"noise": shares.mean(errors_B)}
        if self.l1:
            terms["l1"] = self.l1 * averaged(shares.mean(mean_sizes(found)) for found in words.values())
        if self.l2:
            terms["l2"] = self.l2 * averaged(shares.mean(mean_squares(found)) for found in words.values())
        if self.label:
            texts = batch.get("label_text")
            if texts is None:
                raise ValueError(
                    "the label's term needs label_text, the name of each sound: use data with labels, or label=0"
                )
            cosines = [label_cosines(found, self.label_rows(name, texts).to(found)) for name, found in words.items()]
            terms["label"] = self.label * averaged(label_penalty(shares.gather(one_B[:, None])) for one_B in cosines)
        return terms

    @torch.no_grad()
    def label_rows(self, name: str, texts: list[str]) -> torch.Tensor:
        """(B, D), of each text the mean of its rows in the encoder's token table."""
        table_VD = table_of(self.base.text_encoders[name])
        for text in texts:
            if (name, text) not in self.rows_of:
                ids = self.base.tokenizers[name](text, add_special_tokens=False).input_ids
                if not ids:
                    raise ValueError(f"the label {text!r} has no token: give every sound a name, or set label=0")
                self.rows_of[name, text] = table_VD[torch.tensor(ids, device=table_VD.device)].float().mean(0).cpu()
        return torch.stack([self.rows_of[name, text] for text in texts])
