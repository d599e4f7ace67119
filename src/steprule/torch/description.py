"""How PyTorch itself describes tensors, compared as the bytes that it keeps: what tells at once that nothing has changed.

Its own look at hundreds of tensors takes a quarter of a step of as many small ones. Where a tensor keeps its class, sizes,
strides, dtype, device and dispatch keys is found by trial: by changing each and looking for what has changed in memory, and
by making tensors alike and looking for what differs. Where a version keeps them elsewhere, nothing is compared, and PyTorch
is asked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .identity import natives
from .memory import PLAIN_TYPES

__all__ = ["Descriptions"]

_DIMENSIONS: Final = 5
"""So many sizes and strides stand in the description itself; those of more lie elsewhere."""
_SHAPE, _STRIDES = (2, 3, 2, 3, 2), (100, 30, 12, 4, 1)
_WORDS: Final = 24
"""Of eight bytes: how far a description is looked for, which is what a tensor takes in memory."""


class _Place(NamedTuple):
    """Where the descriptions are, in bytes: `low` from the address at `target` of a tensor's Python object, `words` of them.

    The class is at `kind` of the Python object. `masks` has the bits that tell something, of the class and of each word.
    """

    kind: int
    target: int
    low: int
    words: int
    masks: tuple[int, ...]


def _resized(dimension: int) -> Callable[[Tensor], Any]:
    shape = [1 if each == dimension else size for each, size in enumerate(_SHAPE)]
    return lambda tensor: tensor.as_strided_(shape, _STRIDES)


def _turned(dimension: int) -> Callable[[Tensor], Any]:
    strides = [stride + (each == dimension) for each, stride in enumerate(_STRIDES)]
    return lambda tensor: tensor.as_strided_(_SHAPE, strides)


def _become(other: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Any]:
    return lambda tensor: setattr(tensor, "data", other(tensor.data))


_CHANGES: Final[tuple[Callable[[Tensor], Any], ...]] = (
    *map(_resized, range(_DIMENSIONS)),
    *map(_turned, range(_DIMENSIONS)),
    lambda tensor: tensor.as_strided_(_SHAPE[1:], _STRIDES[1:]),
    lambda tensor: tensor.as_strided_(_SHAPE, _STRIDES, 1),
    _become(lambda data: data.view(torch.int32)),  # the dtype
    _become(torch._neg_view),  # a dispatch key, beside which stand those of the device
)
"""Each changes one thing that a description tells, and not where the memory is."""


def _found() -> _Place | None:
    """Return where descriptions are, or None where that is not found."""
    memory = torch.zeros(1000, dtype=torch.float32, device="cpu")
    changed: set[int] = set()
    try:
        for change in _CHANGES:
            # What lies behind a tensor may change meanwhile, but not each time.
            seen = set.intersection(*(_changed(memory, change) for _ in range(3)))
            if not seen:
                return None
            changed |= seen
    except RuntimeError:  # some are not allowed within a transformation of functions
        return None
    held = _memory(id(memory), Tensor.__basicsize__ // 8)
    kinds, targets = np.flatnonzero(held == id(Tensor)), np.flatnonzero(held == memory._cdata)
    if not len(kinds) or not len(targets):
        return None
    low, words = min(changed), max(changed) + 1 - min(changed)
    masks = (-1, *(~_accidental(memory)[low : low + words]).tolist())
    return _Place(8 * int(kinds[0]), 8 * int(targets[0]), 8 * low, words, masks)


def _alike(memory: Tensor) -> Tensor:
    return memory.as_strided(_SHAPE, _STRIDES)


def _changed(memory: Tensor, change: Callable[[Tensor], Any]) -> set[int]:
    tensor = _alike(memory)
    before = _memory(tensor._cdata, _WORDS)
    change(tensor)
    return set(np.flatnonzero(_memory(tensor._cdata, _WORDS) != before).tolist())


def _accidental(memory: Tensor) -> NDArray[np.int64]:
    """Return the bits of a description in which tensors made alike differ: PyTorch leaves them as the memory had them."""
    tensors: list[Tensor] = []
    for content in 4 * (0x00, 0xFF):  # what was filled may go elsewhere, but not each time
        _fill_what_is_free(content)
        tensors += [_alike(memory) for _ in range(4)]
    rows = np.stack([_memory(tensor._cdata, _WORDS) for tensor in tensors])
    differing: NDArray[np.int64] = np.bitwise_or.reduce(rows ^ rows[0])
    return differing


def _fill_what_is_free(content: int) -> None:
    """Fill memory with a byte and give it back to C's allocator, which hands it to whoever asks next for as much."""
    try:
        c = ctypes.CDLL(None)
        c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        c.free.restype, c.free.argtypes = None, [ctypes.c_void_p]
    except (AttributeError, OSError, TypeError):  # a system whose C is not found so
        return
    blocks = {c.malloc(size): size for size in range(8 * _WORDS - 64, 8 * _WORDS + 80, 16) for _ in range(7)}
    for block, size in blocks.items():
        ctypes.memset(block, content, size)
    for block in blocks:
        c.free(block)


def _memory(address: int, words: int) -> NDArray[np.int64]:
    return np.frombuffer(ctypes.string_at(address, 8 * words), np.int64)


_PLACE: Final = _found()
"""Found when this is imported, while nothing is transformed or traced."""


class Descriptions:
    """What plain tensors of at most five dimensions are: class, sizes, strides, dtype, device, dispatch keys."""

    def __init__(self, described: Callable[..., int], place: _Place, count: int) -> None:
        self._described: Final = described
        self._table: Final = np.zeros((count, 1 + place.words), np.int64)
        self._masks: Final = np.array(place.masks, np.int64)
        self._where: Final = (self._table.ctypes.data, count, *place[:4], self._masks.ctypes.data)

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Descriptions | None:
        """Return those of `tensors`, or None where they cannot be compared."""
        native, place = natives(), _PLACE
        if native is None or place is None:
            return None
        if any(type(tensor) not in PLAIN_TYPES or tensor.dim() > _DIMENSIONS for tensor in tensors):
            return None
        made = cls(native["described"], place, len(tensors))
        made.take(list(tensors))
        return made

    def hold(self, tensors: list[Tensor]) -> bool:
        """Whether `tensors`, as many, are certainly of the same descriptions; False may be a difference of no weight."""
        return not self._described(tensors, *self._where, False)

    def take(self, tensors: list[Tensor]) -> None:
        """Take the descriptions of `tensors`, as many, of the same kinds, in the place of those before."""
        self._described(tensors, *self._where, True)
