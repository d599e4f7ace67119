"""Trials on a Ray cluster of two nodes, in a process of its own; the last line that it prints is what it found, as JSON.

`python -m tests.lab.on_two_nodes FOLDER`, where the folder is for results.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from tests.lab import small
from tests.lab.processes import soon

from steprule.lab import Comparison, compare, on_ray
from steprule.lab.on_ray import Ray
from steprule.lab.places import Place
from steprule.lab.workers import Event, Measured, Started, Task

RULE = """
from mine_too import HALF
from steprule import rule

@rule
def halved(g, *, lr=0.1):
    return -HALF * lr * g
"""


def tasks(number: int, **changes: Any) -> list[Task]:
    usual: dict[str, Any] = {"rule": "sgd", "hyperparameters": {"lr": 0.1}, "epochs": small.EPOCHS}
    return [Task(number=each, seed=each, **usual | changes) for each in range(number)]


def told(events: Iterator[Event]) -> dict[str, Any]:
    """Return how often each trial was started, how many epochs it told of, and how it ended."""
    found: dict[str, Any] = {}
    for event in events:
        each = found.setdefault(str(event.number), {"started": 0, "epochs": [], "end": ""})
        if isinstance(event, Started):
            each["started"] += 1
        elif isinstance(event, Measured):
            each["epochs"].append(event.epoch.number)
            each["test"] = event.epoch.test
        else:
            each["end"] = f"{event.status}: {event.cause}"
    return found


def numbers(made: Comparison) -> list[Any]:
    return [
        (
            str(each.trial),
            each.status,
            [(e.number, repr(e.loss), repr(e.test), repr(e.validation)) for e in each.epochs],
        )
        for each in made.outcomes
    ]


class Counts:
    def __init__(self) -> None:
        self.left = 0

    def begin(self, problem: Any, trials: int, *rest: int) -> None:
        self.left = trials

    def started(self, trial: Any) -> None: ...
    def measured(self, trial: Any, epoch: Any) -> None: ...
    def ended(self, outcome: Any) -> None: ...


def as_local(place: Place, folder: Path) -> dict[str, Any]:
    """Compare on the cluster and here, the user's problem and rule in files of their own."""
    own = folder / "own"
    own.mkdir()
    (own / "mine.py").write_text(RULE)
    (own / "mine_too.py").write_text("HALF = 0.5\n")
    usual: Any = {"rules": ["adadelta", f"{own / 'mine.py'}:halved"], "rates": [0.1, 100.0], "seeds": 2, "epochs": 30}
    usual["grid"] = {"adadelta": {"rho": [0.9]}}
    there, counts = compare(small.named(small.line), on=place, out=folder / "there", **usual), Counts()
    here = compare(small.named(small.line), jobs=os.cpu_count(), out=folder / "here", **usual)
    compare(small.named(small.line), jobs=os.cpu_count(), out=folder / "there", progress=counts, **usual)
    return {
        "same": numbers(there) == numbers(here),
        "statuses": [each.status for each in there.outcomes],
        "left for local workers": counts.left,
        "machine": dict(there.run.machine),
    }


def brought(place: Place, folder: Path) -> dict[str, Any]:
    """Run a problem whose file is on this machine no more when the trial begins."""
    own = folder / "gone"
    own.mkdir()
    shutil.copy(str(small.__file__), own / "mine_alone.py")
    name = f"{own / 'mine_alone.py'}:line"
    on_ray._sources(name)
    shutil.rmtree(own)
    return told(place.run(name, tasks(1)))


def with_a_lost_node(place: Place, cluster: Cluster, node: Any) -> dict[str, Any]:
    """Lose a node while each of the two has a trial in its second epoch, where trials stay until the node is lost."""
    found: list[Event] = []
    for event in place.run(small.named(small.held), tasks(3, epochs=60)):
        found.append(event)
        if node is not None and len({each.number for each in found if isinstance(each, Measured)}) == 2:
            cluster.remove_node(node, allow_graceful=False)
            soon(lambda: sum(each["Alive"] for each in ray.nodes()) == 1)
            node = None
            Path(os.environ["SMALL_FREE"]).touch()
    return told(iter(found))


class LosesCancellations:
    """Ray, of which the first cancellation of each task is lost, as Ray loses one that meets a task as it begins."""

    def __init__(self) -> None:
        self._lost: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def cancel(self, stream: Any, **options: Any) -> None:
        if stream in self._lost:
            ray.cancel(stream, **options)
        self._lost.append(stream)


def closed(place: Ray) -> bool:
    """Begin two trials without end, close, and return whether their CPUs are free again."""
    vars(place)["_ray"] = LosesCancellations()
    events = place.run(small.named(small.endless), tasks(2))
    assert isinstance(next(events), Started)
    events.close()  # type: ignore[attr-defined]  # a generator
    vars(place)["_ray"] = ray
    end = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    return ray.available_resources()["CPU"] == 2


def refused(run: Callable[[], object]) -> str:
    try:
        run()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def main(folder: Path) -> None:
    os.environ["SMALL_FREE"] = str(folder / "free")  # for the nodes' processes too
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    with Ray(address=cluster.address) as place:
        found = {
            "jobs": place.jobs,
            "compared": as_local(place, folder),
            "brought": brought(place, folder),
            "threads": told(place.run(small.named(small.threads), tasks(2, epochs=1))),
            "killed": told(place.run(small.named(small.killed), tasks(2))),
            "unmade": refused(lambda: list(place.run(small.named(small.unmakeable_elsewhere), tasks(1)))),
            "free again": closed(place),
            "lost": with_a_lost_node(place, cluster, node),
        }
    found["still connected"] = ray.is_initialized()
    cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
