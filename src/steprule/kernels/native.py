"""What a generated kernel needs and Numba does not offer: a pointer from an address, and a counter that threads share."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

__all__ = ["CHUNK_FIELDS", "LAUNCH_FIELDS", "claim", "float32_at", "float64_at", "int64_at", "uint8_at", "uint16_at"]

LAUNCH_FIELDS = ("claimed", "chunks", "number of chunks", "pointers", "rows", "scalars", "keys", "flags")
"""What a kernel's only argument is the address of: these int64, all but the third of them addresses in their turn."""
CHUNK_FIELDS = ("tensor", "first element", "elements")


def _at(real: Any) -> Any:
    def at(typing_context: Any, address: Any) -> tuple[Signature, Any]:
        def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(real)(address), generate  # type: ignore[no-untyped-call]

    return intrinsic(at)


int64_at = _at(types.int64)
float32_at = _at(types.float32)
float64_at = _at(types.float64)
uint16_at = _at(types.uint16)
uint8_at = _at(types.uint8)


@intrinsic
def claim(typing_context: Any, counter: Any) -> tuple[Signature, Any]:
    """Add 1 to the int64 at the pointer `counter` in one indivisible operation and return what stood there before."""

    def generate(context: Any, builder: Any, signature: Signature, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], context.get_constant(types.int64, 1), "acq_rel")

    return types.int64(counter), generate
