"""The codes of `steprule.kernels.codecs` in torch's operations: for new state, for checkpoints, and where no kernel runs."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ..kernels.codecs import BLOCK, DROPPED, SIGNED, STORAGES

__all__ = ["DTYPES", "blocks", "decode", "encode", "noise", "turned"]

DTYPES: Final = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "random bfloat16": torch.bfloat16,
    "unsigned int8": torch.uint8,
    "signed int8": torch.uint8,
}
"""The dtype of a state tensor, by the name of its storage."""

_MASK: Final = 0xFFFFFFFF


def blocks(elements: int) -> int:
    """Return how many scales so many elements have."""
    return -(-elements // BLOCK)


def noise(count: int, key: int, device: torch.device | str = "cpu") -> Tensor:
    """Return 32 random bits for each of `count` elements, int64: those that a kernel draws of the same `key`."""
    # int64 keeps the lower 32 bits of a product whole, also where it overflows.
    mixed = (torch.arange(count, dtype=torch.int64, device=device) * 0x9E3779B1 + key) & _MASK
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK
    return mixed ^ (mixed >> 16)


def turned(random: Tensor) -> Tensor:
    """Return random bits with their halves exchanged."""
    return ((random << 16) | (random >> 16)) & _MASK


def decode(stored: Tensor, storage: str, scale: Tensor | None = None) -> Tensor:
    """Return the float32 numbers that the flat tensor `stored` holds; `scale` has one number for each block."""
    exponents = STORAGES[storage].exponents
    if not exponents:
        return stored.to(torch.float32)
    assert scale is not None
    code, scale = stored.to(torch.int64), scale.repeat_interleave(BLOCK)[: stored.numel()]
    size = code & (0x7F if exponents == SIGNED else 0xFF)
    bits = torch.where(size == 0, 0, _base(scale, exponents) + (size << DROPPED))
    sign = torch.where((exponents == SIGNED) & (code >= 0x80), -1.0, 1.0)
    return _number(bits) * sign + (scale - scale)


def encode(values: Tensor, storage: str, random: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return flat float32 `values` as `storage` has them, and the blocks' scales where it has such.

    `random` has 32 bits for each element, of which the rounding is made, where the storage rounds at random.
    """
    form = STORAGES[storage]
    if not form.random:
        return values.to(DTYPES[storage]), None
    assert random is not None
    bits = _bits(values)
    if not form.exponents:
        upper = ((bits + (random & 0xFFFF)) >> 16) << 16
        return torch.where(values.isnan(), values, _number(upper & _MASK)).to(torch.bfloat16), None
    return _encode_int8(values, bits & 0x7FFFFFFF, form.exponents, random)


def _encode_int8(values: Tensor, bits: Tensor, exponents: int, random: Tensor) -> tuple[Tensor, Tensor]:
    least = 1 << DROPPED
    most = torch.zeros(blocks(bits.numel()) * BLOCK, dtype=torch.int64, device=bits.device)
    most[: bits.numel()] = bits
    most = most.view(-1, BLOCK).amax(1)
    scale = _number(torch.where(most >= 0x7F800000, 0x7FC00000, (most + (least - 1)) & 0x7F800000))
    base = _base(scale.repeat_interleave(BLOCK)[: bits.numel()], exponents)
    large = (bits + (random & (least - 1)) - base) >> DROPPED
    small = bits != 0
    if exponents == SIGNED:
        # The smallest number that has a code, as often as the value has of it, else 0.
        small = _number(bits) * (1 / _number(base + least)) > (random >> 8).to(torch.float32) * 2.0**-24
    code = torch.where(bits < base + least, small.to(torch.int64), large)
    if exponents == SIGNED:
        code = code | ((_bits(values) >> 24) & 0x80)
    return (code & 0xFF).to(torch.uint8), scale


def _base(scale: Tensor, exponents: int) -> Tensor:
    return ((_bits(scale) >> 23) - (exponents - 1)).clamp_min(0) << 23


def _bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32).to(torch.int64) & _MASK


def _number(bits: Tensor) -> Tensor:
    signed = torch.where(bits >= 1 << 31, bits - (1 << 32), bits)
    return signed.to(torch.int32).view(torch.float32)
