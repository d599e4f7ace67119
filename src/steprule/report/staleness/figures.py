"""The metric against the number of replicas, a line for each rule."""

from __future__ import annotations

from typing import Any

from ...lab.staleness import Study
from ..axes import value_scale
from ..drawing import Figure, alt
from ..lines import line_chart
from . import words

__all__ = ["figures"]


def figures(study: Study) -> list[Figure]:
    """Return a figure for the settings of one replica, and one for those chosen at each number."""
    found = (_figure(study, which) for which in words.WHICH)
    return [figure for figure in found if figure is not None]


def _figure(study: Study, which: words.Which) -> Figure | None:
    digits = words.decimals(study)
    data = [_point(study, rule, number, which, digits) for rule in study.grids for number in study.staleness]
    drawn = [point for point in data if point["mean"] is not None]
    if not drawn:
        return None
    lines = words.lines(study, which)
    names = [line.rule for line in lines if any(point["rule"] == line.rule for point in drawn)]
    ticks = list(study.staleness)
    x = alt.X(
        "replicas:Q",
        scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False),
        axis=alt.Axis(title="simulated replicas (log scale)", values=ticks, format="d", grid=False, labelFlush=False),
    )
    unit = f" ({study.metric.unit})" if study.metric.unit else ""
    values = [point[end] for point in drawn for end in ("low", "high")]
    missing = [f"{point['rule']} at {point['replicas']}" for point in data if point["mean"] is None]
    gaps = f" Not drawn, since a seed diverged or failed: {', '.join(missing)}." if missing else ""
    spread = f"The band spans {study.seeds} seeds." if study.seeds > 1 else "One seed."
    return Figure(
        name=f"staleness-{which}",
        part=which,
        title=words.titled(study, which),
        caption=f"{words.explained(study, which)} {spread}{gaps}",
        description=f"{words.titled(study, which)}: "
        + "; ".join(f"{line.rule} {', '.join(line.cells)}" for line in lines)
        + ".",
        chart=line_chart(
            data,
            names,
            list(study.grids),
            x,
            value_scale(f"{study.metric.name}{unit}", values, study.metric.lower_is_better),
            alt.FieldOneOfPredicate(field="replicas", oneOf=ticks),
            {"rule": "rule", "replicas": "replicas", study.metric.name: "value"},
        ),
        least_width=300,
        rules=tuple(names) if len(names) > 1 else (),
    )


def _point(study: Study, rule: str, number: int, which: words.Which, digits: int) -> dict[str, Any]:
    setting = getattr(study.row(rule, number), which)
    spread = setting.test if setting is not None and setting.state == "finished" else None
    return {
        "rule": rule,
        "replicas": number,
        "mean": None if spread is None else spread.mean,
        "low": None if spread is None else spread.low,
        "high": None if spread is None else spread.high,
        "value": words.measured(setting, digits),
    }
