"""What curvature costs: the MNIST net 784-500-300-10 with tanh, forward and backward, and with `h` and `g2` as well; and
what a whole step by ADADELTA costs beside one by SGD.

    python benchmarks/curvature.py [--rounds 40] [--steps 25] [--threads 2] [--json benchmarks/curvature.json]

Contenders take turns, and each number is a median. `plain` is a forward pass, `backward()` and gradients set to None.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from torch.nn.functional import cross_entropy

import torch
from steprule.bench.timing import interleaved
from steprule.curvature import Curvature
from steprule.torch import SGD, Adadelta
from torch import nn

BATCHES: Final = (1, 100)


def tanh_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 300), nn.Tanh(), nn.Linear(300, 10))


def contenders(batch: int) -> dict[str, Callable[[], object]]:
    net, inputs, targets = tanh_net(), torch.rand(batch, 784), torch.randint(0, 10, (batch,))

    def plain() -> None:
        net.zero_grad()
        cross_entropy(net(inputs), targets).backward()

    options = {
        "gradient alone": {"h": None},
        "bbprop": {},
        "bbprop, Levenberg-Marquardt": {"levenberg_marquardt": True},
        "bbprop and g2": {"g2": True},
        "g2 alone": {"h": None, "g2": True},
        "hutchinson": {"h": "hutchinson"},
    }

    def with_curvature(chosen: dict[str, object]) -> Callable[[], object]:
        curvature = Curvature(net, cross_entropy, **chosen)
        return lambda: curvature(inputs, targets)

    def stepped(cls: Callable[..., torch.optim.Optimizer], **values: float) -> Callable[[], object]:
        optimizer = cls(net.parameters(), **values)

        def step() -> None:
            plain()
            optimizer.step()

        return step

    return {
        "plain": plain,
        "a step by SGD": stepped(SGD, lr=1e-6),
        "a step by ADADELTA": stepped(Adadelta, lr=1e-6),
        "a step by torch.optim.SGD": stepped(torch.optim.SGD, lr=1e-6),
        "a step by torch.optim.Adadelta": stepped(torch.optim.Adadelta, lr=1e-6),
        **{name: with_curvature(chosen) for name, chosen in options.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 40), ("steps", 25), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| batch | | milliseconds | quartiles | over plain |\n|---|---|---|---|---|")
    kept = []
    for batch in BATCHES:
        times = interleaved(contenders(batch), chosen.rounds, chosen.steps)
        for name, each in times.items():
            low, high = (1e3 * end for end in each.quartiles)
            ratio = each.median / times["plain"].median
            print(f"| {batch} | {name} | {1e3 * each.median:.3f} | {low:.3f} to {high:.3f} | {ratio:.2f} |")
            kept.append(
                {
                    "batch": batch,
                    "contender": name,
                    "ratio": ratio,
                    "seconds": [round(second, 7) for second in each.seconds],
                }
            )
    found = {"torch": torch.__version__, "threads": chosen.threads, "results": kept}
    chosen.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
