"""What `codecs` says, as functions that a kernel calls, which Numba makes LLVM code of in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen, config
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from .codecs import BLOCK, DROPPED, FUNCTIONS, UNSIGNED

__all__ = list(FUNCTIONS)

_I32: Final = ir.IntType(32)
_F32: Final = ir.FloatType()


def _function(returned: Any, *taken: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make of a function that writes LLVM code for its operands one that a kernel can call.

    Numba would promote small integers to 64 bits, at twice the cost or more.
    """

    def decorate(write: Callable[..., Any]) -> Any:
        def typed(*_operands: Any) -> tuple[Signature, Any]:
            def generate(_context: Any, builder: Any, _signature: Signature, arguments: Any) -> Any:
                return write(builder, *arguments)

            return returned(*taken), generate

        # Numba must know how many operands there are.
        names = ("typing_context", *(f"operand{number}" for number in range(len(taken))))
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        vars(typed)["__signature__"] = inspect.Signature([inspect.Parameter(name, positional) for name in names])
        typed.__doc__ = write.__doc__
        return intrinsic(typed)

    return decorate


def _constant(number: int) -> Any:
    return ir.Constant(_I32, number)


_GOLDEN: Final = _constant(0x9E3779B1)


def _bits(builder: Any, value: Any) -> Any:
    return builder.bitcast(value, _I32)


@_function(types.uint32, types.int64, types.int64)
def first_draw(builder: Any, position: Any, key: Any) -> Any:
    """Return what the random bits of the element at `position` are made of, the same for the same `key`."""
    return builder.add(builder.mul(builder.trunc(position, _I32), _GOLDEN), builder.trunc(key, _I32))


@_function(types.uint32, types.uint32)
def next_draw(builder: Any, draw: Any) -> Any:
    """Return what the next element's are made of; by one addition, which the compiler would not find by itself."""
    return builder.add(draw, _GOLDEN)


@_function(types.uint32, types.uint32)
def noise(builder: Any, draw: Any) -> Any:
    """Return 32 random bits: Wellons's "lowbias32" hash."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        draw = builder.mul(builder.xor(draw, builder.lshr(draw, _constant(shift))), _constant(factor))
    return builder.xor(draw, builder.lshr(draw, _constant(16)))


@_function(types.uint32, types.uint32)
def turned(builder: Any, random: Any) -> Any:
    """Return random bits with their halves exchanged: a rounding takes the lower half and some bits more."""
    return builder.or_(builder.shl(random, _constant(16)), builder.lshr(random, _constant(16)))


@_function(types.float32, types.uint16)
def from_bfloat16(builder: Any, stored: Any) -> Any:
    """Return the number that 16 bits hold, of bfloat16."""
    return builder.bitcast(builder.shl(builder.zext(stored, _I32), _constant(16)), _F32)


def _upper_half(builder: Any, value: Any, addend: Any) -> Any:
    upper = builder.lshr(builder.add(_bits(builder, value), addend), _constant(16))
    upper = builder.select(builder.fcmp_unordered("uno", value, value), _constant(0x7FC0), upper)
    return builder.trunc(upper, ir.IntType(16))


@_function(types.uint16, types.float32)
def to_bfloat16(builder: Any, value: Any) -> Any:
    """Return 16 bits of bfloat16, rounded to nearest, ties to even."""
    odd = builder.and_(builder.lshr(_bits(builder, value), _constant(16)), _constant(1))
    return _upper_half(builder, value, builder.add(odd, _constant(0x7FFF)))


@_function(types.uint16, types.float32, types.uint32)
def to_bfloat16_at_random(builder: Any, value: Any, random: Any) -> Any:
    """Return 16 bits of bfloat16, rounded up as often as the bits beyond them say."""
    return _upper_half(builder, value, builder.and_(random, _constant(0xFFFF)))


def _converts_halves() -> bool:
    """Return whether the processor that Numba compiles for converts float16.

    For one that does not, LLVM calls a function of its own runtime, which the process need not have, and which ends it then.
    """
    triple: str = llvm.get_process_triple()
    if not triple.startswith(("x86", "i686")):
        return triple.startswith(("aarch64", "arm64"))
    named = config.CPU_FEATURES  # type: ignore[attr-defined]
    features = codegen.get_host_cpu_features() if named is None else named  # type: ignore[no-untyped-call]
    return {"+avx", "+f16c"} <= {*features.split(",")}


_EXPONENT_OF_HALF: Final = 0x1F << 23
"""The exponent of a float16, all its bits set, where those of a float32 are."""
_LEAST_HALF: Final = 113 << 23
"""The bits of 2**-14, the smallest float16 with all its bits of precision, as a float32."""


@_function(types.float32, types.uint16)
def from_float16(builder: Any, stored: Any) -> Any:
    """Return the number that 16 bits hold, of float16."""
    if _converts_halves():
        return builder.fpext(builder.bitcast(stored, ir.HalfType()), _F32)
    bits = builder.zext(stored, _I32)
    moved = builder.shl(builder.and_(bits, _constant(0x7FFF)), _constant(13))
    exponent = builder.and_(moved, _constant(_EXPONENT_OF_HALF))
    size = builder.add(moved, _constant((127 - 15) << 23))
    # Below 2**-14 there is no leading 1: put in, and taken off again as a number.
    small = builder.bitcast(builder.add(size, _constant(1 << 23)), _F32)
    small = builder.fsub(small, builder.bitcast(_constant(_LEAST_HALF), _F32))
    infinite = builder.icmp_unsigned("==", exponent, _constant(_EXPONENT_OF_HALF))
    size = builder.select(infinite, builder.add(size, _constant((128 - 16) << 23)), size)
    size = builder.select(builder.icmp_unsigned("==", exponent, _constant(0)), _bits(builder, small), size)
    sign = builder.shl(builder.and_(bits, _constant(0x8000)), _constant(16))
    return builder.bitcast(builder.or_(size, sign), _F32)


@_function(types.uint16, types.float32)
def to_float16(builder: Any, value: Any) -> Any:
    """Return 16 bits of float16, rounded to nearest, ties to even."""
    if _converts_halves():
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), ir.IntType(16))
    bits = _bits(builder, value)
    size = builder.and_(bits, _constant(0x7FFFFFFF))
    odd = builder.and_(builder.lshr(size, _constant(13)), _constant(1))
    rounded = builder.add(size, builder.add(odd, _constant(0xFFF - ((127 - 15) << 23))))
    half = builder.lshr(rounded, _constant(13))
    # Below 2**-14 an addition rounds to multiples of 2**-24, in the lower bits of the sum.
    least = _constant((127 - 15 + 23 - 10 + 1) << 23)
    total = builder.fadd(builder.bitcast(size, _F32), builder.bitcast(least, _F32))
    below = builder.icmp_unsigned("<", size, _constant(_LEAST_HALF))
    half = builder.select(below, builder.sub(_bits(builder, total), least), half)
    # From 65520 on the nearest is infinity, to which the rounding above leads up to 65536.
    infinity, nan = _constant(0x7C00), _constant(0x7E00)
    half = builder.select(builder.icmp_unsigned(">=", size, _constant((127 + 16) << 23)), infinity, half)
    half = builder.select(builder.icmp_unsigned(">", size, _constant(0x7F800000)), nan, half)
    sign = builder.and_(builder.lshr(bits, _constant(16)), _constant(0x8000))
    return builder.trunc(builder.or_(half, sign), ir.IntType(16))


@_function(types.uint32, types.float32)
def magnitude(builder: Any, value: Any) -> Any:
    """Return the bits of |value|, which as integers are in the order of the numbers, infinity and NaN last."""
    return builder.and_(_bits(builder, value), _constant(0x7FFFFFFF))


@_function(types.uint32, types.uint32, types.uint32)
def larger(builder: Any, a: Any, b: Any) -> Any:
    """Return the larger of two unsigned integers."""
    return builder.select(builder.icmp_unsigned(">", a, b), a, b)


@_function(types.float32, types.uint32)
def int8_scale(builder: Any, most: Any) -> Any:
    """Return the scale of a block whose largest magnitude has the bits `most`; NaN where that is no number."""
    # The largest number may be rounded up to the next power of two.
    power = builder.and_(builder.add(most, _constant((1 << DROPPED) - 1)), _constant(0x7F800000))
    infinite = builder.icmp_unsigned(">=", most, _constant(0x7F800000))
    return builder.bitcast(builder.select(infinite, _constant(0x7FC00000), power), _F32)


@_function(types.uint32, types.float32, types.uint32)
def int8_base(builder: Any, scale: Any, exponents: Any) -> Any:
    """Return the bits of the number that the codes of a block count from."""
    exponent = builder.lshr(_bits(builder, scale), _constant(23))
    reach = builder.sub(exponents, _constant(1))
    lowest = builder.sub(exponent, reach)
    return builder.shl(builder.select(builder.icmp_unsigned(">", exponent, reach), lowest, _constant(0)), _constant(23))


@_function(types.float32, types.uint32)
def int8_per_least(builder: Any, base: Any) -> Any:
    """Return 1 over the smallest number that has a code."""
    return builder.fdiv(ir.Constant(_F32, 1.0), builder.bitcast(builder.add(base, _constant(1 << DROPPED)), _F32))


def _sign_bit(builder: Any, exponents: Any) -> Any:
    """Return 0x80 where a code has a sign, 0 where not."""
    return builder.shl(builder.sub(_constant(UNSIGNED), exponents), _constant(3))


@_function(types.float32, types.uint8, types.float32, types.uint32, types.uint32)
def from_int8(builder: Any, stored: Any, scale: Any, base: Any, exponents: Any) -> Any:
    """Return the number of a code, in a block of this scale and base."""
    code, sign_bit = builder.zext(stored, _I32), _sign_bit(builder, exponents)
    size = builder.and_(code, builder.xor(sign_bit, _constant(0xFF)))
    bits = builder.add(base, builder.shl(size, _constant(DROPPED)))
    bits = builder.select(builder.icmp_unsigned("==", size, _constant(0)), _constant(0), bits)
    bits = builder.or_(bits, builder.shl(builder.and_(code, sign_bit), _constant(24)))
    return builder.fadd(builder.bitcast(bits, _F32), builder.fsub(scale, scale))  # NaN where the scale is


@_function(types.uint8, types.float32, types.uint32, types.float32, types.uint32, types.uint32)
def to_int8(builder: Any, value: Any, base: Any, per_least: Any, random: Any, exponents: Any) -> Any:
    """Return the code of a number, rounded at random; `per_least` is that of the block."""
    bits, least = builder.and_(_bits(builder, value), _constant(0x7FFFFFFF)), _constant(1 << DROPPED)
    lower = builder.and_(random, _constant((1 << DROPPED) - 1))
    large = builder.lshr(builder.sub(builder.add(bits, lower), base), _constant(DROPPED))
    # Below the smallest number that has a code: that one, as often as `value` has of it, else 0.
    drawn = builder.fmul(builder.uitofp(builder.lshr(random, _constant(8)), _F32), ir.Constant(_F32, 2.0**-24))
    by_chance = builder.fcmp_ordered(">", builder.fmul(builder.bitcast(bits, _F32), per_least), drawn)
    always = builder.icmp_unsigned("!=", bits, _constant(0))
    sign_bit = _sign_bit(builder, exponents)
    has_sign = builder.icmp_unsigned("!=", sign_bit, _constant(0))
    small = builder.zext(builder.select(has_sign, by_chance, always), _I32)
    code = builder.select(builder.icmp_unsigned("<", bits, builder.add(base, least)), small, large)
    sign = builder.and_(builder.lshr(_bits(builder, value), _constant(24)), sign_bit)
    return builder.trunc(builder.or_(code, sign), ir.IntType(8))


@_function(types.CPointer(types.float32))  # type: ignore[no-untyped-call]
def scratch(builder: Any) -> Any:
    """Return room on the stack for a block of float32."""
    return cgutils.alloca_once(builder, _F32, size=BLOCK)  # type: ignore[no-untyped-call]
