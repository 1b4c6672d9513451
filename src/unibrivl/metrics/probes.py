"""Probes: how much of a label frozen features hold, read by a small classifier trained on folds.

`probe-v1` is a perceptron with two hidden layers (torch), `linear-v1` a logistic regression (scikit-learn). Both
choose what they choose, when to stop or how strong a penalty, on the fold after the test fold; the test fold is
looked at once, when everything is chosen. Features come in as they are and are scaled by the mean and the standard
deviation of the training folds. The same seed gives the same numbers.

Shapes: N items, D features, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from unibrivl.metrics.arrays import as_array, refuse_non_finite, same_length
from unibrivl.metrics.classification import kfold_summary, mean_average_precision
from unibrivl.utils import require

if TYPE_CHECKING:
    import torch

__all__ = ["CrossValidation", "Examples", "Fitted", "LinearProbe", "MLPProbe", "Probe", "cross_validate"]

logger = logging.getLogger(__name__)


class Examples(NamedTuple):
    """Features, and their targets: numbers of classes, (N,), or ones and zeros, (N, C), where there may be several."""

    features_ND: np.ndarray
    targets: np.ndarray


class Fitted(Protocol):
    """A trained probe: `scores` of new features, and what was `chosen` on the validation fold."""

    @property
    def chosen(self) -> dict[str, Any]: ...

    def scores(self, features_ND: np.ndarray) -> np.ndarray: ...


class Probe(Protocol):
    """A recipe for a classifier: how it is called in a table, and how it is trained."""

    @property
    def protocol(self) -> str: ...

    def fit(self, train: Examples, valid: Examples, num_classes: int) -> Fitted: ...


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of the training features; a feature that is constant there becomes zero."""

    mean_D: np.ndarray
    std_D: np.ndarray

    @classmethod
    def of(cls, train_ND: np.ndarray) -> Scaling:
        mean_D, std_D = train_ND.mean(axis=0, dtype=np.float64), train_ND.std(axis=0, dtype=np.float64)
        constant_D = std_D <= 1e-7 * np.abs(mean_D)  # what rounding in float32 leaves of a constant
        return cls(mean_D, np.where(constant_D, np.inf, std_D))

    def __call__(self, features_ND: np.ndarray) -> np.ndarray:
        return ((features_ND - self.mean_D) / self.std_D).astype(np.float32)


@dataclass(frozen=True)
class MLPProbe:
    """probe-v1: Linear-ReLU-Dropout twice and Linear; Adam until the validation loss has not fallen for ten epochs.

    Cross-entropy where an item has one class, binary cross-entropy for each class where it may have several.
    """

    hidden_size: int = 512
    dropout: float = 0.1
    learning_rate: float = 1e-3
    batch_size: int = 128
    max_epochs: int = 100
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    stop_patience: int = 10
    seed: int = 2021
    protocol: str = "probe-v1"

    def fit(self, train: Examples, valid: Examples, num_classes: int) -> Fitted:
        """Train on one part, stop by the other, and keep the weights of the epoch with the lowest validation loss."""
        import torch

        scaling = Scaling.of(train.features_ND)
        inputs, valid_inputs = (torch.from_numpy(scaling(one.features_ND)) for one in (train, valid))
        several = train.targets.ndim == 2
        kind = torch.float32 if several else torch.int64
        wanted, valid_wanted = (torch.as_tensor(one.targets).to(kind) for one in (train, valid))
        loss_of: Any = torch.nn.functional.cross_entropy
        if several:
            loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        with alone(self.seed):
            network = self.build(inputs.shape[1], num_classes)
            optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=self.plateau_factor, patience=self.plateau_patience
            )
            best_loss, best_epoch, best = float("inf"), 0, {}
            for epoch in range(1, self.max_epochs + 1):
                network.train()
                for some in torch.randperm(len(inputs)).split(self.batch_size):
                    step(network, optimizer, loss_of(network(inputs[some]), wanted[some]))
                network.eval()
                with torch.no_grad():
                    loss = float(loss_of(network(valid_inputs), valid_wanted))
                plateau.step(loss)
                if loss < best_loss:
                    best_loss, best_epoch = loss, epoch
                    best = {name: value.clone() for name, value in network.state_dict().items()}
                if epoch - best_epoch >= self.stop_patience:
                    break
        if not best:
            raise ValueError(f"the validation loss is {loss} from the first epoch on: are the features far too large?")
        network.load_state_dict(best)
        return FittedMLP(network, scaling, {"epoch": best_epoch, "epochs": epoch, "validation_loss": best_loss})

    def build(self, num_features: int, num_classes: int) -> torch.nn.Sequential:
        from torch import nn

        return nn.Sequential(
            nn.Linear(num_features, self.hidden_size),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden_size, self.hidden_size),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden_size, num_classes),
        )


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """Random numbers of our own, and one thread: the sums then come out alike whatever the number of cores.

    Layers this small gain little from a second thread, and lose much where another process wants it too.
    """
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step down; gradients are asked for and not accumulated, for this is measuring and no training of models."""
    import torch

    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


@dataclass(frozen=True)
class FittedMLP:
    """A trained `MLPProbe`; scores are logits."""

    network: torch.nn.Module
    scaling: Scaling
    chosen: dict[str, Any]

    def scores(self, features_ND: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.network(torch.from_numpy(self.scaling(features_ND))).numpy()


@dataclass(frozen=True)
class LinearProbe:
    """linear-v1: logistic regression, its penalty chosen by the validation score; one regression for each class where
    an item may have several. Of equal scores the stronger penalty wins. Needs the extra `eval`.
    """

    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # scikit-learn's C: small is strong
    max_iter: int = 1000
    seed: int = 2021
    protocol: str = "linear-v1"

    def fit(self, train: Examples, valid: Examples, num_classes: int) -> Fitted:
        """Train once for each penalty and keep the one whose validation score is best."""
        linear_model = require("sklearn.linear_model", "eval", "the linear probe")
        scaling = Scaling.of(train.features_ND)
        inputs = scaling(train.features_ND)
        best: FittedLinear | None = None
        for penalty in sorted(self.penalties):
            model = linear_model.LogisticRegression(C=penalty, max_iter=self.max_iter, random_state=self.seed)
            lines = lines_of_one if train.targets.ndim == 1 else lines_of_several
            weights_DC, bias_C = lines(model, inputs, train.targets, num_classes)
            fitted = FittedLinear(scaling, weights_DC, bias_C, {"C": penalty})
            fitted.chosen["validation_score"] = score = measure(fitted.scores(valid.features_ND), valid.targets)
            if best is None or score > best.chosen["validation_score"]:
                best = fitted
        if best is None:
            raise ValueError("penalties is empty: there is nothing to choose from")
        return best


NEVER = -1e6  # the logit of what no training item shows


def lines_of_one(
    model: Any, inputs_ND: np.ndarray, targets_N: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases where an item has one class."""
    weights_DC, bias_C = np.zeros((inputs_ND.shape[1], num_classes)), np.full(num_classes, NEVER)
    known = np.unique(targets_N)
    if len(known) == 1:
        bias_C[known] = 0.0
        return weights_DC, bias_C
    model.fit(inputs_ND, targets_N)
    weights, bias = model.coef_, model.intercept_
    if len(known) == 2:  # scikit-learn keeps the second of two classes alone
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    weights_DC[:, known], bias_C[known] = weights.T, bias
    return weights_DC, bias_C


def lines_of_several(
    model: Any, inputs_ND: np.ndarray, targets_NC: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases where an item may have several classes: each against its absence."""
    weights_DC, bias_C = np.zeros((inputs_ND.shape[1], num_classes)), np.full(num_classes, NEVER)
    for place, column_N in enumerate(targets_NC.T):
        if column_N.min() == column_N.max():
            bias_C[place] = -NEVER if column_N[0] else NEVER
            continue
        model.fit(inputs_ND, column_N)
        weights_DC[:, place], bias_C[place] = model.coef_[0], model.intercept_[0]
    return weights_DC, bias_C


@dataclass(frozen=True)
class FittedLinear:
    """A trained `LinearProbe`; scores are logits."""

    scaling: Scaling
    weights_DC: np.ndarray
    bias_C: np.ndarray
    chosen: dict[str, Any]

    def scores(self, features_ND: np.ndarray) -> np.ndarray:
        return self.scaling(features_ND) @ self.weights_DC + self.bias_C


def measure(scores_NC: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy where an item has one class, macro mAP where it may have several."""
    if targets.ndim == 1:
        return float((scores_NC.argmax(axis=1) == targets).mean())
    return mean_average_precision(scores_NC, targets).value


@dataclass(frozen=True)
class CrossValidation:
    """What a probe reached on each fold, and over all of them.

    Args:
        protocol (`str`): the probe's name and version.
        metric (`str`): `"accuracy"`, or `"mAP"` where an item may have several classes.
        mean (`float`): of the folds, unweighted.
        std (`float`): population standard deviation of the folds.
        pooled (`float`): folds weighted by their number of items.
        folds (`list`): for each test fold its number, items, score, the validation fold and what was chosen on it.
        classes (`list`): the classes, in the order of the scores' columns.
        chance (`float`): the share of the largest class; for mAP the mean share of a class.
    """

    protocol: str
    metric: str
    mean: float
    std: float
    pooled: float
    folds: list[dict[str, Any]]
    classes: list[Any]
    chance: float


DEFAULT_PROBE = MLPProbe()


def cross_validate(features: Any, labels: Any, folds: Any, probe: Probe = DEFAULT_PROBE) -> CrossValidation:
    """Each fold is the test once; the next one, in sorted order, validates, and the probe is trained on the others.

    Args:
        features: (N, D).
        labels: (N,) numbers or names of classes, or (N, C) ones and zeros.
        folds: (N,) the fold of each item, as the data set gives them: three different ones at least.
        probe (`Probe`, *optional*): `MLPProbe()` by default.
    """
    features_ND, label = as_array(features, "features", 2), as_array(labels, "labels")
    fold_N = as_array(folds, "folds", 1)
    same_length(("features", features_ND), ("labels", label), ("folds", fold_N))
    refuse_non_finite(features_ND, "features")
    targets, classes = targets_of(label)
    names = np.unique(fold_N)
    if len(names) < 3:
        raise ValueError(f"there are {len(names)} folds: to train, to choose and to test takes three at least")
    found = []
    for place, name in enumerate(names):
        next_one = names[(place + 1) % len(names)]
        test, valid = fold_N == name, fold_N == next_one
        train = ~(test | valid)
        seen, chosen_on = (Examples(features_ND[some], targets[some]) for some in (train, valid))
        fitted = probe.fit(seen, chosen_on, len(classes))
        score = measure(fitted.scores(features_ND[test]), targets[test])
        logger.info("%s, fold %s: %.4f, %s", probe.protocol, name, score, fitted.chosen)
        found.append(
            {
                "fold": name.item(),
                "n": int(test.sum()),
                "score": score,
                "validation_fold": next_one.item(),
                "chosen": fitted.chosen,
            }
        )
    summary = kfold_summary([one["score"] for one in found], [one["n"] for one in found])
    metric, chance = "accuracy", float(np.bincount(targets).max() / len(targets)) if targets.ndim == 1 else 0.0
    if targets.ndim == 2:
        metric, chance = "mAP", float(targets.mean())
    return CrossValidation(
        probe.protocol, metric, summary["mean"], summary["std"], summary["pooled"], found, classes, chance
    )


def targets_of(label: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Numbers of classes and their names, or ones and zeros and the columns' numbers."""
    if label.ndim == 1:
        classes, targets = np.unique(label, return_inverse=True)
        return targets, classes.tolist()
    if label.ndim != 2 or not ((label == 0) | (label == 1)).all():
        raise ValueError(f"labels have the shape {label.shape}: (items,) classes or (items, classes) ones and zeros")
    return label.astype(np.int64), list(range(label.shape[1]))
