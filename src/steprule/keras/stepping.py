"""One step of a rule on the tensors of whichever library Keras computes with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import elements, scalars
from ..program import Program

__all__ = ["filled", "folded", "real_of", "stepped"]


def filled(shape: tuple[int, ...], dtype: str, *, value: float) -> Any:
    """Return a tensor of `value`, rounded to `dtype` once, made where it stays."""
    return ops.full(shape, ops.cast(np.full((), value, np.float64), dtype), dtype)


def real_of(variable: Any) -> str:
    """Return the type in which a variable's step is computed: float64 for float64, float32 for that and lower types."""
    return "float64" if keras.backend.standardize_dtype(variable.dtype) == "float64" else "float32"


def folded(program: Program, values: Mapping[str, Any], iterations: Any, real: str) -> Mapping[int, Any]:
    """Return each scalar of `program`, of type `real`, after `iterations` steps.

    `values` are the hyperparameters, `lr` among them, floats or tensors.
    """
    with _in_float64():
        wide = partial(ops.cast, dtype="float64")
        # TensorFlow makes float32 of a plain number before it looks at the type.
        rate = np.float64(values["lr"]) if isinstance(values["lr"], float) else wide(values["lr"])
        given = {**values, "lr": rate, "t": wide(iterations) + 1.0}
        return scalars(program, given, wide, partial(ops.cast, dtype=real))


def stepped(program: Program, arrays: Mapping[str, Any], known: Mapping[int, Any], real: str) -> dict[str, Any]:
    """Return the outputs of `program`, of type `real` and the shape of `arrays["x"]`.

    `arrays` are the program's inputs, `known` its scalars as `folded` returns them.
    """
    taken = {name: ops.cast(array, real) for name, array in arrays.items() if name in program.inputs}
    like = arrays["x"]
    made = elements(program, taken, known)
    # A slot may become what a variable was, which TensorFlow hands on as the variable itself, to be assigned to first.
    made = {
        name: ops.copy(value) if any(value is each for each in taken.values()) else value
        for name, value in made.items()
    }
    return {
        name: value if tuple(value.shape) == tuple(like.shape) else ops.broadcast_to(value, like.shape)
        for name, value in made.items()
    }


def _in_float64() -> contextlib.AbstractContextManager[Any]:
    """Let scalars have float64, which JAX has only where it is asked for."""
    if keras.config.backend() != "jax":
        return contextlib.nullcontext()
    import jax.experimental

    found: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # where older versions have it
    return found.enable_x64(True)  # type: ignore[no-any-return]
