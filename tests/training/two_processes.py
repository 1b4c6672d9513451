"""One process of two, started by test_objectives_distributed.py: trains its share of each batch, writes what it has.

`python two_processes.py RANK FOLDER`. `train` is what the test runs on the whole batches.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny_brewclip
from tiny_objectives import batch_of, part_of, still_model, total
from tiny_towers import AUDIO, sounds, unibrivl_config
from transformers import set_seed

from unibrivl.modeling import SpeechLMConfig, SpeechLMForPreTraining, UniBriVLForAudioClassification
from unibrivl.training.gather import num_processes, sum_over_processes
from unibrivl.training.objectives import OBJECTIVES

# what is trained -> objective, settings, rows of process 0 in each step of 6 rows, cached pictures, and what shares
# the gradients out: DDP around the model, DDP around model and objective, as the training loop has it, or FSDP
CASES: dict[str, tuple[str, dict, tuple[int, ...], bool, str]] = {
    "cx": ("cx", {"queue_size": 15}, (3, 3, 3), True, "model"),
    "cx, pictures train, uneven": ("cx", {"queue_size": 15}, (4, 1, 5), False, "both"),
    "cx, batch": ("cx", {"queue_size": 4, "in_batch_negatives": True}, (2, 3, 4), True, "both"),
    "in batch, labels": ("in_batch", {}, (3, 3, 3), True, "model"),
    "in batch, uneven": ("in_batch", {}, (5, 2, 3), False, "both"),
    "cx, sharded": ("cx", {"queue_size": 15}, (3, 3, 3), True, "sharded"),
    "brewclip": ("brewclip", {"weights": "robust"}, (4, 2, 3), True, "both"),
    "moco": ("moco", {"width": 24, "right": "audio_embeds", "queue_size": 15}, (3, 2, 3), True, "both"),
    "distillation": ("distillation", {}, (3, 5, 2), True, "both"),
    "distillation, queue": ("distillation", {"queue_size": 9, "width": 24, "form": "mixed"}, (3, 3, 3), True, "both"),
    "speechlm": ("speechlm", {}, (2, 5, 3), True, "model"),
    "supervised, labels": ("supervised", {"label_smoothing": 0.1}, (4, 1, 3), True, "both"),
}

if importlib.util.find_spec("diffusers") is not None:
    settings = {"snr_gamma": 5.0, "l2": 0.1, "label": 0.5}
    CASES["latent diffusion"] = ("latent_diffusion", settings, (4, 1, 3), False, "both")


class Together(nn.Module):
    """Model and objective as one forward pass."""

    def __init__(self, model, objective):
        super().__init__()
        self.model = model
        object.__setattr__(self, "objective", objective)

    def forward(self, batch):
        return self.objective(self.model, batch)


def speechlm():
    set_seed(0)
    quiet = {"layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0}
    config = SpeechLMConfig(
        **{**AUDIO["speechlm"], **quiet, "feature_penalty_weight": 0.0, "swap_prob": 0.0, "label_rate": 50}
    )
    return SpeechLMForPreTraining(config).double().train()


def classifier():
    set_seed(0)
    fields = unibrivl_config("ast", "clip", sa_dropout=0.0, classifier_dropout=0.0, num_labels=3)
    return UniBriVLForAudioClassification(fields).double().train()


def brewclip():
    set_seed(0)
    return tiny_brewclip.build(dropout=0.0).double().train()


def brewclip_batch(step: int) -> dict[str, torch.Tensor]:
    """Transcripts, kept states and kept pictures; some captions are of one picture."""
    draw = torch.Generator().manual_seed(step)
    states, mask = torch.randn(6, 9, 32, generator=draw).double(), torch.ones(6, 9, dtype=torch.long)
    mask[1, 5:] = 0
    return {
        "audio_states": states,
        "frame_mask": mask,
        "input_ids": tiny_brewclip.processor()(text=tiny_brewclip.transcripts(3, 1, 4, 2, 5, 2))["input_ids"],
        "image_embeds": torch.randn(6, 24, generator=draw).double(),
        "sample_id": torch.tensor([0, 1, 0, 2, 3, 1]),
    }


def speechlm_batch(step: int) -> dict[str, torch.Tensor]:
    """Sounds of one length, with given masks: more frames of some rows than of others."""
    draw = torch.Generator().manual_seed(step)
    return {
        "input_values": torch.randn(6, 4000, generator=draw).double(),
        "unit_labels": torch.randint(4, 300, (6, 12), generator=draw),
        "mask_time_indices": torch.rand(6, 12, generator=draw) < torch.linspace(0.2, 0.8, 6)[:, None],
    }


MODELS = {"speechlm": speechlm, "supervised": classifier, "brewclip": brewclip}


def diffusion_base():
    import tiny_words

    base = tiny_words.base()
    for part in base.parts:
        part.double()
    return base


def is_float(value) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """What FSDP has in parts."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(case: str) -> dict[str, torch.Tensor]:
    """Three steps on the batches, or on this process's share of them: losses, gradients of the last step, weights and
    the objective's state."""
    name, settings, shares, cached, wrapped = CASES[case]
    base = diffusion_base() if name == "latent_diffusion" else None
    if base is not None:
        import tiny_words

        model = tiny_words.adapter(base, num_words=2).double().train()
        settings = {"base": base, **settings}
    elif name in MODELS:
        model = MODELS[name]()
    else:
        model = still_model(dtype=torch.float64, freeze_vision_model=cached)
    objective = OBJECTIVES[name](model, **settings)
    if num_processes() == 1:
        step_of = lambda batch: objective(model, batch)  # noqa: E731
    elif wrapped == "sharded":
        mesh = init_device_mesh("cpu", (2,))
        for part in (model.audio_model, model.vision_model, model):
            fully_shard(part, mesh=mesh)
        step_of = lambda batch: objective(model, batch)  # noqa: E731
    elif wrapped == "model":
        parallel = DistributedDataParallel(model, find_unused_parameters=True)
        step_of = lambda batch: objective(parallel, batch)  # noqa: E731
    else:
        step_of = DistributedDataParallel(Together(model, objective), find_unused_parameters=True)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    found = {}
    for step, share in enumerate(shares):
        if name == "speechlm":
            batch = speechlm_batch(step)
        elif name == "brewclip":
            batch = brewclip_batch(step)
        elif base is not None:
            batch = tiny_words.batch_of(base, 6, step)
            batch = {key: one.double() if is_float(one) else one for key, one in batch.items()}
        elif name == "supervised":
            batch = {"input_values": sounds("ast", 6, step)["input_values"].double()}
        else:
            batch = batch_of(model, 6, seed=step, cached=cached, first_id=4 * step)
        if "labels" in case:
            batch["label"] = torch.tensor([0, 1, 0, 2, 1, 0])
        if num_processes() > 1:
            batch = part_of(batch, slice(0, share) if distributed.get_rank() == 0 else slice(share, 6))
        objective.before_step(model, step)
        optimizer.zero_grad()
        loss = total(step_of(batch))
        loss.backward()
        optimizer.step()
        found[f"loss.{step}"] = sum_over_processes(loss) / num_processes()
    for name, weight in model.named_parameters():
        found[f"weight.{name}"] = whole(weight.detach())
        if weight.grad is not None:
            found[f"grad.{name}"] = whole(weight.grad)
    return found | {f"state.{name}": value for name, value in objective.state_dict().items()}


def main(rank: int, folder: Path) -> None:
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    for number, case in enumerate(CASES):
        found = {name: value.clone().contiguous() for name, value in train(case).items()}
        save_file(found, folder / f"{number}-{rank}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
