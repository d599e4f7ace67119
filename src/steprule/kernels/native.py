"""What a generated kernel needs and Numba does not offer: a pointer from an address, and a counter that threads share."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

__all__ = [
    "add",
    "call",
    "claim",
    "copy_bytes",
    "float32_at",
    "float64_at",
    "free",
    "int32_at",
    "int64_at",
    "malloc",
    "prefetch",
    "sched_yield",
    "uint8_at",
    "uint16_at",
]


def _at(real: Any) -> Any:
    def at(typing_context: Any, address: Any) -> tuple[Signature, Any]:
        def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(real)(address), generate  # type: ignore[no-untyped-call]

    return intrinsic(at)


int32_at = _at(types.int32)
int64_at = _at(types.int64)
float32_at = _at(types.float32)
float64_at = _at(types.float64)
uint16_at = _at(types.uint16)
uint8_at = _at(types.uint8)


@intrinsic
def add(typing_context: Any, counter: Any, amount: Any) -> tuple[Signature, Any]:
    """Add `amount` to the int64 at the pointer `counter` as `claim` does, and return what stood there before."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], arguments[1], "acq_rel")

    return types.int64(counter, types.int64), generate


@intrinsic
def call(typing_context: Any, function: Any, argument: Any) -> tuple[Signature, Any]:
    """Call the C function at the address `function` with one address; return the address that it returns."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        address = ir.IntType(64)
        kind = ir.FunctionType(address, [address])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])

    return types.int64(types.int64, types.int64), generate


def _of_c(name: str, arguments: int) -> Any:
    """Return a function of the C library that takes and returns numbers of 64 bits."""

    def generate(context: Any, builder: Any, signature: Signature, given: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * arguments)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)  # type: ignore[no-untyped-call]

    signature = types.int64(*[types.int64] * arguments)
    takers = {
        0: lambda typing_context: (signature, generate),
        1: lambda typing_context, a: (signature, generate),
        3: lambda typing_context, a, b, c: (signature, generate),
    }
    return intrinsic(takers[arguments])


malloc = _of_c("malloc", 1)
free = _of_c("free", 1)
copy_bytes = _of_c("memmove", 3)
sched_yield = _of_c("sched_yield", 0)


@intrinsic
def claim(typing_context: Any, counter: Any) -> tuple[Signature, Any]:
    """Add 1 to the int64 at the pointer `counter` in one indivisible operation and return what stood there before."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], context.get_constant(types.int64, 1), "acq_rel")

    return types.int64(counter), generate


@intrinsic
def prefetch(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """Have the cache line at an address (int64) fetched, to be written soon; an address that is none does no harm."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")  # type: ignore[no-untyped-call]
        # For writing, into every level of the cache, data.
        builder.call(call, [builder.inttoptr(arguments[0], pointer), flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(address), generate
