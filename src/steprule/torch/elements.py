"""Single elements of tensors of every kind, without a copy of the rest."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .memory import is_sharded
from .sharded import local_parts

__all__ = ["SampledElements", "plain"]


class SampledElements:
    """Some elements of a parameter, by their numbers in it, read row by row.

    A complex number is two elements, its real part before the imaginary one. Of a DTensor, the elements are those of this
    rank's part.
    """

    def __init__(self, parameter: Tensor, numbers: NDArray[np.int64]) -> None:
        own = plain(parameter)
        self.numbers: Final = numbers
        self._places: Final = torch.from_numpy(numbers).to(own.device)
        self._shape: Final = tuple(own.shape)

    def fit(self, parameter: Tensor) -> bool:
        """Whether the parameter has the shape and the device that it had."""
        own = plain(parameter)
        return tuple(own.shape) == self._shape and own.device == self._places.device

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self) -> Tensor:
        """Return the number of the row that each element is in, on the CPU."""
        width = max(int(np.prod(self._shape[1:])), 1)
        return torch.from_numpy(self.numbers // width)

    def of(self, tensor: Tensor) -> Tensor:
        """Return the elements of the parameter, or of its gradient, (elements,), in the tensor's real dtype."""
        if tensor.layout is torch.sparse_coo:
            return self._of_sparse(tensor)
        return torch.take(plain(tensor), self._places)

    def _of_sparse(self, tensor: Tensor) -> Tensor:
        """Sum, as `coalesce` does, what the tensor has at each element; but sort nothing."""
        indices, values = tensor._indices(), tensor._values()
        if tensor.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        dense = max(int(np.prod(self._shape[tensor.sparse_dim() :])), 1)
        number = torch.zeros_like(indices[0])
        for along, length in zip(indices, self._shape, strict=False):
            number = number * length + along
        found = values.reshape(len(number), -1)[:, self._places % dense]
        here = number[:, None] == (self._places // dense)[None, :]
        return torch.where(here, found, torch.zeros_like(found)).sum(0)


def plain(tensor: Tensor) -> Tensor:
    """Return a dense tensor's real numbers, in its own memory where it can be."""
    tensor = tensor.detach()
    if is_sharded(tensor):
        (tensor,) = local_parts([tensor])
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
