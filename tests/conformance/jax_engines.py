"""Engines of `steprule.jax`, behind the interface of `engines`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from steprule import Rule
from steprule.jax import apply, applying, kernel, transformation

from .cases import Arrays, Form

__all__ = ["Apply", "ApplyPlain", "Transformation"]


class _Engine:
    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._dtype = dtype
        self._params = [self._array(x) for x in start]
        around = {"decoupled_weight_decay": form.decoupled, "maximize": form.maximize}
        self._begin(rule, {**values, **form.values, **around})

    def _begin(self, rule: Rule, arguments: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _array(self, values: NDArray[np.float64]) -> jax.Array:
        return jax.numpy.asarray(values, self._dtype)

    def state(self) -> list[dict[str, NDArray[np.float64]]]:
        slots = self._state.slots
        states = []
        for place, x in enumerate(self._params):
            arrays = {"x": x, **{name: tree[place] for name, tree in slots.items()}}
            assert {str(array.dtype) for array in arrays.values()} == {self._dtype}
            assert {array.shape for array in arrays.values()} == {x.shape}
            # A copy: their memory may be used for the next step's.
            states.append({name: np.array(array, np.float64) for name, array in arrays.items()})
        return states


class Transformation(_Engine):
    """`transformation(rule)` with `optax.apply_updates`, each compiled."""

    def _begin(self, rule: Rule, arguments: Mapping[str, Any]) -> None:
        made = transformation(rule)(**arguments)
        self._update, self._state = jax.jit(made.update), made.init(self._params)

    def step(self, grads: Arrays) -> None:
        updates, self._state = self._update([self._array(g) for g in grads], self._state, self._params)
        self._params = optax.apply_updates(self._params, updates)


class Apply(_Engine):
    """`apply(rule)`, which must take the fused loop."""

    def _begin(self, rule: Rule, arguments: Mapping[str, Any]) -> None:
        self._step = apply(rule, **arguments)
        self._state = self._step.init(self._params)

    def step(self, grads: Arrays) -> None:
        grads = [self._array(g) for g in grads]
        assert kernel.serves([*self._params, *grads])
        self._params, self._state = self._made(grads)

    def _made(self, grads: list[jax.Array]) -> Any:
        return self._step(self._params, grads, self._state)


class ApplyPlain(Apply):
    """`apply(rule)` in XLA's operations, as where no loop serves."""

    def _begin(self, rule: Rule, arguments: Mapping[str, Any]) -> None:
        super()._begin(rule, arguments)
        self._compiled = jax.jit(lambda *trees: applying._step(self._step._settings, False, *trees, {}))

    def _made(self, grads: list[jax.Array]) -> Any:
        return self._compiled(self._params, grads, self._state)
