"""What can be said of a number that several seeds give: intervals by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from scipy import stats

from ..spread import deviation

__all__ = ["LEVEL", "Sign", "further_run", "mean", "sign"]

LEVEL = 0.95

Sign = Literal["below", "above", "undecided"]


def mean(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval that holds the mean with the probability `level`, from one value for each seed, at least one."""
    return _interval(values, level, 1 / len(values))


def further_run(values: Sequence[float], level: float) -> tuple[float, float]:
    """Return the interval that holds one further value with the probability `level`."""
    return _interval(values, level, 1 + 1 / len(values))


def _interval(values: Sequence[float], level: float, variance: float) -> tuple[float, float]:
    seeds = len(values)
    if seeds < 2:
        return -math.inf, math.inf
    middle = fmean(values)
    half = float(stats.t.ppf((1 + level) / 2, seeds - 1)) * deviation(values) * math.sqrt(variance)
    return middle - half, middle + half


def sign(values: Sequence[float]) -> Sign:
    """Return on which side of 0 the mean of at least two values lies with the probability `LEVEL`.

    A seed that diverged makes a value infinite, of which there is no mean: then it must be on one side for every seed.
    """
    low, high = mean(values) if all(map(math.isfinite, values)) else (min(values), max(values))
    return "below" if high < 0 else "above" if low > 0 else "undecided"
