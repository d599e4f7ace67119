"""What a step does where the gradient is zero, read off the program: the ground on which a sparse gradient can be exact.

A sparse gradient names some rows of a parameter; of the others it says that they are zero. Where a step at g = 0 leaves the
parameter alone, or scales it, and scales each slot by a factor of its own, the rows that are not named need no step: their
factors are made up for as one power when they are next looked at.

The program is run twice on what is known of each value. First on intervals, with any gradient, to learn which slots never
become negative. Then with g = 0 on linear forms as well, to learn what each output is of the inputs. A zero times something
is only zero where that something is a number, so that a possible division by zero is no small print: with eps = 0 the dense
step of a row that was never touched is 0 / 0 * 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from .intervals import ANY, applied, kept_from_zero, vanishes
from .program import Program, depends_on_count
from .specification import CURVATURE
from .tracing import COMPARISONS, Value

__all__ = ["scales_without_gradient"]


@dataclass(frozen=True)
class _Known:
    """What is known of a value: the interval in which it lies, and whether it is surely a number while its inputs are.

    `linear` are the factors of the inputs of which it is the sum, none where it is zero; None stands for any other
    function of them. `number` says that it is one number for all elements, `counts` that it depends on the step count.
    """

    low: float
    high: float
    sound: bool = True
    linear: Mapping[str, float] | None = None
    number: bool = False
    counts: bool = False

    @property
    def zero(self) -> bool:
        return self.linear == {}


def scales_without_gradient(
    program: Program, values: Mapping[str, float], slots: Mapping[str, float], *, t: float, real: DTypeLike
) -> dict[str, float]:
    """Return by which factor a step of `program` scales `x` and each slot where the gradient is zero; 1 is left out.

    `values` are the hyperparameters, `slots` the number that each slot starts with, `t` the step count, and `real` the type
    of the loop, float32 or float64.

    Raises `TypeError` where a step without gradient does anything else, or where a factor depends on the step count, and
    `ValueError` where, with these values, it may make NaN of an element.
    """
    scalars = np.array(program.fold(t=t, **values), real)
    real = scalars.dtype.type
    numbers = {id(value): float(scalar) for value, scalar in zip(program.scalars, scalars, strict=True)}
    not_negative = kept_from_zero(slots, lambda known: _run(program, numbers, known, real, zero_gradient=False))
    known = _run(program, numbers, not_negative, real, zero_gradient=True)
    found = {name: _scale(name, known[name]) for name in program.outputs}
    return {name: scale for name, scale in found.items() if scale != 1}


def _scale(name: str, known: _Known) -> float:
    what = "the parameter" if name == "x" else f"its slot {name}"
    if known.linear is None or known.linear.keys() - {name}:
        others = [each for each in known.linear or () if each != name]
        because = f"moves {what} by {' and '.join(others)}" if others else f"changes {what} otherwise than by a factor"
        raise TypeError(f"it {because} where the gradient is 0")
    if known.counts:
        raise TypeError(f"the factor by which it scales {what} where the gradient is 0 depends on the step count")
    if not known.sound:
        raise ValueError(f"where the gradient is 0 it may divide by 0 or take the root of a negative number for {what}")
    return known.linear.get(name, 0.0)


def _run(
    program: Program, numbers: Mapping[int, float], not_negative: Set[str], real: Any, *, zero_gradient: bool
) -> dict[str, _Known]:
    """Return what is known of each output, by name."""
    known: dict[int, _Known] = {}
    for value in (*program.scalars, *program.values()):
        if id(value) in numbers:
            known[id(value)] = _number(numbers[id(value)], depends_on_count(value))
        elif value.operation == "symbol":
            known[id(value)] = _symbol(value.name, value.name in not_negative, zero_gradient=zero_gradient)
        else:
            operands = [known[id(operand)] for operand in value.operands]
            known[id(value)] = _rounded(_apply(value, operands), real)
    return {name: known[id(value)] for name, value in program.outputs.items()}


def _number(number: float, counts: bool) -> _Known:
    linear: dict[str, float] | None = {} if number == 0 and not counts else None
    return _Known(number, number, math.isfinite(number), linear, number=True, counts=counts)


def _symbol(name: str, not_negative: bool, *, zero_gradient: bool) -> _Known:
    if name == "g":
        return _Known(0.0, 0.0, linear={}) if zero_gradient else _Known(*ANY)
    linear = None if name in CURVATURE else {name: 1.0}
    return _Known(0.0 if not_negative or name == "g2" else -math.inf, math.inf, linear=linear)


def _rounded(known: _Known, real: Any) -> _Known:
    """Round the ends of the interval as the loop does: what is positive in float64 may be zero in float32."""
    with np.errstate(all="ignore"):
        return replace(known, low=float(real(known.low)), high=float(real(known.high)))


def _apply(value: Value, operands: list[_Known]) -> _Known:
    operation = value.operation
    low, high = applied(value, operands)
    if operation == "where" and operands[0].sound and operands[0].low == operands[0].high:
        # Only one side is taken; what the other one is does not matter. Of NaN no comparison but != holds.
        taken = operands[1 if operands[0].low else 2]
        return _Known(low, high, taken.sound, taken.linear, counts=operands[0].counts or taken.counts)
    linear = _LINEAR.get(operation, _only_zero)(*operands)
    sound = all(operand.sound for operand in operands) and _defined(operation, operands)
    if linear == {} and operation in ("multiply", "divide"):
        # What a zero is multiplied with may count as it likes.
        counts = all(operand.counts for operand in operands if operand.zero)
    else:
        counts = any(operand.counts for operand in operands)
    return _Known(low, high, sound, linear, counts=counts)


def _defined(operation: str, operands: list[_Known]) -> bool:
    """Whether the operation makes a number of every number that its operands may be."""
    if operation == "divide":
        return not vanishes(operands[1])
    if operation == "sqrt":
        return operands[0].low >= 0
    if operation == "power":
        return operands[0].low > 0 or (operands[0].low >= 0 and operands[1].low >= 0)
    return True


def _sum(a: _Known, b: _Known, sign: float = 1.0) -> Mapping[str, float] | None:
    if a.linear is None or b.linear is None:
        return None
    names = {*a.linear, *b.linear}
    sums = {name: a.linear.get(name, 0.0) + sign * b.linear.get(name, 0.0) for name in names}
    return {name: factor for name, factor in sums.items() if factor != 0}


def _scaled(a: _Known, b: _Known) -> Mapping[str, float] | None:
    if a.zero or b.zero:
        return {}
    for form, factor in ((a.linear, b), (b.linear, a)):
        if form is not None and factor.number:
            return {name: each * factor.low for name, each in form.items()}
    return None


def _only_zero(*operands: _Known) -> Mapping[str, float] | None:
    """Of a function that is zero where all of its operands are, and is no linear form elsewhere."""
    return {} if all(operand.zero for operand in operands) else None


def _other(*_: _Known) -> Mapping[str, float] | None:
    return None


_LINEAR: Final[Mapping[str, Callable[..., Mapping[str, float] | None]]] = {
    "add": _sum,
    "subtract": lambda a, b: _sum(a, b, -1.0),
    "negative": lambda a: None if a.linear is None else {name: -factor for name, factor in a.linear.items()},
    "multiply": _scaled,
    "divide": lambda a, _: {} if a.zero else None,
    "power": lambda a, b: {} if a.zero and b.low > 0 else None,
    "where": lambda _, a, b: a.linear if a.linear == b.linear else None,
    **dict.fromkeys(COMPARISONS, _other),
}
