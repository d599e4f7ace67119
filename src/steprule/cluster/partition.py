"""A model's parameters, laid end to end, and cut into the slices of the shards.

A cut never goes through a row of a tensor (its first dimension), so that a gradient by rows has each row in one shard.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .messages import Rows

__all__ = ["Partition", "Piece"]


@dataclass(frozen=True)
class Piece:
    """The rows of one tensor that one shard holds.

    `start` is where they begin in the shard's slice, in elements; `sparse` says that their gradients come by rows.
    """

    name: str
    first_row: int
    rows: int
    row_shape: tuple[int, ...]
    start: int
    sparse: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, *self.row_shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Partition:
    """How named tensors are laid end to end in one flat array, and where that is cut into `shards` slices.

    `shapes` has the tensors' shapes by name, in their order; a tensor without dimensions is one row. `sparse` names those
    whose gradients come by rows. The slices have nearly as many elements each.

    `pieces[s]` are the parts of tensors in shard s; `slices[s]` is its part of the flat parameters, and `dense_slices[s]`
    its part of the flat gradient, which leaves out the tensors in `sparse`.

    Raises `ValueError` where `shards` is below 1 or above the number of rows, a name in `sparse` is no tensor's, or a tensor
    in it has no rows.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], shards: int = 1, sparse: Iterable[str] = ()) -> None:
        self.shapes: Final = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
        self.sparse: Final = tuple(sparse)
        for name in self.sparse:
            if not self.shapes.get(name):
                shape = f"of shape {self.shapes[name]}" if name in self.shapes else "no tensor"
                raise ValueError(f"sparse names {name!r}, which is {shape}; allowed are tensors that have rows")
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.starts: Final = dict(zip(self.shapes, itertools.accumulate([0, *sizes]), strict=False))
        self.size: Final = sum(sizes)
        self._cuts: Final = self._cut(shards)
        self.pieces: Final = tuple(tuple(self._pieces(*cut)) for cut in itertools.pairwise(self._cuts))
        self.slices: Final = tuple(slice(*cut) for cut in itertools.pairwise(self._cuts))
        dense = [sum(piece.size for piece in pieces if not piece.sparse) for pieces in self.pieces]
        self.dense_slices: Final = tuple(
            slice(*cut) for cut in itertools.pairwise(itertools.accumulate(dense, initial=0))
        )
        self.dense_size: Final = sum(dense)

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.pieces)

    def views(self, parameters: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the tensors that lie in the flat `parameters` (size,), by name; they share its memory."""
        return self._views(parameters, self.shapes)

    def dense_views(self, gradient: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the tensors that lie in the flat `gradient` (dense_size,), by name; they share its memory."""
        return self._views(gradient, [name for name in self.shapes if name not in self.sparse])

    def flat(self, tensors: Mapping[str, Any], dtype: Any) -> NDArray[Any]:
        """Return the parameters `tensors`, by name, end to end in one new array of `dtype`."""
        made = np.empty(self.size, dtype)
        for name, view in self.views(made).items():
            view[...] = tensors[name]
        return made

    def rows_of(self, name: str, rows: Rows) -> dict[int, tuple[int, Rows]]:
        """Return the part of `rows` of each shard that has some of the tensor `name`: its piece's number, and its rows.

        A shard's rows are counted within its piece. Raises as `Rows.check` does.
        """
        rows.check(name, self.shapes[name], rows.values.dtype)
        found = {}
        for shard, pieces in enumerate(self.pieces):
            for number, piece in enumerate(pieces):
                if piece.name == name:
                    local = rows.numbers - piece.first_row
                    here = (local >= 0) & (local < piece.rows)
                    found[shard] = (number, Rows(local[here], rows.values[here]))
        return found

    def _views(self, flat: NDArray[Any], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        found, start = {}, 0
        for name in names:
            shape = self.shapes[name]
            found[name] = flat[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return found

    def _cut(self, shards: int) -> list[int]:
        of_rows = [start + row * np.arange(1, rows + 1) for start, rows, row in self._rows() if row]
        ends = np.concatenate([np.zeros(1, np.int64), *of_rows])
        if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards < max(len(ends), 2):
            raise ValueError(
                f"shards is {shards!r}; allowed is a whole number from 1 to {max(len(ends) - 1, 1)}, one for each row"
            )
        cuts, place = [0], 0
        for number in range(1, shards):
            # The row's end that is nearest, with at least one row for this shard and each that follows.
            wanted = self.size * number / shards
            after = int(np.searchsorted(ends, wanted))
            nearest = min((after - 1, after), key=lambda each: abs(ends[each] - wanted))
            place = min(max(nearest, place + 1), len(ends) - 1 - (shards - number))
            cuts.append(int(ends[place]))
        return [*cuts, self.size]

    def _pieces(self, begin: int, end: int) -> Iterable[Piece]:
        for (name, shape), (start, rows, row) in zip(self.shapes.items(), self._rows(), strict=True):
            if row:
                first, last = (min(max(each - start, 0) // row, rows) for each in (begin, end))
                if first < last:
                    place = start + first * row - begin
                    yield Piece(name, first, last - first, shape[1:], place, name in self.sparse)

    def _rows(self) -> Iterable[tuple[int, int, int]]:
        """Return of each tensor where it starts, its number of rows, and the elements of each."""
        for name, shape in self.shapes.items():
            yield self.starts[name], *((shape[0], math.prod(shape[1:])) if shape else (1, 1))
