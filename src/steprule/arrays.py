"""A lowered program on the arrays of any library: for engines whose compiler makes one loop of what it is given.

`steprule.reference` calls the rule itself, with every number as Python has it. Here the scalars of a program come apart from
its elements, so that an engine computes the former in float64 and hands the latter numbers of their own type, also where the
step count and the rate are values of a traced computation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from . import notation
from .program import Program
from .tracing import COMPARISONS, Value, with_operands

__all__ = ["elements", "scalars"]

_OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "power": operator.pow,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    **{name: getattr(notation, name) for name in notation.__all__},
}


def scalars(
    program: Program, given: Mapping[str, Any], convert: Callable[[Any], Any], cast: Callable[[Any], Any]
) -> dict[int, Any]:
    """Return each scalar of `program`, by the `id` of its `Value`: conditions as they are, numbers as `cast` has them.

    `given` has the step count `t` and each hyperparameter: Python's numbers, and 0-dim arrays of float64 for those that are
    part of a traced computation. `convert` makes such an array of a number; `cast` makes a 0-dim array of the loop's type of
    either.
    """
    found: dict[int, Any] = {}
    with np.errstate(all="ignore"):  # a division by zero is infinite, as in an array
        for value in with_operands(program.scalars):
            if value.operation == "symbol":
                known = given[value.name]
                found[id(value)] = np.float64(known) if isinstance(known, (int, float)) else known
            elif value.operation == "number":
                found[id(value)] = np.float64(value.number)
            else:
                found[id(value)] = _applied(value, found, convert)
    return {
        id(value): found[id(value)] if value.operation in COMPARISONS else cast(found[id(value)])
        for value in program.scalars
    }


def _applied(value: Value, found: Mapping[int, Any], convert: Callable[[Any], Any]) -> Any:
    operands, operation = [found[id(operand)] for operand in value.operands], _OPERATIONS[value.operation]
    if all(notation.namespace_of(operand) is None for operand in operands):
        made = operation(*operands)
        return bool(made) if value.operation in COMPARISONS else np.float64(made)
    # Libraries do not agree on the type that a plain number takes beside an array.
    return operation(*(convert(operand) if isinstance(operand, np.float64) else operand for operand in operands))


def elements(program: Program, arrays: Mapping[str, Any], scalars: Mapping[int, Any]) -> dict[str, Any]:
    """Return each output of `program` by name, from its inputs in `arrays`, all of one type and shape, and its `scalars`.

    An output that is one number for all elements is a 0-dim array.
    """
    found = dict(scalars)
    for value in program.values():
        if value.operation == "symbol":
            found[id(value)] = arrays[value.name]
        else:
            found[id(value)] = _OPERATIONS[value.operation](*(found[id(operand)] for operand in value.operands))
    return {name: found[id(value)] for name, value in program.outputs.items()}
