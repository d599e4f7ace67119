"""Symbols on which a rule is run once, so that what it computes is written down in its order."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["COMPARISONS", "Trace", "Value", "with_operands"]

COMPARISONS: Final = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


class Value:
    """One value of a program: an input or slot (`name`), a number (`number`), or an operation on other values."""

    def __init__(
        self,
        trace: Trace,
        position: int,
        operation: str,
        operands: tuple[Value, ...],
        varies: bool,
        name: str,
        number: float,
    ) -> None:
        self._trace = trace
        self.position: Final = position
        self.operation: Final = operation
        self.operands: Final = operands
        self.varies: Final = varies
        """Whether it differs from element to element."""
        self.name: Final = name
        self.number: Final = number

    def __steprule_trace__(self, operation: str, *operands: Any) -> Value:
        return self._trace.apply(operation, *operands)

    def __add__(self, other: Any) -> Value:
        return self._trace.apply("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self._trace.apply("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self._trace.apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self._trace.apply("subtract", other, self)

    def __mul__(self, other: Any) -> Value:
        return self._trace.apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self._trace.apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self._trace.apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._trace.apply("divide", other, self)

    def __pow__(self, other: Any) -> Value:
        return self._trace.apply("power", self, other)

    def __rpow__(self, other: Any) -> Value:
        return self._trace.apply("power", other, self)

    def __iadd__(self, other: Any) -> Value:
        # Arrays would be written to: a slot and all that was given its name, or the caller's gradient.
        raise TypeError(
            "a rule must not change its operands in place, as `a += b` does with arrays; write `a = a + b`, and so for the "
            "other operations"
        )

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __iadd__

    def __neg__(self) -> Value:
        return self._trace.apply("negative", self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return self._trace.apply("abs", self)

    def __lt__(self, other: Any) -> Value:
        return self._trace.apply("less", self, other)

    def __le__(self, other: Any) -> Value:
        return self._trace.apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return self._trace.apply("greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return self._trace.apply("greater_equal", self, other)

    def __eq__(self, other: Any) -> Value:  # type: ignore[override]  # an equation compares elements, not objects
        return self._trace.apply("equal", self, other)

    def __ne__(self, other: Any) -> Value:  # type: ignore[override]  # as above
        return self._trace.apply("not_equal", self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError(
            "a rule must not branch on its operands, since they hold many elements or are not known yet; use "
            "steprule.notation.where(condition, a, b), which computes both"
        )


def with_operands(values: Iterable[Value]) -> list[Value]:
    """Return the values and all that they are made of, in the order in which the rule made them."""
    found: dict[int, Value] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value.position not in found:
            found[value.position] = value
            waiting.extend(value.operands)
    return [found[position] for position in sorted(found)]


class Trace:
    """Makes values; equal ones are one object. `cheaply` asks for the cheaper of two equal forms (see `_cheaper`)."""

    def __init__(self, *, cheaply: bool) -> None:
        self._made: dict[tuple[Any, ...], Value] = {}
        self._cheaply = cheaply

    def _value(
        self,
        operation: str,
        operands: tuple[Value, ...] = (),
        *,
        varies: bool = False,
        name: str = "",
        number: float = 0.0,
    ) -> Value:
        # repr tells 0.0 from -0.0 and holds for NaN.
        key = (operation, tuple(id(operand) for operand in operands), varies, name, repr(number))
        if key not in self._made:
            self._made[key] = Value(self, len(self._made), operation, operands, varies, name, number)
        return self._made[key]

    def symbol(self, name: str, *, varies: bool) -> Value:
        return self._value("symbol", varies=varies, name=name)

    def apply(self, operation: str, *operands: Any) -> Value:
        values = tuple(
            self.operand(each) if (operation, place) == ("where", 0) else self.number(each)
            for place, each in enumerate(operands)
        )
        if operation == "power" and values[0].varies and values[1].operation == "number":
            exponent = values[1].number
            if exponent in (1.0, 2.0, 3.0, 4.0):
                # A product, as in the paper's square; a call of pow is neither as fast nor as exact.
                return functools.reduce(lambda a, b: self.apply("multiply", a, b), [values[0]] * int(exponent))
            if exponent == 0.5:
                return self.apply("sqrt", values[0])
        cheaper = self._cheaper(*values) if operation == "divide" and self._cheaply and values[0].varies else None
        if cheaper is not None:
            return cheaper
        return self._value(operation, values, varies=any(value.varies for value in values))

    def _cheaper(self, over: Value, under: Value) -> Value | None:
        """Return a quotient that costs less: by a scalar's reciprocal, or of two roots under one root."""
        if not under.varies:
            return self.apply("multiply", over, self.apply("divide", 1.0, under))
        if over.operation == "negative" and over.operands[0].operation == under.operation == "sqrt":
            return self.apply("negative", self.apply("divide", over.operands[0], under))
        if over.operation == under.operation == "sqrt":
            # Two long operations in place of three, and two roundings.
            return self.apply("sqrt", self.apply("divide", over.operands[0], under.operands[0]))
        return None

    def number(self, operand: Any) -> Value:
        """Return an operand that is counted with or kept, which no condition is."""
        value = self.operand(operand)
        if value.operation in COMPARISONS:
            # Libraries do not agree on what a sum of truths is.
            raise TypeError(
                "a rule counts with a comparison, which is a condition; where(condition, 1.0, 0.0) makes a number of it"
            )
        return value

    def operand(self, operand: Any) -> Value:
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, bool) or not isinstance(operand, (int, float)):
            raise TypeError(
                f"a rule's equation holds {operand!r}, a {type(operand).__name__}; allowed are numbers of Python's, int and "
                "float"
            )
        return self._value("number", number=float(operand))
