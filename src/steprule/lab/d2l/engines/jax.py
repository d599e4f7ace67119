"""JAX: one compiled step; from scratch, and with optax's transformation beside ours. It has no loader of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from .... import jax as ours
from .... import reference
from ....rules import adadelta
from ..protocol import BATCH, Examples, Model, Plan, start

__all__ = ["PACKAGES", "WAYS"]

PACKAGES: Final = ("jax", "optax")

Start = Callable[[Any], Any]
Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


class _Compiled(Model):
    """The regression, stepped by `begin(parameters)`, a state, and a compiled `move(parameters, state, batch...)`."""

    def __init__(self, plan: Plan, examples: Examples, seed: int, *, make: Callable[[Any], tuple[Start, Step]]) -> None:
        begin, self._move = make(_key(plan))
        self.examples = examples
        self.parameters = tuple(jnp.asarray(each) for each in start(plan, seed))
        self.state = begin(self.parameters)

    def batches(self, order: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            yield jnp.asarray(self.examples.features[rows]), jnp.asarray(self.examples.labels[rows])

    def step(self, features: Any, labels: Any) -> None:
        self.parameters, self.state = self._move(self.parameters, self.state, features, labels)

    def loss(self) -> float:
        return float(_loss(self.parameters, self.examples.features, self.examples.labels, 0.5))

    def wait(self) -> None:
        for parameter in self.parameters:
            parameter.block_until_ready()


def _loss(parameters: Any, features: Any, labels: Any, factor: float) -> Any:
    weights, bias = parameters
    return factor * jnp.mean((features @ weights + bias - labels) ** 2)


def _key(plan: Plan) -> tuple[float, tuple[tuple[str, float], ...]]:
    """What decides a compiled step, so that the seeds share it."""
    return plan.factor, tuple(sorted(plan.hyperparameters.items()))


@cache
def _from_scratch(key: tuple[float, tuple[tuple[str, float], ...]]) -> tuple[Start, Step]:
    factor = key[0]
    settings: dict[str, Any] = dict(key[1])

    def begin(parameters: Any) -> Any:
        return [reference.init(adadelta, parameter) for parameter in parameters]

    @jax.jit
    def move(parameters: Any, states: Any, features: Any, labels: Any) -> tuple[Any, Any]:
        gradients = jax.grad(_loss)(parameters, features, labels, factor)
        stepped = [
            reference.step(adadelta, x, g, state, **settings)
            for x, g, state in zip(parameters, gradients, states, strict=True)
        ]
        return tuple(x for x, _ in stepped), [state for _, state in stepped]

    return begin, move


@cache
def _through(
    transformation: Callable[..., Any], key: tuple[float, tuple[tuple[str, float], ...]]
) -> tuple[Start, Step]:
    factor, hyperparameters = key
    optimizer = transformation(**dict(hyperparameters))

    @jax.jit
    def move(parameters: Any, state: Any, features: Any, labels: Any) -> tuple[Any, Any]:
        gradients = jax.grad(_loss)(parameters, features, labels, factor)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    return optimizer.init, move


WAYS: Final = {
    "scratch": partial(_Compiled, make=_from_scratch),
    "steprule": partial(_Compiled, make=partial(_through, ours.adadelta)),
    # Without a rate optax's ascends.
    "library": partial(_Compiled, make=partial(_through, partial(optax.adadelta, 1.0))),
}
