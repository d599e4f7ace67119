"""The reproduction's figures: the final losses and the seconds per epoch, beside the book's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...lab.d2l.summary import Line, Summary
from ..axes import value_scale
from ..drawing import Figure, Key, alt, layered, rows
from ..theme import SHAPES
from . import words

__all__ = ["figures"]

KEYS = (Key("rule-0", "here (dot), and the range of the seeds"), Key("rule-1", "the book (diamond)"))


def figures(summary: Summary) -> tuple[Figure, ...]:
    """Return every figure that there are trainings for."""
    return (_losses(summary), _seconds(summary)) if summary.lines else ()


def _losses(summary: Summary) -> Figure:
    data = [
        {
            "name": words.name(line),
            "here": line.loss.mean,
            "low": line.loss.low,
            "high": line.loss.high,
            "book": line.plan.loss,
            "text": f"{words.loss(line)[0]}, {words.loss(line)[1]}",
        }
        for line in summary.lines
    ]
    ends = [value for row in data for value in (row["low"], row["high"], row["book"]) if isinstance(value, float)]
    return _beside(data, "final-loss", "Final loss", "loss", ends, words.LOSSES, summary)


def _seconds(summary: Summary) -> Figure:
    data = [
        {
            "name": words.name(line),
            "here": line.seconds,
            "low": line.seconds,
            "high": line.seconds,
            "book": line.plan.seconds,
            "text": f"{words.seconds(line.seconds)} s, of which loading {words.seconds(line.loading)} s",
        }
        for line in summary.lines
    ]
    ends = [value for row in data for value in (row["here"], row["book"]) if isinstance(value, float)]
    return _beside(data, "seconds", "Seconds per epoch", "seconds", ends, words.CLOCK, summary)


def _beside(
    data: Sequence[Mapping[str, Any]],
    name: str,
    title: str,
    axis: str,
    ends: Sequence[float],
    caption: str,
    summary: Summary,
) -> Figure:
    """A row for each line: our number and its range, and the book's."""
    scale = value_scale(axis, ends, may_be_log=True)
    order = [row["name"] for row in data]
    base = alt.Chart(rows(data)).encode(
        y=alt.Y(
            "name:N",
            sort=order,
            axis=alt.Axis(title=None, domain=False, ticks=False, grid=True, labelLimit=220, labelFontSize=11),
        ),
        tooltip=[
            alt.Tooltip("name:N", title="engine"),
            alt.Tooltip("text:N", title="here"),
            alt.Tooltip("book:Q", title="the book"),
        ],
    )
    span = base.mark_rule(style="here").encode(
        x=alt.X("low:Q", scale=scale.scale, axis=scale.axis_below()), x2="high:Q"
    )
    here = base.mark_point(style="here", filled=True, size=80, opacity=1).encode(x="here:Q")
    book = (
        base.transform_filter("datum.book != null")
        .mark_point(style="book", filled=False, size=90, strokeWidth=2, opacity=1, shape=SHAPES[3])
        .encode(x="book:Q")
    )
    return Figure(
        name=name,
        part="book",
        title=title,
        caption=caption,
        description=f"{title}: " + "; ".join(_told(line, axis) for line in summary.lines) + ".",
        chart=layered(span, here, book, width=560, height=26 * len(data)),
        least_width=300,
        keys=KEYS,
    )


def _told(line: Line, axis: str) -> str:
    if axis == "loss":
        return f"{words.name(line)} {words.loss(line)[0]}, the book {words.book_loss(line)}"
    return f"{words.name(line)} {words.seconds(line.seconds)}, the book {words.seconds(line.plan.seconds)}"
