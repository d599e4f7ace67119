"""Handwritten digits and a small net for them."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tests.requirements import require_installed

__all__ = ["compiled", "data", "model", "same_variables"]


@functools.cache
def data() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the images, float32 (1797, 64) in [0, 1], and which digits they show."""
    require_installed("sklearn")
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), targets


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((64,)), *layers])


def compiled(optimizer: Any, *, jit_compile: bool | None = None) -> keras.Model:
    """Return the model with this optimizer; unless told otherwise, its step is compiled on JAX, as by default in Keras.

    On the others, compiling would take longer than all steps of a test.
    """
    if jit_compile is None:
        jit_compile = keras.config.backend() == "jax"
    made = model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)
    return made


def same_variables(one: Any, other: Any) -> bool:
    """Whether two optimizers keep the same numbers."""
    pairs = zip(one.variables, other.variables, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)
