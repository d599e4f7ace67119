"""What the paper says of its Fig. 2 (4.3), and whether the trainings bear it out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..summary import Spread
from .figure2 import LAYERS, Course, Figure2
from .judging import by_seed

__all__ = ["Claim", "claims"]

NEAR_ONE: Final = 2.0
"""A step size within this factor of 1 counts as near it."""
VANISHED: Final = 0.1
"""The share of the first epoch's updates below which the last epoch's count as tending to zero."""


@dataclass(frozen=True)
class Claim:
    """A claim, by which criterion it is decided, what was measured, and its differences.

    Each of `differences` has a number for each seed, below 0 where that part of the claim holds in it.
    """

    text: str
    criterion: str
    says: str
    differences: tuple[tuple[float, ...], ...]

    @property
    def verdict(self) -> str:
        return by_seed([all(each < 0 for each in seed) for seed in zip(*self.differences, strict=True)])


def claims(figure: Figure2) -> tuple[Claim, ...]:
    """Return the three claims of 4.3 beside what was measured."""
    return (_larger_below(figure), _towards_one(figure), _to_zero(figure))


def _by_layer(figure: Figure2, measure: Callable[[Course, str], float]) -> list[NDArray[np.float64]]:
    """Return a number for each seed, (seeds,), of each layer, the lowest first."""
    return [np.array([measure(course, layer) for course in figure.courses]) for layer in LAYERS]


def _size(course: Course, layer: str, epoch: int) -> float:
    return float(np.median(course.sizes[layer][course.epochs == epoch]))


def _update(course: Course, layer: str, epoch: int) -> float:
    return float(np.sqrt(np.mean(course.updates[layer][course.epochs == epoch] ** 2)))


def _larger_below(figure: Figure2) -> Claim:
    medians = _by_layer(figure, lambda course, layer: _size(course, layer, 1))
    return Claim(
        "At the beginning, step sizes are larger in the lower layers and much smaller in the top one.",
        "The median step size of the first epoch falls from each layer to the next.",
        f"Medians, the lowest layer first: {_told(medians)}.",
        tuple(tuple((above - below).tolist()) for below, above in itertools.pairwise(medians)),
    )


def _towards_one(figure: Figure2) -> Claim:
    last = figure.settings.epochs
    medians = _by_layer(figure, lambda course, layer: _size(course, layer, last))
    return Claim(
        "Near the end, step sizes converge to 1.",
        f"The median step size of epoch {last} is within a factor of {NEAR_ONE:g} of 1 in each layer.",
        f"Medians, the lowest layer first: {_told(medians)}.",
        tuple(tuple((np.abs(np.log(each)) - np.log(NEAR_ONE)).tolist()) for each in medians),
    )


def _to_zero(figure: Figure2) -> Claim:
    last = figure.settings.epochs
    shares = _by_layer(figure, lambda course, layer: _update(course, layer, last) / _update(course, layer, 1))
    return Claim(
        "As they do, the updates tend to zero.",
        f"The root mean square of the updates of epoch {last} is below {VANISHED:g} of that of the first, in each layer.",
        f"Shares, the lowest layer first: {_told(shares)}.",
        tuple(tuple((each - VANISHED).tolist()) for each in shares),
    )


def _told(layers: list[NDArray[np.float64]]) -> str:
    spreads = [Spread.of(each.tolist()) for each in layers]
    return ", ".join(f"{each.mean:.3g}" + ("" if each.sd is None else f" ± {each.sd:.2g}") for each in spreads)
