"""A comparison's figures: one Altair definition each, for the page, for PNG and SVG, and for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lab.results import Comparison, Setting
from ..lab.summary import Summary, summarise
from . import words
from .axes import NAMES
from .curves import loss_curves, metric_curves
from .drawing import Figure, Key, alt, layered, rows
from .heatmaps import heat_maps

__all__ = ["Figure", "Key", "figures", "heat_maps", "loss_curves", "metric_curves", "near_best_bars"]


def figures(comparison: Comparison, published: Mapping[Setting, float] | None = None) -> tuple[Figure, ...]:
    """Every figure that the comparison has data for: curves, the share near the best, heat maps.

    What is `published` of a setting stands in its cell of a heat map.

    Raises:
        ValueError: the comparison contradicts itself, see `steprule.lab.summary.summarise`.
    """
    summary = summarise(comparison)
    found = [metric_curves(comparison, summary), loss_curves(comparison, summary), near_best_bars(summary)]
    return (*(figure for figure in found if figure is not None), *heat_maps(summary, published or {}))


def near_best_bars(summary: Summary) -> Figure | None:
    """A bar per rule: the share of its settings near the best of any rule, over the share near its own best.

    None where no rule has a best setting, or where no rule had two settings to tell apart.
    """
    tried = [rule for rule in summary.rules if rule.ended]
    if summary.winner is None or all(rule.ended < 2 for rule in tried):
        return None
    tried.sort(key=lambda rule: (-rule.near_best / rule.ended, -rule.near_own_best / rule.ended))
    data: list[dict[str, Any]] = [
        {
            "rule": rule.rule,
            "any": rule.near_best / rule.ended,
            "own": rule.near_own_best / rule.ended,
            "text": f"{rule.near_best} of {rule.ended}",
            "any_text": words.share(rule.near_best, rule.ended),
            "own_text": words.share(rule.near_own_best, rule.ended),
        }
        for rule in tried
    ]
    return Figure(
        name="near-best",
        part="tuning",
        title="How much of the grid is near the best",
        caption=f"Strong bar: share of the rule's settings that are {words.nearness(summary)}. Pale bar: share as near "
        f"to the rule's own best. Each rule's setting was {words.choice(summary)}.",
        description="Share of settings near the best of any rule: "
        + "; ".join(f"{row['rule']} {row['any_text']}" for row in data)
        + ".",
        chart=_bars(data),
        keys=(Key("heat-5", "near the best of any rule"), Key("heat-2", "near its own best")),
        least_width=300,
    )


def _bars(data: list[dict[str, Any]]) -> alt.LayerChart:
    order = [row["rule"] for row in data]
    scale = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(
        labelExpr="round(100 * datum.value) + '\u00a0%'", values=[0, 0.5, 1], title=None, domain=False, ticks=False
    )
    base = alt.Chart(rows(data)).encode(
        y=alt.Y(
            "rule:N", sort=order, axis=alt.Axis(title=None, domain=False, ticks=False, labelLimit=200, labelExpr=NAMES)
        ),
        tooltip=[
            "rule:N",
            alt.Tooltip("any_text:N", title="near the best of any rule"),
            alt.Tooltip("own_text:N", title="near its own best"),
        ],
    )
    own = base.mark_bar(style="bar-own", height=18, cornerRadiusEnd=2).encode(x=alt.X("own:Q", scale=scale, axis=axis))
    best = base.mark_bar(style="bar-any", height=8, cornerRadiusEnd=2).encode(x="any:Q")
    text = base.mark_text(style="bar-text", align="left", dx=10, fontSize=12).encode(x=alt.datum(1), text="text:N")
    return layered(own, best, text, height=28 * len(data), width=560)
