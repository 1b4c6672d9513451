"""Momentum distillation (AAI's CAVT-MAE, after ALBEF): a slow copy says how alike the pairs of a batch are.

One-hot targets call every other picture of the batch wrong, though some would do as well. The copy's own softmax over
the same columns is the softer target.

Shapes: B rows of this process, G rows of all processes, N columns, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.momentum import MomentumCopy
from unibrivl.training.objectives.base import embedding, run
from unibrivl.training.objectives.nce import TEMPERATURE, info_nce, scores
from unibrivl.training.objectives.queued import QueuedObjective
from unibrivl.training.objectives.rows import Rows

FORMS = ("kl", "mixed")


def divergence(log_targets_BN: torch.Tensor, log_shares_BN: torch.Tensor) -> torch.Tensor:
    """(B,), Kullback-Leibler divergence of the student's shares from the targets."""
    return (log_targets_BN.exp() * (log_targets_BN - log_shares_BN)).sum(1)


def mixed_cross_entropy(
    log_targets_BN: torch.Tensor, log_shares_BN: torch.Tensor, own_BN: torch.Tensor, alpha: float
) -> torch.Tensor:
    """(B,), cross-entropy against one-hot targets of which a share alpha is replaced by the copy's."""
    mixed_BN = alpha * log_targets_BN.exp() + (1 - alpha) * own_BN.to(log_shares_BN.dtype)
    return -(mixed_BN * log_shares_BN).sum(1)


def contrast(
    left_BE: torch.Tensor, right_BE: torch.Tensor, rows: Rows, temperature: float | torch.Tensor
) -> torch.Tensor:
    """InfoNCE within the batch of all processes, the mean of both directions."""
    directions = (left_BE, right_BE), (right_BE, left_BE)
    losses = [
        info_nce(queries_BE, rows.shares.gather(keys_BE), rows.positives_BG, temperature, rows.hidden_BG)
        for queries_BE, keys_BE in directions
    ]
    return rows.shares.mean(losses[0] + losses[1]) / 2


class DistillationLoss(QueuedObjective):
    """Contrast of sounds and pictures, part of it against the momentum copy's targets; with texts one contrast more.

        kl:     L = L_c(A, T) + (1 - alpha) L_c(A, V) + alpha / 2 (KL(q_a2v | p_a2v) + KL(q_v2a | p_v2a))
        mixed:  the last two terms as a cross-entropy against alpha q + (1 - alpha) y, the mean of both directions

    p and q are softmaxes of student and copy over the same columns, y is one-hot, L_c the mean of both directions. The
    two forms differ by half of alpha times the targets' entropies: their gradients are the same. Where a tower is
    frozen the copy shares it.

    Args:
        audio, image (`str`), text (`str`, *optional*): fields of the model's output; L_c(A, T) is added with text.
        alpha (`float`): share of the copy's targets.
        ramp_steps (`int`): alpha grows from 0 over this many optimizer steps; ALBEF takes those of an epoch.
        form (`str`): `"kl"`, as AAI writes it, or `"mixed"`, as ALBEF computes it.
        queue_size (`int`): past momentum embeddings among the columns; 0 for the batch alone. With a queue the
            student's columns too are the copy's embeddings, of the batch and of the queue.
        width (`int`, *optional*): numbers of an embedding; a queue needs it.
        momentum, temperature, dataset_size: see `CXLoss`.

    Inputs: what the model needs, `sample_id`, and `label`, whose rows are each other's positives in L_c(A, T).
    Terms: `audio_text`, `audio_image`, and in the form `kl` `distillation`.
    """

    def __init__(
        self,
        model: nn.Module,
        audio: str = "audio_embeds",
        image: str = "image_embeds",
        text: str | None = None,
        alpha: float = 0.4,  # ALBEF: default; the AAI paper gives none
        ramp_steps: int = 0,
        momentum: float = 0.995,  # AAI paper; ALBEF: default
        temperature: float = TEMPERATURE,
        form: str = "kl",
        queue_size: int = 0,
        width: int | None = None,
        dataset_size: int | None = None,
    ):
        if form not in FORMS:
            raise ValueError(f"form is one of {FORMS}; got {form!r}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is a share, from 0 to 1; got {alpha}")
        if queue_size and width is None:
            raise ValueError("a queue needs the width of the embeddings: pass width=model.config.embed_dim")
        queues = {"audio": width, "image": width} if queue_size and width else {}
        super().__init__(model, queues, queue_size, "empty", True, dataset_size)
        self.fields, self.text = (audio, image), text
        self.alpha, self.ramp_steps = alpha, ramp_steps
        self.momentum = MomentumCopy(model, momentum)
        self.temperature, self.form = temperature, form

    def alpha_at(self, step: int) -> float:
        return self.alpha * min(1, max(step, 0) / self.ramp_steps) if self.ramp_steps else self.alpha

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = run(model, batch)
        student = [embedding(output, field) for field in self.fields]
        slow = self.momentum_output(model, batch, output)
        teacher = [embedding(slow, field) for field in self.fields]
        rows = self.rows(student[0], batch)
        found = {}
        if self.text is not None:
            named = Rows(student[0], batch.get("sample_id"), batch.get("label"))
            found["audio_text"] = contrast(student[0], embedding(output, self.text), named, self.temperature)
        gathered = [rows.shares.gather(embeds_BE) for embeds_BE in teacher]
        found |= self.terms(student, teacher, gathered, rows)
        if self.queues and model.training:
            self.write(dict(zip(("audio", "image"), gathered, strict=True)), rows)
        return found

    def terms(
        self, student, teacher, gathered, rows: Rows, temperature: float | torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The terms of sound and picture, from student and copy, each as (sounds, pictures)."""
        alpha = self.alpha_at(self.step)
        temperature = self.temperature if temperature is None else temperature
        fixed = temperature.detach() if isinstance(temperature, torch.Tensor) else temperature  # targets are given
        contrast, distilled = [], []
        for side, other, queue in ((0, 1, "image"), (1, 0, "audio")):
            own_BN, hidden_BN, columns_NE = rows.own_BG, rows.hidden_BG, gathered[other]
            if not self.queues:
                student_NE = rows.shares.gather(student[other])
            else:
                past_NE, ids_N = self.queues[queue].read(rows.device)
                columns_NE = student_NE = torch.cat([columns_NE, past_NE.to(columns_NE.dtype)])
                hidden_BN = torch.cat([hidden_BN, rows.same(ids_N)], 1)
                own_BN = torch.cat([own_BN, torch.zeros_like(hidden_BN[:, own_BN.shape[1] :])], 1)
            log_shares_BN = scores(student[side], student_NE, temperature, hidden_BN).log_softmax(1)
            log_targets_BN = scores(teacher[side], columns_NE, fixed, hidden_BN).log_softmax(1)
            if self.form == "mixed":
                contrast.append(mixed_cross_entropy(log_targets_BN, log_shares_BN, own_BN, alpha))
            else:
                contrast.append(-(1 - alpha) * log_shares_BN[own_BN])
                distilled.append(alpha * divergence(log_targets_BN, log_shares_BN))
        found = {"audio_image": rows.shares.mean(contrast[0] + contrast[1]) / 2}
        if distilled:
            found["distillation"] = rows.shares.mean(distilled[0] + distilled[1]) / 2
        return found
