"""The paper's tables and its Fig. 1 as figures: each one definition, for the page and for files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...lab.results import Comparison
from ...lab.spread import Spread
from ...lab.zeiler2012 import Reproduced
from ...lab.zeiler2012.errors import Errors, of_comparison
from .. import words
from ..axes import epoch_axis, epoch_ticks, log_scale
from ..drawing import Figure, alt, layered, rows
from ..lines import line_chart
from ..theme import DISTANCES
from .distance import KEYS
from .grid import Grid

__all__ = ["curves", "table"]

_CELL = 150
"""The least width of a cell in pixels: the paper's number and a word on seeds that diverged fit."""


def table(reproduced: Reproduced, grid: Grid) -> Figure:
    """Return a table as the paper prints it, its cells coloured by their distance from the paper's."""
    seeds = reproduced.comparisons[0].seeds
    down, *columns = grid.columns
    data = [
        {
            "row": row[0].text,
            "column": column,
            "ours": cell.text,
            "paper": "; ".join(filter(None, [f"paper {cell.paper}" if cell.paper else "", cell.note])),
            "shade": -1 if cell.shade is None else cell.shade,
        }
        for row in grid.rows
        for column, cell in zip(columns, row[1:], strict=True)
    ]
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return Figure(
        name=reproduced.part.name,
        part=reproduced.part.name,
        title=reproduced.part.title,
        caption=f"Test error in % after {reproduced.comparisons[0].epochs} epochs, {over}; under it what the paper prints. "
        "Colour: how far ours is from it, as a share of it.",
        description=f"{reproduced.part.title}: "
        + "; ".join(f"{row['column']}, {down} {row['row']}: {row['ours']}, {row['paper']}" for row in data)
        + ".",
        chart=_cells(data, down, [row[0].text for row in grid.rows], columns),
        least_width=60 + _CELL * len(columns),
        most_width=60 + 190 * len(columns),
        keys_title="from the paper",
        keys=KEYS,
    )


def _cells(data: list[dict[str, Any]], down: str, labels: list[str], columns: list[str]) -> alt.LayerChart:
    plain: dict[str, Any] = {"domain": False, "ticks": False, "labelAngle": 0}
    above: dict[str, Any] = {"titleAngle": 0, "titleAlign": "right", "titleAnchor": "end", "titleX": -8, "titleY": -10}
    base = alt.Chart(rows(data)).encode(
        x=alt.X("column:O", sort=columns, axis=alt.Axis(title=None, orient="top", labelFontSize=13, **plain)),
        y=alt.Y("row:O", sort=labels, axis=alt.Axis(title=down, labelFontSize=13, **plain, **above)),
        tooltip=["column:N", alt.Tooltip("row:N", title=down), "ours:N", "paper:N"],
    )
    legend = alt.Legend(
        title="from the paper",
        values=list(range(DISTANCES)),
        labelExpr=f"{[key.label for key in KEYS]}[datum.value]",
        labelLimit=200,
        symbolType="square",
    )
    color = alt.Color("shade:O", scale=alt.Scale(domain=list(range(DISTANCES)), range="diverging"), legend=legend)
    box: dict[str, Any] = {"cornerRadius": 2, "width": {"band": 0.97}, "height": {"band": 0.94}}
    return layered(
        base.transform_filter("datum.shade >= 0").mark_rect(**box).encode(color=color),
        base.transform_filter("datum.shade < 0").mark_rect(style="cell-outline", fill="transparent", **box),
        base.mark_text(style="cell-ours", fontSize=13, dy=-8).encode(text="ours:N"),
        base.mark_text(style="cell-beside", fontSize=11.5, dy=9).encode(text="paper:N"),
        height=48 * len(labels),
        width=_CELL * len(columns),
    )


def curves(reproduced: Reproduced) -> Figure | None:
    """Return the test error by epoch, mean and standard deviation over the seeds; None where no seed has finished."""
    (comparison,) = reproduced.comparisons
    drawn = {setting.rule: each for setting, each in of_comparison(comparison).items() if any(each.courses.values())}
    if not drawn:
        return None
    data = [row for rule, errors in drawn.items() for row in _points(rule, errors)]
    ticks = epoch_ticks(comparison.epochs)
    x = alt.X("epoch:Q", scale=alt.Scale(domain=[1, comparison.epochs], nice=False), axis=epoch_axis(ticks))
    y = log_scale("test error, %", min(row["low"] for row in data), max(row["high"] for row in data))
    marked = alt.FieldOneOfPredicate(field="epoch", oneOf=ticks)
    hover = {"rule": "rule", "setting": "setting", "epoch": "epoch", "test error": "value"}
    ends = "; ".join(f"{row['rule']} {row['value']}" for row in data if row["epoch"] == comparison.epochs)
    return Figure(
        name=reproduced.part.name,
        part=reproduced.part.name,
        title=reproduced.part.title,
        caption=_caption(comparison, drawn),
        description=f"Test error by epoch; after the last: {ends}.",
        chart=line_chart(data, list(drawn), list(comparison.grids), x, y, marked, hover),
        least_width=300,
        rules=tuple(drawn),
    )


def _points(rule: str, errors: Errors) -> list[dict[str, Any]]:
    found = []
    for epoch, values in enumerate(zip(*filter(None, errors.courses.values()), strict=True), 1):
        spread = Spread.of(values)
        sd = spread.sd or 0.0
        found.append(
            {
                "rule": rule,
                "epoch": epoch,
                "mean": round(spread.mean, 4),
                # A logarithmic axis has no 0; 0.01 % is one image of the 10,000.
                "low": round(max(spread.mean - sd, 0.01), 4),
                "high": round(spread.mean + sd, 4),
                "setting": words.hyperparameters(errors.setting.hyperparameters),
                "value": f"{spread.mean:.2f} %" + ("" if spread.sd is None else f" ± {sd:.2f}"),
            }
        )
    return found


def _caption(comparison: Comparison, drawn: Mapping[str, Errors]) -> str:
    settings = [
        f"{rule} {words.hyperparameters({name: value for name, (value,) in grid.items()})}"
        for rule, grid in comparison.grids.items()
    ]
    there = sorted({sum(map(bool, errors.courses.values())) for errors in drawn.values()})
    seeds = words.plural(there[-1], "seed") if len(there) == 1 else f"{there[0]} to {there[-1]} seeds"
    band = (
        "One seed, of which there is no band"
        if there == [1]
        else f"The band is the mean ± standard deviation over {seeds}"
    )
    ended = {rule: len(errors.courses) for rule, errors in drawn.items()}
    planned = f" ({comparison.seeds} are planned)" if min(ended.values()) < comparison.seeds else ""
    lost = {rule: sum(not course for course in errors.courses.values()) for rule, errors in drawn.items()}
    diverged = "".join(f" {count} of {ended[rule]} seeds of {rule} diverged." for rule, count in lost.items() if count)
    return f"{band}{planned}.{diverged} Each method at the best setting of the paper's tables: {'; '.join(settings)}."
