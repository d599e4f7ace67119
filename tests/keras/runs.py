"""Runs of an optimizer of Keras on given gradients, and the same by `steprule.reference`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.conformance.cases import RULES, beside
from tests.conformance.tolerances import Allowed, ulps

from steprule import Rule, reference
from steprule.keras import on_tensors, stepping
from steprule.program import Program

__all__ = [
    "BY_GRADIENT",
    "OF_KERAS",
    "Arrays",
    "by_reference",
    "check",
    "folds",
    "gradients",
    "handed_in",
    "named",
    "start",
    "statelessly",
    "stepped",
    "tensors_for",
    "values_of",
    "variables",
]

Arrays = list[NDArray[np.float64]]

# TensorFlow makes float32 of a plain number before it looks at the type: in Keras's classes and schedules, not in ours.
OF_KERAS: Final = "float32" if keras.config.backend() == "tensorflow" else "float64"

BY_GRADIENT: Final = [name for name, each in RULES.items() if not each.curvature]
"""The rules for which nothing is handed in."""

SHAPES = [(3, 5), (17,), ()]


def folds(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """Return a list that will have the program of each computation of scalars."""
    made = []

    def folded(program: Program, *given: Any) -> Any:
        made.append(program)
        return stepping.folded(program, *given)

    monkeypatch.setattr(on_tensors, "folded", folded)
    return made


def start() -> Arrays:
    rng = np.random.default_rng(2)
    return [rng.standard_normal(shape) for shape in SHAPES]


def gradients(steps: int = 6) -> list[Arrays]:
    rng = np.random.default_rng(3)
    return [[rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 2) for shape in SHAPES] for _ in range(steps)]


def handed_in(rule: Rule) -> dict[str, Arrays]:
    """Return what `rule` takes beside the gradient, at each step the same: an array for each variable."""
    found = [beside(rule, g) for g in gradients(1)[0]]
    return {name: [each[name] for each in found] for name in found[0]}


def tensors_for(optimizer: Any, dtype: str) -> dict[str, list[Any]]:
    """Return what is handed in to `optimizer`, nothing to one of Keras's."""
    taken = handed_in(optimizer.rule) if hasattr(optimizer, "rule") else {}
    return {name: [keras.ops.convert_to_tensor(each, dtype) for each in arrays] for name, arrays in taken.items()}


def variables(dtype: str = "float64") -> list[keras.Variable]:
    return [keras.Variable(x, dtype=dtype, name=f"v{place}") for place, x in enumerate(start())]


def named(cls: Any, values: Mapping[str, float]) -> dict[str, float]:
    """Return the hyperparameters of a rule under the names that its class has for them."""
    return {cls.keywords.names[name]: value for name, value in values.items()}


def values_of(each: Any) -> NDArray[np.float64]:
    return keras.ops.convert_to_numpy(each.value).astype(np.float64)


def stepped(
    optimizer: Any,
    steps: Sequence[Arrays],
    own: Sequence[Any] | None = None,
    change: Callable[[int], None] | None = None,
) -> Arrays:
    """Step variables that begin at `start` and return what they come to."""
    own = variables() if own is None else own
    more = tensors_for(optimizer, own[0].dtype)
    for number, grads in enumerate(steps):
        if change is not None:
            change(number)
        optimizer.apply([keras.ops.convert_to_tensor(g, own[0].dtype) for g in grads], own, **more)
    return [values_of(each) for each in own]


def statelessly(optimizer: Any, steps: Sequence[Arrays]) -> Arrays:
    """Do as `stepped` does by `stateless_apply`, as Keras itself does on JAX."""
    own = variables()
    optimizer.build(own)
    more = tensors_for(optimizer, own[0].dtype)
    xs, held = [each.value for each in own], [each.value for each in optimizer.variables]
    for grads in steps:
        tensors = [keras.ops.convert_to_tensor(g, own[0].dtype) for g in grads]
        xs, held = optimizer.stateless_apply(held, tensors, xs, **more)
    for each, begun in zip(own, start(), strict=True):
        np.testing.assert_array_equal(values_of(each), begun)
    return [keras.ops.convert_to_numpy(x).astype(np.float64) for x in xs]


def by_reference(
    rule: Rule, steps: Sequence[Arrays], values: Callable[[int, int], Mapping[str, float]], **form: bool
) -> Arrays:
    """Return what `start` comes to; `values` are the hyperparameters, by the number of the step and the variable's place."""
    xs, more = start(), handed_in(rule)
    states = [reference.init(rule, x) for x in xs]
    for number, grads in enumerate(steps):
        for place, g in enumerate(grads):
            taken = {name: arrays[place] for name, arrays in more.items()}
            xs[place], states[place] = reference.step(
                rule, xs[place], g, states[place], **taken, **form, **values(number, place)
            )
    return xs


def check(found: Arrays, expected: Arrays, allowed: Allowed, dtype: str = "float64") -> None:
    """Assert that two runs have come to the same, in units of the largest that a number was on its way."""
    for one, other, begun in zip(found, expected, start(), strict=True):
        apart = ulps(one, other, dtype, np.maximum(np.abs(begun), 1.0))
        assert apart.max(initial=0.0) <= allowed.amount, allowed.reason
