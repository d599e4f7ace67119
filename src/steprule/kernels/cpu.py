"""One fused loop on the CPU for any rule: a step over many tensors at once.

All tensors of a step are one launch: a table of their addresses, cut into chunks, which threads claim one by one. A loop
per tensor would lose everything on a net of small tensors.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..program import Program
from . import team
from .cache import compiled
from .chunks import LAUNCH_FIELDS, chunks, without
from .cpu_source import row_source, source
from .elements import Elements

__all__ = ["CHUNK", "Elements", "Table", "kernel", "launch", "row_kernel", "row_source", "source"]

CHUNK: Final = 16_384
"""Elements per chunk: small enough to share out, large enough that claiming one costs nothing beside it."""
_CLAIMED: Final = LAUNCH_FIELDS.index("claimed")
_CHUNKS: Final = [LAUNCH_FIELDS.index(name) for name in ("chunks", "number of chunks")]
_SCALARS: Final = LAUNCH_FIELDS.index("scalars")
_AT_ONCE: Final = 16
"""How many threads may launch one table at once, each with a counter of its own."""


@functools.cache
def kernel(program: Program, elements: Elements | str) -> Any:
    """Return the compiled kernel of `source(program, elements)`, a `team.Work`, from the cache on disk if it is there."""
    return team.Work(compiled(program.title, source(program, elements)))


@functools.cache
def row_kernel(program: Program, real: str, scaled: tuple[str, ...]) -> Any:
    """Return the compiled kernel of `row_source(program, real, scaled)`, as `kernel` does."""
    return team.Work(compiled(f"{program.title}_rows", row_source(program, real, scaled)))


class Table:
    """The tensors of one launch: their addresses, cut into chunks.

    `pointers` is int64 (tensors, arrays), `sizes` the number of elements of each tensor, all of them dense in memory; for
    a row kernel, the number of rows that step, of `width` elements each, and `pointers` has its further columns.
    `rows`, int64 (tensors,), says which row of the scalars each tensor takes; all take row 0 until it is set. `keys`, int64
    (tensors,), begins each tensor's random numbers where its elements are rounded at random. A guarded step sets `flags`,
    int64 (tensors,), to 1 where a gradient is not finite.
    """

    def __init__(self, pointers: NDArray[np.int64], sizes: Sequence[int], width: int = 1) -> None:
        self.pointers: Final = np.ascontiguousarray(pointers, dtype=np.int64)
        self.rows: Final = np.zeros(len(sizes), dtype=np.int64)
        self.keys: Final = np.zeros(len(sizes), dtype=np.int64)
        self.flags: Final = np.zeros(len(sizes), dtype=np.int64)
        self.chunks: Final = chunks(sizes, max(CHUNK // max(width, 1), 1))
        self._launched = self.chunks
        self._width: Final = width
        self.elements = sum(sizes) * width
        self._counters: Final = np.zeros(_AT_ONCE, dtype=np.int64)
        self._scalars: tuple[NDArray[Any], int] = (np.zeros(0), 0)
        fields: dict[str, int | NDArray[np.int64]] = {
            "claimed": self._counters,
            "chunks": self.chunks,
            "number of chunks": len(self.chunks),
            "pointers": self.pointers,
            "rows": self.rows,
            "scalars": 0,
            "keys": self.keys,
            "flags": self.flags,
        }
        values = map(fields.__getitem__, LAUNCH_FIELDS)
        addresses = [each if isinstance(each, int) else each.ctypes.data for each in values]
        self._launches: Final = np.tile(np.array(addresses, dtype=np.int64), (_AT_ONCE, 1))
        self._launches[:, _CLAIMED] += self._counters.strides[0] * np.arange(_AT_ONCE)
        self._launches_at: Final = self._launches.ctypes.data
        self._turns: Final = itertools.count()

    def leave_out(self, tensors: Sequence[bool]) -> None:
        """Pass over the tensors for which this is true from the next launch on; none may be under way."""
        self._launched = without(self.chunks, tensors)
        self.elements = int(self._launched[:, 2].sum()) * self._width
        self._launches[:, _CHUNKS] = self._launched.ctypes.data, len(self._launched)

    def begin(self, scalars: NDArray[Any]) -> int:
        """Return the address of a launch with these `scalars`, of which no chunk is claimed.

        As many as `_AT_ONCE` may be under way. To make one anew would take eight microseconds: NumPy takes one to tell an
        array's address.
        """
        turn = next(self._turns) % _AT_ONCE
        self._counters[turn] = 0
        kept, address = self._scalars
        if scalars is not kept:
            address = scalars.ctypes.data
            self._scalars = scalars, address
        self._launches[turn, _SCALARS] = address
        return self._launches_at + turn * self._launches.strides[0]


def launch(run: Any, table: Table, scalars: NDArray[Any], threads: int) -> None:
    """Step every tensor of `table` by the compiled kernel `run`, in place, in at most `threads` threads.

    `scalars`, of the kernel's type and C-contiguous, has a row of `program.fold(...)` for each value in `table.rows`.
    """
    # To wake a thread takes about as long as a chunk.
    team.run(run, table.begin(scalars), threads if table.elements > CHUNK else 1)
