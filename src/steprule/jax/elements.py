"""A rule's program in JAX's operations: the scalars of a step, and the step of one array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import elements
from ..program import Program

__all__ = ["kind_of", "run", "scalars"]

_enable_x64: Any = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # type: ignore[attr-defined]


def kind_of(*arrays: Any) -> str:
    """Return the type in which a step of these arrays is computed: "float32" for this and lower ones, else "float64"."""
    wide = any(array.dtype in (jnp.float64, jnp.complex128) for array in arrays)
    return "float64" if wide else "float32"


def scalars(program: Program, values: Mapping[str, Any], t: Any, kind: str) -> tuple[Any, ...]:
    """Return the value of each of `program.scalars`, computed in float64 and rounded to `kind` once.

    Those that nothing traced is in are computed here and now. The others are computed in float64 where the step runs,
    whether or not JAX is set to 64 bits: of `1 - beta2**t`, float32 loses four digits of seven in the first step. Their
    derivatives, which need no more digits than they are given, are those of the same expressions in `kind`. `t` may be None
    where none depends on it.
    """
    moving = {name: value for name, value in values.items() if not isinstance(value, float)}
    fixed = {name: value for name, value in values.items() if isinstance(value, float)}
    if not moving and not program.counts:
        return tuple(_constant(value, kind) for value in program.fold(t=1.0, **fixed))
    if t is None:
        t = 1.0
    # NumPy's numbers divide by zero as arrays do.
    constants = {name: np.float64(value) for name, value in fixed.items()}

    def folded(t: Any, moving: Mapping[str, Any], real: str) -> tuple[Any, ...]:
        with np.errstate(all="ignore"):
            found: tuple[Any, ...] = program.fold(
                t=jax.lax.convert_element_type(t, real),
                **constants,
                **{name: jax.lax.convert_element_type(value, real) for name, value in moving.items()},
            )
        return tuple(
            jax.lax.convert_element_type(each, kind) if isinstance(each, jax.Array) else _constant(each, kind)
            for each in found
        )

    @jax.custom_jvp
    def exact(t: Any, moving: Mapping[str, Any]) -> tuple[Any, ...]:
        with _enable_x64(True):
            return folded(t, moving, "float64")

    @exact.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return exact(*primals), jax.jvp(lambda t, moving: folded(t, moving, kind), primals, tangents)[1]

    return tuple(exact(t, moving))


def _constant(value: Any, kind: str) -> Any:
    return np.bool_(value) if isinstance(value, (bool, np.bool_)) else np.dtype(kind).type(value)


def run(program: Program, arrays: Mapping[str, Any], scalars: Sequence[Any], kind: str) -> dict[str, Any]:
    """Return the outputs of `program` for `arrays` of one shape, in `kind`; of complex arrays as pairs of real numbers."""
    parts: tuple[Callable[[Any], Any], ...] = (lambda array: array,)
    if any(jnp.iscomplexobj(array) for array in arrays.values()):
        parts = (jnp.real, jnp.imag)
    shape = next(iter(arrays.values())).shape
    known = dict(zip(map(id, program.scalars), scalars, strict=True))
    made = []
    for part in parts:
        columns = {name: part(arrays[name]).astype(kind) for name in program.inputs}
        outputs = elements(program, columns, known).values()
        # A rule may make one number for all elements.
        made.append([jnp.broadcast_to(jnp.asarray(each, kind), shape) for each in outputs])
    joined = made[0] if len(made) == 1 else [jax.lax.complex(*both) for both in zip(*made, strict=True)]
    return dict(zip(program.outputs, joined, strict=True))
