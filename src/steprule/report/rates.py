"""Effective learning rates and updates over the steps, a row for each layer: the paper's Fig. 2, of any training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..folders import replace
from . import theme
from .axes import NUMBERS, ValueScale, value_scale
from .drawing import alt, drawable, layered, rows, specification
from .sheet import VEGA_LITE, vl_convert

__all__ = ["Layer", "draw", "figure", "write"]

WIDTH, HEIGHT = 330, 150
"""Of a panel, in CSS pixels."""


@dataclass(frozen=True)
class Layer:
    """What two panels show: rates and updates of some dimensions, (records, dimensions), NaN where there is none."""

    name: str
    steps: NDArray[np.int64]
    rates: NDArray[np.float64]
    updates: NDArray[np.float64]


def draw(
    table: Mapping[str, NDArray[Any]], path: str | Path | None = None, layers: Sequence[str] | None = None
) -> alt.VConcatChart:
    """Return the chart of a monitor's table, and write it where a `path` is given.

    `table` is what `steprule.torch.RateMonitor.table` returns; `layers` names those that are drawn, all unless given. The
    path ends in .svg, .png, .html (with all that it needs inside) or .json (Vega-Lite). Rates of a gradient of 0 are gaps.

    Raises `ValueError` for an empty table, a layer that it does not have, or another ending, and `OSError` where the file
    cannot be written.
    """
    known = list(dict.fromkeys(table["layer"].tolist()))
    chosen = known if layers is None else list(layers)
    for each in chosen:
        if each not in known:
            raise ValueError(f"there is no layer {each!r}; recorded are {', '.join(known) or 'none'}")
    if not chosen:
        raise ValueError("the table is empty; allowed is one with a recorded step")
    chart = figure([_layer(table, name) for name in chosen], "step")
    if path is not None:
        write(chart, path)
    return chart


def _layer(table: Mapping[str, NDArray[Any]], name: str) -> Layer:
    own = {column: values[table["layer"] == name] for column, values in table.items()}
    # A parameter has no row for a step at which it had no gradient.
    steps, at = np.unique(own["step"], return_inverse=True)
    dimensions, of = np.unique(own["dimension"], return_inverse=True)
    grids = {column: np.full((len(steps), len(dimensions)), np.nan) for column in ("rate", "update")}
    for column, grid in grids.items():
        grid[at, of] = own[column]
    return Layer(name, steps, grids["rate"], grids["update"])


def figure(layers: Sequence[Layer], unit: str, rate: str = "effective rate") -> alt.VConcatChart:
    """Return a row of two panels for each layer: rates left, all on one scale, and updates right.

    `unit` is what the horizontal axis counts.
    """
    every = [value for layer in layers for value in layer.rates[np.isfinite(layer.rates)].tolist()]
    scale = value_scale(rate, every, may_be_log=True)
    lines = []
    for layer in layers:
        last = layer is layers[-1]
        left = _panel(layer, layer.rates, f"{layer.name}: {scale.title}", scale, unit if last else None)
        updates = layer.updates[np.isfinite(layer.updates)].tolist()
        own = value_scale("update", updates, may_be_log=False)
        right = _panel(layer, layer.updates, f"{layer.name}: update", own, unit if last else None)
        lines.append(alt.hconcat(left, right, spacing=28))
    chart = alt.vconcat(*lines, spacing=14)
    assert isinstance(chart, alt.VConcatChart)
    return chart


def _panel(
    layer: Layer, values: NDArray[np.float64], title: str, scale: ValueScale, unit: str | None
) -> alt.LayerChart:
    x = alt.X(
        "step:Q",
        scale=alt.Scale(domain=[0, int(layer.steps[-1])], nice=False),
        axis=alt.Axis(title=unit, grid=False, tickCount=6, labelOverlap="greedy"),
    )
    ticks: dict[str, Any] = {"values": list(scale.ticks)} if scale.ticks else {"tickCount": 5}
    axis = alt.Axis(title=None, domain=False, ticks=False, labelOverlap="greedy", labelExpr=NUMBERS, **ticks)
    line = (
        alt.Chart(rows(_points(layer.steps, values)))
        .mark_line(
            strokeWidth=1,
            strokeOpacity=0.85,
            strokeJoin="round",
            interpolate="linear",
            invalid="break-paths-show-domains",
        )
        .encode(x=x, y=alt.Y("value:Q", scale=scale.scale, axis=axis), color=alt.Color("dimension:N", legend=None))
    )
    # A dimension with a rate at a single step between gaps has no line.
    dots = (
        alt.Chart(rows(_alone(layer.steps, values)))
        .mark_point(filled=True, size=8, opacity=0.85)
        .encode(x=x, y="value:Q", color=alt.Color("dimension:N", legend=None))
    )
    name = alt.TitleParams(title, fontSize=12, fontWeight="normal", offset=6, anchor="start")
    chart = layered(line, dots, width=WIDTH, height=HEIGHT).properties(title=name)
    assert isinstance(chart, alt.LayerChart)
    return chart


def _points(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Iterable[dict[str, Any]]:
    for (at, dimension), value in np.ndenumerate(values):
        yield {"step": int(steps[at]), "dimension": dimension, "value": drawable(value, 5)}


def _alone(steps: NDArray[np.int64], values: NDArray[np.float64]) -> Iterable[dict[str, Any]]:
    there = np.pad(np.isfinite(values), ((1, 1), (0, 0)))
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    for at, dimension in np.argwhere(alone):
        yield {"step": int(steps[at]), "dimension": int(dimension), "value": drawable(values[at, dimension], 5)}


def write(chart: alt.VConcatChart, path: str | Path) -> None:
    """Write a chart as .svg, .png, .html or .json, by the path's ending; errors as those of `draw`."""
    path = Path(path)
    finished = chart.properties(background=theme.LIGHT["paper"], padding=16)
    drawn = specification(finished)
    named: dict[str, Any] = {"vl_version": VEGA_LITE, "config": theme.config(theme.LIGHT)}
    if path.suffix == ".svg":
        content = vl_convert.vegalite_to_svg(drawn, **named).encode()
    elif path.suffix == ".png":
        content = vl_convert.vegalite_to_png(drawn, scale=2, **named)
    elif path.suffix == ".html":
        content = vl_convert.vegalite_to_html(drawn, bundle=True, **named).encode()
    elif path.suffix == ".json":
        content = finished.to_json(indent=None).encode()
    else:
        raise ValueError(f"path is {str(path)!r}; allowed are the endings .svg, .png, .html and .json")
    replace(path, content)
