"""Fig. 3 and 4 of the paper (4.4): frame accuracy while many replicas train on speech, on a simulated cluster."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

import torch

from ... import named
from ...cluster import Conditions, Simulation
from ...cluster.records import PUSH
from ...counts import check_count
from ...folders import made_folder
from ..grids import find_rule
from ..problem import Problem, find_problem, with_corpus
from ..results import Setting
from ..side_by_side import calls
from ..workers import share_threads
from . import protocol
from .kept import keep, kept, path_of

__all__ = ["DIVIDED", "OURS", "Course", "Plan", "Point", "Progress", "SpeechFigure", "plans", "run"]

OURS: Final = "adadelta"
DIVIDED: Final = "adadelta / replicas"
"""The name of the curve of ADADELTA with its step divided by the number of replicas."""

Progress = Callable[[Setting, int, int], None]
"""What is told of each measurement: the setting, the seed, and the updates so far."""


@dataclass(frozen=True)
class Plan:
    """A figure's protocol: on which problem, with how many replicas, for how long, and each rule's settings.

    `conditions` are what `steprule.cluster.Conditions.of` takes. Of a rule with several settings the best is chosen.
    `beside` are settings that are not the paper's, by the names of their curves; no claim is decided by them.
    """

    name: str
    title: str
    problem: str
    full: str
    replicas: int
    seeds: int
    updates: int
    every: int
    warm_start: int
    conditions: Mapping[str, str]
    settings: Mapping[str, tuple[Setting, ...]]
    beside: Mapping[str, Setting]

    @property
    def runs(self) -> int:
        """How many trainings there are: each setting once, the other seeds of each rule's best, and those beside."""
        of_paper = sum(len(each) + self.seeds - 1 for each in self.settings.values())
        return of_paper + self.seeds * len(self.beside)


@dataclass(frozen=True)
class Point:
    """Frame accuracies in % after so many updates, at a time in seconds of the cluster; the loss since the last point."""

    updates: int
    time: float
    loss: float
    test: float
    validation: float


@dataclass(frozen=True)
class Course:
    """One training. `staleness` is the mean over its pushes; one that diverged has the points before it did."""

    setting: Setting
    seed: int
    points: tuple[Point, ...]
    staleness: float
    diverged: bool

    @property
    def score(self) -> float:
        """What a setting is chosen by: the last frame accuracy on the validation speakers."""
        return -math.inf if self.diverged or not self.points else self.points[-1].validation


@dataclass(frozen=True)
class SpeechFigure:
    """What came out: `tried` has each setting once, with seed 0; `courses` the chosen setting of each rule, seed by seed.

    `beside` has those of `Plan.beside`, seed by seed.
    """

    plan: Plan
    description: str
    parameters: int
    tried: tuple[Course, ...]
    courses: Mapping[str, tuple[Course, ...]]
    beside: Mapping[str, tuple[Course, ...]]


@cache
def plans() -> Mapping[str, Plan]:
    """Return the protocol of each figure, by its name: the contents of `speech.toml`."""
    read = protocol.read("speech.toml")
    common = {name: read[name] for name in ("seeds", "updates", "every", "warm_start", "conditions")}

    def settings(rule: str) -> tuple[Setting, ...]:
        return (
            (Setting(rule, read[rule]),) if rule == OURS else tuple(Setting(rule, {"lr": lr}) for lr in read["rates"])
        )

    return {
        name: Plan(
            name,
            each["title"],
            each["problem"],
            each["full"],
            each["replicas"],
            **common,
            settings={rule: settings(rule) for rule in each["rules"]},
            beside={DIVIDED: Setting(OURS, read[OURS] | {"lr": 1 / each["replicas"]})},
        )
        for name, each in read["figures"].items()
    }


def run(
    plan: Plan,
    out: str | Path,
    *,
    full: bool = False,
    corpus: Path | None = None,
    device: str = "cpu",
    jobs: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> SpeechFigure:
    """Train every setting of the plan with seed 0, then the other seeds of each rule's best, and return the courses.

    Each training is kept in `out` when it is finished, and is not run again in the same form, unless `fresh`: with the same
    plan, problem, corpus, code, device and number of threads. One in another form is kept beside it.
    `full` takes the paper's net of 4 hidden layers of 2560 units; `corpus` a folder of wav files
    (`steprule.lab.speech.corpus.folder`) in place of the spoken digits. With `jobs` above 1, so many trainings run side by
    side, in processes that share the cores. `progress` is told of each measurement.

    Raises `steprule.lab.data.DataError` where the corpus cannot be had, and `ValueError` where the plan's seeds are below 1,
    a file in `out` is not one of these trainings, or `out` cannot be made or written to.
    """
    check_count("seeds", plan.seeds)
    told = progress or _silent
    name = plan.full if full else plan.problem
    name = name if corpus is None else with_corpus(name, corpus)
    make = find_problem(name)
    problem = make()
    folder = made_folder(Path(out))
    # The description has the net; code, device and number of threads are what else decides the numbers.
    settled = dataclasses.asdict(dataclasses.replace(plan, seeds=0, settings={}, beside={}))
    threads = torch.get_num_threads() if jobs == 1 else share_threads(jobs)
    known = {"plan": settled, "problem": problem.description, "corpus": str(corpus), "data": problem.data_digest()}
    key = {**known, "code": _code(make), "device": device, "threads": threads}
    done: dict[tuple[Setting, int], Course] = {}

    def file_of(setting: Setting, seed: int) -> Path:
        values = [f"{value:g}" for value in setting.hyperparameters.values()]
        return path_of(folder, "-".join([setting.rule, *values, str(seed)]), key)

    def ended(setting: Setting, seed: int, course: Course) -> None:
        done[setting, seed] = course
        told(setting, seed, plan.updates)

    def have(wanted: Sequence[tuple[Setting, int]]) -> None:
        missing = []
        for each in wanted:
            there = None if fresh else kept(file_of(*each), key, "this figure", partial(_course, *each))
            if there is None:
                missing.append(each)
            else:
                ended(*each, there)
        for each, trained in _trainings(plan, name, problem, missing, device, jobs, told):
            keep(file_of(*each), key, trained)
            ended(*each, _course(*each, trained))

    first = [(setting, 0) for settings in plan.settings.values() for setting in settings]
    aside = [(setting, seed) for setting in plan.beside.values() for seed in range(plan.seeds)]
    have(first + aside)
    tried = tuple(done[each] for each in first)
    best = {
        rule: max((each for each in tried if each.setting.rule == rule), key=lambda each: each.score).setting
        for rule in plan.settings
    }
    have([(setting, seed) for setting in best.values() for seed in range(1, plan.seeds)])

    def seeds(setting: Setting) -> tuple[Course, ...]:
        return tuple(done[setting, seed] for seed in range(plan.seeds))

    return SpeechFigure(
        plan,
        problem.description,
        sum(each.numel() for each in problem.model(0).parameters()),
        tried,
        {rule: seeds(setting) for rule, setting in best.items()},
        {name: seeds(setting) for name, setting in plan.beside.items()},
    )


def _course(setting: Setting, seed: int, trained: Mapping[str, Any]) -> Course:
    points = tuple(Point(*each) for each in trained["points"])
    return Course(setting, seed, points, trained["staleness"], trained["diverged"])


def _trainings(
    plan: Plan,
    name: str,
    problem: Problem,
    wanted: Sequence[tuple[Setting, int]],
    device: str,
    jobs: int,
    told: Progress,
) -> Iterator[tuple[tuple[Setting, int], dict[str, Any]]]:
    """Yield each training that is wanted, with what came out, as they end."""
    if jobs == 1:
        for each in wanted:
            yield each, _train(plan, problem, *each, device, partial(told, *each))
        return
    arguments = [(plan, name, *each, device) for each in wanted]
    for number, trained in calls(_train_named, arguments, jobs, lambda number, updates: told(*wanted[number], updates)):
        yield wanted[number], trained


def _train_named(
    plan: Plan, name: str, setting: Setting, seed: int, device: str, told: Callable[[int], object]
) -> dict[str, Any]:
    return _train(plan, find_problem(name)(), setting, seed, device, told)


def _silent(*_: object) -> None:
    """Tell nobody."""


def _code(make: Callable[[], Problem]) -> list[str]:
    return [named.digest(each) for each in (make, Simulation, Conditions)]


def _train(
    plan: Plan,
    problem: Problem,
    setting: Setting,
    seed: int,
    device: str,
    told: Callable[[int], object],
) -> dict[str, Any]:
    simulation = Simulation(
        problem,
        find_rule(setting.rule),
        dict(setting.hyperparameters),
        replicas=plan.replicas,
        updates=plan.updates,
        every=plan.every,
        warm_start=plan.warm_start,
        seed=seed,
        conditions=Conditions.of(**plan.conditions),
        device=device,
    )
    points = []
    diverged = False
    for each in simulation.run():
        assert each.validation is not None
        diverged = not math.isfinite(each.loss)
        if not diverged:
            points.append((each.updates, each.time, each.loss, each.test, each.validation))
        if each.updates < plan.updates:  # the end is told of every training, of one that was kept too
            told(each.updates)
    staleness = np.array(simulation.records, PUSH)["staleness"]
    return {"points": points, "diverged": diverged, "staleness": float(staleness.mean())}
