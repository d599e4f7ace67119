"""The look of the charts: two sets of colours, and how ten and more rules are told apart without colour.

A chart holds no colour of its own. It names ranges and styles, which `config` fills: for files with the light colours,
for the page with CSS variables, so that the browser follows a change between light and dark, and prints in light,
without drawing anything anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["DARK", "DASHES", "DISTANCES", "FONT", "LIGHT", "SHADES", "SHAPES", "STRONG", "config", "css_names", "looks"]

FONT = '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
STATIC_FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"

# Okabe and Ito's colours, the paler ones darkened until they stand out from white by 3 to 1, the yellow left out.
_RULES_LIGHT = ("#0072b2", "#d55e00", "#008f68", "#b4588f", "#a87400", "#2f8fcf", "#2b2f33", "#7c8288")
_RULES_DARK = ("#6ea2ff", "#f5853f", "#33c498", "#e591c4", "#e6b422", "#8fd3fa", "#eceff1", "#9aa1a8")
_HEAT_LIGHT = ("#f0f3f2", "#dce9e7", "#c0dbd8", "#98c6c3", "#66abaa", "#2a7b7f", "#0c565c")
_HEAT_DARK = ("#1d2527", "#1f343a", "#21474d", "#255c61", "#2a6d70", "#55b5ae", "#93e6da")
# Blue below, orange above: told apart with any kind of colour blindness, and all pale enough for one colour of text.
_APART_LIGHT = ("#8fbce4", "#b9d5ef", "#dce9f6", "#f1f2ee", "#fbe8d6", "#f6cfa6", "#efb06f")
_APART_DARK = ("#1f5c94", "#1d4770", "#1c3349", "#20272a", "#41301d", "#5f4117", "#835510")


def _colours(rules: tuple[str, ...], heat: tuple[str, ...], apart: tuple[str, ...], **others: str) -> dict[str, str]:
    lists = {"rule": rules, "heat": heat, "apart": apart}
    return {f"{name}-{i}": colour for name, colours in lists.items() for i, colour in enumerate(colours)} | others


LIGHT: Mapping[str, str] = _colours(
    _RULES_LIGHT,
    _HEAT_LIGHT,
    _APART_LIGHT,
    paper="#fdfdfb",
    panel="#f5f5f1",
    ink="#1c2023",
    muted="#5a6268",
    line="#dedfda",
    edge="#8b9297",
    accent="#0c6a70",
    strong="#ffffff",
    warn="#a33b00",
)
"""Each colour's name and its value on white paper."""

DARK: Mapping[str, str] = _colours(
    _RULES_DARK,
    _HEAT_DARK,
    _APART_DARK,
    paper="#14181a",
    panel="#1b2023",
    ink="#e8eaea",
    muted="#a3abb0",
    line="#31383c",
    edge="#737c82",
    accent="#6fd6cb",
    strong="#0b1617",
    warn="#ffab7a",
)
"""The same names with their values on a dark screen."""

SHADES = len(_HEAT_LIGHT)
DISTANCES = len(_APART_LIGHT)
"""The shades of the distance from a published number: from far below over near, in the middle, to far above."""
STRONG = 5
"""From this shade on a heat map's numbers are printed in the colour `strong`, below it in `ink`."""

DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2])
# A symbol's outline in a box from -1 to 1, as Vega and SVG both read it.
SHAPES = (
    "M-0.9,0A0.9,0.9,0,1,1,0.9,0A0.9,0.9,0,1,1,-0.9,0Z",
    "M-0.8,-0.8H0.8V0.8H-0.8Z",
    "M0,-1L1,0.8H-1Z",
    "M0,-1.1L0.9,0L0,1.1L-0.9,0Z",
    "M-0.35,-1H0.35V-0.35H1V0.35H0.35V1H-0.35V0.35H-1V-0.35H-0.35Z",
    "M0,1L1,-0.8H-1Z",
    "M0,-1.1L0.32,-0.4L1.05,-0.34L0.5,0.15L0.68,0.9L0,0.5L-0.68,0.9L-0.5,0.15L-1.05,-0.34L-0.32,-0.4Z",
    "M-1,-0.6L-0.6,-1L0,-0.4L0.6,-1L1,-0.6L0.4,0L1,0.6L0.6,1L0,0.4L-0.6,1L-1,0.6L-0.4,0Z",
    "M-0.9,-0.9H0.9L-0.9,0.9H0.9Z",
    "M-0.8,0L0.9,-1V1Z",
    "M0.8,0L-0.9,-1V1Z",
    "M-1,-0.4H1V0.4H-1Z",
)


def looks(order: Iterable[str], others: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Each rule's colour name, dash pattern (pixels) and symbol, by its place in `order`, then in `others`.

    The first 24 rules differ from each other in at least two of the three.
    """
    rules = dict.fromkeys([*order, *others])
    return {
        rule: {
            "colour": f"rule-{i % len(_RULES_LIGHT)}",
            "dash": DASHES[i % len(DASHES)],
            "shape": SHAPES[i % len(SHAPES)],
        }
        for i, rule in enumerate(rules)
    }


def css_names() -> dict[str, str]:
    """Each colour's name and the CSS variable that holds it."""
    return {name: f"var(--{name})" for name in LIGHT}


def config(colours: Mapping[str, str], font: str = STATIC_FONT) -> dict[str, Any]:
    """The Vega-Lite configuration with these colours."""
    text = {"labelFont": font, "titleFont": font}
    return {
        "background": None,
        "font": font,
        "padding": 2,
        "view": {"stroke": None},
        "range": {
            "category": [colours[f"rule-{i}"] for i in range(len(_RULES_LIGHT))],
            "ordinal": [colours[f"heat-{i}"] for i in range(SHADES)],
            "diverging": [colours[f"apart-{i}"] for i in range(DISTANCES)],
        },
        "axis": text
        | {
            "labelColor": colours["muted"],
            "titleColor": colours["muted"],
            "gridColor": colours["line"],
            "domainColor": colours["edge"],
            "tickColor": colours["edge"],
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelPadding": 6,
            "tickSize": 4,
        },
        "legend": text
        | {
            "labelColor": colours["ink"],
            "titleColor": colours["muted"],
            "labelFontSize": 12,
            "titleFontWeight": "normal",
        },
        "title": {"color": colours["ink"], "subtitleColor": colours["muted"], "font": font, "subtitleFont": font}
        | {"anchor": "start", "frame": "group", "fontSize": 16, "subtitleFontSize": 12, "offset": 14}
        | {"subtitlePadding": 6, "subtitleLineHeight": 16},
        "style": _styles(colours),
    }


def _styles(colours: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cell-near": {"color": colours["strong"], "fontWeight": "bold"},
        "cell-strong": {"color": colours["strong"]},
        "cell-pale": {"color": colours["ink"]},
        "cell-without": {"color": colours["muted"], "fontStyle": "italic"},
        "cell-outline": {"stroke": colours["edge"], "strokeDash": [3, 3]},
        "cell-ours": {"color": colours["ink"], "fontWeight": "bold"},
        "cell-beside": {"color": colours["ink"]},
        "cell-chosen": {"stroke": colours["ink"], "strokeWidth": 1.75},
        "bar-own": {"color": colours["heat-2"]},
        "bar-any": {"color": colours["heat-5"]},
        "bar-text": {"color": colours["ink"]},
        "here": {"color": colours["rule-0"], "strokeWidth": 2},
        "book": {"color": colours["rule-1"]},
    }
