"""The array libraries that are installed, each with what a test needs to make its arrays and to read them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["ABSENT", "LIBRARIES", "Library"]


@dataclass(frozen=True)
class Library:
    """How to make an array of `values` and a dtype's name, and to read one as float64 of NumPy.

    `lower` names the types below float32 that the library computes in. `within()` is what float64, and shapes without
    dimensions or elements, need. `older_shapes` says that there are no such shapes.
    """

    array: Callable[[Any, str], Any]
    numbers: Callable[[Any], Any] = lambda array: np.asarray(array, np.float64)
    lower: tuple[str, ...] = ()
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    older_shapes: bool = False


def _numpy() -> Library:
    return Library(np.array, lower=("float16",))


def _torch() -> Library:
    import torch

    return Library(
        lambda values, dtype: torch.tensor(values, dtype=getattr(torch, dtype)),
        lambda array: array.detach().double().numpy(),
        ("bfloat16", "float16"),
    )


def _jax() -> Library:
    import jax

    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    return Library(jax.numpy.asarray, lower=("bfloat16", "float16"), within=lambda: enable(True))


def _tensorflow() -> Library:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it tells at length of GPUs that are not there
    import tensorflow as tf

    return Library(tf.constant, lambda array: tf.cast(array, "float64").numpy(), ("bfloat16", "float16"))


def _mxnet() -> Library:
    import mxnet

    return Library(
        lambda values, dtype: mxnet.np.array(values, dtype=dtype),
        lambda array: array.astype("float64").asnumpy(),
        ("float16",),
        # As `npx.set_np()` does, which MXNet asks its users to call.
        lambda: mxnet.util.np_shape(True),
    )


def _older_mxnet() -> Library:
    import mxnet

    return Library(
        lambda values, dtype: mxnet.nd.array(values, dtype=dtype),
        lambda array: array.astype("float64").asnumpy(),
        ("float16",),
        older_shapes=True,
    )


def _array_api_strict() -> Library:
    import array_api_strict

    return Library(lambda values, dtype: array_api_strict.asarray(np.array(values, dtype)))


_MAKERS: Final[Mapping[str, tuple[str, Callable[[], Library]]]] = {
    "NumPy": ("numpy", _numpy),
    "torch": ("torch", _torch),
    "JAX": ("jax", _jax),
    "TensorFlow": ("tensorflow", _tensorflow),
    "MXNet": ("mxnet", _mxnet),
    "MXNet's older arrays": ("mxnet", _older_mxnet),
    "array-api-strict": ("array_api_strict", _array_api_strict),
}

LIBRARIES: Final[Mapping[str, Library]] = {
    name: make() for name, (package, make) in _MAKERS.items() if importlib.util.find_spec(package) is not None
}

ABSENT: Final[Mapping[str, str]] = {
    name: f"{package} is not installed" for name, (package, _) in _MAKERS.items() if name not in LIBRARIES
}
"""The other libraries, and why they are not there."""
