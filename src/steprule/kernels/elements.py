"""What the arrays of a step hold: the numbers that are computed with, or fewer bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..program import Program
from .codecs import BLOCK, STORAGES, Storage

__all__ = ["Elements"]


@dataclass(frozen=True)
class Elements:
    """What the arrays of a step hold: numbers of type `real`, in which the step is computed, unless `stored` says otherwise.

    `real` is "float32" or "float64". `stored` has pairs of an array and how it is stored, a name of `codecs.STORAGES`.
    `copy`, such a name too, asks for the new parameter to be written a second time, in that form: `x` is then a more exact
    copy of the parameter that a net computes with.
    """

    real: str
    stored: tuple[tuple[str, str], ...] = ()
    copy: str = ""

    def __post_init__(self) -> None:
        if self.real not in ("float32", "float64"):
            raise ValueError(f"a kernel computes in {self.real!r}; allowed are 'float32' and 'float64'")

    def storage(self, name: str) -> Storage | None:
        """Return how the array `name` is stored, None for numbers of type `real`."""
        known = dict(self.stored) | ({"copy": self.copy} if self.copy else {})
        return STORAGES[known[name]] if name in known else None

    def random(self, program: Program) -> tuple[str, ...]:
        """Return the arrays that are rounded at random."""
        return tuple(name for name in self.columns(program) if (storage := self.storage(name)) and storage.random)

    def scales(self, program: Program) -> tuple[str, ...]:
        """Return the arrays whose blocks have a scale."""
        return tuple(name for name in program.arrays if (storage := self.storage(name)) and storage.exponents)

    def columns(self, program: Program) -> tuple[str, ...]:
        """Return the arrays of a launch in the order of its table: a scale's is called as its array, and `_scale`."""
        scales = tuple(f"{name}_scale" for name in self.scales(program))
        return (*program.arrays, *scales, *(("copy",) if self.copy else ()))

    def bytes_per_element(self, program: Program) -> float:
        """Return the bytes that one element's step moves: each input read once, each output written once."""
        itemsize = np.dtype(self.real).itemsize

        def size(name: str) -> float:
            storage = self.storage(name)
            return storage.bytes + (itemsize / BLOCK if storage.exponents else 0) if storage else itemsize

        moved = (*program.inputs, *program.outputs, *(("copy",) if self.copy else ()))
        return sum(map(size, moved))
