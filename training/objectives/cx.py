"""UniBriVL's objective: sounds and pictures meet in both spaces, over two queues that are projected when read.

Shapes: B rows of this process, G rows of all processes, N columns, E shared width, V image tower's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.momentum import MomentumCopy, bare
from unibrivl.training.objectives.base import embedding, run
from unibrivl.training.objectives.nce import nce, unit
from unibrivl.training.objectives.queued import QueuedObjective


class CXLoss(QueuedObjective):
    """a is the sound's embedding, v the picture's; f and g lead v and a into the other's space.

        L = NCE(f(v) ; k_a, Q_lang) + NCE(a ; f_m(k_v), f_m(Q_img)) + NCE(g(a) ; k_v, Q_img)
          + NCE(v ; g_m(k_a), g_m(Q_lang))                              only where the image tower trains

    Queues hold what the towers gave, unprojected: k_a, and k_v in the image tower's own space. f_m and g_m project
    them when they are read, so that no column is of an older projection. With the image tower frozen (by the
    configuration) the last term has nothing to train and k_v is v itself. The first step, with empty queues, has
    loss 0.

    Args:
        model: a `UniBriVLModel`, or its PEFT model.
        momentum (`float`): share of its past that the copy of the language tower, f and, where the image tower
            trains, of that and g, keeps at each step.
        temperature (`float`, *optional*): the model's own by default.
        queue_size, queue_init, in_batch_negatives, dataset_size: see `QueuedObjective`.

    Inputs: sounds, `pixel_values` or `image_embeds`, and `sample_id`.
    Terms: `image_to_audio`, `audio_to_image`, `audio_to_native_image`, `native_image_to_audio`.
    """

    def __init__(
        self,
        model: nn.Module,
        queue_size: int = 9600,
        momentum: float = 0.99,  # BriVL code; UniBriVL paper 3.4
        temperature: float | None = None,
        queue_init: str = "empty",
        in_batch_negatives: bool = False,
        dataset_size: int | None = None,
    ):
        config = bare(model).config
        queues = {"image": config.native_dim, "audio": config.embed_dim}
        super().__init__(model, queues, queue_size, queue_init, in_batch_negatives, dataset_size)
        parts = ["audio_model", "image_to_shared"]
        if not self.image_is_frozen:
            parts += ["vision_model", "audio_to_native"]
        self.momentum = MomentumCopy(model, momentum, tuple(parts))
        self.temperature = config.temperature if temperature is None else temperature

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if not self.image_is_frozen and batch.get("image_embeds") is not None:
            raise ValueError("the image tower trains and cached image_embeds do not: pass pixel_values, or freeze it")
        return self.terms(model, batch, run(model, batch))

    def terms(self, model: nn.Module, batch: Mapping[str, Any], output: Any) -> dict[str, torch.Tensor]:
        """The terms, of a batch for which the model gave `output` already."""
        a_BE, v_BV = embedding(output, "audio_embeds"), embedding(output, "native_image_embeds")
        slow = self.momentum_output(model, batch, output)
        slow_a_BE, slow_v_BV = embedding(slow, "audio_embeds"), embedding(slow, "native_image_embeds")
        rows = self.rows(a_BE, batch)
        keys = {"image": rows.shares.gather(slow_v_BV), "audio": rows.shares.gather(slow_a_BE)}
        images_NV, hidden_images_BN = self.columns("image", keys["image"], rows)
        sounds_NE, hidden_sounds_BN = self.columns("audio", keys["audio"], rows)

        def term(queries, keys, negatives, hidden):
            return rows.shares.mean(nce(queries, keys, negatives, self.temperature, hidden))

        assert self.momentum is not None
        f_m, g_m = self.momentum.model.project_image, self.momentum.model.project_audio
        f_v_BE, g_a_BV = embedding(output, "image_embeds"), embedding(output, "native_audio_embeds")
        with torch.no_grad():
            images_NE = unit(f_m(images_NV))
        slow_f_v_BE = embedding(slow, "image_embeds")
        found = {
            "image_to_audio": term(f_v_BE, slow_a_BE, sounds_NE, hidden_sounds_BN),
            "audio_to_image": term(a_BE, slow_f_v_BE, images_NE, hidden_images_BN),
            "audio_to_native_image": term(g_a_BV, slow_v_BV, images_NV, hidden_images_BN),
        }
        if not self.image_is_frozen:
            with torch.no_grad():
                sounds_NV = unit(g_m(sounds_NE))
            slow_g_a_BV = embedding(slow, "native_audio_embeds")
            found["native_image_to_audio"] = term(v_BV, slow_g_a_BV, sounds_NV, hidden_sounds_BN)
        if model.training:
            self.write(keys, rows)
        return found
