"""The test errors of results by setting, seed and epoch, as the claims of the paper ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..results import Comparison, Outcome, Setting
from ..summary import is_finished

__all__ = ["Errors", "best", "of_comparison"]


@dataclass(frozen=True)
class Errors:
    """The course of the test error, in %, of one setting: for each seed the error after each epoch, from the first.

    A seed that diverged has no course, and its errors are infinite.
    """

    setting: Setting
    courses: dict[int, tuple[float, ...]]

    def last(self) -> dict[int, float]:
        """Return each seed's error after its last epoch."""
        return self._each(lambda course: course[-1])

    def after(self, epoch: int) -> dict[int, float]:
        """Return each seed's error after this epoch, which counts from 1. Raises `IndexError` where it was not run."""
        return self._each(lambda course: course[epoch - 1])

    def over(self, epochs: int) -> dict[int, float]:
        """Return each seed's mean error over the first epochs."""
        return self._each(lambda course: fmean(course[:epochs]))

    @property
    def typical(self) -> float:
        """The mean of the last errors over the seeds that finished; infinite where more than half diverged.

        A table of the paper's is of one run, which a rare divergence would not show in.
        """
        finished = [course[-1] for course in self.courses.values() if course]
        return fmean(finished) if 2 * len(finished) >= len(self.courses) else math.inf

    def _each(self, take: Callable[[tuple[float, ...]], float]) -> dict[int, float]:
        return {seed: take(course) if course else math.inf for seed, course in self.courses.items()}


def of_comparison(comparison: Comparison) -> dict[Setting, Errors]:
    """Return the errors of each setting with a seed that has finished or diverged, in the order of the grids."""
    found: dict[Setting, dict[int, tuple[float, ...]]] = {}
    for outcome in comparison.outcomes:
        if outcome.has_result:
            found.setdefault(outcome.trial.setting, {})[outcome.trial.seed] = _course(outcome)
    return {setting: Errors(setting, courses) for setting, courses in found.items()}


def _course(outcome: Outcome) -> tuple[float, ...]:
    return tuple(epoch.test for epoch in outcome.epochs) if is_finished(outcome) else ()


def best(settings: Sequence[Errors]) -> Errors:
    """Return the setting with the lowest typical error."""
    return min(settings, key=lambda each: each.typical)
