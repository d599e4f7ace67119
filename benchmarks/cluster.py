"""How fast is the parameter server? Pushes and bytes per second on Ray, on this machine, against two peers.

    python benchmarks/cluster.py [--net mnist,speech] [--replicas 1,2,4,8] [--shards 1,2,4] [--seconds 10]
                                 [--json benchmarks/cluster.json]

Replicas push a gradient that they have at hand as fast as they can, so that what is measured is the server and its
transport, and not the computing of gradients. ADADELTA is the rule. The nets are the paper's for MNIST (545,810 parameters)
and one of its speech net's size (4 layers of 2560, 8,000 outputs: 42.8 million).

The peers, in the same run and turn about:

- "ray": the asynchronous parameter server of Ray's documentation ("Parameter Server", asynchronous training), written from
  its description: one actor with the weights and a `torch.optim` optimizer; workers that are tasks, each of which computes a
  gradient at the weights that it is given; the driver waits for whichever is ready, has the server apply its gradient, and
  gives that worker the new weights. The optimizer is `torch.optim.Adadelta`.
- "copy": the memory's limit: what one push must move at least, as `numpy.copyto` over the same number of bytes, in one
  process: the gradient into Ray's store (read, write), the step (`Program.bytes_per_element`), the parameters into the store
  and out of it (read and write each). Its pushes per second are what the machine could do, did nothing else take time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray

import torch
from steprule import rules
from steprule.cluster import Plan, Work, engine, train
from steprule.folders import write_json
from steprule.lab.machine import facts
from steprule.program import lower

_SIZES: Final[Mapping[str, Sequence[tuple[int, int]]]] = {
    "mnist": ((500, 784), (300, 500), (10, 300)),
    "speech": ((2560, 1040), (2560, 2560), (2560, 2560), (2560, 2560), (8000, 2560)),
}
NETS: Final[Mapping[str, Mapping[str, tuple[int, ...]]]] = {
    net: {
        name: shape
        for number, (out, into) in enumerate(layers)
        for name, shape in ((f"{number}.weight", (out, into)), (f"{number}.bias", (out,)))
    }
    for net, layers in _SIZES.items()
}


def size(net: str) -> int:
    return sum(math.prod(shape) for shape in NETS[net].values())


def parameters(net: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: 0.05 * rng.standard_normal(shape, np.float32) for name, shape in NETS[net].items()}


def at_hand(net: str, *_: int) -> Any:
    """Return a gradient that is there already: replicas spend nothing on it but to write it where it is wanted."""
    found = parameters(net)

    def gradient(_: Any, into: Any) -> Any:
        for name, array in found.items():
            into[name][...] = array
        return 0.0, {}

    return gradient


class OverError(Exception):
    """The measurement is over."""


class Stopwatch:
    """Counts the pushes between the end of a warm-up and the end of the measurement; then ends the training."""

    def __init__(self, replicas: int, seconds: float) -> None:
        self.replicas, self.seconds = replicas, seconds
        self.first: tuple[float, Any] | None = None
        self.last: tuple[float, Any] | None = None

    def __call__(self, training: Any) -> None:
        progress = training.progress()
        if progress.alive < self.replicas or progress.done < 3 * self.replicas:
            return
        training.shards.ask()
        now = (time.perf_counter(), training.progress())
        self.first = self.first or now
        if now[0] - self.first[0] >= self.seconds:
            self.last = now
            raise OverError


def ours(net: str, replicas: int, shards: int, seconds: float) -> dict[str, float]:
    watch = Stopwatch(replicas, seconds)
    plan = Plan(updates=10**9, replicas=replicas, shards=shards, snapshot_every=10**9)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OverError):
        train(
            Work(parameters(net), functools.partial(at_hand, net)), rules.adadelta, plan, Path(folder), progress=watch
        )
    assert watch.first is not None, "the server took longer to warm up than it had"
    assert watch.last is not None, "the training ended before the measurement"
    (begun, before), (ended, after) = watch.first, watch.last
    passed = ended - begun
    pairs = list(zip(before.shards, after.shards, strict=True))
    pushes = sum(new.pushes - old.pushes for old, new in pairs) / shards
    return {
        "pushes per second": pushes / passed,
        "bytes per second": sum(new.bytes - old.bytes for old, new in pairs) / passed,
        # All shards' time for one push of the whole gradient.
        "server ms per push": 1e3 * sum(new.seconds - old.seconds for old, new in pairs) / pushes,
        "mean staleness": _staleness(pairs),
    }


def _staleness(pairs: Any) -> float:
    counts = [
        (stale, new.staleness[stale] - old.staleness.get(stale, 0)) for old, new in pairs for stale in new.staleness
    ]
    return sum(stale * count for stale, count in counts) / max(sum(count for _, count in counts), 1)


@ray.remote(num_cpus=1)
class DocumentedServer:
    """The server of Ray's documentation: `apply_gradients` and `get_weights`."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = {name: torch.tensor(array) for name, array in weights.items()}
        self.optimizer = torch.optim.Adadelta(self.weights.values())
        self.seconds = 0.0

    def apply_gradients(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        began = time.perf_counter()
        for name, weight in self.weights.items():
            weight.grad = torch.tensor(gradients[name])  # a copy: what Ray hands out may not be written
        self.optimizer.step()
        self.seconds += time.perf_counter() - began
        return self.get_weights()

    def get_weights(self) -> dict[str, np.ndarray]:
        return {name: weight.numpy() for name, weight in self.weights.items()}

    def spent(self) -> float:
        return self.seconds


@ray.remote(num_cpus=1)
class DocumentedWorker:
    """A worker of Ray's documentation: `compute_gradients` sets the weights that it is given, and returns gradients."""

    def __init__(self, net: str) -> None:
        self.gradients = parameters(net)
        self.weights = parameters(net)

    def compute_gradients(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in weights.items():
            self.weights[name][...] = array
        return self.gradients


def documented(net: str, replicas: int, seconds: float) -> dict[str, float]:
    server = DocumentedServer.remote(parameters(net))
    workers = [DocumentedWorker.remote(net) for _ in range(replicas)]
    weights = server.get_weights.remote()
    computing = {worker.compute_gradients.remote(weights): worker for worker in workers}
    pushes, begun, before = 0, 0.0, 0.0
    while not begun or time.perf_counter() - begun < seconds:
        (ready,), _ = ray.wait(list(computing))
        worker = computing.pop(ready)
        weights = server.apply_gradients.remote(ready)
        computing[worker.compute_gradients.remote(weights)] = worker
        pushes += 1
        if not begun and pushes == 3 * replicas:
            before = ray.get(server.spent.remote())
            pushes, begun = 0, time.perf_counter()
    spent = ray.get(server.spent.remote()) - before  # comes after every push that was sent
    passed = time.perf_counter() - begun
    for each in (server, *workers):
        ray.kill(each)
    rate = pushes / passed
    return {
        "pushes per second": rate,
        "bytes per second": rate * 4 * size(net),
        "server ms per push": 1e3 * spent / pushes,
        "mean staleness": math.nan,
    }


def copying(net: str, seconds: float) -> dict[str, float]:
    of_step = lower(rules.adadelta).bytes_per_element(4)
    moved = size(net) * (of_step + 3 * 8)
    source = np.ones(moved // 2 // 4, np.float32)
    into = np.empty_like(source)
    np.copyto(into, source)
    copies, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < min(seconds, 3.0):
        np.copyto(into, source)
        copies += 1
    rate = copies / (time.perf_counter() - begun)
    return {
        "pushes per second": rate,
        "bytes per second": rate * 4 * size(net),
        "server ms per push": math.nan,
        "mean staleness": math.nan,
    }


def table(found: list[dict[str, Any]]) -> str:
    heads = ("net", "who", "replicas", "shards", "pushes/s", "MB/s", "ms a push", "staleness", "of `ray`", "of `copy`")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for each in found:
        same = [other for other in found if other["net"] == each["net"]]
        peers = {
            "ray": [other for other in same if other["who"] == "ray" and other["replicas"] == each["replicas"]],
            "copy": [other for other in same if other["who"] == "copy"],
        }
        ratios = [
            f"{each['pushes per second'] / peer[0]['pushes per second']:.2f}" if peer else "-"
            for peer in peers.values()
        ]
        cells = [
            each["net"],
            each["who"],
            each["replicas"] or "-",
            each["shards"] or "-",
            f"{each['pushes per second']:.2f}",
            f"{each['bytes per second'] / 1e6:.0f}",
            f"{each['server ms per push']:.2f}",
            f"{each['mean staleness']:.1f}",
            *ratios,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |".replace("nan", "-"))
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="mnist,speech", type=lambda text: text.split(","))
    parser.add_argument("--replicas", default="1,2,4,8", type=numbers)
    parser.add_argument("--shards", default="1,2,4", type=numbers)
    parser.add_argument("--seconds", default=10.0, type=float)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []

    def note(net: str, who: str, replicas: int, shards: int, measure: Callable[[], dict[str, float]]) -> None:
        found.append({"net": net, "who": who, "replicas": replicas, "shards": shards, **measure()})
        write_json(chosen.json, {"machine": facts(), "seconds": chosen.seconds, "found": found})
        print(found[-1], flush=True)

    with engine.running(None, max(chosen.replicas) + max(chosen.shards)):
        for net in chosen.net:
            note(net, "copy", 0, 0, functools.partial(copying, net, chosen.seconds))
            for replicas in chosen.replicas:
                note(net, "ray", replicas, 1, functools.partial(documented, net, replicas, chosen.seconds))
                for shards in chosen.shards:
                    measure = functools.partial(ours, net, replicas, shards, chosen.seconds)
                    note(net, "ours", replicas, shards, measure)
    print(table(found))


if __name__ == "__main__":
    main()
