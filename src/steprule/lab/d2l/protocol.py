"""The airfoil experiment of *Dive into Deep Learning* 12.9: its data, its start, its order, and what its clock counts.

Here is what all engines have in common. The batches come from each framework's own loader, the gradients from its own
differentiation; the initial weights and the order of the rows are those of the seed, the same for every engine, so that
two engines may differ by rounding alone. (The book draws both from each framework's generator, and TensorFlow's loader
shuffles within 1,000 rows of the 1,500.)
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BATCH",
    "EVALUATED_EVERY",
    "FEATURES",
    "ROWS",
    "Examples",
    "Model",
    "Plan",
    "Trace",
    "Way",
    "start",
    "train",
]

ROWS: Final = 1500
FEATURES: Final = 5
BATCH: Final = 10
EVALUATED_EVERY: Final = 200
"""Examples between two evaluations of the loss."""

Way = Literal["scratch", "steprule", "library"]
"""The rule through `steprule.reference`; through our class; through the framework's own class."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """The training rows, standardised: features (1500, 5) and labels (1500, 1), both float32 unless cast."""

    features: NDArray[np.floating[Any]]
    labels: NDArray[np.floating[Any]]

    @classmethod
    def of(cls, table: NDArray[np.float64]) -> Examples:
        """Return the first 1,500 rows of the data set's `table`, whose columns are standardised over all of its rows."""
        scaled = ((table - table.mean(axis=0)) / table.std(axis=0)).astype(np.float32)[:ROWS]
        return cls(scaled[:, :-1], scaled[:, -1:])


@dataclass(frozen=True)
class Plan:
    """One way to train in one engine.

    The gradient is that of the `squared_error`'s mean over a batch, half or whole. `hyperparameters` are the rule's, and
    `lr`, by the rule's names. `loss` and `seconds` (per epoch) are what the book reports, None where it has no such run.
    """

    engine: str
    way: Way
    epochs: int
    hyperparameters: Mapping[str, float]
    squared_error: Literal["half", "whole"] = "half"
    bias: Literal["zero", "uniform"] = "zero"
    loss: float | None = None
    seconds: float | None = None

    @property
    def factor(self) -> float:
        """What the squared error is multiplied by."""
        return 0.5 if self.squared_error == "half" else 1.0


@dataclass(frozen=True)
class Trace:
    """One training: half the squared error over all rows after each number of examples, and the clock's seconds.

    `seconds` is per epoch and counts loading, forward pass, gradient and step; `loading` is that of a pass over the same
    batches in which nothing else is done.
    """

    losses: tuple[tuple[int, float], ...]
    seconds: float
    loading: float

    @property
    def final(self) -> float:
        """The loss after the last example."""
        return self.losses[-1][1]


class Model(ABC):
    """A linear regression that one framework trains."""

    @abstractmethod
    def batches(self, order: NDArray[np.int64]) -> Iterable[tuple[Any, Any]]:
        """Return the framework's own loader of the rows in this order, `BATCH` at a time: features, labels."""

    @abstractmethod
    def step(self, features: Any, labels: Any) -> None:
        """Take one step by the gradient of a batch."""

    @abstractmethod
    def loss(self) -> float:
        """Return half the squared error, the mean over all rows."""

    def wait(self) -> None:  # noqa: B027  # most frameworks have nothing to wait for
        """Return when all that was asked for is computed; for frameworks that compute while Python goes on."""


def start(plan: Plan, seed: int) -> tuple[Array, Array]:
    """Return the initial weights (5, 1), from N(0, 0.01 squared), and the bias (1,)."""
    draws = np.random.default_rng([seed, 0])
    weights = draws.normal(scale=0.01, size=(FEATURES, 1))
    bound = FEATURES**-0.5 if plan.bias == "uniform" else 0.0
    return weights.astype(np.float32), draws.uniform(-bound, bound, size=1).astype(np.float32)


def train(model: Model, epochs: int, seed: int) -> Trace:
    """Train for some epochs, each in a new order of the rows; return what was measured.

    As in the book, the clock stands still while the loss is evaluated. It starts again only when the framework has done
    what it was asked for, where the book's goes on.
    """
    losses: list[tuple[int, float]] = []
    orders = np.random.default_rng([seed, 1])
    seconds, seen = 0.0, 0
    model.wait()
    began = time.perf_counter()
    for _ in range(epochs):
        for features, labels in model.batches(orders.permutation(ROWS)):
            model.step(features, labels)
            seen += BATCH
            if seen % EVALUATED_EVERY == 0 or seen == epochs * ROWS:
                model.wait()
                seconds += time.perf_counter() - began
                losses.append((seen, model.loss()))
                began = time.perf_counter()
    return Trace(tuple(losses), seconds / epochs, _loading(model, orders.permutation(ROWS)))


def _loading(model: Model, order: NDArray[np.int64]) -> float:
    began = time.perf_counter()
    for _ in model.batches(order):
        pass
    model.wait()
    return time.perf_counter() - began
