"""What an engine is to the tests: it begins with parameters, takes gradients, and tells what parameters and slots are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.conformance.cases import EACH_PART_ONCE, FORMS, SHAPES, Arrays, Form
from tests.conformance.tolerances import rounded

from steprule import Rule

__all__ = ["Engine", "State", "initial"]

State = list[dict[str, NDArray[np.float64]]]
"""For each tensor, the parameter `x` and each slot by name."""


@dataclass(frozen=True)
class Engine:
    """An engine, and the element types, shapes (of `cases.SHAPES`) and forms (of `cases.FORMS`) that it is tested with.

    `begin(rule, hyperparameters, form, dtype, start)` returns what has `step(gradients)` and `state()`; a step takes
    `cases.beside` of each gradient too, if `curved`. `within()` is what it is used in. `widens` says that lower types are
    computed in float32, `summed` that it adds an update to the parameter and does no more, `flushes` that float32 has no
    subnormal numbers there, `compiled` that shapes are compiled anew, `many_steps` that a step is quick enough for some
    hundred of them, and `absent` why the engine cannot be tested here.
    """

    begin: Callable[[Rule, Mapping[str, float], Form, str, Arrays], Any] | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")
    shapes: tuple[str, ...] = tuple(SHAPES)
    forms: tuple[str, ...] = tuple(FORMS)
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    curved: bool = True
    widens: bool = True
    summed: bool = False
    flushes: bool = False
    compiled: bool = False
    many_steps: bool = True
    absent: str = ""

    def shapes_with(self, form: str) -> list[str]:
        """Return the shapes to test a form with: all of them, or the last one where each part of the form has been tested.

        Where tensors begin and end is the same in each form.
        """
        return list(self.shapes) if form in EACH_PART_ONCE else [self.shapes[-1]]

    def takes(self, rule: Rule) -> bool:
        """Whether the engine can step by the rule."""
        return self.curved or not rule.curvature


def initial(rule: Rule, start: Arrays, dtype: str) -> State:
    """Return the state before the first step; an initial value is rounded to `dtype`, as the engine keeps it."""
    return [
        {"x": x, **{name: np.full(x.shape, rounded(value, dtype)) for name, value in rule.slots.items()}} for x in start
    ]
