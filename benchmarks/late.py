"""What a step costs as training goes on: the paper's MNIST net on real images, epoch by epoch.

    python benchmarks/late.py [--epochs 10] [--flush] [--threads 2] [--json benchmarks/late.json]

Averages of gradients that have ended shrink by a factor at each step, to numbers below the smallest normal one of float32,
and rounding keeps them there. Many processors need some hundred cycles for each. Contenders train nets of their own from the
same weights on the same batches, and take turns by the epoch; a number is the mean of an epoch's 600 steps. With `--flush`
PyTorch computes with 0 in place of such numbers, too, which it does not unless told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from torch.nn.functional import cross_entropy

import steprule.torch
import torch
from steprule.lab.problems.mnist import mnist, paper_net

PAPERS: Final = {"rho": 0.95, "eps": 1e-6}
CONTENDERS: Final[dict[str, Callable[[Any], torch.optim.Optimizer]]] = {
    "ADADELTA, steprule": steprule.torch.Adadelta,
    "ADADELTA, foreach": lambda parameters: torch.optim.Adadelta(parameters, foreach=True, **PAPERS),
    "Adam, steprule": steprule.torch.Adam,
    "Adam, fused": lambda parameters: torch.optim.Adam(parameters, fused=True),
}


def epochs(make: Callable[[Any], torch.optim.Optimizer]) -> Iterator[dict[str, float]]:
    """Train, and yield each epoch's seconds of a step, share of slots' elements that are subnormal, and last loss."""
    problem, net = mnist(), paper_net(0)
    (inputs, targets), order = problem.train, torch.Generator().manual_seed(0)
    optimizer = make(net.parameters())
    while True:
        seconds, steps = 0.0, 0
        for batch in problem.batches(order):
            loss = cross_entropy(net(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            started = time.perf_counter()
            optimizer.step()
            seconds += time.perf_counter() - started
            steps += 1
        slots = [each for state in optimizer.state.values() for each in state.values()]
        slots = [each for each in slots if isinstance(each, torch.Tensor) and each.dim() > 0]
        subnormal = sum(int(((each != 0) & (each.abs() < torch.finfo(each.dtype).tiny)).sum()) for each in slots)
        elements = sum(each.numel() for each in slots)
        yield {"seconds": seconds / steps, "subnormal": subnormal / elements, "loss": loss.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--flush", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if not torch.set_flush_denormal(chosen.flush):
        raise SystemExit("PyTorch cannot tell this processor what to do with subnormal numbers")
    running = {name: epochs(make) for name, make in CONTENDERS.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    print(f"| epoch | {' | '.join(running)} | slots, subnormal |\n|---|{'---|' * (len(running) + 1)}")
    for epoch in range(1, chosen.epochs + 1):
        for name, each in running.items():
            found[name].append(next(each))
        times = " | ".join(f"{1e3 * each[-1]['seconds']:.3f}" for each in found.values())
        shares = ", ".join(f"{100 * each[-1]['subnormal']:.1f} %" for each in found.values())
        print(f"| {epoch} | {times} | {shares} |", flush=True)
    chosen.json.write_text(
        json.dumps({"torch": torch.__version__, "threads": chosen.threads, "flush": chosen.flush, "epochs": found})
    )


if __name__ == "__main__":
    main()
