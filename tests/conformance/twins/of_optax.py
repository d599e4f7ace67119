"""The twins in optax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import jax
import numpy as np
import optax
from tests.conformance.cases import Arrays
from tests.libraries import LIBRARIES

from .twin import Twin

__all__ = ["TWINS"]


class _Optax:
    def __init__(
        self,
        make: Callable[..., optax.GradientTransformation],
        values: Mapping[str, float],
        dtype: str,
        start: Arrays,
    ) -> None:
        self._transformation, self._dtype = make(**values), dtype
        with LIBRARIES["JAX"].within():
            self._parameters = [jax.numpy.asarray(x, dtype) for x in start]
            self._state = self._transformation.init(self._parameters)
            self._update = jax.jit(self._transformation.update)

    def step(self, gradients: Arrays) -> None:
        with LIBRARIES["JAX"].within():
            given = [jax.numpy.asarray(g, self._dtype) for g in gradients]
            updates, self._state = self._update(given, self._state, self._parameters)
            self._parameters = optax.apply_updates(self._parameters, updates)

    def state(self) -> list[dict[str, Any]]:
        return [{"x": np.asarray(x, np.float64)} for x in self._parameters]


def _twin(name: str, rule: str, make: Callable[..., optax.GradientTransformation], **more: Any) -> Twin:
    return Twin("optax", name, rule, partial(_Optax, make), **more)


_PRESENT_RATE: Final = (
    "optax multiplies the sum of past gradients by the present learning rate, we keep past steps with the lr of each: they "
    "agree while lr stays"
)

TWINS: Final = [
    _twin("optax.sgd", "sgd", lambda lr: optax.sgd(lr)),
    _twin(
        "optax.sgd(momentum=...)",
        "momentum",
        lambda lr, rho: optax.sgd(lr, momentum=rho),
        difference=_PRESENT_RATE,
    ),
    _twin(
        "optax.sgd(nesterov=True)",
        "nesterov",
        lambda lr, rho: optax.sgd(lr, momentum=rho, nesterov=True),
        difference=_PRESENT_RATE,
    ),
    _twin(
        "optax.adagrad",
        "adagrad",
        lambda lr, eps: optax.adagrad(lr, initial_accumulator_value=0.0, eps=eps),
        difference="optax adds eps under the root, we after it; and its sum starts with 0.1 unless told otherwise: they "
        "agree where eps is negligible and the start is 0",
        agreeing={"eps": 1e-40},
        differing={"eps": 1e-3},
    ),
    _twin(
        "optax.adadelta",
        "adadelta",
        lambda lr, rho, eps: optax.adadelta(lr, rho, eps),
        difference="without a learning rate optax applies no sign and ascends; ours descends: they agree where optax is "
        "given one, as 1.0",
    ),
    _twin(
        "optax.rmsprop(eps_in_sqrt=True)",
        "rmsprop",
        lambda lr, rho, eps: optax.rmsprop(lr, decay=rho, eps=eps, eps_in_sqrt=True),
    ),
    _twin("optax.adam", "adam", lambda lr, beta1, beta2, eps: optax.adam(lr, beta1, beta2, eps)),
    _twin(
        "optax.lion",
        "lion",
        lambda lr, beta1, beta2: optax.lion(lr, beta1, beta2, weight_decay=0.0),
        difference="optax decays the weights by 0.001 unless told otherwise, the example by nothing",
    ),
]
