"""One epoch of the paper's MNIST net: through the lab, in the usual loop, and its matrix products alone.

Each runs in a process of its own, `python -m steprule.bench.epoch KIND THREADS`, in turns.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Final

import torch
from torch import nn

from ..lab.problem import Problem, error_rate
from ..lab.problems.mnist import paper_net
from ..lab.results import Metric
from ..lab.training import train_epoch
from ..lab.workers import environment
from ..torch import Adadelta
from .processes import printed
from .timing import Times

__all__ = ["measure_epoch"]

EXAMPLES: Final = 60_000
BATCH: Final = 100
_WARM_UP: Final = 5_000


def measure_epoch(rounds: int = 5) -> dict[str, Times]:
    """Return the seconds of one epoch of 60,000 examples in batches of 100: "steprule", "usual loop", "products"."""
    threads = torch.get_num_threads()
    seconds: dict[str, list[float]] = {"steprule": [], "usual loop": [], "products": []}
    for _ in range(rounds):
        for kind in seconds:
            command = [sys.executable, "-m", "steprule.bench.epoch", kind, str(threads)]
            seconds[kind].append(float(printed(f"an epoch ({kind})", command, environment(threads))))
    return {kind: Times(tuple(each)) for kind, each in seconds.items()}


def _data(examples: int) -> tuple[torch.Tensor, torch.Tensor]:
    # The time does not depend on what the pixels show.
    generator = torch.Generator().manual_seed(0)
    return torch.rand(examples, 784, generator=generator), torch.randint(0, 10, (examples,), generator=generator)


def _lab(examples: int) -> float:
    data = _data(examples)
    problem = Problem(
        "mnist", "", paper_net, data, data, nn.functional.cross_entropy, Metric("error"), error_rate, batch_size=BATCH
    )
    model = paper_net(0)
    stepper = Adadelta(model.parameters())
    started = time.perf_counter()
    train_epoch(problem, model, stepper, torch.Generator().manual_seed(0))
    return time.perf_counter() - started


def _usual(examples: int) -> float:
    model = paper_net(0)
    stepper = torch.optim.Adadelta(model.parameters())
    loss_function = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*_data(examples)), batch_size=BATCH, shuffle=True
    )
    started = time.perf_counter()
    for inputs, targets in loader:
        stepper.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        stepper.step()
    return time.perf_counter() - started


def _products(examples: int) -> float:
    """Time the eight products of a step: three forward, three for the weights' gradients, two for the units'."""
    widths = (784, 500, 300, 10)
    units = [torch.rand(BATCH, width) for width in widths]
    weights = [torch.rand(after, before) for before, after in itertools.pairwise(widths)]
    unit_results = [torch.empty_like(each) for each in units]
    weight_results = [torch.empty_like(each) for each in weights]
    started = time.perf_counter()
    for _ in range(examples // BATCH):
        for layer, weight in enumerate(weights):
            torch.mm(units[layer], weight.T, out=unit_results[layer + 1])
        for layer in (2, 1, 0):
            torch.mm(units[layer + 1].T, units[layer], out=weight_results[layer])
            if layer:
                torch.mm(units[layer + 1], weights[layer], out=unit_results[layer])
    return time.perf_counter() - started


if __name__ == "__main__":
    kind, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    run = {"steprule": _lab, "usual loop": _usual, "products": _products}[kind]
    run(_WARM_UP)
    print(run(EXAMPLES))
