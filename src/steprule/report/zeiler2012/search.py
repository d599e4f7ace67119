"""The search for the paper's initialisation: a table for the terminal, for the docs and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...folders import replace, write_json
from ...lab.results import Setting
from ...lab.zeiler2012.candidates import HELD_OUT, Units
from ...lab.zeiler2012.search import DECIDING, DEFAULT, Tried, best, expected
from .. import words
from ..sheet import write_sheet
from ..terminal import Group, Table, Text, empty_table

__all__ = ["terminal_tables", "write_search"]

_UNITS: Final[tuple[Units, ...]] = ("rectified", "tanh")
_WORDS: Final = 3
"""The columns of a table that hold no number, its first ones."""


@dataclass(frozen=True)
class _Sheet:
    """The candidates with one kind of units as a table: its columns and rows as text, and the number of the chosen row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    chosen: int | None
    verdict: str


def _sheets(tried: Sequence[Tried]) -> list[_Sheet]:
    by_units = {units: [each for each in tried if each.candidate.units == units] for units in _UNITS}
    return [_sheet(some, units) for units, some in by_units.items() if some]


def _sheet(tried: Sequence[Tried], units: Units) -> _Sheet:
    deciding = DECIDING[units]
    cells = [f"{_short(setting)} ({expected(units, setting):g})" for setting in (*deciding, DEFAULT)]
    columns = ("weights", "biases", "inputs", *cells, *(("median ratio", "factor apart") if deciding else ()))
    rows = [
        (
            *each.candidate.words,
            *(_error(each, setting) for setting in (*deciding, DEFAULT)),
            *((_number(each.median_ratio), _number(each.factor)) if deciding else ()),
        )
        for each in tried
    ]
    chosen = best(tried, units)
    return _Sheet(
        f"{units} units",
        columns,
        tuple(rows),
        None if chosen is None else list(tried).index(chosen),
        _verdict(chosen),
    )


def _short(setting: Setting) -> str:
    values = setting.hyperparameters
    return setting.rule if setting == DEFAULT else f"{setting.rule} {values['lr']:g}"


def _error(tried: Tried, setting: Setting) -> str:
    spread = tried.held_out(setting)
    if spread is None:
        return next(each.state for each in tried.measured if each.setting == setting)
    return f"{spread:.2f}"


def _number(value: float | None) -> str:
    return words.NOTHING if value is None else f"{value:.2f}"


def _verdict(chosen: Tried | None) -> str:
    if chosen is None:
        return ""
    weights, biases, inputs = chosen.candidate.words
    what = f"weights {weights}, biases {biases}, inputs {inputs}"
    if chosen.factor is not None:
        return f"Nearest to the paper: {what}; its cells are a factor of {chosen.factor:.2f} from the paper's."
    error = chosen.held_out(DEFAULT)
    assert error is not None
    paper = expected(chosen.candidate.units, DEFAULT)
    return f"Least held-out error: {what}; {error.mean:.2f} %, where the paper's test error is {paper:.2f} %."


def _protocol(tried: Sequence[Tried]) -> str:
    """Return how the numbers were made, as a sentence."""
    seeds, epochs = words.plural(tried[0].seeds, "seed"), words.plural(tried[0].epochs, "epoch")
    return (
        f"Error in % on the last {HELD_OUT:,} training images, after {epochs} on the other 50,000, {seeds}; in brackets the "
        "paper's test error. The test set was not used to choose."
    )


def terminal_tables(tried: Sequence[Tried]) -> Group:
    """Return a table for each kind of units, a row for each candidate, the chosen one in bold."""
    return Group(*(each for sheet in _sheets(tried) for each in (_table(sheet), Text(sheet.verdict + "\n"))))


def _table(sheet: _Sheet) -> Table:
    table = empty_table(sheet.title)
    for number, column in enumerate(sheet.columns):
        table.add_column(column, overflow="fold", justify="left" if number < _WORDS else "right")
    for number, row in enumerate(sheet.rows):
        table.add_row(*map(Text, row), style="bold" if number == sheet.chosen else None)
    return table


def _markdown(tried: Sequence[Tried]) -> str:
    lines = [_protocol(tried)]
    for sheet in _sheets(tried):
        rows = [
            [f"**{cell}**" if number == sheet.chosen else cell for cell in row] for number, row in enumerate(sheet.rows)
        ]
        ruled = ["---" if number < _WORDS else "--:" for number in range(len(sheet.columns))]
        table = "\n".join(f"| {' | '.join(row)} |" for row in (sheet.columns, ruled, *rows))
        lines += [f"{sheet.title.capitalize()}:", table, sheet.verdict]
    return "\n\n".join(lines) + "\n"


def write_search(tried: Sequence[Tried], folder: Path) -> Path:
    """Write `search/index.html`, `search/table.md` and `search/results.json` into `folder`; return the page's path.

    Raises `OSError` where they cannot be written.
    """
    into = folder / "search"
    into.mkdir(parents=True, exist_ok=True)
    write_json(into / "results.json", [each.as_json() for each in tried])
    replace(into / "table.md", _markdown(tried).encode())
    content = {"sheets": _sheets(tried), "protocol": _protocol(tried), "words": _WORDS}
    return write_sheet(into, "zeiler2012-search.html.jinja", (), (), content)
