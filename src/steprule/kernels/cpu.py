"""One fused loop on the CPU for any rule: Numba source from the program, and a step over many tensors at once.

All tensors of a step are one launch: a table of their addresses, cut into chunks, which threads claim one by one. A loop
per tensor would lose everything on a net of small tensors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..program import Program, Value, expression
from . import team
from .cache import compiled
from .native import CHUNK_FIELDS, LAUNCH_FIELDS

__all__ = ["CHUNK", "Table", "kernel", "launch", "row_kernel", "row_source", "source"]

CHUNK: Final = 16_384
"""Elements per chunk: small enough to share out, large enough that claiming one costs nothing beside it."""

_AHEAD: Final = 4
"""How many rows ahead memory is asked for: rows lie anywhere, and the processor cannot guess which is next."""
_FETCHED: Final = 256
"""Bytes of each row that are asked for; those that follow, the processor guesses."""

_HEADER: Final = '''"""One {real} step of {title}, made by steprule: {bytes} bytes, {operations} operations per element."""

from math import sqrt

from numba import carray, cfunc, {real}, njit

from steprule.kernels.native import {native}

ZERO, ONE = {real}(0), {real}(1)
{helpers}

@cfunc("void(intp)", error_model="numpy", cache=CACHE)
def step(launch):
    fields = carray(int64_at(launch), {fields})
    claimed = int64_at(fields[0])
    chunks = carray(int64_at(fields[1]), (fields[2], {chunk_fields}))
    pointers = int64_at(fields[3])
    rows = int64_at(fields[4])
    scalars = {real}_at(fields[5])
    while True:
        chunk = claim(claimed)
        if chunk >= len(chunks):
            break
        tensor, first, size = chunks[chunk]
        row = {scalars} * rows[tensor]
        arrays = {arrays} * tensor
'''

# Written out so that NaN goes through as in NumPy and nothing is promoted to float64.
_HELPERS: Final = {
    "sign": "def sign(v):\n    return ONE if v > ZERO else (-ONE if v < ZERO else v)",
    "maximum": "def maximum(a, b):\n    return a if a > b or a != a else b",
    "minimum": "def minimum(a, b):\n    return a if a < b or a != a else b",
    "where": "def where(condition, a, b):\n    return a if condition else b",
}

# Every name that a generated module uses for itself.
_TAKEN: Final = frozenset(re.findall(r"[A-Za-z_]\w*", _HEADER + "".join(_HELPERS.values()))) | {
    *("i", "range", "abs", "float32", "float64", "float32_at", "float64_at"),
    *("k", "width", "numbers", "here", "soon", "line", "min", "prefetch"),
    *notation.__all__,
}


def source(program: Program, real: str) -> str:
    """Return the kernel of `program` for elements of type `real` ("float32" or "float64"), as Python for Numba.

    Its function `step` takes the address of a launch (see `native.LAUNCH_FIELDS`): the counter that threads share, the
    chunks, one row of addresses per tensor (those of `program.arrays` in order), each tensor's row of scalars, and those
    rows. Every thread that calls it claims chunks until none is left.
    """
    itemsize = np.dtype(real).itemsize
    names, called = _names(program)
    lines = [
        f"{called[name]}_at = carray({real}_at(pointers[arrays + {index}] + {itemsize} * first), size)"
        for index, name in enumerate(program.arrays)
    ]
    lines += ["for i in range(size):", *(f"    {line}" for line in _loop(program, names, called))]
    return _module(program, real, len(program.arrays), names, lines)


def row_source(program: Program, real: str, scaled: Sequence[str]) -> str:
    """Return the kernel of `source(program, real)` for some rows of each tensor, those that a sparse gradient names.

    `scaled` are the arrays of which each row is multiplied by two factors of its own before the step. A chunk counts rows of
    the gradient; a tensor's row of addresses goes on, behind those of `program.arrays`, with the number of elements of a
    row, the address of the rows' numbers (int64), and for each of `scaled` that of the rows' pairs of factors.
    """
    itemsize = np.dtype(real).itemsize
    names, called = _names(program)
    arrays = len(program.arrays)
    width = f"{itemsize} * width"
    lines = [f"width = pointers[arrays + {arrays}]", f"numbers = int64_at(pointers[arrays + {arrays + 1}])"]
    for index, name in enumerate(scaled, arrays + 2):
        lines.append(f"{called[name]}_by = {real}_at(pointers[arrays + {index}])")
    walk = [f"here = {width} * numbers[k]", f"soon = {width} * numbers[min(k + {_AHEAD}, first + size - 1)]"]
    walk += [f"for line in range(0, min({width}, {_FETCHED}), 64):"]
    for index, name in enumerate(program.arrays):
        if name != "g":
            walk.append(f"    prefetch(pointers[arrays + {index}] + soon + line)")
    for index, name in enumerate(program.arrays):
        place = f"{width} * k" if name == "g" else "here"
        walk.append(f"{called[name]}_at = carray({real}_at(pointers[arrays + {index}] + {place}), width)")
    for name in scaled:
        by = f"{called[name]}_by"
        walk.append(f"{by}_1, {by}_2 = {by}[2 * k], {by}[2 * k + 1]")
    loads = {name: f"{called[name]}_at[i] * {called[name]}_by_1 * {called[name]}_by_2" for name in scaled}
    walk += ["for i in range(width):", *(f"    {line}" for line in _loop(program, names, called, loads))]
    lines += ["for k in range(first, first + size):", *(f"    {line}" for line in walk)]
    return _module(program, real, arrays + 2 + len(scaled), names, lines)


def _module(program: Program, real: str, columns: int, names: Mapping[int, str], chunk: Sequence[str]) -> str:
    """Return a kernel whose table of addresses has `columns`, and which does the lines `chunk` with each chunk."""
    scalars = [
        f"{names[id(scalar)]} = scalars[row + {index}]{_remark(scalar)}" for index, scalar in enumerate(program.scalars)
    ]
    lines = [f"        {line}" for line in (*scalars, *chunk)]
    helpers = [f"\n\n@njit\n{text}\n" for name, text in _HELPERS.items() if any(f"{name}(" in line for line in lines)]
    header = _HEADER.format(
        real=real,
        title=program.title,
        bytes=program.bytes_per_element(np.dtype(real).itemsize),
        operations=program.operations,
        helpers="".join(helpers),
        native=", ".join(
            ["claim", "int64_at", f"{real}_at"] + ["prefetch"] * any("prefetch(" in line for line in lines)
        ),
        fields=len(LAUNCH_FIELDS),
        chunk_fields=len(CHUNK_FIELDS),
        scalars=len(program.scalars),
        arrays=columns,
    )
    return header + "\n".join(lines) + "\n"


def _remark(scalar: Value) -> str:
    return "" if scalar.operation == "symbol" else f"  # {expression(scalar)}"


def _names(program: Program) -> tuple[dict[int, str], dict[str, str]]:
    """Name what the loop holds: values by their `id`, and arrays by what the rule calls them.

    A symbol and an array are called as in the rule, a computed scalar c1, c2, ..., a line's value as the program says.
    """
    taken = set(_TAKEN)

    def unused(wish: str) -> str:
        forms = "{}", "{}_at", "{}_by", "{}_by_1", "{}_by_2"
        while any(form.format(wish) in taken for form in forms):
            wish += "_"
        taken.update(form.format(wish) for form in forms)
        return wish

    called = {name: unused(name) for name in program.arrays}
    symbols = [value for value in (*program.values(), *program.scalars) if value.operation == "symbol"]
    names = {id(value): called[value.name] if value.varies else unused(value.name) for value in symbols}
    lines = program.line_values()
    for value in lines:
        if id(value) in program.names:
            names[id(value)] = unused(program.names[id(value)])
    for prefix, rest in (("c", program.scalars), ("v", lines)):
        for number, value in enumerate([value for value in rest if id(value) not in names], 1):
            names[id(value)] = unused(f"{prefix}{number}")
    return names, called


def _loop(
    program: Program, names: Mapping[int, str], called: Mapping[str, str], loads: Mapping[str, str] | None = None
) -> list[str]:
    """Return the lines for one element; `loads` says how an input is read where that is not only from its array."""
    lines = [f"{called[name]} = {(loads or {}).get(name, f'{called[name]}_at[i]')}" for name in program.inputs]
    for value in program.line_values():
        others = {key: name for key, name in names.items() if key != id(value)}
        lines.append(f"{names[id(value)]} = {expression(value, others)}")
    return lines + [f"{called[name]}_at[i] = {expression(value, names)}" for name, value in program.outputs.items()]


@functools.cache
def kernel(program: Program, real: str) -> Any:
    """Return the compiled kernel of `source(program, real)`, a `team.Work`, from the cache on disk where it is there."""
    return team.Work(compiled(program.title, source(program, real)))


@functools.cache
def row_kernel(program: Program, real: str, scaled: tuple[str, ...]) -> Any:
    """Return the compiled kernel of `row_source(program, real, scaled)`, as `kernel` does."""
    return team.Work(compiled(f"{program.title}_rows", row_source(program, real, scaled)))


class Table:
    """The tensors of one launch: their addresses, cut into chunks.

    `pointers` is int64 (tensors, arrays), `sizes` the number of elements of each tensor, all of them dense in memory; for
    a row kernel, the number of rows that step, of `width` elements each, and `pointers` has its further columns.
    `rows`, int64 (tensors,), says which row of the scalars each tensor takes; all take row 0 until it is set.
    """

    def __init__(self, pointers: NDArray[np.int64], sizes: Sequence[int], width: int = 1) -> None:
        chunk = max(CHUNK // max(width, 1), 1)
        self.pointers: Final = np.ascontiguousarray(pointers, dtype=np.int64)
        self.rows: Final = np.zeros(len(sizes), dtype=np.int64)
        self.chunks: Final = np.array(
            [
                (tensor, first, min(chunk, size - first))
                for tensor, size in enumerate(sizes)
                for first in range(0, size, chunk)
            ],
            dtype=np.int64,
        ).reshape(-1, 3)
        self.elements: Final = sum(sizes) * width


def launch(run: Any, table: Table, scalars: NDArray[Any], threads: int) -> None:
    """Step every tensor of `table` by the compiled kernel `run`, in place, in at most `threads` threads.

    `scalars`, of the kernel's type and C-contiguous, has a row of `program.fold(...)` for each value in `table.rows`.
    """
    claimed = np.zeros(1, dtype=np.int64)
    addresses = (claimed, table.chunks, len(table.chunks), table.pointers, table.rows, scalars)
    fields = np.array([each if isinstance(each, int) else each.ctypes.data for each in addresses], dtype=np.int64)
    # To wake a thread takes about as long as a chunk.
    team.run(run, fields.ctypes.data, threads if table.elements > CHUNK else 1)
