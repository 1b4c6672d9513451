"""A run of seconds for the tests of the loop: real towers at toy size, dropout and batch norm included.

`python tests/tiny_run.py OUTPUT [--resume] [key=value ...]` trains it in a process of its own, which tests may kill.
`python tests/tiny_run.py --serve` does so again and again without importing everything each time: see `serve`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tiny_towers import AUDIO, PATCHES, unibrivl_config
from torch.nn.functional import cross_entropy

from unibrivl.modeling import UniBriVLModel
from unibrivl.training.adapters import adapt
from unibrivl.training.config import RunConfig, override
from unibrivl.training.parts import Parts

EXAMPLES = 22  # no multiple of a batch: something is left out of every epoch


@dataclass(frozen=True)
class TinyModel:
    dropout: float = 0.1
    freeze_images: bool = True
    batch_norm: bool = True  # its statistics are each process's own


@dataclass(frozen=True)
class TinyData:
    examples: int = EXAMPLES
    noise: float = 0.1
    kinds: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class TinyObjective:
    temperature: float = 0.1
    gathered: bool = False  # contrast with the rows of all processes
    stop: int | None = None  # the forward pass at which the process falls over


def config(output_dir: str = "tiny", **changes) -> RunConfig:
    fields = {
        "steps": 12,
        "batch_size": 4,
        "accumulation": 2,
        "learning_rate": 1e-3,
        "warmup": 3,
        "ema": 0.9,
        "evaluate_every": 4,
        "save_every": 3,
        "log_every": 2,
        "primary": "score",
    }
    parts = {"model": TinyModel(), "data": TinyData(), "objective": TinyObjective()}
    return RunConfig(recipe="tiny", output_dir=output_dir, **{**parts, **fields, **changes})


@dataclass
class Pairs:
    """Pictures and sounds that belong together, each with noise of its epoch's own."""

    seed: int
    data: TinyData = field(default_factory=TinyData)

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)
        self.mels = torch.rand(self.data.examples, 32, 32, generator=generator)
        self.pixels = torch.randn(self.data.examples, 3, 32, 32, generator=generator)

    def __len__(self) -> int:
        return self.data.examples

    def __getitem__(self, draw):
        noise = self.data.noise * torch.randn(32, 32, generator=draw.generator())
        return {"input_features": self.mels[draw.index] + noise, "pixel_values": self.pixels[draw.index]}


def collate(examples):
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def all_gather(rows):
    if not torch.distributed.is_initialized():
        return [rows]
    from torch.distributed.nn.functional import all_gather as gather

    return gather(rows.contiguous())


class TwoWays:
    """InfoNCE both ways, with a memory that has to survive a kill: how often it was asked, and the last vectors."""

    def __init__(self, temperature: float, gathered: bool = False, stop: int | None = None):
        self.temperature, self.gathered, self.stop = temperature, gathered, stop
        self.calls, self.steps, self.last = 0, [], torch.zeros(4, 24)

    def __call__(self, model, batch):
        if self.calls == self.stop:
            raise RuntimeError("stopped here")
        output = model(**batch)
        sounds, pictures = output.audio_embeds, output.image_embeds
        if self.gathered:  # gradients reach every process's rows
            sounds, pictures = (torch.cat(list(all_gather(rows))) for rows in (sounds, pictures))
        scores = sounds @ pictures.t() / self.temperature
        targets = torch.arange(len(scores), device=scores.device)
        self.calls += 1
        pull = (sounds.float() * self.last.to(scores.device)[: len(scores)]).mean()
        self.last = pictures.detach().float()
        return {
            "sound_to_picture": cross_entropy(scores, targets),
            "picture_to_sound": cross_entropy(scores.t(), targets),
            "memory": 0.01 * pull,
        }

    def before_step(self, model, step):
        self.steps = [*self.steps[-2:], step]

    def state_dict(self):
        return {"calls": self.calls, "steps": self.steps, "last": self.last}

    def load_state_dict(self, state):
        self.calls, self.steps, self.last = state["calls"], state["steps"], state["last"]


def build(config: RunConfig) -> Parts:
    audio = dict(AUDIO["mel_encoder"])
    if not config.model.batch_norm:
        audio["backbone_config"] = {"model_type": "vit", **PATCHES, "num_channels": 1}
    towers = unibrivl_config(
        "mel_encoder",
        "clip",
        audio_config=audio,
        num_sa_layers=1,
        sa_dropout=config.model.dropout,
        freeze_vision_model=config.model.freeze_images,
    )
    held_out = Pairs(config.seed + 1, TinyData(8))

    def evaluate(model):
        output = model(input_features=held_out.mels, pixel_values=held_out.pixels)
        return {"score": float(output.logits_audio_image.diagonal().mean()), "width": 24.0}

    data = Pairs(config.seed, config.data)
    model = adapt(UniBriVLModel(towers), config.adapter)
    return Parts(model, TwoWays(**vars(config.objective)), data, collate, evaluate)


def main(arguments: list[str]) -> None:
    from unibrivl.training.loop import train

    torch.set_num_threads(1)
    if "PIDS" in os.environ:  # so that all processes of a launch can be killed
        Path(os.environ["PIDS"], str(os.getpid())).touch()
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        shard_on_cpu()
    resume = "--resume" in arguments
    settings = [word for word in arguments[1:] if "=" in word]
    train(override(config(arguments[0]), settings), build, resume, begun=tell)


def shard_on_cpu() -> None:
    """Accelerate passes FSDP over on a CPU and does DDP instead, so here the processes are taken for those of GPUs."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def tell(run) -> None:
    """How finely FSDP has cut the model, for whoever reads the output."""
    if run.accelerator.is_fsdp2:
        cut = sum(type(module).__name__.startswith("FSDP") for module in run.together.modules())
        print(f"{cut} modules are sharded by themselves", flush=True)


def serve() -> None:
    """For each line, a JSON list of arguments, a new process is forked and trains: its id is printed, then its exit
    code. This process itself computes nothing, so a fork of it begins as a fresh process does."""
    import accelerate.utils  # noqa: F401  (what a run imports on its way)
    import PIL.ImageDraw  # noqa: F401

    import unibrivl.training.loop  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                main(json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main(sys.argv[1:])
