"""What a generated kernel needs and Numba does not offer: a pointer from an address, and a counter that threads share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding as llvm
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
    "flush_subnormals",
    "free",
    "int32_at",
    "int64_at",
    "malloc",
    "prefetch",
    "restore_subnormals",
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


_OF_X86: Final = ("x86", "i386", "i686")
_OF_ARM: Final = ("aarch64", "arm64")
_FLUSHED_ON_X86: Final = 0x8040
"""In MXCSR: results that are subnormal become 0 (FTZ), and so do operands (DAZ)."""
_FLUSHED_ON_ARM: Final = 1 << 24
"""In FPCR, both of them (FZ)."""


def _control(builder: Any) -> tuple[Callable[[], Any], Callable[[Any], None], int] | None:
    """Return how a thread's floating-point control is read and written, and its bits that flush; None if not known."""
    triple: str = llvm.get_process_triple()

    def of_llvm(name: str, returned: Any, *taken: Any) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(returned, taken), f"llvm.{name}")  # type: ignore[no-untyped-call]

    wide = ir.IntType(64)
    if triple.startswith(_OF_ARM):
        read, write = of_llvm("aarch64.get.fpcr", wide), of_llvm("aarch64.set.fpcr", ir.VoidType(), wide)
        return lambda: builder.call(read, []), lambda value: builder.call(write, [value]), _FLUSHED_ON_ARM
    if not triple.startswith(_OF_X86):
        return None
    half, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    store, load = (of_llvm(f"x86.sse.{name}", ir.VoidType(), pointer) for name in ("stmxcsr", "ldmxcsr"))
    room = cgutils.alloca_once(builder, half)  # type: ignore[no-untyped-call]
    place = builder.bitcast(room, pointer)

    def read_mxcsr() -> Any:
        builder.call(store, [place])
        return builder.zext(builder.load(room), wide)

    def write_mxcsr(value: Any) -> None:
        builder.store(builder.trunc(value, half), room)
        builder.call(load, [place])

    return read_mxcsr, write_mxcsr, _FLUSHED_ON_X86


@intrinsic
def flush_subnormals(typing_context: Any) -> tuple[Signature, Any]:
    """Have this thread compute with 0 in place of subnormal numbers, where the processor can; return what it did before.

    Averages of gradients that have ended come down to such numbers and, rounded, stay there. Many processors need some
    hundred cycles for each.
    """

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        control = _control(builder)
        if control is None:
            return context.get_constant(types.int64, 0)
        read, write, flushed = control
        before = read()
        write(builder.or_(before, ir.Constant(before.type, flushed)))
        return before

    return types.int64(), generate


@intrinsic
def restore_subnormals(typing_context: Any, before: Any) -> tuple[Signature, Any]:
    """Have this thread compute as `before`, which `flush_subnormals` returned."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        control = _control(builder)
        if control is not None:
            control[1](arguments[0])
        return context.get_dummy_value()

    return types.void(before), generate
