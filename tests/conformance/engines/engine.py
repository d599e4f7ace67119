"""What an engine is to the tests: it begins with parameters, takes gradients, and tells what parameters and slots are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tests.conformance.cases import SHAPES, Arrays, Form
from tests.conformance.tolerances import rounded

from steprule import Rule, reference

__all__ = ["FEW", "Engine", "Reference", "State", "initial"]

State = list[dict[str, NDArray[np.float64]]]
"""For each tensor, the parameter `x` and each slot by name."""

# The loops of an array library are not ours to test at every length, and its chunks are not those of the kernel.
FEW: Final = ("0-dim", "empty", "3x5")


@dataclass(frozen=True)
class Engine:
    """An engine, and the element types and shapes (of `cases.SHAPES`) that it is tested with.

    `begin(rule, hyperparameters, form, dtype, start)` returns what has `step(gradients)` and `state()`. `within()` is what
    it is used in. `widens` says that lower types are computed in float32. `absent` says why it cannot be tested here.
    """

    begin: Callable[[Rule, Mapping[str, float], Form, str, Arrays], Any] | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")
    shapes: tuple[str, ...] = tuple(SHAPES)
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    widens: bool = True
    absent: str = ""


def initial(rule: Rule, start: Arrays, dtype: str) -> State:
    """Return the state before the first step; an initial value is rounded to `dtype`, as the engine keeps it."""
    return [
        {"x": x, **{name: np.full(x.shape, rounded(value, dtype)) for name, value in rule.slots.items()}} for x in start
    ]


class Reference:
    """`steprule.reference` on the arrays of one library."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._rule, self._form, self._values = rule, form, {**values, **form.values}
        self._dtype = dtype
        self._xs = [self.array(x) for x in start]
        self._states = [reference.init(rule, x) for x in self._xs]

    def array(self, values: NDArray[np.float64]) -> Any:
        return values.astype(self._dtype)

    def numbers(self, array: Any) -> NDArray[np.float64]:
        return np.asarray(array, np.float64)

    def step(self, grads: Arrays) -> None:
        with np.errstate(all="ignore"):
            made = [
                reference.step(
                    self._rule,
                    x,
                    self.array(g),
                    state,
                    decoupled_weight_decay=self._form.decoupled,
                    maximize=self._form.maximize,
                    **self._values,
                )
                for x, g, state in zip(self._xs, grads, self._states, strict=True)
            ]
        self._xs, self._states = [x for x, _ in made], [state for _, state in made]

    def state(self) -> State:
        states = []
        for x, state in zip(self._xs, self._states, strict=True):
            arrays = {"x": x, **{name: state[name] for name in self._rule.slots}}
            for name, array in arrays.items():
                kind = str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2].strip("'>")
                assert kind == self._dtype, f"{name} is {array.dtype}"
                assert tuple(array.shape) == tuple(x.shape), f"{name} is {array.shape}"
            states.append({name: self.numbers(array) for name, array in arrays.items()})
        return states
