"""How long the first step of a process takes, with an empty cache of kernels and with a full one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Final

from .timing import Times

__all__ = ["measure_first_step"]

# PyTorch's own import, which every contender needs, is not part of it; Numba's is.
_CHILD: Final = """
import time, torch
parameter = torch.zeros(1000, requires_grad=True)
parameter.grad = torch.ones(1000)
started = time.perf_counter()
import steprule.torch
steprule.torch.Adadelta([parameter]).step()
print(time.perf_counter() - started)
"""


def measure_first_step(rounds: int = 5) -> dict[str, Times]:
    """Return the seconds to the end of the first Adadelta step, "cold" and "cached", each in processes of their own."""
    seconds: dict[str, list[float]] = {"cold": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind in seconds:
                environment = {**os.environ, "STEPRULE_CACHE": cache}
                done = subprocess.run(
                    [sys.executable, "-c", _CHILD], env=environment, check=True, capture_output=True, text=True
                )
                seconds[kind].append(float(done.stdout))
    return {kind: Times(tuple(each)) for kind, each in seconds.items()}
