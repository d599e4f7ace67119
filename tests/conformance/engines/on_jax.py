"""The engines of `steprule.jax`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import jax
import numpy as np
import optax
from numpy.typing import NDArray
from tests.conformance.cases import EACH_PART_ONCE, Arrays, Form, beside

from steprule import Rule
from steprule.jax import apply, applying, kernel, transformation
from steprule.jax.applying import Step

from .engine import Engine, State

Arguments = tuple[tuple[str, Any], ...]

# What has been compiled is kept: one test begins where another did.


@functools.cache
def _transformed(rule: Rule, arguments: Arguments) -> optax.GradientTransformationExtraArgs:
    made = transformation(rule)(**dict(arguments))
    return made._replace(update=jax.jit(made.update))


@functools.cache
def _applied(rule: Rule, arguments: Arguments) -> Step:
    return apply(rule, **dict(arguments))


@functools.cache
def _applied_plainly(step: Step) -> Callable[..., Any]:
    return jax.jit(functools.partial(applying._step, step._settings, False))


class _InJax:
    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._rule, self._dtype = rule, dtype
        self._params = [self._array(x) for x in start]
        around = {"decoupled_weight_decay": form.decoupled, "maximize": form.maximize}
        self._begin(rule, tuple({**values, **form.values, **around}.items()))

    def _begin(self, rule: Rule, arguments: Arguments) -> None:
        raise NotImplementedError

    def _array(self, values: NDArray[np.float64]) -> jax.Array:
        return jax.numpy.asarray(values, self._dtype)

    def _beside(self, grads: Arrays) -> dict[str, list[jax.Array]]:
        names = beside(self._rule, np.zeros(1))
        return {name: [self._array(beside(self._rule, g)[name]) for g in grads] for name in names}

    def state(self) -> State:
        slots = self._state.slots
        states = []
        for place, x in enumerate(self._params):
            arrays = {"x": x, **{name: tree[place] for name, tree in slots.items()}}
            assert {str(array.dtype) for array in arrays.values()} == {self._dtype}
            assert {array.shape for array in arrays.values()} == {x.shape}
            # A copy: their memory may be used for the next step's.
            states.append({name: np.array(array, np.float64) for name, array in arrays.items()})
        return states


class _Transformation(_InJax):
    """`transformation(rule)` with `optax.apply_updates`, each compiled."""

    def _begin(self, rule: Rule, arguments: Arguments) -> None:
        made = _transformed(rule, arguments)
        self._update, self._state = made.update, made.init(self._params)

    def step(self, grads: Arrays) -> None:
        given = [self._array(g) for g in grads]
        updates, self._state = self._update(given, self._state, self._params, **self._beside(grads))
        self._params = optax.apply_updates(self._params, updates)


class _Apply(_InJax):
    """`apply(rule)`, which must take the fused loop."""

    def _begin(self, rule: Rule, arguments: Arguments) -> None:
        self._step = _applied(rule, arguments)
        self._state = self._step.init(self._params)

    def step(self, grads: Arrays) -> None:
        given = [self._array(g) for g in grads]
        assert kernel.serves([*self._params, *given])
        self._params, self._state = self._made(given, self._beside(grads))

    def _made(self, grads: list[jax.Array], more: dict[str, list[jax.Array]]) -> Any:
        return self._step(self._params, grads, self._state, **more)


class _ApplyPlain(_Apply):
    """`apply(rule)` in XLA's operations, as where no loop serves."""

    def _made(self, grads: list[jax.Array], more: dict[str, list[jax.Array]]) -> Any:
        return _applied_plainly(self._step)(self._params, grads, self._state, more)


_ALL_TYPES: Final = ("float32", "float64", "bfloat16", "float16")


def _in_64_bits() -> Any:
    return jax.enable_x64(True)


_ENGINES: Final = {
    "steprule.jax, transformation": Engine(_Transformation, shapes=("500",), summed=True),
    "steprule.jax, apply": Engine(_Apply, _ALL_TYPES, shapes=("several",)),
    "steprule.jax, apply, plain": Engine(_ApplyPlain, _ALL_TYPES, shapes=("500",)),
}

# XLA's threads flush subnormal numbers. Each form is compiled anew.
ENGINES: Final[Mapping[str, Engine]] = {
    name: replace(each, forms=EACH_PART_ONCE, within=_in_64_bits, flushes=True, compiled=True)
    for name, each in _ENGINES.items()
}
