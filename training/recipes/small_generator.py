"""The recipe `small_generator`: the embedded model's UNet draws what a text says, in latents of 8 x 8.

    unibrivl train --recipe small_generator --set data.folder=PACKS

diffusers' `UNet2DConditionModel` at small size, with v-prediction, on latents that were computed once: a few moved and
mirrored views of every picture. Texts are those of the pictures' kinds and classes, read by the frozen text encoder;
one in ten is left out, for classifier-free guidance. Each evaluation draws a sheet of samples beside the run.

Shapes: B batch, N pictures, W views of each, C latent channels, h and w sides of a latent, T tokens, D text width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from unibrivl.hub.fingerprint import fingerprint
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.gather import Shares
from unibrivl.training.objectives.base import Objective
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.photos import drawn
from unibrivl.training.recipes.small_pictures import counted, licences_of, moved
from unibrivl.training.recipes.small_words import read
from unibrivl.training.recipes.small_world import (
    CORE,
    KINDS,
    Item,
    SmallWorld,
    SmallWorldData,
    balanced,
    pixels_of,
    prompt_of,
    texts_of,
)
from unibrivl.training.sampler import Draw

AT_ONCE = 128  # pictures that are encoded or decoded at once
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "steps_offset": 1,
}
GUIDANCE = 3.0  # OURS: the judge named as many pictures right from 2 to 5, and photographs fewer at 7.5
STEPS = 20


@dataclass(frozen=True)
class SmallGeneratorModel:
    """
    Args:
        channels: of the UNet at 8 x 8 and 4 x 4.
        layers (`int`): residual blocks at each.
        time (`int`): width of what the blocks are told about the timestep.
        latents, words: folders of the autoencoder and of the text encoder.
        start: folder of a UNet to begin at, such as another variant's; from nothing if empty.
    """

    channels: tuple[int, ...] = (128, 224)
    layers: int = 1
    time: int = 384  # three times the first width, for diffusers' four: the folder has to be below 48 MB
    heads: int = 4
    latents: str = "runs/small_latents/model"
    words: str = "runs/small_words/model"
    start: str = ""


@dataclass(frozen=True)
class SmallGeneratorData(SmallWorldData):
    """
    Args:
        photos, drawings, digits (`float`): how often a picture of each kind is drawn, relative to one another.
        core (`float`): how much oftener photographs of ESC-10's classes are drawn than others.
        balance (`float`): within a kind a label with n pictures is drawn in proportion to n to the power of
            1 - balance.
        views (`int`): of each photograph and drawing; of a digit a quarter as many, at least one.
        zoom, turn, shift (`float`): how much views may be scaled, turned (degrees) and moved (pixels).
    """

    photos: float = 0.65  # OURS: they are the hardest
    drawings: float = 0.2  # OURS: few, and soon known by heart
    digits: float = 0.15  # OURS: the easiest
    core: float = 2.0  # OURS: their sounds are heard
    balance: float = 0.5  # OURS: 24 roosters beside 160 airplanes
    views: int = 8
    zoom: float = 0.08  # OURS: pictures should stay whole
    turn: float = 3.0  # OURS: horizons stay level
    shift: float = 3.0  # OURS: a twentieth of the picture


@dataclass(frozen=True)
class SmallGeneratorObjective:
    """
    Args:
        gamma (`float`): of min-SNR weights.
        unread (`float`): share of the texts that are left out.
    """

    gamma: float = 5.0  # min-SNR paper: its value
    unread: float = 0.1  # classifier-free guidance paper: its best value


def config() -> RunConfig:
    return RunConfig(
        recipe="small_generator",
        output_dir="runs/small_generator",
        model=SmallGeneratorModel(),
        data=SmallGeneratorData(),
        objective=SmallGeneratorObjective(),
        steps=8000,
        batch_size=64,
        precision="bf16",
        learning_rate=6e-4,  # OURS: a small network; the only one tried
        betas=(0.9, 0.99),  # OURS: a shorter memory for a changing scale
        weight_decay=0.0,  # latent diffusion code: none worth mentioning
        warmup=300,
        ema=0.999,
        evaluate_every=2000,
        save_every=500,
        log_every=50,
    )


def build(config: RunConfig) -> Parts:
    size, data = config.model, config.data
    for folder, recipe in ((size.latents, "small_latents"), (size.words, "small_words")):
        if not Path(folder).is_dir():
            raise ConfigError(f"there is nothing in {folder}: unibrivl train --recipe {recipe} makes it")
    world = SmallWorld(data)
    vae = AutoencoderTiny.from_pretrained(size.latents).eval()
    words = Words(size.words)
    learned = Latents.of(world.pictures("world"), vae, data, Path(config.output_dir))
    held = Latents.of(world.pictures("test", ("photo",)), vae, None)
    model = UNet2DConditionModel(
        sample_size=learned.latents_NWChw.shape[-1],
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        time_embedding_dim=size.time,
        down_block_types=["CrossAttnDownBlock2D"] * len(size.channels),
        up_block_types=["CrossAttnUpBlock2D"] * len(size.channels),
        cross_attention_dim=words.width,
        attention_head_dim=size.heads,  # by its old name: it is how many there are
    ).to(memory_format=torch.channels_last)
    if size.start:
        begin_at(model, size.start)
    if not torch.accelerator.is_available():
        # on a CPU torch's fused attention takes a third of such a step in bfloat16
        model.set_attn_processor(AttnProcessor())
    objective = VelocityLoss(model, config.objective)

    def collate(examples: list[dict]) -> Batch:
        chance = torch.Generator().manual_seed(examples[0]["seed"])
        texts = [one["text"] for one in examples]
        unread_B = torch.rand(len(texts), generator=chance) < config.objective.unread
        latents = torch.stack([one["latent"] for one in examples])
        return {
            "latents": latents.contiguous(memory_format=torch.channels_last),
            "noise": torch.randn(latents.shape, generator=chance),
            "timestep": torch.randint(0, 1000, (len(texts),), generator=chance),
            "text": words(["" if left_out else text for text, left_out in zip(texts, unread_B, strict=True)]),
        }

    def evaluate(model: Any) -> dict[str, float]:
        draw_sheet(model, vae, words, world.named, Path(config.output_dir) / "samples.png")
        return {"held_out_loss": held_out_loss(model, objective, held, words)}

    about = About(
        task="text-to-image",
        dataset=f"{len(held.items)} photographs that were held out, {world.variant}",
        towers={"text": {"model": size.words}, "backbone": {"model": size.latents}},
        data=[{"name": f"{kind}s", "found": count, "expected": count} for kind, count in counted(learned.items)],
        licences=licences_of(learned.items),
    )
    return Parts(model, objective, learned, collate, evaluate, DDIMScheduler(**SCHEDULER), about)


def begin_at(model: UNet2DConditionModel, folder: str) -> None:
    """The weights of a UNet of the same shape, in the place of random ones."""
    weights = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).state_dict()
    own = model.state_dict()
    unlike = sorted(name for name in {*own, *weights} if shape(own, name) != shape(weights, name))
    if unlike:
        raise ConfigError(
            f"the UNet in {folder} is of another shape ({unlike[0]}, ...): give channels, layers and time as it has "
            "them, or leave model.start out"
        )
    model.load_state_dict(weights)


def shape(weights: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


class Words:
    """Texts as the frozen text encoder reads them, each read once.

    Args:
        folder: of the text encoder and its tokenizer.
    """

    def __init__(self, folder: str):
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.encoder = CLIPTextModel.from_pretrained(folder).eval()
        self.width = self.encoder.config.hidden_size
        self.known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, T, D)."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            states = self.encoder(**read(self.tokenizer, new)).last_hidden_state
            self.known |= dict(zip(new, states, strict=True))
        return torch.stack([self.known[text] for text in texts])


@dataclass
class Latents:
    """Latents of pictures in some views; an example is drawn by kind and label.

    Args:
        latents_NWChw: about of unit deviation; digits repeat their fewer views.
    """

    items: list[Item]
    latents_NWChw: torch.Tensor
    chances_N: np.ndarray

    @classmethod
    def of(
        cls, items: list[Item], vae: Any, settings: SmallGeneratorData | None, folder: Path | None = None
    ) -> Latents:
        """
        Args:
            settings (*optional*): how views differ; without any each picture has one, as it is.
            folder (*optional*): where latents are kept for a run that goes on, under the fingerprint of all that
                decides them.
        """
        chances = np.full(len(items), 1 / max(1, len(items)))
        if settings is not None:
            weights = {"photo": settings.photos, "drawing": settings.drawings, "digit": settings.digits}
            chances = balanced(items, weights, settings.balance)
            chances *= [settings.core if one.kind == "photo" and one.label in CORE else 1.0 for one in items]
            chances /= chances.sum()
        if folder is None or settings is None:
            return cls(items, encoded(items, vae, settings), chances)
        views = {name: getattr(settings, name) for name in ("views", "zoom", "turn", "shift")}
        named = fingerprint(vae, {}, {"items": [one.id for one in items], **views})
        path = folder / f"latents_{named[:16]}.safetensors"
        if not path.is_file():
            partial = folder / f"{path.name}.{os.getpid()}"  # every process writes its own, and all are the same
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"latents": encoded(items, vae, settings)}, partial)
            partial.replace(path)
        return cls(items, load_file(path)["latents"], chances)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        row, chance = drawn(self.chances_N, draw.seed), np.random.default_rng([draw.seed, 1])
        view = int(chance.integers(self.latents_NWChw.shape[1]))
        texts = texts_of(self.items[row].kind, self.items[row].label)
        text = texts[0] if chance.random() < 0.5 else texts[int(chance.integers(len(texts)))]
        return {"latent": self.latents_NWChw[row, view], "text": text, "seed": draw.seed}


def encoded(items: Sequence[Item], vae: Any, settings: SmallGeneratorData | None) -> torch.Tensor:
    """(N, W, C, h, w), latents of views of pictures, about of unit deviation; the first is the picture as it is."""
    pixels_N3HW = torch.from_numpy(pixels_of(items))
    may_mirror_N = torch.tensor([one.kind != "digit" for one in items])
    views = 1 if settings is None else settings.views
    distinct = {"digit": max(1, views // 4)}
    chance = torch.Generator().manual_seed(0)
    shape = (len(items), views, vae.config.latent_channels, *[pixels_N3HW.shape[-1] // 8] * 2)
    latents = torch.zeros(shape)
    pairs = [(row, view) for view in range(views) for row in range(len(items))
             if view < distinct.get(items[row].kind, views)]  # fmt: skip
    starts = range(0, len(pairs), AT_ONCE)
    for start in tqdm(starts, desc="latents", disable=None):
        some = pairs[start : start + AT_ONCE]
        rows = torch.tensor([row for row, _ in some])
        pixels = pixels_N3HW[rows].float() / 255
        if settings is not None:
            plain = torch.tensor([view == 0 for _, view in some])[:, None, None, None]
            pixels = torch.where(plain, pixels, moved(pixels, may_mirror_N[rows], chance, settings))
        # bfloat16 is several times as fast on CPUs that have it, and its rounding far below the noise of training
        with torch.no_grad(), torch.autocast(vae.device.type, torch.bfloat16):
            latents[rows, [view for _, view in some]] = vae.encode(2 * pixels - 1).latents.float()
    for row, one in enumerate(items):
        count = distinct.get(one.kind, views)
        for view in range(count, views):
            latents[row, view] = latents[row, view % count]
    return vae.config.scaling_factor * latents


class VelocityLoss(Objective):
    """What a UNet takes for the velocity between latents and noise against what it is, with min-SNR weights.

    Inputs: `latents` and `noise`, (B, C, h, w); `timestep`, (B,); `text`, (B, T, D).
    Terms: `velocity`.
    """

    def __init__(self, model: nn.Module, settings: SmallGeneratorObjective):
        super().__init__(model)
        self.settings = settings
        self.alphas = DDIMScheduler(**SCHEDULER).alphas_cumprod

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        latents, noise = batch["latents"], batch["noise"]
        alpha_B = self.alphas.to(latents.device)[batch["timestep"]]
        signal, spread = (one.sqrt()[:, None, None, None] for one in (alpha_B, 1 - alpha_B))
        noisy = (signal * latents + spread * noise).contiguous(memory_format=torch.channels_last)
        found = model(noisy, batch["timestep"], batch["text"]).sample.float()
        errors_B = (found - (signal * noise - spread * latents)).square().mean((1, 2, 3))
        ratio_B = alpha_B / (1 - alpha_B).clamp(min=1e-8)  # OURS: the first step has hardly any noise
        weights_B = ratio_B.clamp(max=self.settings.gamma) / (ratio_B + 1)
        return {"velocity": Shares.of(found).mean(errors_B * weights_B)}


def held_out_loss(model: Any, objective: VelocityLoss, held: Latents, words: Words) -> float:
    """The objective on held-out photographs, each at noise of its own that is always the same."""
    chance = torch.Generator().manual_seed(0)
    latents = held.latents_NWChw[:, 0]
    batch = {
        "latents": latents,
        "noise": torch.randn(latents.shape, generator=chance),
        "timestep": torch.randint(0, 1000, (len(latents),), generator=chance),
        "text": words([prompt_of(one.kind, one.label) for one in held.items]),
    }
    device = next(model.parameters()).device
    return float(objective(model, {name: value.to(device) for name, value in batch.items()})["velocity"])


def draw_sheet(model: Any, vae: Any, words: Words, named: Sequence[tuple[str, str]], path: Path) -> None:
    """Four samples of everything that can be drawn, photographs first, as a picture of pictures."""
    prompts = [prompt_of(kind, label) for kind, label in sorted(named, key=lambda one: KINDS.index(one[0]))]
    pipe = StableDiffusionPipeline(
        vae,
        words.encoder,
        words.tokenizer,
        model,
        DDIMScheduler(**SCHEDULER),
        None,
        None,
        requires_safety_checker=False,
    ).to(model.device)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for seed in range(4):
        found = pipe(
            prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np",
            generator=torch.Generator().manual_seed(seed),
        ).images  # fmt: skip
        rows.append((found * 255).round().astype(np.uint8))
    count, side = len(prompts), rows[0].shape[1]
    columns = 16
    blank = np.full((-(-count // columns) * columns - count, side, side, 3), 255, np.uint8)
    strips = []
    for start in range(0, count, columns):
        for pictures in rows:
            whole = np.concatenate([pictures, blank])[start : start + columns]
            strips.append(np.concatenate(list(whole), axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(strips)).save(path)
