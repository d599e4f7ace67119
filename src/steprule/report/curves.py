"""Test metric and training loss per epoch, each rule at its best setting: the paper's Fig. 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..lab.results import Comparison, Epoch, Setting
from ..lab.spread import Spread
from ..lab.summary import RuleSummary, Summary, is_finished
from . import words
from .axes import NAMES, ValueScale, epoch_axis, epoch_ticks, value_scale
from .drawing import Figure, alt, drawable, layered, rows
from .lines import encodings, line_chart

__all__ = ["loss_curves", "metric_curves"]


@dataclass(frozen=True)
class _Quantity:
    field: Literal["test", "loss"]
    name: str
    unit: str
    may_be_log: bool


@dataclass(frozen=True)
class _Point:
    """One epoch of one setting over its finished seeds."""

    epoch: int
    test: Spread
    loss: Spread


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
    drawn = [(rule, _curve(comparison, rule.best.setting)) for rule in summary.rules if rule.best is not None]
    if not drawn:
        return None
    data = [_row(rule, point, quantity, summary) for rule, points in drawn for point in points]
    names = [rule.rule for rule, _ in drawn]
    chart = _lines if max(row["epoch"] for row in data) > 1 else _dots
    return Figure(
        name=name,
        part="curves",
        title=title if chart is _lines else title.replace(" by epoch", " after one epoch"),
        caption=_caption(summary, names, "band" if chart is _lines else "line"),
        description=_description(drawn, quantity, summary),
        chart=chart(data, names, list(comparison.grids), quantity),
        least_width=300,
        rules=tuple(names) if chart is _lines and len(names) > 1 else (),
    )


def _curve(comparison: Comparison, setting: Setting) -> tuple[_Point, ...]:
    trials = [o for o in comparison.outcomes if o.trial.setting == setting and is_finished(o)]
    epochs: dict[int, list[Epoch]] = {}
    for epoch in (epoch for trial in trials for epoch in trial.epochs):
        epochs.setdefault(epoch.number, []).append(epoch)
    return tuple(
        _Point(number, Spread.of([epoch.test for epoch in own]), Spread.of([epoch.loss for epoch in own]))
        for number, own in sorted(epochs.items())
    )


def _row(rule: RuleSummary, point: _Point, quantity: _Quantity, summary: Summary) -> dict[str, Any]:
    spread: Spread = getattr(point, quantity.field)
    text = _text(spread, quantity, summary)
    if spread.seeds > 1:
        text += f", seeds from {_number(spread.low, quantity, summary)} to {_number(spread.high, quantity, summary)}"
    return {
        "rule": rule.rule,
        "epoch": point.epoch,
        "mean": drawable(spread.mean),
        "low": drawable(spread.low),
        "high": drawable(spread.high),
        "setting": words.best_setting(rule),
        "value": text,
    }


def _lines(data: list[dict[str, Any]], names: list[str], order: list[str], quantity: _Quantity) -> alt.LayerChart:
    ticks = epoch_ticks(max(row["epoch"] for row in data))
    x = alt.X("epoch:Q", scale=alt.Scale(domain=[1, ticks[-1]], nice=False), axis=epoch_axis(ticks))
    marked = alt.FieldOneOfPredicate(field="epoch", oneOf=ticks)
    hover = {"rule": "rule", "setting": "setting", "epoch": "epoch", quantity.name: "value"}
    return line_chart(data, names, order, x, _value_scale(data, quantity), marked, hover)


def _dots(data: list[dict[str, Any]], names: list[str], order: list[str], quantity: _Quantity) -> alt.LayerChart:
    """With a single epoch there is nothing to join: a dot for each rule, and a line over the range of its seeds."""
    color, _, shape = encodings(names, order)
    x = _value_scale(data, quantity)
    base = alt.Chart(rows(data)).encode(
        y=alt.Y(
            "rule:N",
            sort=names,
            axis=alt.Axis(title=None, domain=False, ticks=False, grid=True, labelLimit=200, labelExpr=NAMES),
        ),
        color=color.legend(None),
        tooltip=["rule:N", "setting:N", alt.Tooltip("value:N", title=quantity.name)],
    )
    spread = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=x.scale, axis=x.axis_below()), x2="high:Q")
    dot = base.mark_point(filled=True, size=110, opacity=1).encode(x="mean:Q", shape=shape.legend(None))
    return layered(spread, dot, width=560, height=34 * len(names))


def _value_scale(data: list[dict[str, Any]], quantity: _Quantity) -> ValueScale:
    values = [row[end] for row in data for end in ("low", "high") if row[end] is not None]
    return value_scale(", ".join(filter(None, [quantity.name, quantity.unit])), values, quantity.may_be_log)


def _caption(summary: Summary, drawn: list[str], shape: str) -> str:
    spread = f" The {shape} spans the seeds." if summary.seeds > 1 else " One seed."
    text = f"Each rule at its best setting, {words.choice(summary)}.{spread}"
    absent = [rule.rule for rule in summary.rules if rule.rule not in drawn]
    return f"{text} Not drawn, for want of a finished setting: {', '.join(absent)}." if absent else text


def _description(drawn: list[tuple[RuleSummary, tuple[_Point, ...]]], quantity: _Quantity, summary: Summary) -> str:
    ends = [f"{rule.rule} {_text(getattr(points[-1], quantity.field), quantity, summary)}" for rule, points in drawn]
    return f"{words.capital(quantity.name)} after the last epoch, each rule at its best setting: {'; '.join(ends)}."


def _number(value: float, quantity: _Quantity, summary: Summary) -> str:
    return words.number(value, words.decimals(summary)) if quantity.field == "test" else words.significant(value)


def _text(spread: Spread, quantity: _Quantity, summary: Summary) -> str:
    return words.with_unit(_number(spread.mean, quantity, summary), quantity.unit)
