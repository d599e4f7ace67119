"""What a reproduction says: each plan beside the book, how far the engines are apart, and their order by speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..spread import Spread
from .protocol import Plan, Trace, Way
from .results import Reproduction

__all__ = ["Line", "Ranking", "Summary", "summarise"]

RANKED: tuple[Way, ...] = ("scratch", "library")
"""The ways of which the book reports the seconds."""


@dataclass(frozen=True)
class Line:
    """One plan over its seeds: the final loss, and the median of the seconds per epoch with those of loading alone."""

    plan: Plan
    loss: Spread
    seconds: float
    loading: float

    @property
    def holds_the_book(self) -> bool | None:
        """Whether the book's loss is in our range of the seeds, to its three digits; None where it has none."""
        if self.plan.loss is None:
            return None
        return round(self.loss.low, 3) <= self.plan.loss <= round(self.loss.high, 3)


@dataclass(frozen=True)
class Ranking:
    """The engines that the book and we both timed, from the fastest, in each one's order."""

    way: Way
    book: tuple[str, ...]
    here: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """`apart` is the largest difference of final losses between engines that ran the same plan with the same seed."""

    lines: tuple[Line, ...]
    apart: float | None
    rankings: tuple[Ranking, ...]


def summarise(reproduction: Reproduction) -> Summary:
    """Summarise the plans that have any training."""
    lines = tuple(_line(plan, traces) for plan in reproduction.plans if (traces := reproduction.of(plan)))
    rankings = tuple(ranking for way in RANKED if (ranking := _ranking(lines, way)))
    return Summary(lines, _apart(reproduction), rankings)


def _line(plan: Plan, traces: Sequence[Trace]) -> Line:
    return Line(
        plan,
        Spread.of([trace.final for trace in traces]),
        median(trace.seconds for trace in traces),
        median(trace.loading for trace in traces),
    )


def _ranking(lines: Sequence[Line], way: Way) -> Ranking | None:
    timed = [(line.plan.engine, line.plan.seconds, line.seconds) for line in lines if line.plan.way == way]
    both = [(engine, book, here) for engine, book, here in timed if book is not None]
    if len(both) < 2:
        return None
    book = tuple(engine for engine, _, _ in sorted(both, key=lambda each: each[1]))
    return Ranking(way, book, tuple(engine for engine, _, _ in sorted(both, key=lambda each: each[2])))


def _apart(reproduction: Reproduction) -> float | None:
    """The loss is the same function of plan and seed in every engine, but for rounding."""
    finals: dict[tuple[object, ...], list[float]] = {}
    for training in reproduction.trainings:
        plan = training.plan
        same = (*sorted(plan.hyperparameters.items()), plan.epochs, plan.squared_error, plan.bias, training.seed)
        finals.setdefault(same, []).append(training.trace.final)
    differences = [max(values) - min(values) for values in finals.values() if len(values) > 1]
    return max(differences, default=None)
