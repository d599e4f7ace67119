"""How tensors lie in memory, to tell at each step whether others lie alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .identity import fetch

try:
    # What torch.compile looks at its inputs with: one call in C++ for all tensors.
    from torch._C._dynamo.guards import TensorGuards
except ImportError:  # it is private to PyTorch, and may go
    TensorGuards = None  # type: ignore[assignment,misc]

__all__ = ["Layout"]

_MANY: Final = 32
"""Tensors that it takes longer to look at one after the other than to have fetched at once."""

_ATTRIBUTES: Final[tuple[Callable[[Any], Any], ...]] = (
    type,
    operator.attrgetter("layout"),
    operator.attrgetter("dtype"),
    operator.attrgetter("device"),
    operator.attrgetter("shape"),
    Tensor.is_neg,
    Tensor.is_conj,
    Tensor._is_zerotensor,
    lambda tensor: torch._C._dispatch_keys(tensor).raw_repr(),
)


class Layout:
    """Of some tensors: type, dispatch keys, layout, dtype, device, sizes and strides."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._check: Final = _guards(tensors)
        self._looked_at: Final = [] if self._check else _look_at(tensors)

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether `tensors`, known to be as many, are of the same kinds and lie alike."""
        if self._check is not None:
            if len(tensors) >= _MANY:
                fetch(tensors)
            return self._check(*tensors)
        return _look_at(tensors) == self._looked_at


def _guards(tensors: Sequence[Tensor]) -> Callable[..., bool] | None:
    strided = all(tensor.layout is torch.strided for tensor in tensors)
    if TensorGuards is None or not tensors or not strided:
        return None
    # One list for each tensor, whatever PyTorch's stub says.
    sizes: list[Any] = [list(tensor.shape) for tensor in tensors]
    strides: list[Any] = [list(tensor.stride()) for tensor in tensors]
    try:
        check = TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
        return check if check(*tensors) else None
    except (
        TypeError,
        RuntimeError,
        SystemError,
    ):  # made otherwise in another version, or tensors that it does not know
        return None


def _look_at(tensors: Sequence[Tensor]) -> list[Any]:
    strides = [tensor.stride() if tensor.layout is torch.strided else () for tensor in tensors]
    return [strides, *(list(map(of, tensors)) for of in _ATTRIBUTES)]
