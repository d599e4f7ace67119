"""The exercises' charts as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...lab.d2l.exercises import Chart, Exercise
from .. import words
from ..axes import NUMBERS, log_ticks, value_scale
from ..drawing import Figure, alt, drawable
from ..lines import line_chart

__all__ = ["exercise_figures", "names"]


def exercise_figures(exercises: Sequence[Exercise]) -> tuple[Figure, ...]:
    """Return a figure for each chart, in the part that has the exercise's name."""
    order = names(exercises)
    return tuple(_figure(exercise.name, chart, order) for exercise in exercises for chart in exercise.charts)


def names(exercises: Sequence[Exercise]) -> list[str]:
    """Return the names of all series, each once: their places decide the colours."""
    series = (series for exercise in exercises for chart in exercise.charts for series in chart.series)
    return list(dict.fromkeys(each.name for each in series))


def _figure(part: str, chart: Chart, order: Sequence[str]) -> Figure:
    drawn = [series.name for series in chart.series if series.points]
    places = sorted({point.x for series in chart.series for point in series.points})
    data: list[dict[str, Any]] = [
        {
            "rule": series.name,
            "x": point.x,
            "mean": drawable(point.mean),
            "low": drawable(point.low),
            "high": drawable(point.high),
            "place": words.hyperparameter(point.x),
            "value": f"{words.significant(point.mean)} ({words.significant(point.low)} to {words.significant(point.high)})",
        }
        for series in chart.series
        for point in series.points
    ]
    ends = [row[end] for row in data for end in ("low", "high") if row[end] is not None]
    y = value_scale(chart.y, ends, may_be_log=True)
    ticks = {"values": list(log_ticks(places[0], places[-1]))} if chart.log_x else {"tickCount": 6}
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log" if chart.log_x else "linear", domain=[places[0], places[-1]], nice=False),
        axis=alt.Axis(
            title=chart.x,
            grid=False,
            labelExpr=NUMBERS,
            labelOverlap="greedy",
            labelFlush=False,
            titlePadding=8,
            **ticks,
        ),
    )
    marked = alt.FieldOneOfPredicate(field="x", oneOf=places if len(places) <= 17 else places[::6])
    return Figure(
        name=chart.name,
        part=part,
        title=chart.title,
        caption=chart.caption,
        description=f"{chart.title}: {chart.y} by {chart.x}, at the last point "
        + "; ".join(f"{each.name} {words.significant(each.points[-1].mean)}" for each in chart.series if each.points)
        + ".",
        chart=line_chart(data, drawn, order, x, y, marked, {"line": "rule", chart.x: "place", chart.y: "value"}),
        least_width=300,
        rules=tuple(drawn) if len(drawn) > 1 else (),
    )
