"""The classes of `steprule.keras` as an engine: one for each backend, each in a process that has that backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
from tests.conformance.cases import EACH_PART_ONCE, Arrays, Form, beside
from tests.conformance.paths import paths
from tests.libraries import LIBRARIES

from steprule import Rule

from .engine import Engine, State


class _OnKeras:
    """A class of `steprule.keras` with a variable for each tensor."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        # Not before: a process has one backend, and the others are not to be loaded.
        import keras

        from steprule.keras import optimizer

        self._keras, self._rule, self._dtype = keras, rule, dtype
        cls = optimizer(rule)
        named = {cls.keywords.names[name]: value for name, value in {**values, **form.values}.items()}
        before = keras.config.floatx()
        # Keras keeps the rate in this type.
        keras.config.set_floatx("float64" if dtype == "float64" else "float32")
        try:
            self._variables = [keras.Variable(x, dtype=dtype) for x in start]
            self._optimizer = cls(decoupled_weight_decay=form.decoupled, maximize=form.maximize, **named)
            self._optimizer.build(self._variables)
        finally:
            keras.config.set_floatx(before)

    def _tensors(self, arrays: Arrays) -> list[Any]:
        return [self._keras.ops.convert_to_tensor(array, self._dtype) for array in arrays]

    def step(self, grads: Arrays) -> None:
        names = beside(self._rule, np.zeros(1))
        more = {name: self._tensors([beside(self._rule, g)[name] for g in grads]) for name in names}
        self._optimizer.apply(self._tensors(grads), self._variables, **more)
        if self._keras.config.backend() == "torch":
            assert paths(self._optimizer._fused.optimizer) == (len(grads), 0)

    def state(self) -> State:
        states = []
        for index, variable in enumerate(self._variables):
            held: dict[str, Any] = {"x": variable, **self._optimizer._slots_of(index)}
            assert {each.dtype for each in held.values()} == {self._dtype}
            states.append(
                {name: self._keras.ops.convert_to_numpy(each.value).astype(np.float64) for name, each in held.items()}
            )
        return states


def _absent(backend: str) -> str:
    chosen = os.environ.get("KERAS_BACKEND", "")
    return "" if chosen == backend else f"KERAS_BACKEND is {chosen!r}; `make test-keras` runs a process for each"


def _within(backend: str) -> Callable[[], AbstractContextManager[Any]]:
    return LIBRARIES["JAX"].within if backend == "jax" else nullcontext


_BACKENDS: Final = {"Keras on TensorFlow": "tensorflow", "Keras on JAX": "jax", "Keras on PyTorch": "torch"}

ENGINES: Final[Mapping[str, Engine]] = {
    # float16 goes the way of bfloat16.
    name: Engine(
        _OnKeras,
        ("float32", "float64", "bfloat16"),
        ("several",),
        EACH_PART_ONCE,
        _within(backend),
        # As XLA's and our own loop, TensorFlow's threads flush subnormal numbers.
        flushes=True,
        absent=_absent(backend),
    )
    for name, backend in _BACKENDS.items()
}
