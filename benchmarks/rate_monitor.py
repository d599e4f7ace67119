"""What `RateMonitor` costs at its default: the paper's MNIST net, batches of 100, and an encoder of 12 million parameters.

    python benchmarks/rate_monitor.py [--rounds 5] [--threads 2] [--json benchmarks/rate_monitor.json]

Blocks of 60 training steps (forward, backward, step), of which one is recorded, with and without a monitor, in turns. As the
difference drowns in a busy machine's noise, the hooks are timed by themselves too, on an optimizer whose step does nothing:
a step that is recorded and one that is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from torch.nn.functional import cross_entropy

import torch
from steprule.bench.timing import interleaved
from steprule.folders import write_json
from steprule.lab.machine import facts
from steprule.torch import Adadelta, RateMonitor
from torch import Tensor, nn

EVERY: Final = 60


def mnist_net() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    layers = [nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 300), nn.Tanh(), nn.Linear(300, 10)]
    inputs, targets = torch.rand(100, 784), torch.randint(10, (100,))
    return nn.Sequential(*layers), lambda net: cross_entropy(net(inputs), targets)


def encoder() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    inputs = torch.randn(4, 32, 512)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), lambda net: net(inputs).square().mean()


MODELS: Final = {"mnist": mnist_net, "encoder": encoder}


class Still(torch.optim.Optimizer):
    """Leaves its parameters alone."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:
        pass


def block(net: nn.Module, loss: Callable[[nn.Module], Tensor], *, monitored: bool) -> Callable[[], None]:
    optimizer = Adadelta(net.parameters(), lr=1e-6)
    if monitored:
        RateMonitor(optimizer, EVERY, model=net)

    def steps() -> None:
        for _ in range(EVERY):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()

    return steps


def hooks(net: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Callable[[], object]]:
    loss(net).backward()
    plain, idle, recording = (Still(net.parameters()) for _ in range(3))
    RateMonitor(idle, 10**9, model=net)
    RateMonitor(recording, 1, model=net)
    return {"no hook": plain.step, "not recorded": idle.step, "recorded": recording.step}


def measured(name: str, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net, loss = MODELS[name]()
    blocks = interleaved({each: block(net, loss, monitored=each == "with") for each in ("without", "with")}, rounds, 1)
    alone = interleaved(hooks(net, loss), rounds, 20)
    step = blocks["without"].median / EVERY
    bare, idle, recorded = (alone[each].median for each in ("no hook", "not recorded", "recorded"))
    cost = ((EVERY - 1) * (idle - bare) + (recorded - bare)) / EVERY
    return {
        "model": name,
        "parameters": sum(each.numel() for each in net.parameters()),
        "tensors": len(list(net.parameters())),
        "step_ms": 1e3 * step,
        "ratio_of_blocks": blocks["with"].median / blocks["without"].median,
        "recorded_us": 1e6 * (recorded - bare),
        "not_recorded_us": 1e6 * (idle - bare),
        "share": cost / step,
        "seconds": {each: times.seconds for each, times in blocks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        "| model | a training step, ms | recorded, us | not recorded, us | share of a step, % | blocks, with / without |"
    )
    print("|---|---|---|---|---|---|")
    results = []
    for name in MODELS:
        found = measured(name, chosen.rounds)
        print(
            f"| {name}: {found['tensors']} tensors, {found['parameters']:,} | {found['step_ms']:.2f} | "
            f"{found['recorded_us']:.0f} | {found['not_recorded_us']:.2f} | {100 * found['share']:.2f} | "
            f"{found['ratio_of_blocks']:.3f} |"
        )
        results.append(found)
    kept = {
        "machine": facts(),
        "torch": torch.__version__,
        "threads": chosen.threads,
        "every": EVERY,
        "results": results,
    }
    write_json(chosen.json, kept)


if __name__ == "__main__":
    main()
