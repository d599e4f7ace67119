"""What a launch hands to a kernel: tensors cut into chunks, one list for all, so that small ones share it with large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHUNK_FIELDS", "LAUNCH_FIELDS", "chunks", "without"]

LAUNCH_FIELDS: Final = ("claimed", "chunks", "number of chunks", "pointers", "rows", "scalars", "keys", "flags")
"""What a kernel's only argument is the address of: these int64, all but the third of them addresses in their turn."""
CHUNK_FIELDS: Final = ("tensor", "first element", "elements")


def chunks(sizes: Sequence[int], length: int) -> NDArray[np.int64]:
    """Return int64 (chunks, 3): for each chunk its tensor, its first element, and its number of elements.

    `sizes` are the numbers of elements of the tensors; every chunk but a tensor's last has `length` of them.
    """
    elements = np.asarray(sizes, dtype=np.int64)
    numbers = -(-elements // length)
    tensors = np.repeat(np.arange(len(elements), dtype=np.int64), numbers)
    firsts = (np.arange(len(tensors), dtype=np.int64) - np.repeat(np.cumsum(numbers) - numbers, numbers)) * length
    return np.stack([tensors, firsts, np.minimum(length, elements[tensors] - firsts)], axis=1)


def without(chunks: NDArray[np.int64], left_out: Sequence[bool]) -> NDArray[np.int64]:
    """Return the chunks of the tensors for which `left_out` is false."""
    return chunks[~np.asarray(left_out, np.bool_)[chunks[:, 0]]]
