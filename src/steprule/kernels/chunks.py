"""Tensors cut into chunks: one list for all tensors of a launch, so that small ones share it with large ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["chunks"]


def chunks(sizes: Sequence[int], length: int) -> NDArray[np.int64]:
    """Return int64 (chunks, 3): for each chunk its tensor, its first element, and its number of elements.

    `sizes` are the numbers of elements of the tensors; every chunk but a tensor's last has `length` of them.
    """
    elements = np.asarray(sizes, dtype=np.int64)
    numbers = -(-elements // length)
    tensors = np.repeat(np.arange(len(elements), dtype=np.int64), numbers)
    firsts = (np.arange(len(tensors), dtype=np.int64) - np.repeat(np.cumsum(numbers) - numbers, numbers)) * length
    return np.stack([tensors, firsts, np.minimum(length, elements[tensors] - firsts)], axis=1)
