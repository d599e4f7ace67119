"""One fused loop on the GPU for any rule: a step over many tensors in one launch.

A table on the device has the tensors' addresses; a program instance takes one chunk of one tensor. A launch per tensor would
lose everything on a net of small tensors.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import linecache
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..program import Program
from . import chunks
from .gpu_source import TYPES, columns_of, real_of, source, value_names

__all__ = [
    "BLOCK",
    "TYPES",
    "Kernel",
    "chunk_table",
    "fold",
    "installed",
    "interpreted",
    "kernel",
    "launch",
    "real_of",
    "source",
    "value_names",
]

BLOCK: Final = 1024
"""Elements per chunk. Each of a chunk's 256 threads takes four of them: one load of 16 bytes for each float32 array."""
# With four warps a thread of ADADELTA's takes 112 registers, which leaves three quarters of an H100's threads without any.
# Without fused multiply-adds, each operation is rounded, as the rule has it and as on the CPU.
_OPTIONS: Final[Mapping[str, Any]] = {"num_warps": 8, "enable_fp_fusion": False}


def interpreted() -> bool:
    """Whether Triton was told to interpret kernels on the CPU, where they take the addresses of CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "y", "on")


@functools.cache
def installed() -> bool:
    """Whether there is a Triton."""
    return importlib.util.find_spec("triton") is not None


class Kernel:
    """The functions of `source(program, formats)`, ready to launch."""

    def __init__(self, program: Program, formats: Mapping[str, str]) -> None:
        self.real: Final = real_of(formats)
        text = source(program, formats)
        file = f"<steprule {program.title} {next(_numbers)}>"
        # Triton reads a function's source, which Python's own cache of lines offers; what it compiles, it caches on disk.
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        scope: dict[str, Any] = {"__name__": f"steprule_{program.title}"}
        exec(compile(text, file, "exec"), scope)
        if interpreted() and "power" in scope:
            scope["power"] = _interpreted_power
        self.step: Final = scope["step"]
        self.fold: Final = scope["fold"]


_numbers: Final = itertools.count()


def _interpreted_power(a: Any, b: Any) -> Any:
    """Stand for the device library's `pow`, which the interpreter does not have."""
    import triton.language as tl

    whole = a if a.type.is_block() else b
    handle = type(whole.handle)
    return tl.tensor(handle(np.power(a.handle.data, b.handle.data), whole.handle.dtype), whole.type)


def kernel(program: Program, formats: Mapping[str, str]) -> Kernel:
    """Return the kernel of `source(program, formats)`; Triton compiles it at the first launch."""
    return _kernel(program, tuple((name, formats[name]) for name in columns_of(program, formats)), interpreted())


@functools.cache
def _kernel(program: Program, formats: tuple[tuple[str, str], ...], in_interpreter: bool) -> Kernel:  # noqa: ARG001
    return Kernel(program, dict(formats))


def chunk_table(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return the chunks, as `step` takes them, of tensors of such numbers of elements."""
    return chunks.chunks(sizes, BLOCK)


def launch(kernel: Kernel, pointers: Any, rows: Any, chunks: Any, scalars: Any) -> None:
    """Step every tensor of the tables, in place, on the device's present stream; see `source` for what they are.

    The tables are tensors of PyTorch, on the device on which the addresses are; nothing waits for the device.
    """
    if len(chunks):
        kernel.step[(len(chunks),)](pointers, rows, chunks, scalars, BLOCK=BLOCK, **_OPTIONS)


def fold(kernel: Kernel, counts: Any, groups: Any, values: Any, scalars: Any) -> None:
    """Count a step of each tensor and fill its row of `scalars`, all on the device; see `source`."""
    if len(counts):
        kernel.fold[(len(counts),)](counts, groups, values, scalars, **{**_OPTIONS, "num_warps": 1})
