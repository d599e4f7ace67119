"""Which of a rule's slots are never negative, found by interval arithmetic on its program.

An average of squares is such a slot, and an encoding of its elements needs no bit for the sign.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence, Set

from . import around
from .intervals import ANY, Interval, applied, kept_from_zero
from .program import lower
from .specification import Rule
from .tracing import Value, with_operands

__all__ = ["never_negative"]


@functools.cache
def never_negative(rule: Rule) -> frozenset[str]:
    """Return the slots that no gradient and no hyperparameters in their ranges can make negative, from where they start."""
    program = lower(rule)

    def step(known: Set[str]) -> dict[str, Interval]:
        bounds, found = _symbols(rule, known), dict[int, Interval]()
        for value in with_operands(program.outputs.values()):
            found[id(value)] = _of(value, bounds, [found[id(operand)] for operand in value.operands])
        return {name: found[id(value)] for name, value in program.outputs.items()}

    return kept_from_zero(rule.slots, step)


def _symbols(rule: Rule, never_negative: Set[str]) -> dict[str, Interval]:
    bounds = {name: Interval(each.range.low, each.range.high) for name, each in around.hyperparameters(rule).items()}
    bounds |= dict.fromkeys(never_negative, Interval(0.0, math.inf))
    return bounds | {"t": Interval(1.0, math.inf), "g2": Interval(0.0, math.inf)}


def _of(value: Value, bounds: Mapping[str, Interval], operands: Sequence[Interval]) -> Interval:
    if value.operation == "symbol":
        return bounds.get(value.name, ANY)
    if value.operation == "number":
        return ANY if math.isnan(value.number) else Interval(value.number, value.number)
    return applied(value, operands)
