"""Between which ends the result of an operation lies, from the ends of its operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

__all__ = ["ANY", "INTERVALS", "Bounded", "Interval", "vanishes"]


class Bounded(Protocol):
    """What lies between two numbers, its ends included where they are finite."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Interval(NamedTuple):
    """An interval by itself."""

    low: float
    high: float


ANY: Final = Interval(-math.inf, math.inf)


def vanishes(a: Bounded) -> bool:
    """Whether it may be zero."""
    return a.low <= 0 <= a.high


def _product(a: Bounded, b: Bounded) -> tuple[float, float]:
    # In an interval, 0 times infinity is 0: its end stands for numbers as large as one likes.
    ends = [0.0 if 0 in (p, q) else p * q for p in (a.low, a.high) for q in (b.low, b.high)]
    return min(ends), max(ends)


def _quotient(a: Bounded, b: Bounded) -> tuple[float, float]:
    return ANY if vanishes(b) else _product(a, Interval(1 / b.high, 1 / b.low))


def _root(a: Bounded) -> tuple[float, float]:
    return math.sqrt(max(a.low, 0.0)), math.sqrt(max(a.high, 0.0))


def _magnitude(a: Bounded) -> tuple[float, float]:
    return (0.0 if vanishes(a) else min(abs(a.low), abs(a.high))), max(abs(a.low), abs(a.high))


def _less(a: Bounded, b: Bounded) -> tuple[float, float]:
    return float(a.high < b.low), float(a.low < b.high)


def _less_equal(a: Bounded, b: Bounded) -> tuple[float, float]:
    return float(a.high <= b.low), float(a.low <= b.high)


def _equal(a: Bounded, b: Bounded) -> tuple[float, float]:
    return float(a.low == a.high == b.low == b.high), float(a.low <= b.high and b.low <= a.high)


def _not_equal(a: Bounded, b: Bounded) -> tuple[float, float]:
    low, high = _equal(a, b)
    return 1 - high, 1 - low


INTERVALS: Final[Mapping[str, Callable[..., tuple[float, float]]]] = {
    "add": lambda a, b: (a.low + b.low, a.high + b.high),
    "subtract": lambda a, b: (a.low - b.high, a.high - b.low),
    "negative": lambda a: (-a.high, -a.low),
    "multiply": _product,
    "divide": _quotient,
    "sqrt": _root,
    "power": lambda a, _: (0.0, math.inf) if a.low >= 0 else ANY,
    "abs": _magnitude,
    "sign": lambda a: (math.copysign(a.low != 0, a.low), math.copysign(a.high != 0, a.high)),
    "maximum": lambda a, b: (max(a.low, b.low), max(a.high, b.high)),
    "minimum": lambda a, b: (min(a.low, b.low), min(a.high, b.high)),
    "where": lambda _, a, b: (min(a.low, b.low), max(a.high, b.high)),
    "less": _less,
    "less_equal": _less_equal,
    "greater": lambda a, b: _less(b, a),
    "greater_equal": lambda a, b: _less_equal(b, a),
    "equal": _equal,
    "not_equal": _not_equal,
}
"""By the operation, as `tracing.Value` calls it."""
