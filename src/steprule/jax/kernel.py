"""The fused loop of the CPU in a traced computation: one call of XLA's for all arrays of a kind."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import xla
from ..kernels.elements import Elements
from ..program import Program
from . import elements

__all__ = ["elements_of", "run", "serves"]

_STORED: Final = ("bfloat16", "float16")

_registering: Final = threading.Lock()
_names: Final[set[str]] = set()  # XLA keeps a function under its name as long as the process lives

# XLA takes a time that grows with the square of the number of results to compile a call.
_TENSORS_PER_CALL: Final = 64


def serves(arrays: Sequence[Any]) -> bool:
    """Whether the loop may step these arrays: they lie on one device of the CPU.

    Where an array is on several devices, XLA would gather it to hand it to a foreign function. Of a traced one it is not
    known where it will be; where there is only one device there is no doubt. Under `shard_map` and under a mesh of explicit
    axes, JAX wants to know of each result along which axes it varies or is cut, which it cannot of a foreign function's.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not xla.available() or mesh.manual_axes or mesh.explicit_axes:
        return False
    # By kind and by place, of which there are few, and not for each of many arrays.
    concrete = [
        issubclass(kind, jax.Array) and not issubclass(kind, jax.core.Tracer) for kind in set(map(type, arrays))
    ]
    if arrays and all(concrete):
        devices = set().union(*(place.device_set for place in {array.sharding for array in arrays}))
    else:
        devices = set(jax.devices())
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def elements_of(place: Mapping[str, Any]) -> Elements | None:
    """Return what the arrays of one place hold, or None where no loop takes them.

    It takes float64 alone, and float32, bfloat16 and float16 in any mixture; not float64 beside a lower type, complex
    numbers or any other type.
    """
    kind = elements.kind_of(*place.values())
    stored = []
    for name, array in sorted(place.items()):
        if kind == "float32" and str(array.dtype) in _STORED:
            stored.append((name, str(array.dtype)))
        elif str(array.dtype) != kind:
            return None
    return Elements(kind, tuple(stored))


def _registered(program: Program, kept: Elements) -> str:
    # XLA takes a name once, and several threads may trace.
    with _registering:
        return _register(program, kept)


@functools.cache
def _register(program: Program, kept: Elements) -> str:
    name = xla.target(program, kept)
    if name not in _names:  # a rule that is made anew has the same source, and so the same name
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(xla.handler(program, kept)), platform="cpu")
        _names.add(name)
    return name


def run(
    program: Program, kept: Elements, places: Sequence[Mapping[str, Any]], scalars: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return the outputs of `program` at each place, all in arrays of the types that they have there.

    On the CPU that is a call of the loop, which writes them where its inputs were if those are needed no more. Under `vmap`
    and derivatives, and on other devices, it is the same program in XLA's operations.
    """
    if len(places) > _TENSORS_PER_CALL:
        parts = [places[first : first + _TENSORS_PER_CALL] for first in range(0, len(places), _TENSORS_PER_CALL)]
        return [made for part in parts for made in run(program, kept, part, scalars)]
    name, inputs, outputs = _registered(program, kept), program.inputs, tuple(program.outputs)
    layout = xla.layout(program, kept)
    # Not the arrays: JAX keeps the functions below, and what is traced would be kept with them.
    kinds = [[jax.ShapeDtypeStruct(place[each].shape, place[each].dtype) for each in outputs] for place in places]

    def plain(scalars: Any, columns: Any) -> Any:
        made = []
        for own, column in zip(kinds, columns, strict=True):
            found = elements.run(program, dict(zip(inputs, column, strict=True)), scalars, kept.real)
            made.append(tuple(found[each].astype(kind.dtype) for each, kind in zip(outputs, own, strict=True)))
        return made

    def loop(scalars: Any, columns: Any) -> Any:
        results = [kind for own in kinds for kind in own]
        aliases = {
            2 + place * len(inputs) + inputs.index(each): place * len(outputs) + number
            for place in range(len(kinds))
            for number, each in enumerate(outputs)
            if each in inputs
        }
        call = jax.ffi.ffi_call(name, results, input_output_aliases=aliases)
        found = iter(call(layout, _stacked(scalars, kept.real), *(array for column in columns for array in column)))
        return [tuple(next(found) for _ in outputs) for _ in kinds]

    @jax.custom_batching.custom_vmap
    def anywhere(scalars: Any, columns: Any) -> Any:
        return jax.lax.platform_dependent(scalars, columns, cpu=loop, default=plain)

    @anywhere.def_vmap
    def _(axis_size: int, batched: Any, scalars: Any, columns: Any) -> Any:
        axes = jax.tree.map(lambda each: 0 if each else None, batched)
        made = jax.vmap(plain, in_axes=tuple(axes), axis_size=axis_size)(scalars, columns)
        return made, jax.tree.map(lambda _: True, made)

    @jax.custom_jvp
    def step(scalars: Any, columns: Any) -> Any:
        return anywhere(scalars, columns)

    @step.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return jax.jvp(plain, primals, tangents)

    made = step(tuple(scalars), [tuple(place[each] for each in inputs) for place in places])
    return [dict(zip(outputs, column, strict=True)) for column in made]


def _stacked(scalars: Sequence[Any], kind: str) -> Any:
    if any(isinstance(scalar, jax.Array) for scalar in scalars):
        return jnp.stack([jnp.asarray(scalar, kind) for scalar in scalars])
    return np.array(scalars, kind)
