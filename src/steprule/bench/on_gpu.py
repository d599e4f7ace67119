"""One optimizer step on a GPU: ours, every form of PyTorch's, and a copy of as many bytes.

Contenders are made, timed and freed one after the other, since a thousand million elements with their state leave no room
for two. A time is from the call to the end of the device's work.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

import torch

from ..kernels import gpu
from ..program import lower
from .steps import SIZES, TWINS, StepBench, compiled_step, contenders
from .timing import Times, interleaved

__all__ = ["GPU_SIZES", "measure_steps_on_gpu", "require_gpu"]

GPU_SIZES: Final[Mapping[str, Sequence[tuple[int, ...]]]] = {**SIZES, "huge": [(1_000_000_000,)]}
"""The sizes of `SIZES`, and one of a thousand million elements."""

_COPIED: Final = (
    2**28
)  # elements; the largest copy, so that it takes 2 GiB and not what a step of the largest size does

# Steps that are timed, by how many elements there are.
_STEPS: Final = ((2_000_000, 200), (100_000_000, 100), (10**12, 30))


def require_gpu() -> None:
    """Raise `ValueError` where PyTorch finds no GPU, or there is no Triton for ours to run with."""
    if not torch.cuda.is_available():
        raise ValueError(f"--device is 'cuda', and PyTorch {torch.__version__} finds no GPU here; allowed is cpu")
    if not gpu.installed():
        raise ValueError(
            "--device is 'cuda', and triton, which makes the kernels there, is not installed; allowed is cpu"
        )


def measure_steps_on_gpu(size: str, name: str, *, compiled: bool = True, device: str = "cuda") -> StepBench:
    """Time one step of the rule `name` for the parameters of `GPU_SIZES[size]`, float32, as `measure_steps` does.

    The limit is a copy that reads and writes as many bytes. A form of PyTorch's that does not fit in the memory is left out.
    """
    shapes, twin = GPU_SIZES[size], TWINS[name]
    elements = sum(int(np.prod(shape)) for shape in shapes)
    moved = lower(twin.rule).bytes_per_element(4)
    steps = next(steps for most, steps in _STEPS if elements <= most)
    times: dict[str, Times] = {}
    for each, make in contenders(twin, shapes, device).items():
        with contextlib.nullcontext() if each == "steprule" else contextlib.suppress(torch.OutOfMemoryError):
            times[each] = _timed(make(), device, steps)
        _free()
    compile_seconds = None
    if compiled:
        with contextlib.suppress(torch.OutOfMemoryError):
            step, compile_seconds = compiled_step(twin, shapes, device)
            times["torch compiled"] = _timed(step, device, steps)
            del step
        _free()
    times["limit"] = _timed(_copy(moved * elements, device), device, steps)
    return StepBench(size, name, len(shapes), elements, moved, times, compile_seconds)


def _timed(call: Callable[[], object], device: str, steps: int) -> Times:
    wait = torch.get_device_module(device).synchronize

    def whole() -> None:
        call()
        wait()

    for _ in range(3):
        whole()
    return interleaved({"": whole}, 1, steps)[""]


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _copy(moved: int, device: str) -> Callable[[], object]:
    """Return a call that reads and writes `moved` bytes in all, by copying."""
    copied = moved // 8  # float32, read once and written once
    here = torch.ones(min(copied, _COPIED), device=device)
    there = torch.empty_like(here)

    def call() -> None:
        for first in range(0, copied, _COPIED):
            size = min(_COPIED, copied - first)
            there[:size].copy_(here[:size])

    return call
