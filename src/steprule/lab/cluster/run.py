"""`steprule cluster run`: a problem trained on the parameter server, measured after each epoch, and written down."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

import torch

from ...cluster import training
from ...cluster.gradients import parameters_of
from ...cluster.kept import has_snapshots
from ...cluster.plan import Plan
from ...cluster.reports import Progress
from ...counts import check_count
from ...folders import held, made_folder, replace, write_json
from ...named import from_here, name_of
from ...specification import Rule
from ..problem import Problem, find_problem, refuse_trainer
from .gradients import work_of

__all__ = ["Measured", "Run", "Watcher", "updates_of"]

_RESULTS: Final = "results.json"
_SNAPSHOTS: Final = "snapshots"
_DECIDING: Final = ("shards", "n_fetch", "n_push", "local_lr", "overlap", "warm_start")
"""What of a plan decides the result, beside what the shards compare with their snapshots. Replicas may grow and shrink."""


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
    updates = epochs * problem.batches_per_epoch / n_push
    if not 0 < updates < math.inf:
        raise ValueError(f"epochs is {epochs!r}; allowed is a finite number above 0")
    return max(1, round(updates))


class Run:
    """A training that may begin: `problem` by `rule` and `plan`, into the folder `out`, its parameters those of `seed`.

    `name` is what the problem is called on the command line; `on` is where and how, as for `steprule.cluster.train`.

    Raises what `steprule.cluster.train` raises, and `ValueError` for a problem with a trainer, and where the training to
    resume had another problem, other data, another rule, seed or plan than would go on; all with nothing started or
    written.
    """

    def __init__(
        self, name: str, problem: Problem, rule: Rule, plan: Plan, out: Path, *, seed: int = 0, **on: Any
    ) -> None:
        check_count("seed", seed, 0)
        refuse_trainer(problem, "a cluster")
        training.check(rule, plan, out / _SNAPSHOTS, **on)
        self._name, self._problem, self._rule, self._plan = from_here(name), problem, rule, plan
        self._out, self._seed, self._on = out, seed, on
        self._data: Final = problem.data_digest()
        # Where other processes find it, wherever they run.
        self._work: Final = work_of(name if ":" not in name else name_of(find_problem(name)), problem, seed)
        training.partition_of(self._work, plan)
        self.is_new: Final = not has_snapshots(out / _SNAPSHOTS)
        """Whether there is nothing to resume, asked for or not."""
        self._kept: Final = [] if self.is_new else self._measured_before()

    def train(self, watchers: Sequence[Watcher] = ()) -> list[Measured]:
        """Train; return what was measured about each epoch, and at the end.

        In the folder are then `results.json`, `model.safetensors` (the parameters by name) and `snapshots`. The first has
        each measurement as soon as it is made, and those of the training that is resumed, up to where that goes on.

        Raises what `steprule.cluster.train` raises, and `ValueError` where another process trains into the folder.
        """
        with held(
            made_folder(self._out)
        ):  # else another, begun before there are snapshots, would write over its results
            if self.is_new:
                self._write([], None)  # a training that is killed before it has measured anything has its seed there
            follower = _Follower(self._problem, self._plan, self._seed, self._kept, self._write, watchers)
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
            self._write(follower.found, trained.progress)
        return follower.found

    def _measured_before(self) -> list[Measured]:
        """Return what the training to resume has measured; raise where it was not this one."""
        path = self._out / _RESULTS
        if not path.exists():
            return []
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            known = {**kept["plan"], **{name: kept[name] for name in ("problem", "rule", "seed")}}
            measured = [
                Measured(each["updates"], each["epoch"], math.nan if each["test"] is None else each["test"])
                for each in kept["measured"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no results of a training ({error!r}); remove it, or choose another folder"
            ) from None
        here = {"problem": self._name, "rule": self._rule.name, "seed": self._seed}
        here |= {name: getattr(self._plan, name) for name in _DECIDING}
        for name, value in here.items():
            if known.get(name, value) != value:
                raise ValueError(f"{name} is {value!r}; allowed with resume is {known[name]!r}, as {path} has it")
        if kept.get("data", self._data) != self._data:  # an older version did not note them
            raise ValueError(
                f"the data of {self._name} are others than those that {path} is of; allowed with resume are the same, or "
                "choose another folder"
            )
        return measured

    def _write(self, measured: Sequence[Measured], progress: Progress | None) -> None:
        results = {
            "problem": self._name,
            "data": self._data,
            "rule": self._rule.name,
            "seed": self._seed,
            "plan": asdict(self._plan),
            "metric": asdict(self._problem.metric),
            "measured": [asdict(each) for each in measured],
            "progress": None if progress is None else asdict(progress),
        }
        write_json(self._out / _RESULTS, results)


class _Follower:
    """Measures a training about each epoch, has that written, and tells the watchers.

    `kept` is what was measured before the training was resumed; of that counts what is up to where it goes on.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        seed: int,
        kept: Sequence[Measured],
        write: Callable[[Sequence[Measured], Progress], None],
        watchers: Sequence[Watcher],
    ) -> None:
        self._problem, self._plan, self._write, self._watchers = problem, plan, write, watchers
        self._model: Final = problem.model(seed)
        self.found: list[Measured] = list(kept)
        self._is_begun = False
        self._failing: Final[set[int]] = set()

    def progressed(self, running: training.Training) -> None:
        progress = running.progress()
        self._tell(lambda watcher: watcher.progressed(progress))
        if not self._is_begun:
            self.found = [each for each in self.found if each.updates <= progress.done]
        epoch = math.floor(self._epochs(progress.done))
        measured = math.floor(self.found[-1].epoch) if self.found else 0
        is_due = epoch > measured and progress.done < self._plan.updates
        if is_due:
            self.measure(*running.fetch())
        if is_due or not self._is_begun:
            self._is_begun = True
            try:
                self._write(self.found, progress)
            except OSError as error:
                warnings.warn(
                    f"training goes on, and its measurements up to update {progress.done} are not written yet: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def measure(self, updates: int, parameters: Mapping[str, NDArray[Any]]) -> None:
        for name, parameter in parameters_of(self._model).items():
            parameter.data = torch.from_numpy(np.ascontiguousarray(parameters[name]))
        value = self._problem.measured(self._model, self._problem.test)
        if self.found and self.found[-1].updates == updates:
            self.found.pop()  # where nothing was left to train
        self.found.append(Measured(updates, self._epochs(updates), value))
        self._tell(lambda watcher: watcher.measured(self.found[-1]))

    def _tell(self, of: Callable[[Watcher], None]) -> None:
        """Tell the watchers; one that fails, as on a full disk, ends no training, and is told of the first time."""
        for number, watcher in enumerate(self._watchers):
            try:
                of(watcher)
            except Exception as error:  # where TensorFlow writes TensorBoard's files, a full disk is no OSError
                if number not in self._failing:
                    self._failing.add(number)
                    warnings.warn(
                        f"training goes on, and not all of it is shown ({type(watcher).__name__}): {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def _epochs(self, updates: int) -> float:
        return updates * self._plan.n_push / self._problem.batches_per_epoch
