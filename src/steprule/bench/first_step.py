"""How long the first step of a process takes, with an empty cache of kernels and with a full one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Final

from .timing import Times

__all__ = ["measure_first_step"]

# PyTorch's own step comes first, since its first optimizer imports half of PyTorch, whoever asks for it.
_CHILD: Final = """
import time, torch
parameter = torch.zeros(1000, requires_grad=True)
parameter.grad = torch.ones(1000)
started = time.perf_counter()
torch.optim.Adadelta([parameter]).step()
theirs = time.perf_counter()
import steprule.torch
steprule.torch.Adadelta([parameter]).step()
print(theirs - started, time.perf_counter() - theirs)
"""


def measure_first_step(rounds: int = 5) -> dict[str, Times]:
    """Return the seconds to the end of a process's first Adadelta step, the imports of Numba and of this package included.

    "cold" is with an empty cache of kernels, "cached" with a full one, "torch" PyTorch's own step before it.
    """
    seconds: dict[str, list[float]] = {"cold": [], "cached": [], "torch": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("cold", "cached"):
                environment = {**os.environ, "STEPRULE_CACHE": cache}
                done = subprocess.run(
                    [sys.executable, "-c", _CHILD], env=environment, check=True, capture_output=True, text=True
                )
                theirs, mine = map(float, done.stdout.split())
                seconds[kind].append(mine)
                seconds["torch"].append(theirs)
    return {kind: Times(tuple(each)) for kind, each in seconds.items()}
