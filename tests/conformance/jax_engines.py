"""Engines of `steprule.jax`, behind the interface of `engines`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from steprule import Rule
from steprule.jax import transformation

from .cases import Arrays, Form

__all__ = ["Transformation"]


class Transformation:
    """`transformation(rule)` with `optax.apply_updates`, each compiled."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._dtype = dtype
        self._params = [self._array(x) for x in start]
        self.begin(
            rule,
            {**values, **form.values, "decoupled_weight_decay": form.decoupled, "maximize": form.maximize},
        )

    def begin(self, rule: Rule, arguments: Mapping[str, Any]) -> None:
        made = transformation(rule)(**arguments)
        self._update, self._state = jax.jit(made.update), made.init(self._params)

    def _array(self, values: NDArray[np.float64]) -> jax.Array:
        return jax.numpy.asarray(values, self._dtype)

    def step(self, grads: Arrays) -> None:
        updates, self._state = self._update([self._array(g) for g in grads], self._state, self._params)
        self._params = jax.jit(optax.apply_updates)(self._params, updates)

    def state(self) -> list[dict[str, NDArray[np.float64]]]:
        slots = self._state.slots
        states = []
        for place, x in enumerate(self._params):
            arrays = {"x": x, **{name: tree[place] for name, tree in slots.items()}}
            assert {str(array.dtype) for array in arrays.values()} == {self._dtype}
            assert {array.shape for array in arrays.values()} == {x.shape}
            states.append({name: np.asarray(array, np.float64) for name, array in arrays.items()})
        return states
