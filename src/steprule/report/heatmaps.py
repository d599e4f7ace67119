"""How much the choice of hyperparameters matters: the paper's Tables 1 and 2 as heat maps with their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

from ..lab.results import Metric, Setting
from ..lab.summary import RuleSummary, SettingSummary, Summary, order, worse_by
from . import words
from .axes import NAMES
from .drawing import Figure, Key, alt, file_name, layered, rows
from .theme import SHADES, STRONG

__all__ = ["heat_maps"]

REACHES = (1.0, 2.5, 5.0, 10.0, 30.0, 90.0)
"""The darkest cells are near the best (10 %); each paler shade reaches this many times as far, the palest further."""

CELL = 48
"""The least width of a cell in pixels: the word "diverged" fits."""


@dataclass(frozen=True)
class _Cell:
    """What stands at one place of a map."""

    row: str
    column: str
    setting: SettingSummary
    chosen: bool


@dataclass(frozen=True)
class _Map:
    name: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_title: str | None
    column_title: str
    cells: tuple[_Cell, ...]
    note: str = ""


def heat_maps(summary: Summary, published: Mapping[Setting, float] | None = None) -> tuple[Figure, ...]:
    """One map of rate by rule for the rules that vary only `lr`, and one for each other rule that varies anything.

    A rule that varies one hyperparameter gets one row of cells, a rule that varies two gets them as rows and columns.
    Of three and more, the two with the most values are drawn, `lr` before others, and each cell shows the best
    setting over the rest. What is `published` of a setting stands under ours. Empty where no rule has a finished setting.
    """
    if summary.winner is None:
        return ()
    by_rate = [rule for rule in summary.rules if set(_varied(rule)) <= {"lr"} and "lr" in _values(rule)]
    maps = [_rate_map(by_rate)] if any(_varied(rule) for rule in by_rate) else []
    maps += [_own_map(rule, summary) for rule in summary.rules if rule not in by_rate and _varied(rule)]
    return tuple(_figure(found, summary, published or {}) for found in _apart(maps))


def _apart(maps: Iterable[_Map]) -> Iterator[_Map]:
    """The maps, each with a name of its own: `Adadelta` and `adadelta` may be two rules, and make one name of a file."""
    taken: set[str] = set()
    for each in maps:
        names = chain([each.name], (f"{each.name}-{number}" for number in count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        yield replace(each, name=name)


def _values(rule: RuleSummary) -> dict[str, tuple[float, ...]]:
    """The values of each hyperparameter, in the grid's order."""
    found: dict[str, dict[float, None]] = {}
    for setting in rule.settings:
        for name, value in setting.setting.hyperparameters.items():
            found.setdefault(name, {})[value] = None
    return {name: tuple(values) for name, values in found.items()}


def _varied(rule: RuleSummary) -> dict[str, tuple[float, ...]]:
    return {name: values for name, values in _values(rule).items() if len(values) > 1}


def _rate_map(rules: Sequence[RuleSummary]) -> _Map:
    rates = sorted({rate for rule in rules for rate in _values(rule)["lr"]}, reverse=True)
    label = words.labels(rates)
    cells = [
        _Cell(rule.rule, label[setting.setting.hyperparameters["lr"]], setting, setting is rule.best)
        for rule in rules
        for setting in rule.settings
    ]
    return _Map(
        name="heat-map-lr",
        title="Sensitivity to the learning rate",
        rows=tuple(rule.rule for rule in rules),
        columns=tuple(label.values()),
        row_title=None,
        column_title="lr",
        cells=tuple(cells),
    )


def _own_map(rule: RuleSummary, summary: Summary) -> _Map:
    varied = _varied(rule)
    axes = sorted(varied, key=lambda name: (name != "lr", -len(varied[name])))[:2]
    # Fewer columns than rows, so that a telephone shows the whole map.
    down, across = sorted(axes, key=lambda name: -len(varied[name])) if len(axes) == 2 else (None, axes[0])
    row_labels = words.labels(varied[down]) if down else {0.0: rule.rule}
    column_labels = words.labels(varied[across])
    places: dict[tuple[str, str], list[SettingSummary]] = {}
    for setting in rule.settings:
        values = setting.setting.hyperparameters
        place = row_labels[values[down] if down else 0.0], column_labels[values[across]]
        places.setdefault(place, []).append(setting)
    shown = {
        place: min(some, key=lambda setting: order(setting, summary.chosen_on, summary.metric))
        for place, some in places.items()
    }
    cells = [_Cell(row, column, setting, setting is rule.best) for (row, column), setting in shown.items()]
    rest = [f"{name} ({len(varied[name])} values)" for name in varied if name not in axes]
    return _Map(
        name=f"heat-map-{file_name(rule.rule)}",
        title=f"Sensitivity of {rule.rule}",
        rows=tuple(row_labels.values()),
        columns=tuple(column_labels.values()),
        row_title=down,
        column_title=across,
        cells=tuple(cells),
        note=f"Each cell is the best over {words.listed(rest)}." if rest else "",
    )


def _figure(found: _Map, summary: Summary, published: Mapping[Setting, float]) -> Figure:
    metric, digits = summary.metric, words.decimals(summary)
    title = ", ".join(filter(None, [metric.name, metric.unit]))
    limits = [summary.limit(times) for times in REACHES]
    data = [_row(cell, summary, limits, published) for cell in found.cells]
    unit = f" in {metric.unit}" if metric.unit else ""
    over = f", mean over {summary.seeds} seeds" if summary.seeds > 1 else ", one seed"
    caption = (
        f"Last epoch's {metric.name}{unit}{over}. Bold, in the strongest colour: near the best, "
        f"{words.best_score(summary)}. Ringed: the rule's best setting, {words.choice(summary)}. {found.note}"
    )
    sign = "\N{LESS-THAN OR EQUAL TO}" if metric.lower_is_better else "\N{GREATER-THAN OR EQUAL TO}"
    labels = [f"{sign}{words.NO_BREAK_SPACE}{words.number(limit, digits)}" for limit in limits] + ["worse"]
    scores = [str(row["text"]).partition("\n")[0] for row in data if row["shade"] >= 0]
    cell = max(CELL, 7 * max(map(len, found.columns)), *(8 * len(score) for score in scores))
    stub = round(max(len(row) for row in found.rows) * 6.2) + (40 if found.row_title else 16)
    return Figure(
        name=found.name,
        part="tuning",
        title=found.title,
        caption=caption.strip(),
        description=f"{found.title}, {metric.name}: "
        + "; ".join(f"{row['setting']} {row['result']}" for row in data)
        + ".",
        chart=_chart(found, data, labels, title),
        least_width=max(300, stub + cell * len(found.columns)),
        most_width=stub + 130 * len(found.columns),
        keys_title=title,
        keys=tuple(Key(f"heat-{SHADES - 1 - i}", label) for i, label in enumerate(labels)),
    )


def _shade(score: float, limits: Sequence[float], metric: Metric) -> int:
    slack = 1e-9 * abs(limits[0])
    passed = sum(worse_by(metric, score, limit) > slack for limit in limits)
    return SHADES - 1 - passed


def _row(cell: _Cell, summary: Summary, limits: Sequence[float], published: Mapping[Setting, float]) -> dict[str, Any]:
    setting = cell.setting
    row: dict[str, Any] = {
        "row": cell.row,
        "column": cell.column,
        "setting": words.setting_name(setting.setting),
        "chosen": cell.chosen,
    }
    digits = words.decimals(summary)
    papers = f"\npaper {words.number(published[setting.setting], digits)}" if setting.setting in published else ""
    if setting.state != "finished":
        return row | {
            "shade": -1,
            "text": _short_state(setting) + papers,
            "result": words.state(setting),
            "loss": words.NOTHING,
        }
    mean = setting.score.mean
    return row | {
        "shade": _shade(mean, limits, summary.metric),
        "text": words.number(mean, digits) + papers,
        "result": words.quantity(setting.score, summary, setting.seeds),
        "loss": words.significant(setting.loss.mean) if setting.loss else words.NOTHING,
    }


def _short_state(setting: SettingSummary) -> str:
    """`diverged` where all seeds did, with `2 of 3` on a second line where some did."""
    ended = {"diverged": setting.diverged, "failed": setting.failed}.get(setting.state, setting.seeds)
    word = "not run" if setting.state == "unfinished" else setting.state
    return word if ended == setting.seeds else f"{word}\n{ended} of {setting.seeds}"


def _chart(found: _Map, data: list[dict[str, Any]], labels: Sequence[str], title: str) -> alt.LayerChart:
    plain: dict[str, Any] = {"domain": False, "ticks": False, "labelAngle": 0}
    has_title = found.row_title is not None
    above: dict[str, Any] = {"titleAngle": 0, "titleAlign": "right", "titleAnchor": "end", "titleX": -8, "titleY": -10}
    down = alt.Axis(title=found.row_title, **plain, **(above if has_title else {}), labelLimit=200, labelExpr=NAMES)
    across = alt.Axis(title=found.column_title, orient="top", **plain, titlePadding=8)
    base = alt.Chart(rows(data)).encode(
        x=alt.X("column:O", sort=list(found.columns), scale=alt.Scale(domain=list(found.columns)), axis=across),
        y=alt.Y("row:O", sort=list(found.rows), scale=alt.Scale(domain=list(found.rows)), axis=down),
        tooltip=_tooltip(),
    )
    shades = list(range(SHADES))
    legend = alt.Legend(title=title, values=shades[::-1], labelExpr=_label_expression(labels), symbolType="square")
    color = alt.Color("shade:O", scale=alt.Scale(domain=shades), legend=legend)
    cell: Mapping[str, Any] = {"cornerRadius": 2, "width": {"band": 0.93}, "height": {"band": 0.84}}
    ring: Mapping[str, Any] = {"cornerRadius": 4, "width": {"band": 0.99}, "height": {"band": 0.985}}
    layers = [
        base.transform_filter("datum.shade >= 0").mark_rect(**cell).encode(color=color),
        base.transform_filter("datum.shade < 0").mark_rect(style="cell-outline", fill="transparent", **cell),
        base.transform_filter("datum.chosen").mark_rect(style="cell-chosen", fill="transparent", **ring),
    ]
    # Vega centres the first line of a text alone.
    lift = alt.expr("-6 * (length(split(datum.text, '\\n')) - 1)")
    layers += [
        base.transform_filter(condition)
        .mark_text(style=style, fontSize=size, lineBreak="\n", lineHeight=12, dy=lift)
        .encode(text="text:N")
        for style, size, condition in (
            ("cell-near", 12.5, f"datum.shade == {SHADES - 1}"),
            ("cell-strong", 12.5, f"datum.shade >= {STRONG} && datum.shade < {SHADES - 1}"),
            ("cell-pale", 12.5, f"datum.shade >= 0 && datum.shade < {STRONG}"),
            ("cell-without", 10, "datum.shade < 0"),
        )
    ]
    return layered(*layers, height=40 * len(found.rows), width=max(92 * len(found.columns), 240))


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("setting:N", title="setting"),
        alt.Tooltip("result:N", title="score"),
        alt.Tooltip("loss:N", title="training loss"),
    ]


def _label_expression(labels: Sequence[str]) -> str:
    """Labels hold digits and signs alone, never text of the comparison, so they may stand in an expression."""
    chosen = ", ".join(f"'{label}'" for label in reversed(labels))
    return f"[{chosen}][datum.value]"
