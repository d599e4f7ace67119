"""The study: grids at each number of replicas, and several seeds of what they choose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from torch.nn.functional import mse_loss

import torch
from torch import Tensor, nn

from ... import rules as builtin
from ...cluster import Conditions, simulate
from ...counts import check_count
from ..cluster.simulated import CONDITIONS
from ..comparison import Progress, compare
from ..grids import find_rule
from ..problem import Problem, find_problem
from ..results import Comparison, Metric, Run
from ..summary import SettingSummary, Summary, scale, summarise, worse_by

__all__ = ["GRIDS", "REPLICAS", "STANDS", "Row", "Staleness", "Study", "staleness", "study"]

PROBLEM: Final = "steprule.lab.staleness.problems:mnist"
REPLICAS: Final = (1, 10, 100, 200)
GRIDS: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "sgd": {"lr": (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)},
    "momentum": {"lr": (1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)},
    "adagrad": {"lr": (0.1, 0.01, 0.001, 0.0001, 0.00001)},
    "rmsprop": {"lr": (0.01, 0.001, 0.0001, 0.00001, 0.000001)},
    "adam": {"lr": (0.01, 0.001, 0.0001, 0.00001, 0.000001)},
    "adadelta": {"lr": (1.0, 0.1, 0.01, 0.001), "eps": (1e-6, 1e-8), "rho": (0.95,)},
}
"""By the rule; powers of ten that reach beyond what was chosen with one replica, and below what was with 200."""

STANDS: Final = 1.5
"""A rule stands so many replicas where its mean error is at most this many times that of one."""


@dataclass(frozen=True)
class Staleness:
    """Of the pushes of one training: how many updates a shard had applied since the fetch that a push was computed at."""

    mean: float
    median: float
    largest: int


@dataclass(frozen=True)
class Row:
    """One rule at one number of replicas: at the setting that one replica chose, and at the one chosen there.

    Each is None where no setting of the grid finished.
    """

    rule: str
    replicas: int
    kept: SettingSummary | None
    own: SettingSummary | None


@dataclass(frozen=True)
class Study:
    """What was measured. `staleness` is by the number of replicas; `run` is of the last part that was run.

    `chosen_on` says which data chose the settings, with seed 0 alone.
    """

    description: str
    conditions: Conditions
    metric: Metric
    chosen_on: Literal["validation", "test"]
    epochs: int
    seeds: int
    grids: Mapping[str, Mapping[str, tuple[float, ...]]]
    staleness: Mapping[int, Staleness]
    rows: tuple[Row, ...]
    run: Run

    def row(self, rule: str, replicas: int) -> Row:
        """Return one row; KeyError where there is none."""
        for row in self.rows:
            if (row.rule, row.replicas) == (rule, replicas):
                return row
        raise KeyError((rule, replicas))

    def stands(self, rule: str, which: Literal["kept", "own"]) -> int:
        """Return the largest number of replicas up to which the mean metric is at most `STANDS` times one replica's.

        Where more of the metric is better or it is negative, no further from one replica's than that (`summary.scale`). 0
        where not even one replica finished.
        """
        found, first = 0, None
        for replicas in self.staleness:
            setting: SettingSummary | None = getattr(self.row(rule, replicas), which)
            if setting is None or setting.state != "finished":
                break
            score = setting.score.mean
            first = score if first is None else first
            if worse_by(self.metric, score, first) > (STANDS - 1) * scale(self.metric, first):
                break
            found = replicas
        return found


def study(
    problem: str = PROBLEM,
    *,
    rules: Sequence[str] | None = None,
    grids: Mapping[str, Mapping[str, Sequence[float]]] = GRIDS,
    replicas: Sequence[int] = REPLICAS,
    epochs: int = 3,
    seeds: int = 3,
    jobs: int | None = None,
    out: str | Path = "staleness",
    fresh: bool = False,
    displays: Callable[[], contextlib.AbstractContextManager[Progress | None]] = contextlib.nullcontext,
) -> Study:
    """Train `problem` by each rule of `grids` with each number of simulated `replicas`, and return what was measured.

    `rules` are the same rules by the names under which `find_rule` finds them; unless given, all are built in.
    At each number the whole grid is tried with one seed. The setting that is best with one replica, and the one that is best
    at that number, are then run with all `seeds`. All are trained on as many batches. Each run is a trial of
    `steprule.lab.compare` in a folder of `out` for its number of replicas: what is finished there is kept, unless `fresh`.
    `displays` makes a `Progress` for each of these comparisons, in a context that ends with it.

    Raises `ValueError` where the numbers of replicas do not rise from 1, where `seeds` is below 1, and as `compare` does.
    """
    replicas = tuple(replicas)
    if replicas[:1] != (1,) or list(replicas) != sorted(set(replicas)):
        raise ValueError(f"replicas is {replicas}; allowed are numbers that rise from 1")
    check_count("seeds", seeds)
    found_as = {find_rule(name).name: name for name in (grids if rules is None else rules)}
    if found_as.keys() != grids.keys():
        raise ValueError(f"grids is of {', '.join(grids)}; allowed is one of each of rules, {', '.join(found_as)}")

    common: dict[str, Any] = {"epochs": epochs, "jobs": jobs}

    def ran(number: int, grid: Mapping[str, Mapping[str, Sequence[float]]], seeds: int, **more: Any) -> Comparison:
        name, folder = f"{problem}@{number}", Path(out) / str(number)
        with displays() as progress:
            more |= {"progress": progress, **common}
            return compare(name, rules=[found_as[name] for name in grid], grid=grid, seeds=seeds, out=folder, **more)

    searched = {number: ran(number, grids, 1, fresh=fresh) for number in replicas}
    summaries = {number: summarise(each) for number, each in searched.items()}
    best = {number: _best(each) for number, each in summaries.items()}
    rows, last = [], searched[1]
    for number in replicas:
        found = {}
        for which, chosen in (("kept", best[1]), ("own", best[number])):
            grid = {rule: {name: (value,) for name, value in each.items()} for rule, each in chosen.items()}
            last = ran(number, grid, seeds) if grid else last
            found[which] = {rule.rule: rule.settings[0] for rule in summarise(last).rules} if grid else {}
        rows += [Row(rule, number, found["kept"].get(rule), found["own"].get(rule)) for rule in grids]
    plain = find_problem(problem)()
    return Study(
        plain.description,
        CONDITIONS,
        plain.metric,
        summaries[1].chosen_on,
        epochs,
        seeds,
        searched[1].grids,
        {number: staleness(number, epochs * plain.batches_per_epoch) for number in replicas},
        tuple(rows),
        last.run,
    )


def _best(summary: Summary) -> dict[str, Mapping[str, float]]:
    return {each.rule: each.best.setting.hyperparameters for each in summary.rules if each.best is not None}


def staleness(replicas: int, updates: int) -> Staleness:
    """Return the staleness of the pushes of every training with so many replicas and updates, and seed 0.

    When things happen does not depend on what is learnt, so that the clock runs by itself.
    """
    nothing = (torch.zeros(1, 1), torch.zeros(1, 1))
    clock = Problem("clock", "", _point, nothing, nothing, mse_loss, Metric(""), _unmeasured, batch_size=1)
    pushes = simulate(
        clock, builtin.sgd, {"lr": 0.1}, replicas=replicas, updates=updates, every=updates, conditions=CONDITIONS
    ).pushes["staleness"]
    return Staleness(float(pushes.mean()), float(np.median(pushes)), int(pushes.max()))


def _point(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(1, 1)


def _unmeasured(outputs: Tensor, targets: Tensor) -> float:  # noqa: ARG001  # a metric's arguments
    return 0.0
