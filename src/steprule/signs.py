"""Which of a rule's slots are never negative, found by interval arithmetic on its program.

An average of squares is such a slot, and an encoding of its elements needs no bit for the sign.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from . import around
from .intervals import ANY, INTERVALS, Interval
from .program import lower
from .specification import Rule
from .tracing import Value

__all__ = ["never_negative"]


@functools.cache
def never_negative(rule: Rule) -> frozenset[str]:
    """Return the slots that no gradient and no hyperparameters in their ranges can make negative, from where they start."""
    outputs = lower(rule).outputs
    known = {slot for slot, initial in rule.slots.items() if initial >= 0}
    while True:
        bounds = _symbols(rule, known)
        found: dict[int, Interval] = {}
        held = {slot for slot in known if slot not in outputs or _interval(outputs[slot], bounds, found).low >= 0}
        if held == known:
            return frozenset(held)
        known = held


def _symbols(rule: Rule, never_negative: set[str]) -> dict[str, Interval]:
    bounds = {name: Interval(each.range.low, each.range.high) for name, each in around.hyperparameters(rule).items()}
    bounds |= dict.fromkeys(never_negative, Interval(0.0, math.inf))
    return bounds | {"t": Interval(1.0, math.inf), "g2": Interval(0.0, math.inf)}


def _interval(value: Value, bounds: Mapping[str, Interval], found: dict[int, Interval]) -> Interval:
    if id(value) not in found:
        found[id(value)] = _of(value, bounds, found)
    return found[id(value)]


def _of(value: Value, bounds: Mapping[str, Interval], found: dict[int, Interval]) -> Interval:
    if value.operation == "symbol":
        return bounds.get(value.name, ANY)
    if value.operation == "number":
        return ANY if math.isnan(value.number) else Interval(value.number, value.number)
    operands = [_interval(operand, bounds, found) for operand in value.operands]
    if value.operation == "multiply" and value.operands[0] is value.operands[1]:
        return Interval(0.0, math.inf)  # a square
    low, high = INTERVALS[value.operation](*operands)
    return ANY if math.isnan(low) or math.isnan(high) else Interval(low, high)
