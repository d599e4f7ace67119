"""Peak memory of training with the gradients of a whole net at a time, and with each freed as its parameter steps.

Each way runs in a process of its own, `python -m steprule.bench.memory WAY LAYERS`; without these, both and a table.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from .. import rules
from ..lab.workers import environment
from ..torch import optimizer, step_in_backward
from .processes import printed

__all__ = ["WAYS", "measure_memory"]

WAYS: Final = ("loop", "step_in_backward")
_WIDTH, _TOKENS, _STEPS = 768, 128, 3


def _transformer(layers: int) -> nn.Module:
    """Return an encoder, with 12 layers that of BERT-base: 85 million parameters."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(_WIDTH, 12, 4 * _WIDTH, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    # What getrusage says begins, in Linux, with the peak of the process that has started this one.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])  # type: ignore[index]
    # The one figure that macOS gives in bytes and every other system in kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _train(way: str, layers: int) -> tuple[int, int]:
    """Train for some steps; return the bytes of the parameters and the peak beyond what was there before the net."""
    before = _peak()
    model = _transformer(layers)
    if way == "step_in_backward":
        step_in_backward(model, rules.adadelta)
        stepper = None
    else:
        stepper = optimizer(rules.adadelta)(model.parameters())
    inputs = torch.randn(1, _TOKENS, _WIDTH)
    for _ in range(_STEPS):
        model(inputs).square().mean().backward()
        if stepper is not None:
            stepper.step()
            stepper.zero_grad()
    return sum(each.numel() * each.element_size() for each in model.parameters()), _peak() - before


def measure_memory(layers: int = 12) -> dict[str, tuple[int, int]]:
    """Return, for each of `WAYS`, the bytes of the parameters, and the peak of these, state, gradients and activations."""
    measured = {}
    for way in WAYS:
        command = [sys.executable, "-m", "steprule.bench.memory", way, str(layers)]
        threads = environment(torch.get_num_threads())
        parameters, peak = map(int, printed(f"the memory of {way}", command, threads).split())
        measured[way] = parameters, peak
    return measured


if __name__ == "__main__":
    if sys.argv[1:]:
        print(*_train(sys.argv[1], int(sys.argv[2])))
    else:
        for way, (parameters, peak) in measure_memory().items():
            print(f"{way:20}{parameters / 2**20:8.0f} MiB of parameters{peak / 2**20:8.0f} MiB at the peak")
