"""Results of the paper's parts, made by hand: each setting ends where the paper says, and each seed a little beside."""

from __future__ import annotations

import math
from collections.abc import Callable

from steprule.lab.grids import settings
from steprule.lab.results import Comparison, Epoch, Metric, Outcome, Run, Setting, Trial
from steprule.lab.zeiler2012 import Experiment, Reproduced, parts

__all__ = ["CURVES", "curve", "experiment", "papers", "reproduced"]

CURVES = {"sgd": (3.0, 1.9), "momentum": (2.6, 1.4), "adagrad": (2.0, 1.7), "adadelta": (2.1, 1.5)}
"""The mean error of the first ten epochs, and that of the last, of a Fig. 1 in which all of the paper's claims hold."""


def experiment(name: str) -> Experiment:
    part = parts()[name]
    assert isinstance(part, Experiment)
    return part


def papers(part: Experiment) -> Callable[[Setting, int, int], float]:
    """Return the course of a setting that ends on the paper's figure, and 1 % above it for each further seed."""

    def course(setting: Setting, seed: int, epoch: int) -> float:
        error = part.printed.error(setting, 1) or part.printed.error(setting, 2) or 5.0
        return round(error * (1 + 0.01 * seed), 4)

    return course


def curve(setting: Setting, seed: int, epoch: int) -> float:
    """Fall in a line from twice the mean of the first ten epochs less the end's, and then to the end."""
    early, end = CURVES[setting.rule]
    return round((early if epoch <= 10 else early + (end - early) * (epoch - 10) / 40) + 0.01 * seed, 4)


def reproduced(
    name: str, course: Callable[[Setting, int, int], float] | None = None, *, seeds: int = 3, there: int | None = None
) -> Reproduced:
    """Return a part with the error that `course` has for setting, seed and epoch; a NaN is a trial that diverged.

    Where given, `there` is how many of the seeds are finished.
    """
    part = experiment(name)
    course = course or (curve if name == "fig1" else papers(part))
    comparisons = []
    for run in part.runs:
        outcomes = []
        for seed in range(seeds):
            for setting in settings(run.grids):
                if there is not None and seed >= there:
                    outcomes.append(Outcome(Trial(setting, seed), "unfinished", ()))
                    continue
                tests = [course(setting, seed, epoch) for epoch in range(1, run.epochs + 1)]
                status = "diverged" if math.isnan(tests[-1]) else "finished"
                loss = math.nan if status == "diverged" else 0.1
                epochs = tuple(Epoch(number, loss, test, None, 2.5) for number, test in enumerate(tests, 1))
                outcomes.append(Outcome(Trial(setting, seed), status, epochs))
        told = Run(f"steprule reproduce zeiler2012 {name} --seeds {seeds}", "now", 60.0, {"processor": "one"}, {})
        metric = Metric("test error", "%")
        comparisons.append(Comparison("mnist", "MNIST", metric, run.epochs, seeds, run.grids, tuple(outcomes), told))
    return Reproduced(part, tuple(comparisons))
