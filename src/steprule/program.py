"""A rule as a straight-line program: traced once on symbols, in the order in which its paper's lines are written.

Two things are done to it and no more. Equal values are computed once. And what holds only hyperparameters, the step count
and numbers is split off: `Program.fold` computes it in float64, once per step, so that an engine's loop meets each such
value as one number of its own type. (Left in a float32 loop, `1 - rho` is promoted to float64, at four times the cost, or
rounded twice: near rho = 0.999, `1 - float32(rho)` is off by 5e-5.) To that belongs that a division by such a value is a
multiplication by its reciprocal, itself such a value: Adam's two bias corrections are half of its time otherwise.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from . import around, notation
from .around import PLAIN, Around
from .specification import Rule, check_rule
from .tracing import Trace, Value, with_operands

__all__ = ["Program", "Value", "assignments", "depends_on_count", "expression", "lower"]

# Operations in one expression: as many as anybody reads, and fewer brackets within brackets than Python's parser takes.
_LONGEST: Final = 40


@dataclass(frozen=True, eq=False)
class Program:
    """A traced program: `outputs` by name, computed from the elements `inputs` and from `scalars`.

    For a whole step, `inputs` are `x`, `g` (and `h`, `g2`) and the slots, and `outputs` the new `x` and the new slots that
    differ from the old. `names` calls values, by their `id`, what they are in the rule.
    """

    title: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, Value]
    scalars: tuple[Value, ...]
    names: Mapping[int, str]
    hyperparameters: tuple[str, ...]
    finite: Value | None = None
    """Of a guarded step, the condition that an element steps at all."""

    def values(self) -> list[Value]:
        """Return each value that varies from element to element and is needed, in the order in which the rule made them."""
        return [value for value in with_operands(self.outputs.values()) if value.varies]

    @functools.cached_property
    def operations(self) -> int:
        """Operations per element."""
        return sum(value.operation != "symbol" for value in self.values())

    @functools.cached_property
    def arrays(self) -> tuple[str, ...]:
        """The arrays of a whole step: those that it reads, then those that it only writes."""
        return (*self.inputs, *(name for name in self.outputs if name not in self.inputs))

    def bytes_per_element(self, itemsize: int) -> int:
        """Return the bytes that one element's step moves: each input read once, each output written once."""
        return itemsize * (len(self.inputs) + len(self.outputs))

    @functools.cached_property
    def counts(self) -> bool:
        """Whether some scalar depends on the step count."""
        return any(map(depends_on_count, self.scalars))

    @functools.cached_property
    def fold(self) -> Callable[..., tuple[float, ...]]:
        """A function that returns the value of each of `scalars`.

        It takes `t`, the hyperparameters and, if the step unscales, `grad_scale`: floats, by keyword.
        """
        taken = ("t", *self.hyperparameters, "grad_scale")
        wide = f"{max(taken, key=len)}_"  # a name that none of them has
        numbers = [value for value in with_operands(self.scalars) if value.operation == "number"]
        fold = self._folding(taken, {}, {})
        fold_arrays = functools.cache(
            lambda: self._folding(
                taken, {id(each): f"{wide}({expression(each)})" for each in numbers}, {wide: np.float64}
            )
        )

        def safe(**scalars: float) -> tuple[float, ...]:
            found: tuple[float | complex, ...] | None
            try:
                found = fold(**scalars)
            except (ArithmeticError, TypeError):
                found = None
            if found is None or complex in map(type, found):
                # Python refuses to divide by zero or to overflow, and leaves the real numbers where a root has none, with
                # what it refuses to compare; an array would hold inf or NaN, as NumPy's numbers do.
                with np.errstate(all="ignore"):
                    found = fold_arrays()(
                        **{
                            name: value if hasattr(value, "dtype") else np.float64(value)  # JAX traces some
                            for name, value in scalars.items()
                        }
                    )
            return found  # type: ignore[return-value]  # no complex is left

        return safe

    def _folding(
        self, taken: tuple[str, ...], names: Mapping[int, str], scope: Mapping[str, object]
    ) -> Callable[..., tuple[float | complex, ...]]:
        """Return the function of the names `taken` that computes `scalars`, with `names` as for `expression`."""
        lines, longest = self.scalar_lines(), max(taken, key=len)
        # Names that none of the others has.
        names = {**names, **{id(value): f"{longest}_{number}" for number, value in enumerate(lines, 1)}}
        listed = "".join(f"{expression(scalar, names)}, " for scalar in self.scalars)
        body = "".join(f"    {line}\n" for line in (*assignments(lines, names), f"return ({listed})"))
        source = f"def fold(*, {', '.join(taken)}=1.0):\n{body}"
        known: dict[str, Any] = {name: getattr(notation, name) for name in notation.__all__} | {**scope}
        exec(compile(source, f"<scalars of {self.title}>", "exec"), known)
        return known["fold"]  # type: ignore[no-any-return]

    def line_values(self) -> list[Value]:
        """Return the values that deserve a line of their own: outputs, what the rule names, what is used twice or long."""
        ordered = [value for value in self.values() if value.operation != "symbol"]
        uses = collections.Counter(id(operand) for value in ordered for operand in value.operands)
        return _in_lines(ordered, self.names.keys() | {each for each, count in uses.items() if count > 1})

    def scalar_lines(self) -> list[Value]:
        """Return what of `scalars` is so long that it deserves a line of its own, as a series that a rule sums does."""
        return _in_lines([value for value in with_operands(self.scalars) if value.operands], frozenset())


def _in_lines(ordered: Iterable[Value], own: Set[int]) -> list[Value]:
    """Return those of the operations `ordered` that get a line: the ones in `own`, by `id`, and what is long otherwise."""
    lines, length = [], dict[int, int]()
    for value in ordered:
        length[id(value)] = 1 + sum(length.get(id(operand), 0) for operand in value.operands)
        if id(value) in own or length[id(value)] > _LONGEST:
            length[id(value)] = 0
            lines.append(value)
    return lines


def depends_on_count(scalar: Value) -> bool:
    """Whether the step count is in `scalar`."""
    return any(value.name == "t" for value in with_operands([scalar]))


_PYTHON: Final = {
    "add": ("+", 1),
    "subtract": ("-", 1),
    "multiply": ("*", 2),
    "divide": ("/", 2),
    "negative": ("-", 3),
    "power": ("**", 4),
    "less": ("<", 0),
    "less_equal": ("<=", 0),
    "greater": (">", 0),
    "greater_equal": (">=", 0),
    "equal": ("==", 0),
    "not_equal": ("!=", 0),
}


def expression(value: Value, names: Mapping[int, str] | None = None, functions: Mapping[str, str] | None = None) -> str:
    """Return `value` as a Python expression, in which a value whose `id` is in `names` is called by that name.

    An operation that is in `functions` is written as a call of the function that stands there for it.
    """
    return _expression(value, names or {}, functions or {})[0]


def assignments(
    values: Iterable[Value], names: Mapping[int, str], functions: Mapping[str, str] | None = None
) -> list[str]:
    """Return the assignment of each of `values` to the name that it has; `names` and `functions` as for `expression`."""
    lines = []
    for value in values:
        others = {key: name for key, name in names.items() if key != id(value)}
        lines.append(f"{names[id(value)]} = {expression(value, others, functions)}")
    return lines


def _literal(number: float) -> str:
    """Return a number as Python reads it, without help from any name."""
    if math.isnan(number):
        return "(1e999 - 1e999)"
    if math.isinf(number):
        return "1e999" if number > 0 else "(-1e999)"
    text = repr(number) if str(number) == "-0.0" else repr(number).removesuffix(".0")
    return f"({text})" if text.startswith("-") else text


def _expression(value: Value, names: Mapping[int, str], functions: Mapping[str, str]) -> tuple[str, int]:
    if id(value) in names:
        return names[id(value)], 9
    if value.operation == "symbol":
        return value.name, 9
    if value.operation == "number":
        return _literal(value.number), 9
    parts = [_expression(operand, names, functions) for operand in value.operands]
    if value.operation not in _PYTHON or value.operation in functions:
        called = functions.get(value.operation, value.operation)
        return f"{called}({', '.join(text for text, _ in parts)})", 9
    sign, rank = _PYTHON[value.operation]

    def bracketed(part: tuple[str, int], least: int) -> str:
        return part[0] if part[1] >= least else f"({part[0]})"

    if len(parts) == 1:
        return f"{sign}{bracketed(parts[0], rank)}", rank
    # The right operand of equal rank keeps its brackets: the order of rounding is the rule's.
    left, right = (rank + 1, rank) if value.operation == "power" else (rank, rank + 1)
    return f"{bracketed(parts[0], left)} {sign} {bracketed(parts[1], right)}", rank


@functools.cache
def lower(rule: Rule, around_it: Around | None = PLAIN, *, change: bool = False) -> Program:
    """Return the program of a whole step of `rule` with what is `around_it`; with None, that of the rule alone.

    The rule alone has its update as the output `dx` in place of `x`, and so has a whole step of which the `change` is asked
    for: what it adds to the parameter. Raises `TypeError` for what is no rule, and where the rule branches on its
    operands, calls a function that `steprule.notation` has not, or returns another number of values than its slots ask for.
    """
    check_rule(rule)
    trace = Trace(cheaply=around_it is not None)
    elements = ["x", "g", *rule.curvature, *rule.slots]
    given = {name: trace.symbol(name, varies=True) for name in elements} | {"t": trace.symbol("t", varies=False)}
    declared = tuple(around.hyperparameters(rule))
    values = {name: trace.symbol(name, varies=False) for name in (*declared, "grad_scale")}
    slots = {name: given[name] for name in rule.slots}
    try:
        if around_it is None:
            dx, new = around.update(rule, given, slots, values)
            returned = {"dx": dx} | new
        elif change:
            moved, new, dx = around.change(rule, around_it, given, slots, values)
            returned = {"dx": moved} | new
        else:
            x, new, dx = around.step(rule, around_it, given, slots, values)
            returned = {"x": x} | new
    except (TypeError, AttributeError) as error:
        # NumPy, PyTorch, `math` and Python each say in their own words that they know no symbol, and all name its class.
        if Value.__name__ not in str(error):
            raise
        raise TypeError(
            f"rule {rule.name} computes what no equation of a rule holds ({error}); allowed are + - * / **, comparisons, "
            f"and {', '.join(notation.__all__)} of steprule.notation"
        ) from error
    outputs = {name: trace.number(value) for name, value in returned.items()}
    outputs = {name: value for name, value in outputs.items() if value is not given.get(name)}
    names = {id(value): f"new_{name}" for name, value in outputs.items()} | {id(dx): "dx"}
    finite = None
    if around_it is not None and around_it.guard:
        g = given["g"] / values["grad_scale"] if around_it.unscale else given["g"]
        finite = around.is_finite(g)  # equal values are one object: it is the one that the step asks
        names |= {id(finite): "finite"}

    ordered = Program(rule.name, (), outputs, (), names, declared).values()
    used = {value.name for value in ordered if value.operation == "symbol"}
    needed = [each for value in ordered for each in value.operands] + list(outputs.values())
    scalars = {id(value): value for value in needed if not value.varies}
    inputs = tuple(name for name in elements if name in used)
    return Program(rule.name, inputs, outputs, tuple(scalars.values()), names, declared, finite)
