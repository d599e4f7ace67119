"""What every figure has: a name, words, a chart, and the widths between which it reads well."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

try:  # here alone: whatever draws takes Altair from this module
    import altair as alt
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's figures need Altair: pip install 'steprule[lab]'") from missing

__all__ = ["Figure", "Key", "alt", "drawable", "file_name", "layered", "rows", "specification"]


@dataclass(frozen=True)
class Key:
    """One entry of a legend that the page draws itself: a colour of the theme by name, and what it stands for."""

    colour: str
    label: str


@dataclass(frozen=True)
class Figure:
    """A chart with its words, for the section `part` of a page.

    `least_width` and `most_width` are in CSS pixels; below the least, its box scrolls. The chart has a fixed width, for
    files and notebooks; the page makes it as wide as its box, unless it is several side by side.
    """

    name: str
    part: str
    title: str
    caption: str
    description: str
    chart: alt.LayerChart | alt.VConcatChart
    least_width: int
    most_width: int | None = None
    keys_title: str = ""
    keys: tuple[Key, ...] = ()
    rules: tuple[str, ...] = ()
    """Rules that the page's legend isolates by a click; empty where the chart has no such legend."""


def layered(*charts: alt.Chart, width: int, height: int) -> alt.LayerChart:
    """The charts over each other; sizes in CSS pixels."""
    chart = alt.LayerChart(layer=list(charts)).properties(width=width, height=height)
    assert isinstance(chart, alt.LayerChart)
    return chart


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as Vega-Lite, without the configuration of Altair's theme, where that has one: ours takes its place."""
    found: dict[str, Any] = chart.to_dict()
    found.pop("config", None)
    return found


def rows(values: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Records as data inside the chart; a data frame would add a dependency."""
    return alt.InlineData(values=[dict(row) for row in values])


def drawable(value: float, digits: int = 6) -> float | None:
    """So many digits draw the same line, in a third less of the page; JSON has no infinity, and None breaks the line."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def file_name(text: str) -> str:
    """Letters, digits and hyphens alone, so that a rule of any name has a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"
