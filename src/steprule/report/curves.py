"""Test metric and training loss per epoch, each rule at its best setting: the paper's Fig. 1."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

try:
    import altair as alt
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's figures need Altair: pip install 'steprule[lab]'") from missing

from ..lab.results import Comparison
from ..lab.summary import CurvePoint, RuleSummary, Spread, Summary, curve
from . import words
from .drawing import Figure, rows
from .theme import looks

__all__ = ["loss_curves", "metric_curves"]

LOG_FROM = 5.0
"""The ratio of the largest to the smallest value from which a logarithmic scale separates the curves better."""


@dataclass(frozen=True)
class _Quantity:
    field: Literal["test", "loss"]
    name: str
    unit: str
    may_be_log: bool


def metric_curves(comparison: Comparison, summary: Summary) -> Figure | None:
    """Test metric after each epoch, mean and range over the seeds; None where no rule has a best setting."""
    metric = summary.metric
    quantity = _Quantity("test", metric.name, metric.unit, metric.lower_is_better)
    return _figure(comparison, summary, quantity, "test-metric", f"{words.capital(metric.name)} by epoch")


def loss_curves(comparison: Comparison, summary: Summary) -> Figure | None:
    """Mean training loss of each epoch, mean and range over the seeds; None where no rule has a best setting."""
    quantity = _Quantity("loss", "training loss", "", may_be_log=True)
    return _figure(comparison, summary, quantity, "training-loss", "Training loss by epoch")


def _figure(comparison: Comparison, summary: Summary, quantity: _Quantity, name: str, title: str) -> Figure | None:
    drawn = [(rule, curve(comparison, rule.best.setting)) for rule in summary.rules if rule.best is not None]
    if not drawn:
        return None
    data = [_row(rule, point, quantity, summary) for rule, points in drawn for point in points]
    names = [rule.rule for rule, _ in drawn]
    chart = _lines if max(row["epoch"] for row in data) > 1 else _dots
    return Figure(
        name=name,
        part="curves",
        title=title if chart is _lines else title.replace(" by epoch", " after one epoch"),
        caption=_caption(summary, names),
        alt=_description(drawn, quantity, summary),
        chart=chart(data, names, list(comparison.grids), quantity),
        least_width=300,
        rules=tuple(names) if chart is _lines else (),
    )


def _row(rule: RuleSummary, point: CurvePoint, quantity: _Quantity, summary: Summary) -> dict[str, Any]:
    spread: Spread = getattr(point, quantity.field)
    assert rule.best is not None
    text = _text(spread, quantity, summary)
    if spread.seeds > 1:
        text += f", seeds from {_number(spread.low, quantity, summary)} to {_number(spread.high, quantity, summary)}"
    return {
        "rule": rule.rule,
        "epoch": point.epoch,
        "mean": _rounded(spread.mean),
        "low": _rounded(spread.low),
        "high": _rounded(spread.high),
        "setting": words.hyperparameters(rule.best.setting.hyperparameters),
        "value": text,
    }


def _lines(data: list[dict[str, Any]], names: list[str], order: list[str], quantity: _Quantity) -> alt.LayerChart:
    isolate = alt.selection_point(name="isolate", fields=["rule"], bind="legend")
    hover = alt.selection_point(name="hover", on="pointermove", nearest=True, empty=False, clear="pointerout")
    ticks = _epochs([row["epoch"] for row in data])
    color, dash, shape = _encodings(names, order)
    base = alt.Chart(rows(data)).encode(
        x=alt.X("epoch:Q", scale=alt.Scale(domain=[1, ticks[-1]], nice=False), axis=_epoch_axis(ticks)), color=color
    )
    y = _value_axis(data, quantity)
    band = base.mark_area().encode(
        y=alt.Y("low:Q").scale(y.scale).axis(y.axis),
        y2="high:Q",
        opacity=alt.when(isolate).then(alt.value(0.13)).otherwise(alt.value(0)),
    )
    faded = alt.when(isolate).then(alt.value(1.0)).otherwise(alt.value(0.12))
    line = base.mark_line(strokeWidth=2, strokeJoin="round", strokeCap="butt").encode(
        y="mean:Q", strokeDash=dash, opacity=faded
    )
    marks = base.transform_filter(alt.FieldOneOfPredicate(field="epoch", oneOf=ticks)).mark_point(
        filled=True, size=60, aria=False
    )
    nearest = base.transform_filter(isolate).mark_point(filled=True, size=110, aria=False).encode(
        y="mean:Q",
        shape=shape,
        opacity=alt.when(hover).then(alt.value(1.0)).otherwise(alt.value(0)),
        tooltip=alt.TooltipValue(alt.expr(_hover_text(quantity))),
    )
    symbols = marks.encode(y="mean:Q", shape=shape, opacity=faded)
    layers = alt.layer(band, line.add_params(isolate), symbols, nearest.add_params(hover))
    return layers.properties(width=640, height=360)


def _dots(data: list[dict[str, Any]], names: list[str], order: list[str], quantity: _Quantity) -> alt.LayerChart:
    """With a single epoch there is nothing to join: a dot for each rule, and a line over the range of its seeds."""
    color, _, shape = _encodings(names, order)
    scale = _value_axis(data, quantity)
    axis = alt.Axis(title=scale.title, values=scale.ticks, grid=True, domain=False)
    base = alt.Chart(rows(data)).encode(
        y=alt.Y("rule:N", sort=names, axis=alt.Axis(title=None, domain=False, ticks=False, grid=True, labelLimit=180)),
        color=color.legend(None),
        tooltip=["rule:N", "setting:N", alt.Tooltip("value:N", title=quantity.name)],
    )
    spread = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q").scale(scale.scale).axis(axis), x2="high:Q")
    dot = base.mark_point(filled=True, size=110, opacity=1).encode(x="mean:Q", shape=shape.legend(None))
    return alt.layer(spread, dot).properties(width=560, height=34 * len(names))


def _hover_text(quantity: _Quantity) -> str:
    """Vega-Lite reads a text field of the nearest point from the wrong place, so the tooltip is written out."""
    fields = {"rule": "rule", "setting": "setting", "epoch": "epoch", quantity.name: "value"}
    pairs = (f"{json.dumps(title)}: (datum.datum || datum).{field}" for title, field in fields.items())
    return "{" + ", ".join(pairs) + "}"


def _encodings(names: list[str], order: list[str]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """A rule keeps its colour, dash and symbol whatever its rank; the legend stands in the order of the ranks."""
    known = looks(order, names)
    every = list(known)
    legend = alt.Legend(
        title=None, values=names, symbolSize=90, symbolStrokeWidth=2, symbolOpacity=1, rowPadding=5, labelLimit=200
    )
    return (
        alt.Color("rule:N", scale=alt.Scale(domain=every), legend=legend),
        alt.StrokeDash("rule:N", scale=alt.Scale(domain=every, range=[look["dash"] for look in known.values()]), legend=None),
        alt.Shape("rule:N", scale=alt.Scale(domain=every, range=[look["shape"] for look in known.values()]), legend=legend),
    )


@dataclass(frozen=True)
class _ValueAxis:
    title: str
    scale: alt.Scale
    ticks: list[float] | alt.UndefinedType
    axis: alt.Axis


def _value_axis(data: list[dict[str, Any]], quantity: _Quantity) -> _ValueAxis:
    """Logarithmic where the values are positive and spread over more than `LOG_FROM`, else linear, without a zero."""
    low, high = min(row["low"] for row in data), max(row["high"] for row in data)
    is_log = quantity.may_be_log and low > 0 and high / low >= LOG_FROM
    title = ", ".join(filter(None, [quantity.name, quantity.unit])) + (" (log scale)" if is_log else "")
    ticks: list[float] | alt.UndefinedType = _log_ticks(low, high) if is_log else alt.Undefined
    scale = alt.Scale(type="log", domain=[low * 0.94, high * 1.06], nice=False) if is_log else alt.Scale(zero=False)
    axis = alt.Axis(
        title=title,
        values=ticks,
        titleAngle=0,
        titleAlign="left",
        titleAnchor="end",
        titleX=0,
        titleY=-14,
        domain=False,
        ticks=False,
        tickCount=6,
    )
    return _ValueAxis(title, scale, ticks, axis)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten with as many steps between them as leave at most eight lines."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 8:
            return inside
    return [tick for tick in ticks if low <= tick <= high][:: math.ceil(len(inside) / 8)]


def _epochs(numbers: Sequence[int]) -> list[int]:
    """The epochs that get a tick and a symbol: the first, the last, and round numbers between."""
    last = max(numbers)
    step = next(s for n in range(9) for s in (10**n, 2 * 10**n, 5 * 10**n) if last / s <= 6)
    between = [n for n in range(step, last, step) if last - n >= step / 2]
    return sorted({1, *between, last})


def _epoch_axis(ticks: list[int]) -> alt.Axis:
    return alt.Axis(title="epoch", values=ticks, format="d", grid=False, labelOverlap="greedy", labelFlush=False)


def _caption(summary: Summary, drawn: list[str]) -> str:
    spread = " The band spans the seeds." if summary.seeds > 1 else " One seed."
    text = f"Each rule at its best setting, {words.choice(summary)}.{spread}"
    absent = [rule.rule for rule in summary.rules if rule.rule not in drawn]
    return f"{text} Not drawn, for want of a finished setting: {', '.join(absent)}." if absent else text


def _description(
    drawn: list[tuple[RuleSummary, tuple[CurvePoint, ...]]], quantity: _Quantity, summary: Summary
) -> str:
    ends = [f"{rule.rule} {_text(getattr(points[-1], quantity.field), quantity, summary)}" for rule, points in drawn]
    return f"{words.capital(quantity.name)} after the last epoch, each rule at its best setting: {'; '.join(ends)}."


def _number(value: float, quantity: _Quantity, summary: Summary) -> str:
    return words.number(value, words.decimals(summary)) if quantity.field == "test" else f"{value:.3g}"


def _text(spread: Spread, quantity: _Quantity, summary: Summary) -> str:
    return words.with_unit(_number(spread.mean, quantity, summary), quantity.unit)


def _rounded(value: float) -> float:
    """Six digits draw the same line, in a third less of the page."""
    return float(f"{value:.6g}")
