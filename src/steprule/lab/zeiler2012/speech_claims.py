"""What the paper says of its Fig. 3 and 4 (4.4), and whether the trainings bear it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..spread import Spread
from .speech import OURS, Course, SpeechFigure

__all__ = ["Claim", "claims"]

EARLY: Final = 0.25
"""The share of the training that counts as its beginning."""
SAME: Final = 1.0
"""Points of frame accuracy within which two are the same."""
REACHED: Final = 0.95
"""The share of the others' last frame accuracy at which they count as caught up with."""


@dataclass(frozen=True)
class Claim:
    """A claim, by which criterion it is decided, what was measured, and in which seeds it holds."""

    text: str
    criterion: str
    says: str
    holds: tuple[bool, ...]

    @property
    def verdict(self) -> str:
        held = sum(self.holds)
        if held in (0, len(self.holds)):
            return "holds" if held else "does not hold"
        return f"holds in {held} of {len(self.holds)} seeds"


def claims(found: SpeechFigure) -> tuple[Claim, ...]:
    """Return what 4.4 says of the figure, each beside what was measured on the test speakers."""
    return {"fig3": _of_fig3, "fig4": _of_fig4}[found.plan.name](found)


def _of_fig3(found: SpeechFigure) -> tuple[Claim, ...]:
    ours, other = found.courses[OURS], found.courses["adagrad"]
    points = -(-found.plan.updates // found.plan.every)
    early = [[_mean(course, max(1, round(EARLY * points))) for course in courses] for courses in (ours, other)]
    later = range(min(1, points - 1), points)
    gaps = [min(_at(a, n) - _at(b, n) for n in later) for a, b in zip(ours, other, strict=True)]
    return (
        Claim(
            "ADADELTA initially converges faster than ADAGRAD.",
            f"Its mean frame accuracy over the first {EARLY:.0%} of the updates is higher.",
            f"ADADELTA {_told(early[0])}, ADAGRAD {_told(early[1])}.",
            tuple(a > b for a, b in zip(*early, strict=True)),
        ),
        Claim(
            "It outperforms ADAGRAD throughout training in frame accuracy on the test set.",
            "Its frame accuracy is higher at every measurement after the first.",
            f"The least difference is {_told(gaps)} points; at the end ADADELTA has {_told(list(map(_last, ours)))}, "
            f"ADAGRAD {_told(list(map(_last, other)))}.",
            tuple(gap > 0 for gap in gaps),
        ),
    )


def _of_fig4(found: SpeechFigure) -> tuple[Claim, ...]:
    ours = found.courses[OURS]
    others = {rule: courses for rule, courses in found.courses.items() if rule != OURS}
    best = [max(_last(courses[seed]) for courses in others.values()) for seed in range(found.plan.seeds)]
    reached = [_for_good(course, REACHED * goal) for course, goal in zip(ours, best, strict=True)]
    half = found.plan.updates / 2
    ends = ", ".join(f"{rule} {_told(list(map(_last, courses)))}" for rule, courses in found.courses.items())
    return (
        Claim(
            "With 200 replicas ADADELTA converges to the same frame accuracy as the other methods.",
            f"At the end it is at most {SAME:g} point below the best of them.",
            f"At the end: {ends}.",
            tuple(_last(course) >= goal - SAME for course, goal in zip(ours, best, strict=True)),
        ),
        Claim(
            "It does so quickly.",
            f"In the first half of the updates it reaches {REACHED:.0%} of the best other's last frame accuracy for good.",
            "Reached: " + ", ".join("never" if each is None else f"after {each:,} updates" for each in reached) + ".",
            tuple(each is not None and each <= half for each in reached),
        ),
    )


def _at(course: Course, number: int) -> float:
    return course.points[number].test if number < len(course.points) else 0.0


def _last(course: Course) -> float:
    return 0.0 if course.diverged or not course.points else course.points[-1].test


def _mean(course: Course, points: int) -> float:
    """Over the first so many measurements; those that a course which broke off lacks count as 0."""
    return sum(_at(course, number) for number in range(points)) / points


def _for_good(course: Course, goal: float) -> int | None:
    """The updates after which it was never below the goal again."""
    below = max((number for number, point in enumerate(course.points) if point.test < goal), default=-1)
    later = course.points[below + 1 :]
    return None if course.diverged or not later else later[0].updates


def _told(values: Sequence[float]) -> str:
    return f"{Spread.of(values):.1f}"
