"""What several seeds make of one number: its mean and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Spread", "deviation"]


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and range over `seeds` seeds; `sd` is None where there is one seed."""

    mean: float
    sd: float | None
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value for each seed, at least one."""
        sd = deviation(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
        try:
            mean = fmean(values)
        except OverflowError:  # of their sum: a metric that is clipped may end on the largest of all floats
            most = max(map(abs, values))
            mean = fmean(value / most for value in values) * most
        return cls(mean, sd, min(values), max(values), len(values))

    def __format__(self, form: str) -> str:
        """The mean and, of several seeds, the deviation, each in this format: `1.83 ± 0.07` for ".2f"."""
        return f"{self.mean:{form}}" + ("" if self.sd is None else f" ± {self.sd:{form}}")


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation of at least two finite values."""
    try:
        return stdev(values)
    except OverflowError:  # in Python 3.10, of numbers whose squares are beyond all floats
        most = max(map(abs, values))
        return stdev([value / most for value in values]) * most
