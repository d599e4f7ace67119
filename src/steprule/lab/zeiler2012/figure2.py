"""The paper's Fig. 2: step sizes and updates of ten random dimensions of each weight matrix.

A step size is all of eq. 14 but the gradient. `RateMonitor` measures it as -update / gradient. Where the gradient is 0, as
behind a pixel that is black in the whole batch, it is the limit for a vanishing gradient, which the rule itself gives.
Trained in float64: late updates are small beside the weights, and float32 would round them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import nn

from ... import named, rules
from ...counts import check_count
from ...torch import Adadelta, RateMonitor, RuleOptimizer
from .. import machine
from ..comparison import Progress, versions
from ..problem import Problem
from ..results import Epoch, Outcome, Setting, Trial
from ..training import train_epochs
from . import files
from .kept import keep, kept, path_of
from .parts import Options, Work
from .problems import tanh_in_float64

__all__ = ["LAYERS", "Course", "Figure2", "Settings", "Trainings"]

LAYERS: Final = ("0.weight", "2.weight", "4.weight")
"""The weight matrices by their names in the net, the lowest first."""

_VANISHING: Final = 1e-100
"""A gradient whose square, in float64, is nothing beside any eps."""


@dataclass(frozen=True)
class Settings:
    """How the net is trained and looked at: the paper's numbers. Raises `ValueError` for `epochs` below 1."""

    epochs: int = 25
    every: int = 60
    sample: int = 10
    rho: float = 0.95
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)

    @property
    def setting(self) -> Setting:
        return Setting("adadelta", {"eps": self.eps, "rho": self.rho})


@dataclass(frozen=True)
class Course:
    """One training: step sizes and updates by layer, (records, sample) each; the batch (from 1) and epoch of each record.

    `without_gradient` is the share of a layer's step sizes that are limits; `measured` has every epoch. `machine` and
    `versions` say where it was made, and `started` when.
    """

    seed: int
    batches: NDArray[np.int64]
    epochs: NDArray[np.int64]
    sizes: Mapping[str, NDArray[np.float64]]
    updates: Mapping[str, NDArray[np.float64]]
    without_gradient: Mapping[str, float]
    measured: tuple[Epoch, ...]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    started: str

    @property
    def diverged(self) -> bool:
        return self.measured[-1].diverged

    def as_json(self, *, whole: bool = True) -> dict[str, Any]:
        """Return what `of_json` takes; the records of the first and the last epoch alone where not `whole`."""
        there = np.ones(len(self.epochs), bool) if whole else np.isin(self.epochs, (1, self.epochs.max()))
        return {
            "seed": self.seed,
            "batches": self.batches[there].tolist(),
            "epochs": self.epochs[there].tolist(),
            "sizes": {name: files.nested(each[there]) for name, each in self.sizes.items()},
            "updates": {name: files.nested(each[there]) for name, each in self.updates.items()},
            "without_gradient": {name: files.rounded(each) for name, each in self.without_gradient.items()},
            "measured": [files.epoch_as_json(each) for each in self.measured],
            "machine": files.machine(self.machine),
            "versions": dict(self.versions),
            "started": self.started,
        }

    @staticmethod
    def of_json(told: Mapping[str, Any]) -> Course:
        sizes, updates = (
            {name: np.array(each, np.float64) for name, each in told[part].items()} for part in ("sizes", "updates")
        )
        return Course(
            told["seed"],
            np.array(told["batches"]),
            np.array(told["epochs"]),
            sizes,
            updates,
            told["without_gradient"],
            tuple(map(files.epoch, told["measured"])),
            told["machine"],
            told["versions"],
            told["started"],
        )


@dataclass(frozen=True)
class Figure2:
    """The part of the paper; its trainings run one after another, in all threads, wherever others run."""

    problem: Callable[[], Problem] = tanh_in_float64
    settings: Settings = Settings()
    name: str = "fig2"
    title: str = "Fig. 2: tanh units, step sizes and updates"

    def work(self, options: Options) -> Iterator[Work]:
        """Yield the trainings that are not finished."""
        settings = self._settings(options)
        for seed in range(options.seeds):
            if self._kept(settings, seed, options) is None:
                yield Work(named.name_of(self.problem), settings.setting, settings.epochs)

    def run(self, options: Options, progress: Progress | None = None) -> Trainings:
        """Train with the seeds 0 to `options.seeds` - 1, and return what was looked at.

        A finished seed is kept as a file in `options.out/fig2`, and read the next time if its settings, problem and rule
        are the same. Raises `ValueError` where the number of seeds or of epochs is below 1 or a file there is no such
        training, and `OSError` where none can be written.
        """
        check_count("seeds", options.seeds)
        settings = self._settings(options)
        found = {seed: self._kept(settings, seed, options) for seed in range(options.seeds)}
        missing = [seed for seed, course in found.items() if course is None] if options.train else []
        if missing:
            problem = self.problem()
            if progress:
                progress.begin(problem, len(missing), settings.epochs, options.seeds - len(missing), 1)
        for seed in missing:
            found[seed] = course = _train(problem, settings, seed, progress)
            path, key = self._path_and_key(settings, seed, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            keep(path, key, course.as_json())
        courses = tuple(each for each in found.values() if each is not None)
        return Trainings(self, settings, options.seeds, courses)

    def read(self, told: Mapping[str, Any]) -> Trainings:
        """Return the result whose `as_json` is `told`."""
        return Trainings(self, Settings(**told["settings"]), told["seeds"], tuple(map(Course.of_json, told["courses"])))

    def _settings(self, options: Options) -> Settings:
        return self.settings if options.epochs is None else dataclasses.replace(self.settings, epochs=options.epochs)

    def _path_and_key(self, settings: Settings, seed: int, options: Options) -> tuple[Path, dict[str, Any]]:
        code = [named.digest(each) for each in (self.problem, rules.adadelta.function)]
        key = {"settings": dataclasses.asdict(settings), "seed": seed, "code": code}
        return path_of(options.out / self.name, f"seed-{seed}", key), key

    def _kept(self, settings: Settings, seed: int, options: Options) -> Course | None:
        if options.fresh:
            return None
        return kept(*self._path_and_key(settings, seed, options), "Fig. 2", Course.of_json)


@dataclass(frozen=True)
class Trainings:
    """What came out of Fig. 2: the trainings that are there, by seed, of so many that were planned."""

    part: Figure2
    settings: Settings
    seeds: int
    courses: tuple[Course, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no training has ended."""
        return not self.courses

    @property
    def missing(self) -> str:
        """How many of the trainings that were planned are not there."""
        there = len(self.courses)
        return f"{self.seeds - there} of {self.seeds} trainings are not finished" if there < self.seeds else ""

    def as_json(self) -> dict[str, Any]:
        """Return the trainings; of all but the first, which is drawn, the first and the last epoch's records alone."""
        courses = [course.as_json(whole=number == 0) for number, course in enumerate(self.courses)]
        return {"settings": dataclasses.asdict(self.settings), "seeds": self.seeds, "courses": courses}


def _train(problem: Problem, settings: Settings, seed: int, progress: Progress | None) -> Course:
    trial = Trial(settings.setting, seed)
    if progress:
        progress.started(trial)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    model = problem.model(seed)
    stepper = Adadelta(model.parameters(), rho=settings.rho, eps=settings.eps)
    measured = []
    with RateMonitor(stepper, settings.every, settings.sample, model=model, seed=seed) as monitor:
        limits = _Limits(stepper, model, monitor, settings)
        for epoch in train_epochs(problem, model, stepper, seed, settings.epochs):
            measured.append(epoch)
            if progress:
                progress.measured(trial, epoch)
    if progress:
        progress.ended(Outcome(trial, "diverged" if measured[-1].diverged else "finished", tuple(measured)))
    table = monitor.table()
    batches = np.unique(table["step"])
    rates, updates = (
        {name: table[column][table["layer"] == name].reshape(len(batches), -1) for name in LAYERS}
        for column in ("rate", "update")
    )
    return Course(
        seed,
        batches,
        (batches - 1) // problem.batches_per_epoch + 1,
        {name: np.where(np.isnan(each), limits.found[name], each) for name, each in rates.items()},
        updates,
        {name: float(np.isnan(each).mean()) for name, each in rates.items()},
        tuple(measured),
        machine.facts() | {"threads": str(torch.get_num_threads())},
        versions(),
        started,
    )


class _Limits:
    """The step sizes of a monitor's dimensions for a vanishing gradient, before each step that it records."""

    def __init__(self, stepper: RuleOptimizer, model: nn.Module, monitor: RateMonitor, settings: Settings) -> None:
        dimensions, parameters = monitor.dimensions(), dict(model.named_parameters())
        self._looked_at: Final = {
            name: (parameters[name], torch.from_numpy(dimensions[name])) for name in LAYERS if name in parameters
        }
        self._settings: Final = settings
        self._steps: Final = itertools.count()
        self.found: Final[dict[str, list[NDArray[np.float64]]]] = {name: [] for name in self._looked_at}
        stepper.register_step_pre_hook(self._look)

    def _look(self, stepper: RuleOptimizer, *_: object) -> None:
        if next(self._steps) % self._settings.every:
            return
        rule = stepper.rule
        for name, (parameter, places) in self._looked_at.items():
            state = stepper.state.get(parameter, {})
            slots = [
                torch.take(state[slot], places).numpy() if slot in state else np.full(len(places), start)
                for slot, start in rule.slots.items()
            ]
            update, *_ = rule(_VANISHING, *slots, rho=self._settings.rho, eps=self._settings.eps)
            self.found[name].append(-update / _VANISHING)
