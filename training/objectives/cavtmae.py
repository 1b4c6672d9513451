"""AAI's objective for CAVT-MAE: sounds meet the texts of their labels and their own pictures.

Shapes: B rows of this process, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import embedding, run
from unibrivl.training.objectives.distillation import DistillationLoss, contrast
from unibrivl.training.objectives.nce import TEMPERATURE
from unibrivl.training.objectives.rows import Rows

TARGETS = ("multi_positive", "one_hot")
FORMS = {"kl": "kl", "ce": "mixed"}  # AAI's names, and those of `DistillationLoss`
OF_TEXTS = ("input_ids", "text_attention_mask", "text_embeds", "label_ids")


class CAVTMAELoss(DistillationLoss):
    """L = L_c(A, T) + (1 - alpha) L_c(A, V) + (alpha / 2) L_t(A, V)

    L_c is contrast, the mean of both directions; L_t the divergence from a momentum copy's targets, the sum of both.
    The copy averages what trains and shares the rest; a frozen image side is not run for it again.

    Args:
        model: a `CAVTMAEModel`; any other with `audio_embeds`, `image_embeds` and `text_embeds` will do.
        momentum (`float`, *optional*): share of its past that the copy keeps at each step. None is AAI's ablation,
            without the copy: L_c(A, T) + L_c(A, V).
        alpha (`float`, *optional*): share of the copy's targets; the model's own by default.
        ramp_steps (`int`): alpha grows from 0 over this many optimizer steps; ALBEF takes those of an epoch.
        temperature (`float`, *optional*): the model's by default, which is learned.
        distill_form (`str`, *optional*): `"kl"` or `"ce"`; the model's own by default. See `CAVTMAEConfig`.
        targets (`str`, *optional*): of L_c(A, T): `"multi_positive"` or `"one_hot"`; the model's own by default.
        queue_size, width, dataset_size: see `DistillationLoss`. Queues hold the copy's embeddings.

    Inputs: sounds; `pixel_values` or `image_embeds`; texts as `input_ids` or `text_embeds`; `label`, and `sample_id`:
        rows of one sample do not repel each other's pictures.
    Terms: `audio_text`, `audio_image`, and in the form `kl` `distillation`; their sum is L, in the form `ce` up to the
        entropy of the copy's targets.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float | None = 0.995,  # AAI paper; ALBEF: default
        alpha: float | None = None,
        ramp_steps: int = 0,
        temperature: float | None = None,
        distill_form: str | None = None,
        targets: str | None = None,
        queue_size: int = 0,
        width: int | None = None,
        dataset_size: int | None = None,
    ):
        own = getattr(bare(model), "config", None)
        distill_form = getattr(own, "distill_form", "kl") if distill_form is None else distill_form
        targets = getattr(own, "targets", TARGETS[0]) if targets is None else targets
        if distill_form not in FORMS or targets not in TARGETS:
            raise ValueError(
                f"distill_form is one of {', '.join(FORMS)} and targets one of {', '.join(TARGETS)}; got "
                f"{distill_form!r} and {targets!r}"
            )
        if momentum is None and queue_size:
            raise ValueError("a queue holds the momentum copy's embeddings: set queue_size=0, or a momentum")
        super().__init__(
            model,
            text="text_embeds",
            alpha=getattr(own, "alpha", 0.4) if alpha is None else alpha,  # ALBEF: default; AAI gives none
            ramp_steps=ramp_steps,
            momentum=1.0 if momentum is None else momentum,
            temperature=TEMPERATURE if temperature is None else temperature,
            form=FORMS[distill_form],
            queue_size=queue_size,
            width=width,
            dataset_size=dataset_size,
        )
        if momentum is None:
            self.momentum = None
        self.is_learned = temperature is None
        self.targets = targets

    @property
    def image_is_frozen(self) -> bool:
        """Joint layers that both sides share move pictures, whatever else is frozen."""
        return super().image_is_frozen and not getattr(self.config, "tie_unified_block", False)

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if not self.image_is_frozen and batch.get("image_embeds") is not None:
            raise ValueError("the image side trains and cached image_embeds do not: pass pixel_values, or freeze it")
        output = run(model, batch)
        temperature = getattr(output, "temperature", None) if self.is_learned else None
        temperature = self.temperature if temperature is None else temperature
        sounds_BE, pictures_BE = student = [embedding(output, field) for field in self.fields]
        texts_BE = embedding(output, "text_embeds")
        label_B = batch.get("label") if self.targets == "multi_positive" else None
        named = Rows(sounds_BE, batch.get("sample_id") if label_B is not None else None, label_B)
        found = {"audio_text": contrast(sounds_BE, texts_BE, named, temperature)}
        rows = self.rows(sounds_BE, batch)
        if self.momentum is None:
            return {**found, "audio_image": contrast(sounds_BE, pictures_BE, rows, temperature)}
        slow = self.momentum_output(model, without_texts(batch), output)
        teacher = [embedding(slow, field) for field in self.fields]
        gathered = [rows.shares.gather(embeds_BE) for embeds_BE in teacher]
        found |= self.terms(student, teacher, gathered, rows, temperature)
        if self.queues and model.training:
            self.write(dict(zip(("audio", "image"), gathered, strict=True)), rows)
        return found


def without_texts(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The copy is asked for sounds and pictures alone."""
    return {name: value for name, value in batch.items() if name not in OF_TEXTS}
