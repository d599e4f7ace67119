"""One fused loop on the CPU for any rule: Numba source from the program, and a step over many tensors at once.

All tensors of a step are one launch: a table of their addresses, cut into chunks, which threads claim one by one. A loop
per tensor would lose everything on a net of small tensors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..program import Program, expression
from . import team
from .cache import compiled
from .chunks import chunks
from .native import CHUNK_FIELDS, LAUNCH_FIELDS
from .source import name_values, remark, value_lines

__all__ = ["CHUNK", "Table", "kernel", "launch", "source"]

CHUNK: Final = 16_384
"""Elements per chunk: small enough to share out, large enough that claiming one costs nothing beside it."""

_HEADER: Final = '''"""One {real} step of {title}, made by steprule: {bytes} bytes, {operations} operations per element."""

from math import sqrt

from numba import carray, cfunc, {real}, njit

from steprule.kernels.native import claim, int64_at, {real}_at

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
    *("i", "range", "abs", "float32", "float64", "float32_at", "float64_at", *notation.__all__)
}


def source(program: Program, real: str) -> str:
    """Return the kernel of `program` for elements of type `real` ("float32" or "float64"), as Python for Numba.

    Its function `step` takes the address of a launch (see `native.LAUNCH_FIELDS`): the counter that threads share, the
    chunks, one row of addresses per tensor (those of `program.arrays` in order), each tensor's row of scalars, and those
    rows. Every thread that calls it claims chunks until none is left.
    """
    itemsize = np.dtype(real).itemsize
    names, called = name_values(program, _TAKEN)
    lines = [
        f"        {names[id(scalar)]} = scalars[row + {index}]{remark(scalar)}"
        for index, scalar in enumerate(program.scalars)
    ]
    lines += [
        f"        {called[name]}_at = carray({real}_at(pointers[arrays + {index}] + {itemsize} * first), size)"
        for index, name in enumerate(program.arrays)
    ]
    lines += ["        for i in range(size):", *(f"            {line}" for line in _loop(program, names, called))]
    helpers = [f"\n\n@njit\n{text}\n" for name, text in _HELPERS.items() if any(f"{name}(" in line for line in lines)]
    header = _HEADER.format(
        real=real,
        title=program.title,
        bytes=program.bytes_per_element(itemsize),
        operations=program.operations,
        helpers="".join(helpers),
        fields=len(LAUNCH_FIELDS),
        chunk_fields=len(CHUNK_FIELDS),
        scalars=len(program.scalars),
        arrays=len(program.arrays),
    )
    return header + "\n".join(lines) + "\n"


def _loop(program: Program, names: dict[int, str], called: dict[str, str]) -> list[str]:
    lines = [f"{called[name]} = {called[name]}_at[i]" for name in program.inputs] + value_lines(program, names)
    return lines + [f"{called[name]}_at[i] = {expression(value, names)}" for name, value in program.outputs.items()]


@functools.cache
def kernel(program: Program, real: str) -> Any:
    """Return the compiled kernel of `source(program, real)`, a `team.Work`, from the cache on disk where it is there."""
    return team.Work(compiled(program.title, source(program, real)))


class Table:
    """The tensors of one launch: their addresses, cut into chunks.

    `pointers` is int64 (tensors, arrays), `sizes` the number of elements of each tensor, all of them dense in memory.
    `rows`, int64 (tensors,), says which row of the scalars each tensor takes; all take row 0 until it is set.
    """

    def __init__(self, pointers: NDArray[np.int64], sizes: Sequence[int]) -> None:
        self.pointers: Final = np.ascontiguousarray(pointers, dtype=np.int64)
        self.rows: Final = np.zeros(len(sizes), dtype=np.int64)
        self.chunks: Final = chunks(sizes, CHUNK)
        self.elements: Final = sum(sizes)


def launch(run: Any, table: Table, scalars: NDArray[Any], threads: int) -> None:
    """Step every tensor of `table` by the compiled kernel `run`, in place, in at most `threads` threads.

    `scalars`, of the kernel's type and C-contiguous, has a row of `program.fold(...)` for each value in `table.rows`.
    """
    claimed = np.zeros(1, dtype=np.int64)
    addresses = (claimed, table.chunks, len(table.chunks), table.pointers, table.rows, scalars)
    fields = np.array([each if isinstance(each, int) else each.ctypes.data for each in addresses], dtype=np.int64)
    # To wake a thread takes about as long as a chunk.
    team.run(run, fields.ctypes.data, threads if table.elements > CHUNK else 1)
