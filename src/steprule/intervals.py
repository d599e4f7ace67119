"""Between which ends the result of an operation lies, from the ends of its operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final, NamedTuple, Protocol

from .tracing import Value

__all__ = ["ANY", "Bounded", "Interval", "applied", "kept_from_zero", "vanishes"]


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


_ENDS: Final[Mapping[str, Callable[..., tuple[float, float]]]] = {
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


def applied(value: Value, operands: Sequence[Bounded]) -> Interval:
    """Return where the result of an operation lies, from where its operands do."""
    low, high = _ENDS[value.operation](*operands)
    if value.operation == "multiply" and value.operands[0] is value.operands[1]:
        low = max(low, 0.0)  # a square
    return Interval(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def kept_from_zero(slots: Mapping[str, float], step: Callable[[Set[str]], Mapping[str, Bounded]]) -> frozenset[str]:
    """Return the slots that are never negative, from the number that each starts with.

    `step` returns where the slots that a step changes lie after it, if those that it is given are not negative before it.
    """
    known = frozenset(slot for slot, initial in slots.items() if initial >= 0)
    while True:
        after = step(known)
        kept = frozenset(slot for slot in known if slot not in after or after[slot].low >= 0)
        if kept == known:
            return known
        known = kept
