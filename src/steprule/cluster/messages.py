"""What goes between a client and a shard: plain arrays and whole numbers, whatever carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIRST", "Fetched", "Push", "Receipt", "Rows", "Version"]


@dataclass(frozen=True)
class Version:
    """How far a shard is: its `life`, which grows each time that it is restored, and how many updates it has applied."""

    life: int
    updates: int


FIRST: Final = Version(0, 0)
"""Where every shard begins."""


@dataclass(frozen=True)
class Rows:
    """A gradient of which all rows but some are zero: their numbers, int64 (rows,), and their values.

    The values have the shape of a row behind that first dimension.

    A number may stand there twice; its values are then summed.
    """

    numbers: NDArray[np.int64]
    values: NDArray[Any]

    def check(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Raise `TypeError` or `ValueError` unless these are rows of a tensor `name` of such a shape and type."""
        if self.numbers.dtype != np.int64 or self.values.dtype != dtype:
            raise TypeError(
                f"the rows of {name} are numbered in {self.numbers.dtype} and hold {self.values.dtype}; allowed are int64 "
                f"and {dtype}"
            )
        if self.numbers.ndim != 1 or self.values.shape != (len(self.numbers), *shape[1:]):
            raise ValueError(
                f"the rows of {name} are numbered by an array of shape {self.numbers.shape} and have values of shape "
                f"{self.values.shape}; allowed are (n,) and (n, {', '.join(map(str, shape[1:]))})"
            )
        if len(self.numbers) and not (self.numbers.min() >= 0 and self.numbers.max() < shape[0]):
            raise ValueError(
                f"the gradient of {name} names rows from {self.numbers.min()} to {self.numbers.max()}; allowed are 0 to "
                f"{shape[0] - 1}"
            )


@dataclass(frozen=True)
class Fetched:
    """A shard's parameters (its slice, flat), and the version that they are of."""

    version: Version
    parameters: NDArray[Any]


@dataclass(frozen=True)
class Push:
    """One replica's accrued gradient for one shard.

    `number` counts the replica's pushes: a shard applies none whose number is not above those that it has seen from the
    replica. `fetched` is the version of the parameters that the gradient was computed on, `known` the highest that the
    replica has been told of, by which a restored shard learns how much it has lost. `dense` is the flat gradient of the
    shard's pieces that are not sparse, in their order; `rows` has those of the sparse pieces, by the piece's number in the
    shard. Each sparse piece that is not named has a gradient of zeros.
    """

    replica: int
    number: int
    fetched: Version
    known: Version
    dense: NDArray[Any]
    rows: Mapping[int, Rows] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    """What became of a push.

    `outcome` is "applied"; "repeat" where the push of this number was seen before, "old" where a later one was; "refused"
    where it holds a number that is infinite or NaN. `staleness` counts the updates that the shard had applied between the
    fetch and this push, and `version` is the shard's after it.
    """

    outcome: Literal["applied", "repeat", "old", "refused"]
    version: Version
    staleness: int
