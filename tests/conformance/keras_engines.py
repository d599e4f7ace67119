"""The classes of `steprule.keras` as an engine: one for each backend, each in a process that has that backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steprule import Rule

from .cases import Arrays, Form

__all__ = ["BACKENDS", "DTYPES", "OnKeras", "absent"]

# float16 goes the way of bfloat16.
DTYPES: Final = ("float32", "float64", "bfloat16")
BACKENDS: Final = {"Keras on TensorFlow": "tensorflow", "Keras on JAX": "jax", "Keras on PyTorch": "torch"}


def absent(backend: str) -> str:
    """Return why the engine is not here, if it is not: a process has one backend, and the others are not to be loaded."""
    chosen = os.environ.get("KERAS_BACKEND", "")
    return "" if chosen == backend else f"KERAS_BACKEND is {chosen!r}; `make test-keras` runs a process for each"


class OnKeras:
    """A class of `steprule.keras` with a variable for each tensor."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        import keras
        from steprule.keras import optimizer

        self._keras, self._dtype = keras, dtype
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

    def step(self, grads: Arrays) -> None:
        self._optimizer.apply([self._keras.ops.convert_to_tensor(g, self._dtype) for g in grads], self._variables)
        if self._keras.config.backend() == "torch":
            from .engines import paths  # which imports this module

            assert paths(self._optimizer._fused.optimizer) == (len(grads), 0)

    def state(self) -> list[dict[str, NDArray[np.float64]]]:
        states = []
        for index, variable in enumerate(self._variables):
            held: dict[str, Any] = {"x": variable, **self._optimizer._slots_of(index)}
            assert {each.dtype for each in held.values()} == {self._dtype}
            states.append(
                {name: self._keras.ops.convert_to_numpy(each.value).astype(np.float64) for name, each in held.items()}
            )
        return states
