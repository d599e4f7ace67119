"""The airfoil regression under any rule, with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from .... import around
from ....rules import adadelta
from ....specification import Rule
from ... import data
from ..engines.numpy import FromScratch
from ..protocol import Examples, Plan, Trace, train
from .series import Series, points

__all__ = ["BOOK", "EPOCHS", "course", "examples", "finals", "traces"]

EPOCHS = 2
BOOK = {"rho": 0.9, "eps": 1e-5}


@cache
def examples() -> Examples:
    """Return the training rows, read once."""
    return Examples.of(data.airfoil())


class _Scaled(FromScratch):
    """The regression whose loss is multiplied by a number, which the loss that is reported is not."""

    def __init__(self, *given: Any, scale: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self.scale = np.float32(scale)

    def gradients(self, features: Any, labels: Any) -> tuple[Any, Any]:
        weights, bias = super().gradients(features, labels)
        return self.scale * weights, self.scale * bias


def traces(
    seeds: int, rule: Rule = adadelta, *, scale: float = 1.0, epochs: int = EPOCHS, **given: float
) -> list[Trace]:
    """Return the trainings by `rule`; of ADADELTA's settings, those that are not given are the book's."""
    hyperparameters = (BOOK if rule is adadelta else {}) | given
    around.validated(rule, hyperparameters)
    plan = Plan("numpy", "scratch", epochs, hyperparameters)
    with np.errstate(all="ignore"):  # a rate that is too large overflows, which is what is shown
        return [train(_Scaled(plan, examples(), seed, rule, scale=scale), epochs, seed) for seed in range(seeds)]


def finals(seeds: int, rule: Rule = adadelta, **given: Any) -> list[float]:
    """Return the final loss of each seed."""
    return [trace.final for trace in traces(seeds, rule, **given)]


def course(name: str, trained: Sequence[Trace]) -> Series:
    """Return the loss by examples seen."""
    seen = [examples for examples, _ in trained[0].losses]
    by_place = zip(*([loss for _, loss in trace.losses] for trace in trained), strict=True)
    return Series(name, points(seen, by_place))
