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
from ...cluster.plan import Plan, Work
from ...cluster.reports import Progress
from ...counts import check_count
from ...folders import replace, write_json
from ...named import name_of
from ...specification import Rule
from ..problem import Problem, find_problem, refuse_trainer
from .gradients import work_of

__all__ = ["Measured", "Watcher", "check", "run", "updates_of"]

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


def check(problem: Problem, rule: Rule, plan: Plan, out: Path, *, seed: int = 0, **on: Any) -> None:
    """Raise what `run` raises for these arguments; `on` is where and how, as for `steprule.cluster.training.check`."""
    _checked_work(problem.name, problem, rule, plan, out, seed, **on)


def _checked_work(name: str, problem: Problem, rule: Rule, plan: Plan, out: Path, seed: int, **on: Any) -> Work:
    check_count("seed", seed, 0)
    refuse_trainer(problem, "a cluster")
    training.check(rule, plan, out / _SNAPSHOTS, **on)
    work = work_of(name, problem, seed)
    training.partition_of(work, plan)
    return work


def run(
    problem: str,
    rule: Rule,
    plan: Plan,
    out: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    address: str | None = None,
    dashboard: bool = False,
    watchers: Sequence[Watcher] = (),
) -> list[Measured]:
    """Train `problem` by the plan; return what was measured about each epoch, and at the end.

    In the folder `out` are then `results.json`, `model.safetensors` (the parameters by name) and `snapshots`.

    Raises what `steprule.cluster.train` raises, and `ValueError` where there is no such problem, or one with a trainer.
    """
    found = find_problem(problem)()
    # Where other processes find it, wherever they run.
    named = problem if ":" not in problem else name_of(find_problem(problem))
    on: dict[str, Any] = {"resume": resume, "address": address, "dashboard": dashboard}
    work = _checked_work(named, found, rule, plan, out, seed, **on)
    follower = _Follower(found, plan, seed, watchers)
    trained = training.train(
        work,
        rule,
        plan,
        out / _SNAPSHOTS,
        **on,
        progress=follower.progressed,
    )
    follower.measure(trained.progress.done, trained.parameters)
    replace(out / "model.safetensors", save(trained.parameters))
    results = {
        "problem": problem,
        "rule": rule.name,
        "seed": seed,
        "plan": asdict(plan),
        "metric": asdict(found.metric),
        "measured": [asdict(each) for each in follower.found],
        "progress": asdict(trained.progress),
    }
    write_json(out / "results.json", results)
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
