"""Training on Ray: shards and replicas are its actors, which it places, connects, and starts again when they die."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..folders import held, made_folder
from ..specification import Rule
from . import engine
from .client import may_begin
from .kept import has_snapshots
from .partition import Partition, Piece
from .plan import Plan, Work
from .reports import Progress
from .shard import Shard
from .watching import Replicas, Shards

__all__ = ["Trained", "Training", "check", "partition_of", "train"]

_SECONDS_OF_A_TURN: Final = 0.5
"""About how long a replica works between two reports."""
_SECONDS_BETWEEN_PROGRESS: Final = 1.0
_REFUSED_IN_A_ROW: Final = 200
"""So many pushes that are not finite, from all replicas with none between that is, are a training that has diverged."""


@dataclass(frozen=True)
class Trained:
    """The parameters at the end, by name, and how the training went."""

    parameters: dict[str, NDArray[Any]]
    progress: Progress


def train(
    work: Work,
    rule: Rule,
    plan: Plan,
    folder: Path,
    *,
    resume: bool = False,
    address: str | None = None,
    dashboard: bool = False,
    progress: Callable[[Training], object] = lambda _: None,
) -> Trained:
    """Train on a parameter server until each shard has applied `plan.updates` updates.

    Without an `address`, a Ray of its own is started on this machine, listening on loopback; "auto" or host:port joins one.
    `folder` takes the shards' snapshots; on several machines it is one that all of them see. With `resume`, training goes on
    from the snapshots that are there; without, there must be none. One process at a time trains in it. `progress` is called
    at the beginning, about once a second, and at the end.

    Raises `ValueError` and `TypeError` for arguments that cannot be, `FloatingPointError` as `on_nonfinite` says,
    `RuntimeError` where all pushes to a shard are refused or a process cannot be started, and what a replica's gradient
    raises.
    """
    check(rule, plan, folder, resume=resume, address=address, dashboard=dashboard)
    gpus = 0 if plan.device == "cpu" else plan.shards
    with (
        held(made_folder(folder)),
        engine.running(address, plan.replicas + plan.shards, gpus=gpus, dashboard=dashboard),
    ):
        training = Training(work, rule, plan, folder.resolve())
        try:
            progress(training)
            while True:
                training.run(progress)
                training.shards.snapshot()
                training.shards.ask()
                if training.is_complete:  # a shard that hung at last, and was restored, may have lost updates
                    break
            progress(training)
            return Trained(training.parameters(), training.progress())
        finally:
            training.end()


def check(
    rule: Rule,
    plan: Plan,
    folder: Path,
    *,
    resume: bool = False,
    address: str | None = None,
    dashboard: bool = False,
) -> None:
    """Raise what `train` raises for these arguments, with no Ray and nothing written."""
    if dashboard and address is not None:
        raise ValueError(
            f"dashboard is True and address is {address!r}; allowed is one of them: a Ray that is there has its own"
        )
    if has_snapshots(folder) and not resume:
        raise ValueError(f"{folder} has snapshots of a training; allowed is to resume it, or another folder")
    Shard(rule, np.zeros(1, np.float32), [Piece("", 0, 1, (), 0)], on_nonfinite=plan.on_nonfinite, **plan.options)


def partition_of(work: Work, plan: Plan) -> Partition:
    """Return how the parameters are laid out and cut.

    Raises `ValueError` where they are of several types, or have fewer rows than there are to be shards.
    """
    kinds = {array.dtype for array in work.parameters.values()}
    if len(kinds) != 1:
        found = ", ".join(sorted(map(str, kinds))) or "none"
        raise ValueError(f"parameters are of the types {found}; allowed is one")
    shapes = {name: array.shape for name, array in work.parameters.items()}
    return Partition(shapes, plan.shards, work.sparse)


class Training:
    """A training that runs; `train` makes it."""

    def __init__(self, work: Work, rule: Rule, plan: Plan, folder: Path) -> None:
        self.plan: Final = plan
        self.partition: Final = partition_of(work, plan)
        flat = self.partition.flat(work.parameters, next(iter(work.parameters.values())).dtype)
        self.shards: Final = Shards(rule, flat, self.partition, folder, plan)
        self.replicas: Final = Replicas(work, self.partition, self.shards.handles, plan)
        self._pace: Final = [1.0] * plan.replicas
        self._began = self._shown = time.monotonic()
        self._loss, self._steps = 0.0, 0
        self._mean = math.nan
        self._left = self._missing()

    @property
    def is_complete(self) -> bool:
        """Whether each shard has applied all updates, as far as its newest report tells."""
        return self._missing() <= 0

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return the parameters as the shards have them now, by name."""
        return self.fetch()[1]

    def fetch(self) -> tuple[int, dict[str, NDArray[Any]]]:
        """Return the updates that every shard has applied, more than the newest reports tell, and the parameters by name."""
        fetched = self.shards.fetch()
        parameters = self.partition.views(np.concatenate([each.parameters for each in fetched]))
        return min(each.version.updates for each in fetched), parameters

    def progress(self) -> Progress:
        """Return how far it is; the loss is the mean since the last call that had one."""
        if self._steps:
            self._mean, self._loss, self._steps = self._loss / self._steps, 0.0, 0
        return Progress(
            updates=self.plan.updates,
            replicas=self.plan.replicas,
            alive=len(self.replicas.places),
            waiting=sum(not self._may_begin(number) for number in range(self.plan.replicas)),
            loss=self._mean,
            seconds=time.monotonic() - self._began,
            shards=list(self.shards.reports),
            restarts=_named(self.replicas.restarts, self.shards.restarts),
            hung=_named(self.replicas.hung, self.shards.hung),
        )

    def run(self, progress: Callable[[Training], object]) -> None:
        """Train until it is done."""
        while True:
            self._share_out()
            if not self.replicas.at_work and self._left <= 0:
                self._settle()
                if self._left <= 0:
                    return
                continue
            for number, steps, seconds, report in self.replicas.wait(self.shards):
                if report is None:
                    self._left += steps  # how many of them were taken, nobody knows; `_settle` counts
                else:
                    self._pace[number] = steps / max(seconds, 1e-3)
                    self._loss += report.loss
                    self._steps += report.steps
            self._check()
            if time.monotonic() - self._shown > _SECONDS_BETWEEN_PROGRESS:
                self._shown = time.monotonic()
                progress(self)

    def end(self) -> None:
        """End its processes; shards first write what they have applied since their last snapshots."""
        self.replicas.end()
        self.shards.end()

    def _missing(self) -> int:
        """Return how many steps are still to be taken."""
        done = min(report.version.updates for report in self.shards.reports)
        return (self.plan.updates - done) * self.plan.n_push

    def _may_begin(self, number: int) -> bool:
        return may_begin(number, [report.version.updates for report in self.shards.reports], self.plan.warm_start)

    def _share_out(self) -> None:
        for number in self.replicas.free:
            if self._left > 0 and self._may_begin(number):
                fair = math.ceil(self._left / self.plan.replicas)
                steps = max(1, min(fair, round(self._pace[number] * _SECONDS_OF_A_TURN)))
                self._left -= steps
                self.replicas.send(number, steps)

    def _settle(self) -> None:
        """Wait until every push has arrived, and count what is still missing: what was lost with a death, or refused."""
        self.replicas.finish(self.shards)
        self.shards.ask()
        self._check()
        self._left = self._missing()

    def _check(self) -> None:
        for number, report in enumerate(self.shards.reports):
            if report.refused_in_a_row >= _REFUSED_IN_A_ROW:
                raise RuntimeError(
                    f"the last {report.refused_in_a_row} pushes to shard {number} were infinite or NaN in some elements: "
                    "the training has diverged"
                )


def _named(replicas: Any, shards: Any) -> dict[str, int]:
    of = {"replica": replicas, "shard": shards}
    return {
        f"{kind} {number}": count for kind, counts in of.items() for number, count in sorted(counts.items()) if count
    }
