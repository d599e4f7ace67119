"""What a generated kernel needs and Numba does not offer: a pointer from an address, and counters that threads share."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

__all__ = ["APART", "fetch_add", "float32_at", "float64_at", "load_counter"]

# Counters that threads share lie this many int64 apart, so that each has a cache line (and its neighbour) to itself.
APART = 16


def _at(real: Any) -> Any:
    def at(typing_context: Any, address: Any) -> tuple[Signature, Any]:
        def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(real)(address), generate  # type: ignore[no-untyped-call]

    return intrinsic(at)


float32_at = _at(types.float32)
float64_at = _at(types.float64)


def _counter(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def fetch_add(typing_context: Any, counters: Any, index: Any, step: Any) -> tuple[Signature, Any]:
    """Add `step` to `counters[index]` in one indivisible operation and return what stood there before."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _counter(context, builder, signature, arguments), arguments[2], "acq_rel")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def load_counter(typing_context: Any, counters: Any, index: Any) -> tuple[Signature, Any]:
    """Return `counters[index]` as other threads have left it, together with all that they wrote before."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        return builder.load_atomic(
            _counter(context, builder, signature, arguments), "acquire", ir.IntType(64).width // 8
        )

    return types.int64(counters, types.int64), generate
