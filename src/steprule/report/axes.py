"""Scales and ticks of the curves, chosen from the values, so that a figure of any problem reads well."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .drawing import alt

__all__ = ["NAMES", "NUMBERS", "ValueScale", "epoch_axis", "epoch_ticks", "log_scale", "log_ticks", "value_scale"]

NAMES = "length(datum.label) > 28 ? slice(datum.label, 0, 13) + '\u2026' + slice(datum.label, -14) : datum.label"
"""How an axis or a legend prints rules: of a long name both ends, since the variants of one rule begin alike."""

NUMBERS = (
    "replace(format(datum.value, datum.value != 0 && (abs(datum.value) < 0.001 || abs(datum.value) >= 100000) "
    "? '~e' : '~g'), '+', '')"
)
"""How an axis prints its numbers: `0.001`, `1e-6`, `1e8`."""

LOG_FROM = 5.0
"""The ratio of the largest to the smallest value from which a logarithmic scale separates the curves better."""


@dataclass(frozen=True)
class ValueScale:
    """A scale with the title of its axis, and ticks where Vega's own would crowd."""

    title: str
    scale: alt.Scale
    ticks: tuple[float, ...] = ()

    def axis_above(self) -> alt.Axis:
        """A vertical axis whose title lies flat over its top, where it is read first."""
        return self._axis(titleAngle=0, titleAlign="left", titleAnchor="end", titleX=0, titleY=-14)

    def axis_below(self) -> alt.Axis:
        """A horizontal axis."""
        return self._axis(titlePadding=8)

    def _axis(self, **where: Any) -> alt.Axis:
        ticks: dict[str, Any] = {"values": list(self.ticks), "labelExpr": NUMBERS} if self.ticks else {"tickCount": 6}
        return alt.Axis(title=self.title, domain=False, ticks=False, labelOverlap="greedy", **ticks, **where)


def value_scale(title: str, values: Sequence[float], may_be_log: bool) -> ValueScale:
    """Logarithmic where it may be and the positive values span more than `LOG_FROM`, else linear and not from zero."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if may_be_log and low > 0 and high / low >= LOG_FROM:
        return log_scale(title, low, high)
    if low == high:
        around = abs(low) / 10 or 1.0
        return ValueScale(title, alt.Scale(domain=_finite(low - around, high + around), nice=True))
    return ValueScale(title, alt.Scale(zero=False))


def log_scale(title: str, low: float, high: float) -> ValueScale:
    """Logarithmic, from a little below `low` to a little above `high`, both positive."""
    scale = alt.Scale(type="log", domain=_finite(low * 0.94, high * 1.06), nice=False)
    return ValueScale(f"{title} (log scale)", scale, log_ticks(low, high))


def _finite(*ends: float) -> list[float]:
    """Return a domain that JSON can hold: what lies beyond the largest float, where a metric may be clipped, is infinite."""
    most = sys.float_info.max
    return [min(max(end, -most), most) for end in ends]


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return powers of ten with as many steps between them as leave at most eight lines."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: tuple[float, ...] = ()
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = (float(f"{step}e{power}") for power in powers for step in steps)
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= 8:
            return inside
    return inside[:: math.ceil(len(inside) / 8)]


def epoch_ticks(last: int) -> list[int]:
    """The epochs that get a tick and a symbol: the first, the last, and round numbers between."""
    step = next(s for n in range(9) for s in (10**n, 2 * 10**n, 5 * 10**n) if last / s <= 6)
    between = [n for n in range(step, last, step) if last - n >= step / 2]
    return sorted({1, *between, last})


def epoch_axis(ticks: Sequence[int]) -> alt.Axis:
    """The axis under the curves."""
    return alt.Axis(title="epoch", values=list(ticks), format="d", grid=False, labelOverlap="greedy", labelFlush=False)
