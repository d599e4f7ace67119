"""The paper's Fig. 2: step sizes and updates of ten random dimensions of each weight matrix.

A step size is all of eq. 14 but the gradient. `RateMonitor` measures it as -update / gradient. Where the gradient is 0, as
behind a pixel that is black in the whole batch, it is the limit for a vanishing gradient, which the rule itself gives.
Trained in float64: late updates are small beside the weights, and float32 would round them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import nn

from ... import rules
from ...torch import Adadelta, RateMonitor, RuleOptimizer
from .. import named
from ..problem import Problem
from ..training import train_epoch
from .kept import keep, kept
from .problems import tanh

__all__ = ["EPOCHS", "LAYERS", "Course", "Figure2", "Progress", "Settings", "run"]

EPOCHS: Final = 25
LAYERS: Final = ("0.weight", "2.weight", "4.weight")
"""The weight matrices by their names in the net, the lowest first."""

Progress = Callable[[int, int], None]
"""Told of a seed, and of how many of its epochs are there: all of them at once where it was kept from a run before."""

_VANISHING: Final = 1e-100
"""A gradient whose square, in float64, is nothing beside any eps."""


@dataclass(frozen=True)
class Settings:
    """How the net is trained and looked at: the paper's numbers. Raises `ValueError` for `epochs` below 1."""

    epochs: int = EPOCHS
    every: int = 60
    sample: int = 10
    rho: float = 0.95
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; allowed is a whole number from 1")


@dataclass(frozen=True)
class Course:
    """One training: step sizes and updates by layer, (records, sample) each; the batch (from 1) and epoch of each record.

    `without_gradient` is the share of a layer's step sizes that are limits; `losses` are the epochs' mean training losses;
    `test_error`, in %, is that after the last epoch.
    """

    seed: int
    batches: NDArray[np.int64]
    epochs: NDArray[np.int64]
    sizes: Mapping[str, NDArray[np.float64]]
    updates: Mapping[str, NDArray[np.float64]]
    without_gradient: Mapping[str, float]
    losses: Sequence[float]
    test_error: float


@dataclass(frozen=True)
class Figure2:
    """The trainings by seed, and how they were made."""

    settings: Settings
    courses: tuple[Course, ...]


def run(
    out: str | Path = "zeiler2012/fig2",
    seeds: int = 5,
    epochs: int = EPOCHS,
    progress: Progress = lambda _seed, _epochs: None,
    problem: Callable[[], Problem] = tanh,
) -> Figure2:
    """Train with the seeds 0 to `seeds` - 1, and return what was looked at.

    A finished seed is kept as a file in `out`, and read the next time if its settings, problem and rule are the same. Raises
    `ValueError` where `seeds` or `epochs` is below 1 or a file there is no such training, and `OSError` where none can be
    written.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; allowed is a whole number from 1")
    settings, folder = Settings(epochs), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    made: Problem | None = None
    courses = []
    for seed in range(seeds):
        path = folder / f"seed-{seed}.json"
        key = {"settings": dataclasses.asdict(settings), "seed": seed, "code": _code(problem)}
        found = kept(path, key, "Fig. 2")
        if found is None:
            made = made or _doubled(problem())
            found = _train(made, settings, seed, progress)
            keep(path, key, found)
        progress(seed, epochs)
        courses.append(_course(seed, found))
    return Figure2(settings, tuple(courses))


def _code(problem: Callable[[], Problem]) -> list[str]:
    return [named.digest(each) for each in (problem, rules.adadelta.function)]


def _doubled(problem: Problem) -> Problem:
    (inputs, targets), (test_inputs, test_targets) = problem.train, problem.test
    return dataclasses.replace(
        problem, train=(inputs.double(), targets), test=(test_inputs.double(), test_targets), validation=None
    )


def _train(problem: Problem, settings: Settings, seed: int, progress: Progress) -> dict[str, Any]:
    """Train, and return the fields of a `Course` as JSON holds them."""
    model = problem.model(seed).double()
    stepper = Adadelta(model.parameters(), rho=settings.rho, eps=settings.eps)
    order = torch.Generator().manual_seed(seed)
    losses = []
    with RateMonitor(stepper, settings.every, settings.sample, model=model, seed=seed) as monitor:
        limits = _Limits(stepper, model, monitor, settings)
        for epoch in range(settings.epochs):
            progress(seed, epoch)
            losses.append(train_epoch(problem, model, stepper, order))
    with torch.no_grad():
        error = float(problem.measure(model(problem.test[0]), problem.test[1]))
    table = monitor.table()
    batches = np.unique(table["step"])
    by_layer = {
        name: {each: table[each][table["layer"] == name].reshape(len(batches), -1) for each in ("rate", "update")}
        for name in LAYERS
    }
    per_epoch = -(-len(problem.train[0]) // problem.batch_size)
    return {
        "batches": batches.tolist(),
        "epochs": ((batches - 1) // per_epoch + 1).tolist(),
        "sizes": {
            name: np.where(np.isnan(each["rate"]), limits.found[name], each["rate"]).tolist()
            for name, each in by_layer.items()
        },
        "updates": {name: each["update"].tolist() for name, each in by_layer.items()},
        "without_gradient": {name: float(np.isnan(each["rate"]).mean()) for name, each in by_layer.items()},
        "losses": losses,
        "test_error": error,
    }


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


def _course(seed: int, found: Mapping[str, Any]) -> Course:
    arrays = {part: {name: np.array(found[part][name]) for name in LAYERS} for part in ("sizes", "updates")}
    return Course(
        seed,
        np.array(found["batches"]),
        np.array(found["epochs"]),
        **arrays,
        without_gradient=found["without_gradient"],
        losses=found["losses"],
        test_error=found["test_error"],
    )
