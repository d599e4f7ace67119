"""Numbers that take less memory than they are computed with: decoded and encoded in registers, inside a kernel's loop.

- `bfloat16` and `float16` are rounded to nearest, ties to even, as everywhere.
- `random bfloat16` is rounded to one of its two neighbours at random, with the odds that make the mean the number itself
  (stochastic rounding): an average that moves by less than half a unit each step still moves.
- `int8` is a code of 8 bits for each element and one float32 power of two, the scale, for each block of `BLOCK` elements:
  the one of the block's largest number. A code holds 3 bits of mantissa and the exponent, which counts down from the
  scale's: 5 bits in a slot that is never negative (`unsigned int8`), else 4, and the sign (`signed int8`). Code 0 is the
  number 0. Rounding is at random, also between 0 and the smallest number that has a code; only in an unsigned slot a number
  that is not 0 never becomes 0, since a rule may divide by it. A block with an infinity or NaN in it becomes NaN.

`coding` has the functions that do it, as LLVM code, and `steprule.torch.codecs` the same in torch's operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "DROPPED", "FUNCTIONS", "SIGNED", "STORAGES", "UNSIGNED", "Storage", "keys"]

BLOCK: Final = 256
"""Elements that share one scale."""
UNSIGNED: Final = 32
SIGNED: Final = 16
"""How many powers of two the codes of `int8` have, the scale's the largest."""
DROPPED: Final = 20
"""The bits of a float32's mantissa that a code does without: it has 3 of 23."""


@dataclass(frozen=True)
class Storage:
    """How the elements of an array lie in memory: as integers of the type `holds`.

    `decode` and `encode` are the functions of `coding` that a kernel calls. `random` says that `encode` takes noise;
    `exponents`, where it is not 0, that each block has a scale and codes have so many powers of two.
    """

    holds: str
    bytes: int
    decode: str
    encode: str
    random: bool = False
    exponents: int = 0


STORAGES: Final[Mapping[str, Storage]] = {
    "bfloat16": Storage("uint16", 2, "from_bfloat16", "to_bfloat16"),
    "float16": Storage("uint16", 2, "from_float16", "to_float16"),
    "random bfloat16": Storage("uint16", 2, "from_bfloat16", "to_bfloat16_at_random", random=True),
    "unsigned int8": Storage("uint8", 1, "from_int8", "to_int8", random=True, exponents=UNSIGNED),
    "signed int8": Storage("uint8", 1, "from_int8", "to_int8", random=True, exponents=SIGNED),
}
"""The ways of storing an element in fewer bytes than it is computed with, by name. All of them are computed in float32."""


FUNCTIONS: Final = (
    "first_draw",
    "from_bfloat16",
    "from_float16",
    "from_int8",
    "int8_base",
    "int8_per_least",
    "int8_scale",
    "larger",
    "magnitude",
    "next_draw",
    "noise",
    "scratch",
    "to_bfloat16",
    "to_bfloat16_at_random",
    "to_float16",
    "to_int8",
    "turned",
)
"""The names of what a kernel may call of `coding`, which loads Numba; this module does not."""


def keys(seeds: NDArray[np.int64], numbers: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what begins the random bits of each parameter, by its seed, its number and its step: 32 bits, int64."""
    with np.errstate(over="ignore"):
        mixed = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + numbers.astype(np.uint64)
        for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # Vigna's splitmix64, once more for the step
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(factor) + steps.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(32)).astype(np.int64)
