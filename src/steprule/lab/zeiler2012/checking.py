"""Whether the committed results still come out: a random sample of their trials, run again."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from ...counts import check_count
from .. import workers
from ..comparison import Progress, versions
from ..places import Place, Processes
from ..problem import find_problem
from ..results import Comparison, Epoch, Outcome
from ..summary import is_finished
from . import confidence, files
from .errors import of_comparison
from .experiments import Reproduced
from .parts import Result, Work

__all__ = ["ALARM", "LEAST", "Checked", "Sampled", "check", "sample"]

ALARM = 0.01
"""The chance that one of the sampled trials is told to be outside although nothing has changed."""

LEAST = 0.01
"""The least half of an interval, as a share of the mean: seeds may happen to end on one number."""


@dataclass(frozen=True)
class Sampled:
    """A trial of the committed results: `finals` are the errors, in %, on which the seeds of its setting ended.

    An error is infinite where a seed diverged. `problem` is the name under which the trial is run.
    """

    part: str
    problem: str
    comparison: Comparison
    outcome: Outcome
    finals: tuple[float, ...]

    @property
    def work(self) -> Work:
        """What running it again takes."""
        return Work(self.problem, self.outcome.trial.setting, self.comparison.epochs)


@dataclass(frozen=True)
class Checked:
    """A trial that was run again. `now` is its error, in %, infinite where it diverged; None where it failed, for `cause`.

    It is held to be the same number where `same`, else to lie in the interval from `low` to `high`.
    """

    sampled: Sampled
    now: float | None
    cause: str
    same: bool
    low: float
    high: float

    @property
    def before(self) -> float:
        """The committed error of this seed."""
        return _final(self.sampled.outcome)

    @property
    def agrees(self) -> bool | None:
        """Whether it comes out as committed; None where one committed seed has no spread to lie in."""
        if self.now is None:
            return False
        if self.same:
            return self.now == self.before
        return None if self.low == -math.inf else self.low <= self.now <= self.high


def sample(results: Iterable[Result], trials: int, choice: int) -> list[Sampled]:
    """Choose `trials` of the committed ones at random, or all where there are not so many; `choice` seeds the choice.

    Raises `ValueError` where there is none, or `trials` is less than 1.
    """
    check_count("the number of trials to check", trials)
    known = [each for result in results if isinstance(result, Reproduced) for each in _trials(result)]
    if not known:
        raise ValueError("there are no committed results of these parts to check")
    chosen = random.Random(choice).sample(known, min(trials, len(known)))
    return sorted(chosen, key=lambda each: (each.problem, each.comparison.epochs))


def _trials(result: Reproduced) -> Iterator[Sampled]:
    for run, comparison in zip(result.part.runs, result.comparisons, strict=True):
        errors = of_comparison(comparison)
        for outcome in comparison.outcomes:
            if outcome.has_result:
                finals = errors[outcome.trial.setting].last().values()
                yield Sampled(result.part.name, run.problem, comparison, outcome, tuple(finals))


def _final(outcome: Outcome) -> float:
    """The error on which a trial ended, to the digits that are committed."""
    return files.rounded(outcome.epochs[-1].test) if is_finished(outcome) else math.inf


def check(sampled: Sequence[Sampled], jobs: int | None = None, progress: Progress | None = None) -> Iterator[Checked]:
    """Run the trials again and yield each as it ends; see `Checked`.

    On the machine, and with the versions and the number of threads, of the committed run a trial must give the same number.
    Elsewhere sums are rounded otherwise, and it must lie in the interval of a further run of its setting, by Student's t,
    so wide that all the trials together raise a false alarm with a probability of 1 %.
    """
    place = Processes(jobs)
    level = 1 - ALARM / max(1, len(sampled))
    for (problem, epochs), group in groupby(sampled, key=lambda each: (each.problem, each.comparison.epochs)):
        trials = list(group)
        if progress:
            progress.begin(find_problem(problem)(), len(trials), epochs, 0, place.jobs)
        for each, ended, last in _run(problem, trials, place, progress):
            outcome = Outcome(each.outcome.trial, ended.status, (last,) if last else ())
            now = None if ended.status == "failed" else _final(outcome)
            yield Checked(each, now, ended.cause, _is_same(each, place), *_interval(each.finals, level))


def _run(
    problem: str, trials: Sequence[Sampled], place: Place, progress: Progress | None
) -> Iterator[tuple[Sampled, workers.Ended, Epoch | None]]:
    tasks = []
    for number, each in enumerate(trials):
        trial = each.outcome.trial
        values = dict(trial.setting.hyperparameters)
        tasks.append(workers.Task(number, trial.setting.rule, values, trial.seed, each.comparison.epochs))
    epochs: dict[int, list[Epoch]] = {}
    for event in place.run(problem, tasks):
        trial = trials[event.number].outcome.trial
        if isinstance(event, workers.Started):
            epochs[event.number] = []
            if progress:
                progress.started(trial)
        elif isinstance(event, workers.Measured):
            epochs[event.number].append(event.epoch)
            if progress:
                progress.measured(trial, event.epoch)
        else:
            course = tuple(epochs[event.number])
            if progress:
                progress.ended(Outcome(trial, event.status, course, event.cause))
            yield trials[event.number], event, course[-1] if course else None


def _is_same(sampled: Sampled, place: Place) -> bool:
    run = sampled.comparison.run
    here = place.facts()
    return run.versions == versions() and all(
        run.machine.get(name) == here[name] for name in ("processor", "processes")
    )


def _interval(finals: Sequence[float], level: float) -> tuple[float, float]:
    """Return where one further run may lie; without an upper end where seeds diverge, without any where there is one."""
    finite = [value for value in finals if math.isfinite(value)]
    if len(finals) > 1 and not finite:
        return math.inf, math.inf
    if len(finite) < 2:
        return -math.inf, math.inf
    low, high = confidence.further_run(finite, level)
    middle = fmean(finite)
    widened = min(low, middle * (1 - LEAST)), max(high, middle * (1 + LEAST))
    return widened if len(finite) == len(finals) else (widened[0], math.inf)
