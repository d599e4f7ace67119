"""Lines over bands: several named curves, each a mean with its range, told apart by colour, dash and symbol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .axes import NAMES, ValueScale
from .drawing import alt, layered, rows
from .theme import looks

__all__ = ["encodings", "line_chart"]


def line_chart(
    data: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    order: Sequence[str],
    x: alt.X,
    y: ValueScale,
    marked: alt.FieldOneOfPredicate,
    hover: Mapping[str, str],
) -> alt.LayerChart:
    """Return the curves of `names`, one for each value of the field `rule`, with colours by their place in `order`.

    `data` has a row for each point with the fields `rule`, `mean`, `low`, `high` and that of `x`. Symbols stand where
    `marked` holds; pointing at a curve shows `hover`: titles, and the fields that they show.
    """
    isolate = alt.selection_point(name="isolate", fields=["rule"], bind="legend")
    pointed = alt.selection_point(name="hover", on="pointermove", nearest=True, empty=False, clear="pointerout")
    color, dash, shape = encodings(names, order)
    base = alt.Chart(rows(data)).encode(x=x, color=color)
    band = base.mark_area().encode(
        y=alt.Y("low:Q", scale=y.scale, axis=y.axis_above()),
        y2="high:Q",
        opacity=alt.when(isolate, empty=False)
        .then(alt.value(0.2))
        .when(isolate)
        .then(alt.value(min(0.15, 0.8 / len(names))))
        .otherwise(alt.value(0)),
    )
    faded = alt.when(isolate).then(alt.value(1.0)).otherwise(alt.value(0.12))
    line = base.mark_line(strokeWidth=2, strokeJoin="round", strokeCap="butt").encode(
        y="mean:Q", strokeDash=dash, opacity=faded
    )
    symbols = (
        base.transform_filter(marked)
        .mark_point(filled=True, size=60, aria=False)
        .encode(y="mean:Q", shape=shape, opacity=faded)
    )
    nearest = (
        base.transform_filter(isolate)
        .mark_point(filled=True, size=110, aria=False)
        .encode(
            y="mean:Q",
            shape=shape,
            opacity=alt.when(pointed).then(alt.value(1.0)).otherwise(alt.value(0)),
            tooltip=alt.TooltipValue(alt.expr(_hover_text(hover))),
        )
    )
    return layered(band, line.add_params(isolate), symbols, nearest.add_params(pointed), width=640, height=360)


def _hover_text(fields: Mapping[str, str]) -> str:
    """Vega-Lite reads a text field of the nearest point from the wrong place, so the tooltip is written out."""
    pairs = (f"{json.dumps(title)}: (datum.datum || datum).{field}" for title, field in fields.items())
    return "{" + ", ".join(pairs) + "}"


def encodings(names: Sequence[str], order: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """A rule keeps its colour, dash and symbol whatever its rank; the legend stands in the order of the ranks."""
    known = looks(order, names)
    every = list(known)
    legend = alt.Legend(
        title=None,
        values=list(names),
        symbolSize=90,
        symbolStrokeWidth=0,
        symbolOpacity=1,
        rowPadding=5,
        labelLimit=200,
        labelExpr=NAMES,
    )
    return (
        alt.Color("rule:N", scale=alt.Scale(domain=every), legend=legend),
        alt.StrokeDash(
            "rule:N", scale=alt.Scale(domain=every, range=[look["dash"] for look in known.values()]), legend=None
        ),
        alt.Shape(
            "rule:N", scale=alt.Scale(domain=every, range=[look["shape"] for look in known.values()]), legend=legend
        ),
    )
