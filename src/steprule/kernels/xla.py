"""The fused loop as a function that XLA calls on the CPU (its interface for foreign functions, version 0)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..program import Program
from .cache import compiled
from .cpu import CHUNK, kernel, source
from .elements import Elements
from .machine_code import assembled

__all__ = ["available", "handler", "layout", "target"]

_SOURCE: Final = Path(__file__).with_name("xla_handler.py")


def available() -> bool:
    """Whether XLA can call the loop here: it takes the C library of a POSIX system with addresses of 64 bits."""
    return sys.platform != "win32" and sys.maxsize > 2**32


def target(program: Program, elements: Elements) -> str:
    """Return the name under which XLA knows the handler: the same for the same source, in every process."""
    digest = hashlib.sha256((source(program, elements) + _SOURCE.read_text(encoding="utf-8")).encode()).hexdigest()
    return f"steprule_{program.title}_{digest[:16]}"


@functools.cache
def handler(program: Program, elements: Elements) -> Any:
    """Return the C function for XLA to call, as `ctypes` has it; see `xla_handler.serve` for what it takes."""
    text = _SOURCE.read_text(encoding="utf-8")
    step = ctypes.cast(kernel(program, elements), ctypes.c_void_p).value
    bound = _bound(compiled("xla", text, "serve"), step, compiled("xla", text, "help"), CHUNK)
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(bound)


def layout(program: Program, elements: Elements) -> NDArray[np.int32]:
    """Return what the handler must know of the arrays: see `xla_handler.serve`."""
    columns = [(program.arrays.index(name), _itemsize(elements, name)) for name in program.outputs]
    counts = [len(program.inputs), len(program.arrays), len(program.outputs)]
    return np.array([*counts, *(each for pair in columns for each in pair)], np.int32)


def _itemsize(elements: Elements, name: str) -> int:
    storage = elements.storage(name)
    return np.dtype(storage.holds if storage else elements.real).itemsize


def _bound(function: int, *constants: int | None) -> int:
    """Return the address of a C function of one address that calls `function` with it and with the `constants`.

    A handler gets no data of its own, and an address among what XLA compiles could not be kept on disk.
    """
    given = "".join(f", i64 {each}" for each in constants)
    kind = f"i64 (i64{', i64' * len(constants)})*"
    text = (
        "define i64 @bound(i64 %frame) {\n"
        f"  %function = inttoptr i64 {function} to {kind}\n"
        f"  %result = call i64 %function(i64 %frame{given})\n"
        "  ret i64 %result\n}\n"
    )
    return assembled(text, "bound")["bound"]
