"""What an exercise has measured, as plain data: charts of series of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...spread import Spread

__all__ = ["Chart", "Exercise", "Point", "Series", "points"]


@dataclass(frozen=True)
class Point:
    """The mean of some seeds at `x`, and their range."""

    x: float
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, x: float, values: Sequence[float]) -> Point:
        spread = Spread.of(values)
        return cls(x, spread.mean, spread.low, spread.high)


@dataclass(frozen=True)
class Series:
    """One line of a chart. Its name decides its colour: lines of one name look alike in all charts."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """Lines over one pair of axes; `name` is that of its file."""

    name: str
    title: str
    caption: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False


@dataclass(frozen=True)
class Exercise:
    """The book's question, what was found, one sentence each, and the charts that show it."""

    name: str
    question: str
    findings: tuple[str, ...]
    charts: tuple[Chart, ...]


def points(x: Iterable[float], values: Iterable[Sequence[float]]) -> tuple[Point, ...]:
    """Return a point for each place on the axis, with the values of its seeds."""
    return tuple(Point.of(place, own) for place, own in zip(x, values, strict=True))
