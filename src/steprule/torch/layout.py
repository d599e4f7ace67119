"""How tensors lie in memory, to tell at each step whether others lie alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .description import Descriptions

try:
    # What torch.compile looks at its inputs with: one call in C++ for all tensors.
    from torch._C._dynamo.guards import TensorGuards
except ImportError:  # it is private to PyTorch, and may go
    TensorGuards = None  # type: ignore[assignment,misc]

__all__ = ["Layout"]

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
        self._descriptions: Final = Descriptions.of(tensors) if self._check else None
        # One tensor tells whether PyTorch is in the same mode, such as that of inference.
        self._mode: Final = _guards(tensors[:1]) if self._descriptions else None

    def fits(self, tensors: list[Tensor]) -> bool:
        """Whether `tensors`, known to be as many, are of the same kinds and lie alike."""
        if self._check is None:
            return _look_at(tensors) == self._looked_at
        described = self._descriptions
        if described and self._mode and self._mode(tensors[0]) and described.hold(tensors):
            return True
        fits = self._check(*tensors)
        if fits and described:
            described.take(tensors)
        return fits


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
