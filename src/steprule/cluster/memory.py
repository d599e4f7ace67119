"""NumPy arrays as tensors over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

__all__ = ["as_tensor"]


class _Writable:
    """The memory of an array that says that it may be written."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor over the memory of `array`, which must not be written where the array is read-only.

    What comes out of a store that processes share is read-only; torch has no such tensors, and warns of each.
    """
    contiguous = np.ascontiguousarray(array)
    if not contiguous.flags.writeable:
        contiguous = np.asarray(_Writable(contiguous))
    return torch.from_numpy(contiguous)
