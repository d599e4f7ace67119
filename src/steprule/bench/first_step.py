"""How long the first step of a process takes, with an empty cache of kernels and with a full one, and PyTorch's own."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Final

from .processes import printed
from .timing import Times

__all__ = ["measure_first_step"]

# Each in a process of its own: PyTorch's first optimizer imports much that later ones find there.
_CHILD: Final = """
import time, torch
parameter = torch.zeros(1000, requires_grad=True)
parameter.grad = torch.ones(1000)
started = time.perf_counter()
import {module}
{module}.Adadelta([parameter]).step()
print(time.perf_counter() - started)
"""
_MODULES: Final = {"cold": "steprule.torch", "cached": "steprule.torch", "torch": "torch.optim"}


def measure_first_step(rounds: int = 5) -> dict[str, Times]:
    """Return the seconds that the first Adadelta step of a process takes, with the imports that it brings beside PyTorch.

    "cold" is ours with an empty cache of kernels, "cached" ours with a full one, "torch" PyTorch's own.
    """
    seconds: dict[str, list[float]] = {kind: [] for kind in _MODULES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "STEPRULE_CACHE": cache}
            for kind, module in _MODULES.items():
                command = [sys.executable, "-c", _CHILD.format(module=module)]
                seconds[kind].append(float(printed(f"the first step ({kind})", command, environment)))
    return {kind: Times(tuple(each)) for kind, each in seconds.items()}
