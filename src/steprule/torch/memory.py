"""Where tensors lie: whether one overlaps itself, which of several share memory, and which are spread over ranks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
from torch._subclasses.fake_tensor import maybe_get_fake_mode

import torch
from torch import Tensor

__all__ = ["PLAIN_TYPES", "alike", "dense", "is_fake", "is_sharded", "overlaps_itself", "sharing"]

PLAIN_TYPES = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
"""The classes whose tensors are what their memory holds."""


def _by_stride(tensor: Tensor) -> list[tuple[int, int]]:
    return sorted(zip(tensor.stride(), tensor.shape, strict=True))


def dense(tensor: Tensor) -> bool:
    """Whether the elements fill a piece of memory, in whatever order of dimensions, with no gap and no overlap."""
    expected = 1
    for stride, size in _by_stride(tensor):
        if size != 1 and stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two strided tensors of one shape have their elements in the same order in memory, with the same gaps."""
    return first.stride() == second.stride() or (first.is_contiguous() and second.is_contiguous())


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    # Who has a DTensor has loaded its module; nobody else needs to.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_fake(tensor: Tensor) -> bool:
    """Whether it has no memory and only stands for a tensor, or has parts that do, as under `FakeTensorMode`."""
    return maybe_get_fake_mode(tensor) is not None


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements of a strided tensor lie in the same place."""
    if tensor.numel() <= 1:
        return False
    reach = 1
    for stride, size in _by_stride(tensor):
        if size != 1 and stride == 0:
            return True
        if size != 1 and stride < reach:
            break
        reach += (size - 1) * stride
    else:
        return False
    # Few tensors come here, since their strides are nothing that an indexing makes: all places are counted.
    places = np.zeros(1, np.int64)
    for stride, size in zip(tensor.stride(), tensor.shape, strict=True):
        places = (places[:, None] + stride * np.arange(size)).reshape(-1)
    return len(np.unique(places)) < len(places)


def sharing(written: Sequence[Iterable[Tensor]]) -> set[int]:
    """Return the places in `written`, of tensors that are written together, whose memory another tensor writes too.

    Memory counts from a tensor's first element to its last. Only what a kernel may write is looked at: plain tensors on the
    CPU and on GPUs, which divide one range of addresses.
    """
    reaches = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _length(tensor), place)
        for place, tensors in enumerate(written)
        for tensor in tensors
        if type(tensor) in PLAIN_TYPES
        and tensor.device.type in ("cpu", "cuda")
        and tensor.numel()
        and _has_memory(tensor)
    )
    found: set[int] = set()
    end, last = 0, -1
    for start, stop, place in reaches:
        if start < end:
            found |= {last, place}
        if stop > end:
            end, last = stop, place
    return found


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor._is_zerotensor()


def _length(tensor: Tensor) -> int:
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return (last + 1) * tensor.element_size()
