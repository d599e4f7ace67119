"""Which of a rule's slots are never negative, found by interval arithmetic on its program.

An average of squares is such a slot, and an encoding of its elements needs no bit for the sign.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final

from . import around
from .program import lower
from .specification import Rule
from .tracing import Value

__all__ = ["never_negative"]

_Interval = tuple[float, float]
_ANY: Final = (-math.inf, math.inf)


@functools.cache
def never_negative(rule: Rule) -> frozenset[str]:
    """Return the slots that no gradient and no hyperparameters in their ranges can make negative, from where they start."""
    outputs = lower(rule).outputs
    known = {slot for slot, initial in rule.slots.items() if initial >= 0}
    while True:
        bounds = _symbols(rule, known)
        memo: dict[int, _Interval] = {}
        held = {slot for slot in known if slot not in outputs or _interval(outputs[slot], bounds, memo)[0] >= 0}
        if held == known:
            return frozenset(held)
        known = held


def _symbols(rule: Rule, never_negative: set[str]) -> dict[str, _Interval]:
    bounds = {name: (each.range.low, each.range.high) for name, each in around.hyperparameters(rule).items()}
    bounds |= dict.fromkeys(never_negative, (0.0, math.inf))
    return bounds | {"t": (1.0, math.inf), "g2": (0.0, math.inf)}


def _interval(value: Value, bounds: Mapping[str, _Interval], memo: dict[int, _Interval]) -> _Interval:
    if id(value) not in memo:
        memo[id(value)] = _of(value, bounds, memo)
    return memo[id(value)]


def _of(value: Value, bounds: Mapping[str, _Interval], memo: dict[int, _Interval]) -> _Interval:
    if value.operation == "symbol":
        return bounds.get(value.name, _ANY)
    if value.operation == "number":
        return (value.number, value.number) if not math.isnan(value.number) else _ANY
    operands = [_interval(operand, bounds, memo) for operand in value.operands]
    if value.operation == "multiply" and value.operands[0] is value.operands[1]:
        return (0.0, math.inf)  # a square
    combine = _COMBINED.get(value.operation)
    return combine(*operands) if combine else _ANY


def _add(a: _Interval, b: _Interval) -> _Interval:
    return a[0] + b[0], a[1] + b[1]


def _negative(a: _Interval) -> _Interval:
    return -a[1], -a[0]


def _multiply(a: _Interval, b: _Interval) -> _Interval:
    # The ends are limits: nothing times what grows without bound is nothing.
    ends = [0.0 if 0.0 in (x, y) else x * y for x, y in itertools.product(a, b)]
    return min(ends), max(ends)


def _divide(a: _Interval, b: _Interval) -> _Interval:
    if b[0] < 0:
        return _ANY
    return _multiply(a, (0.0 if math.isinf(b[1]) else 1 / b[1] if b[1] else math.inf, 1 / b[0] if b[0] else math.inf))


def _power(a: _Interval, b: _Interval) -> _Interval:
    if a[0] < 0:
        return _ANY
    return (0.0, 1.0) if a[1] <= 1 and b[0] >= 0 else (0.0, math.inf)


def _larger(a: _Interval, b: _Interval) -> _Interval:
    return max(a[0], b[0]), max(a[1], b[1])


def _smaller(a: _Interval, b: _Interval) -> _Interval:
    return min(a[0], b[0]), min(a[1], b[1])


def _where(_condition: _Interval, a: _Interval, b: _Interval) -> _Interval:
    return min(a[0], b[0]), max(a[1], b[1])


_COMBINED: Final[Mapping[str, Callable[..., _Interval]]] = {
    "add": _add,
    "subtract": lambda a, b: _add(a, _negative(b)),
    "multiply": _multiply,
    "divide": _divide,
    "negative": _negative,
    "power": _power,
    "maximum": _larger,
    "minimum": _smaller,
    "where": _where,
    "sqrt": lambda _a: (0.0, math.inf),
    "abs": lambda _a: (0.0, math.inf),
    "sign": lambda _a: (-1.0, 1.0),
}
