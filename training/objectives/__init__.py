"""What a run minimises, one file each: from a model and a batch to named terms whose sum is the loss.

| the data | the objective |
| --- | --- |
| sounds with their pictures | `cx`: UniBriVL's, over two queues, for any batch size; `in_batch`: large batches |
| pictures with texts | `moco`: BriVL's two queues; `in_batch` with its pairs |
| sounds, pictures and labels, many of them alike | `distillation`: AAI's softer targets |
| spoken captions, transcripts and pictures | `brewclip`: the fused vector and both channels |
| the same, and CAVT-MAE, whose temperature is learned | `cavtmae`: AAI's own |
| sounds with their pictures, to begin with | `cavmae`: CAV-MAE's pre-training |
| sounds with units, units with letters | `speechlm`: SpeechLM's own pre-training |
| sounds with pictures, and a frozen Stable Diffusion | `latent_diffusion`: sounds become words of its prompts |
| sounds with sentences | `captioning`: a language model goes on from what was heard |
| sounds or pictures with classes | `supervised`: what the others are compared with |
"""

from __future__ import annotations

from unibrivl.training.objectives.base import Objective
from unibrivl.training.objectives.brewclip import BrewCLIPLoss
from unibrivl.training.objectives.captioning import CaptioningLoss
from unibrivl.training.objectives.cavmae import CAVMAELoss
from unibrivl.training.objectives.cavtmae import CAVTMAELoss
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.objectives.distillation import DistillationLoss
from unibrivl.training.objectives.in_batch import InBatchLoss
from unibrivl.training.objectives.latent_diffusion import LatentDiffusionLoss
from unibrivl.training.objectives.moco import MoCoLoss
from unibrivl.training.objectives.speechlm import SpeechLMLoss
from unibrivl.training.objectives.supervised import SupervisedLoss

OBJECTIVES: dict[str, type[Objective]] = {
    "brewclip": BrewCLIPLoss,
    "captioning": CaptioningLoss,
    "cavmae": CAVMAELoss,
    "cavtmae": CAVTMAELoss,
    "cx": CXLoss,
    "distillation": DistillationLoss,
    "in_batch": InBatchLoss,
    "latent_diffusion": LatentDiffusionLoss,
    "moco": MoCoLoss,
    "speechlm": SpeechLMLoss,
    "supervised": SupervisedLoss,
}

__all__ = [
    "OBJECTIVES",
    "BrewCLIPLoss",
    "CAVMAELoss",
    "CAVTMAELoss",
    "CXLoss",
    "CaptioningLoss",
    "DistillationLoss",
    "InBatchLoss",
    "LatentDiffusionLoss",
    "MoCoLoss",
    "Objective",
    "SpeechLMLoss",
    "SupervisedLoss",
]
