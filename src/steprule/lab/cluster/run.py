"""`steprule cluster run`: a problem trained on the parameter server, measured after each epoch, and written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

import torch

from ...cluster import training
from ...cluster.gradients import parameters_of
from ...cluster.plan import Plan
from ...cluster.reports import Progress
from ...counts import check_count
from ...folders import replace, write_json
from ...named import name_of
from ...specification import Rule
from ..problem import Problem, find_problem, refuse_trainer
from .gradients import work_of

__all__ = ["Measured", "Run", "Watcher", "updates_of"]

_SNAPSHOTS: Final = "snapshots"


@dataclass(frozen=True)
class Measured:
    """The problem's metric on its test data, when every shard had applied so many `updates`."""

    updates: int
    epoch: float
    test: float


class Watcher(Protocol):
    """Who is told of a training as it goes on: about each second of its progress, and of each measurement."""

    def progressed(self, progress: Progress) -> None: ...
    def measured(self, measured: Measured) -> None: ...


def updates_of(problem: Problem, epochs: float, n_push: int) -> int:
    """Return how many updates are as many mini-batches, of all replicas together, as so many epochs have."""
    check_count("n_push", n_push)
    return max(1, round(epochs * problem.batches_per_epoch / n_push))


class Run:
    """A training that may begin: `problem` by `rule` and `plan`, into the folder `out`, its parameters those of `seed`.

    `name` is what the problem is called on the command line; `on` is where and how, as for `steprule.cluster.train`.

    Raises what `steprule.cluster.train` raises, and `ValueError` for a problem with a trainer, with nothing started or
    written.
    """

    def __init__(
        self, name: str, problem: Problem, rule: Rule, plan: Plan, out: Path, *, seed: int = 0, **on: Any
    ) -> None:
        check_count("seed", seed, 0)
        refuse_trainer(problem, "a cluster")
        training.check(rule, plan, out / _SNAPSHOTS, **on)
        self._name, self._problem, self._rule, self._plan = name, problem, rule, plan
        self._out, self._seed, self._on = out, seed, on
        # Where other processes find it, wherever they run.
        self._work: Final = work_of(name if ":" not in name else name_of(find_problem(name)), problem, seed)
        training.partition_of(self._work, plan)

    def train(self, watchers: Sequence[Watcher] = ()) -> list[Measured]:
        """Train; return what was measured about each epoch, and at the end.

        In the folder are then `results.json`, `model.safetensors` (the parameters by name) and `snapshots`.
        """
        follower = _Follower(self._problem, self._plan, self._seed, watchers)
        trained = training.train(
            self._work,
            self._rule,
            self._plan,
            self._out / _SNAPSHOTS,
            **self._on,
            progress=follower.progressed,
        )
        follower.measure(trained.progress.done, trained.parameters)
        replace(self._out / "model.safetensors", save(trained.parameters))
        results = {
            "problem": self._name,
            "rule": self._rule.name,
            "seed": self._seed,
            "plan": asdict(self._plan),
            "metric": asdict(self._problem.metric),
            "measured": [asdict(each) for each in follower.found],
            "progress": asdict(trained.progress),
        }
        write_json(self._out / "results.json", results)
        return follower.found


class _Follower:
    """Measures a training about each epoch, and tells the watchers."""

    def __init__(self, problem: Problem, plan: Plan, seed: int, watchers: Sequence[Watcher]) -> None:
        self._problem, self._plan, self._watchers = problem, plan, watchers
        self._model: Final = problem.model(seed)
        self.found: Final[list[Measured]] = []
        self._epoch = 0

    def progressed(self, running: training.Training) -> None:
        progress = running.progress()
        for watcher in self._watchers:
            watcher.progressed(progress)
        epoch = math.floor(self._epochs(progress.done))
        if epoch > self._epoch and progress.done < self._plan.updates:
            self._epoch = epoch
            self.measure(progress.done, running.parameters())

    def measure(self, updates: int, parameters: Mapping[str, NDArray[Any]]) -> None:
        for name, parameter in parameters_of(self._model).items():
            parameter.data = torch.from_numpy(np.ascontiguousarray(parameters[name]))
        value = self._problem.measured(self._model, self._problem.test)
        self.found.append(Measured(updates, self._epochs(updates), value))
        for watcher in self._watchers:
            watcher.measured(self.found[-1])

    def _epochs(self, updates: int) -> float:
        return updates * self._plan.n_push / self._problem.batches_per_epoch
