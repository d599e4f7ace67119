"""How far a correct engine may be from the exact result: rounding in each operation, carried through the rule.

A `Rounded` is what float64 says and a bound of how far the same operations in a narrower type may be from it. A rule is
ordinary Python, so that it computes on these as on any array; a sum that cancels, or a sign at the edge, is given the room
that it needs and no other is.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprule import Rule, around
from steprule.around import Around

from .tolerances import FORMATS, Format, rounded

__all__ = ["Rounded", "step", "times_too_far"]


class Rounded:
    """A value, the bound of its error, and where anything may be: where a number was beyond the type's largest, or a
    divisor might be zero.
    """

    def __init__(self, value: Any, error: Any, beyond: Any, kind: str) -> None:
        self.value, self.error, self.beyond, self.kind = np.asarray(value, np.float64), np.asarray(error), beyond, kind
        bounded, within = np.isfinite(self.error), np.abs(self.value) <= FORMATS[kind].largest
        if not (bounded.all() and within.all()):
            finite = np.isfinite(self.value)
            # What is no number has no error: it must be there.
            self.error = np.where(finite & bounded, self.error, 0.0)
            self.beyond = beyond | (finite & ~(bounded & within))

    def _with(self, other: Any) -> Rounded:
        if isinstance(other, Rounded):
            return other
        return Rounded(other, _lost(other, self.kind), False, self.kind)

    def _made(self, value: Any, error: Any, *others: Rounded, roundings: int = 1, lost: Any = False) -> Rounded:
        form: Format = FORMATS[self.kind]
        error = error + roundings * ((np.abs(value) + error) * form.half + form.smallest)
        return Rounded(
            value,
            error,
            functools.reduce(operator.or_, (each.beyond for each in others), self.beyond | lost),
            self.kind,
        )

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return _Namespace

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error, self.beyond, self.kind)

    def __pos__(self) -> Rounded:
        return self

    def __add__(self, other: Any) -> Rounded:
        other = self._with(other)
        return self._made(self.value + other.value, self.error + other.error, other)

    def __sub__(self, other: Any) -> Rounded:
        return self + -self._with(other)

    def __rsub__(self, other: Any) -> Rounded:
        return self._with(other) + -self

    def __mul__(self, other: Any) -> Rounded:
        other = self._with(other)
        error = np.abs(self.value) * other.error + np.abs(other.value) * self.error + self.error * other.error
        # Infinity times what may be zero may be NaN.
        lost = (np.isinf(self.value) & other._may_vanish()) | (np.isinf(other.value) & self._may_vanish())
        return self._made(self.value * other.value, error, other, lost=lost)

    def _may_vanish(self) -> Any:
        return (self.value != 0) & (np.abs(self.value) <= self.error)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Any) -> Rounded:
        # An engine may divide by a number or multiply by its reciprocal, which is rounded too.
        roundings = 1 if isinstance(other, Rounded) else 2
        other = self._with(other)
        value = self.value / other.value
        least = np.abs(other.value) - other.error
        error = np.where(least > 0, (self.error + np.abs(value) * other.error) / least, np.inf)
        return self._made(value, error, other, roundings=roundings)

    def __rtruediv__(self, other: Any) -> Rounded:
        return self._with(other) / self

    def __pow__(self, exponent: float) -> Rounded:
        if exponent in (1, 2, 3, 4):
            product = self
            for _ in range(int(exponent) - 1):
                product = product * self
            return product
        value = self.value**exponent
        ends = [np.abs(np.abs(self.value + side * self.error) ** exponent - np.abs(value)) for side in (-1, 1)]
        return self._made(value, np.maximum(*ends), roundings=4)

    def _compared(self, other: Any, value: Any) -> Rounded:
        other = self._with(other)
        sure = np.abs(self.value - other.value) > self.error + other.error
        sure |= (self.error == 0) & (other.error == 0) | ~np.isfinite(self.value) | ~np.isfinite(other.value)
        return Rounded(value, np.where(sure, 0.0, 1.0), self.beyond | other.beyond, self.kind)

    def __lt__(self, other: Any) -> Rounded:
        return self._compared(other, self.value < self._with(other).value)

    def __le__(self, other: Any) -> Rounded:
        return self._compared(other, self.value <= self._with(other).value)

    def __gt__(self, other: Any) -> Rounded:
        return self._compared(other, self.value > self._with(other).value)

    def __ge__(self, other: Any) -> Rounded:
        return self._compared(other, self.value >= self._with(other).value)

    def __eq__(self, other: Any) -> Rounded:  # type: ignore[override]
        return self._compared(other, self.value == self._with(other).value)

    def __ne__(self, other: Any) -> Rounded:  # type: ignore[override]
        return self._compared(other, self.value != self._with(other).value)

    __hash__ = object.__hash__

    def stored(self, dtype: str) -> Rounded:
        """Return this value once more rounded, to the type in which it is kept."""
        if dtype == self.kind.removesuffix(", flushed"):
            return self
        form = FORMATS[dtype]
        value = np.where(np.isinf(rounded(self.value, dtype)), np.sign(self.value) * np.inf, self.value)
        error = self.error + (np.abs(self.value) + self.error) * form.half + form.smallest
        near_the_end = np.abs(np.abs(self.value) - form.largest) <= 2 * form.half * form.largest + self.error
        return Rounded(value, error, self.beyond | near_the_end, self.kind)


@functools.cache
def _lost(number: float, kind: str) -> float:
    """Return what `kind` has not of a number: an engine rounds it."""
    return abs(number - float(rounded(number, kind)))


class _Namespace:
    """What `steprule.notation` asks of a library of arrays."""

    float64 = "float64"

    @staticmethod
    def zeros_like(x: Rounded, dtype: object = None) -> Rounded:
        return Rounded(np.zeros_like(x.value), np.zeros_like(x.value), False, x.kind)

    @staticmethod
    def sqrt(x: Rounded) -> Rounded:
        value = np.sqrt(x.value)
        low, high = np.sqrt(np.maximum(x.value - x.error, 0.0)), np.sqrt(x.value + x.error)
        return x._made(value, np.maximum(value - low, high - value))

    @staticmethod
    def abs(x: Rounded) -> Rounded:
        return Rounded(np.abs(x.value), x.error, x.beyond, x.kind)

    @staticmethod
    def sign(x: Rounded) -> Rounded:
        sure = (np.abs(x.value) > x.error) | (x.error == 0)
        return Rounded(np.sign(x.value), np.where(sure, 0.0, 2.0), x.beyond, x.kind)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Rounded:
        some = next(each for each in (condition, a, b) if isinstance(each, Rounded))
        condition, a, b = (some._with(each) for each in (condition, a, b))
        holds = condition.value != 0
        value, error = np.where(holds, a.value, b.value), np.where(holds, a.error, b.error)
        either = np.abs(a.value - b.value) + np.maximum(a.error, b.error)
        open_ = condition.error > 0
        beyond = np.where(holds, a.beyond, b.beyond) | condition.beyond | (open_ & ~np.isfinite(either))
        return Rounded(value, np.where(open_, either, error), beyond, some.kind)

    @staticmethod
    def maximum(a: Any, b: Any) -> Rounded:
        some = a if isinstance(a, Rounded) else b
        a, b = some._with(a), some._with(b)
        return Rounded(np.maximum(a.value, b.value), np.maximum(a.error, b.error), a.beyond | b.beyond, some.kind)

    @staticmethod
    def minimum(a: Any, b: Any) -> Rounded:
        some = a if isinstance(a, Rounded) else b
        return -_Namespace.maximum(-some._with(a), -some._with(b))


def step(
    rule: Rule,
    form: Around,
    inputs: Mapping[str, Any],
    slots: Mapping[str, Any],
    values: Mapping[str, float],
    dtype: str,
    *,
    widens: bool = True,
    summed: bool = False,
    flushes: bool = False,
) -> dict[str, Rounded]:
    """Return `x` and the slots after one step in elements of `dtype`, with error bounds.

    It is computed in float32 at least, or in `dtype` itself where the engine does not widen. `inputs` (`x`, `g`, `t`, and
    `h`, `g2` where the rule takes them) and `slots` are exact: they are what the engine has. `summed` if it adds to the
    parameter what `around.change` says; an infinite parameter that decays is NaN then. `flushes` if float32 has no
    subnormal numbers there.
    """
    kind = "float32" if widens and dtype != "float64" else dtype
    if flushes and kind == "float32":
        kind = "float32, flushed"
    exact = {name: array if name == "t" else Rounded(array, 0.0, False, kind) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        known = {name: Rounded(array, 0.0, False, kind) for name, array in slots.items()}
        some = exact["x"]
        x, new, _ = (around.change if summed else around.step)(rule, form, exact, known, values)
        made = {"x": some + x if summed else x} | new
        return {name: some._with(value).stored(dtype) for name, value in made.items()}


def times_too_far(found: NDArray[Any], expected: Rounded) -> NDArray[np.float64]:
    """Return the error of each element of `found`, as a multiple of the bound; infinite where a number stands for none.

    Where a number beyond the type's largest arose on the way, nothing is expected.
    """
    given = np.asarray(found, np.float64)
    # A rule may make one number for all elements.
    value, error, beyond = (
        np.broadcast_to(each, given.shape) for each in (expected.value, expected.error, expected.beyond)
    )
    same = (given == value) | (np.isnan(given) & np.isnan(value)) | beyond
    with np.errstate(all="ignore"):
        times = np.where(np.isfinite(given) & np.isfinite(value), np.abs(given - value) / error, np.inf)
    return np.where(same, 0.0, times)
