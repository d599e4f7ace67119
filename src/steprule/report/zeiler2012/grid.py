"""A part's numbers as a table of text, which the terminal prints, the page shows and a figure is drawn of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...lab.results import Comparison, Setting
from ...lab.spread import Spread
from ...lab.summary import SettingSummary
from ...lab.zeiler2012 import Reproduced, Row
from ...lab.zeiler2012.errors import of_comparison
from .. import words
from ..axes import epoch_ticks
from .distance import shade

__all__ = ["Cell", "Grid", "curves", "lines", "table"]


@dataclass(frozen=True)
class Cell:
    """`text` is ours and `paper` what the paper prints, if anything; `shade` is the place in `distance.KEYS`.

    `note` tells of seeds that are not in our mean.
    """

    text: str
    paper: str = ""
    shade: int | None = None
    note: str = ""

    def __str__(self) -> str:
        return (f"{self.text} ({self.paper})" if self.paper else self.text) + (f"\n{self.note}" if self.note else "")


@dataclass(frozen=True)
class Grid:
    """Rows of cells under `columns`; the first cell of a row names it. `numbers` are the places of columns of numbers.

    `names` are the places of columns that are headed by a name, of a rule or a hyperparameter, and not by words.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int]
    names: frozenset[int] = frozenset()

    @property
    def is_shaded(self) -> bool:
        """Whether any cell is beside a number of the paper's."""
        return any(cell.shade is not None for row in self.rows for cell in row)


def _note(summary: SettingSummary) -> str:
    """`1 of 5 diverged`, `1 of 5 failed, 1 of 5 missing`; nothing where all seeds finished."""
    lost = {"diverged": summary.diverged, "failed": summary.failed, "missing": summary.unfinished}
    return ", ".join(f"{count} of {summary.seeds} {word}" for word, count in lost.items() if count)


def _cell(row: Row) -> Cell:
    summary, paper = row.measured, "" if row.expected is None else f"{row.expected:.2f}"
    if summary.test is None:
        told = Cell(summary.state if summary.finished + summary.diverged + summary.failed else words.NOTHING, paper)
        return replace(told, shade=shade(math.inf, row.expected)) if summary.diverged and row.expected else told
    # As in `Errors.typical`: a mean over less than half of what has ended says little.
    ours = summary.test.mean if summary.finished >= summary.diverged else math.inf
    return Cell(f"{summary.test:.2f}", paper, shade(ours, row.expected) if row.expected else None, _note(summary))


def table(reproduced: Reproduced) -> Grid:
    """Return the table as the paper prints it: a row for each value of what varies down, a column for the rest."""
    down = reproduced.part.printed.down
    rows = list(reproduced.rows())
    columns = list(dict.fromkeys(_across(row.measured.setting, down) for row in rows))
    values = dict.fromkeys(row.measured.setting.hyperparameters[down] for row in rows)
    labels = words.labels(values)
    cells = {
        (row.measured.setting.hyperparameters[down], _across(row.measured.setting, down)): _cell(row) for row in rows
    }
    return Grid(
        (down, *columns),
        tuple((Cell(labels[value]), *(cells[value, column] for column in columns)) for value in values),
        frozenset(range(1, len(columns) + 1)),
        names=frozenset(range(len(columns) + 1)),
    )


def _across(setting: Setting, down: str) -> str:
    rest = {name: value for name, value in setting.hyperparameters.items() if name != down}
    return words.hyperparameters(rest) if rest else setting.rule


def lines(reproduced: Reproduced) -> Grid:
    """Return a row for each setting that was tried."""
    several = len(reproduced.comparisons) > 1
    columns = ("rule", "setting", "test error, %", "paper", "apart")
    rows = [(*((Cell(row.problem),) if several else ()), *_line(row)) for row in reproduced.rows()]
    first = len(columns) + several - 3
    return Grid((*(("problem",) if several else ()), *columns), tuple(rows), frozenset(range(first, first + 3)))


def _line(row: Row) -> Iterator[Cell]:
    setting, cell, test = row.measured.setting, _cell(row), row.measured.test
    yield Cell(setting.rule)
    yield Cell(words.hyperparameters(setting.hyperparameters))
    yield Cell(cell.text, note=cell.note)
    yield Cell(cell.paper or words.NOTHING)
    if row.expected is None or test is None:
        yield Cell(words.NOTHING)
    else:
        yield Cell(f"{test.mean - row.expected:+.2f}".replace("-", words.MINUS), shade=cell.shade)


def curves(comparison: Comparison) -> Grid:
    """Return the test error of each rule after some of the epochs."""
    courses = {setting: errors.courses for setting, errors in of_comparison(comparison).items()}
    ticks = epoch_ticks(comparison.epochs)
    rows = []
    for epoch in ticks:
        cells = []
        for own in courses.values():
            values = [course[epoch - 1] for course in own.values() if course]
            lost = len(own) - len(values)
            # Of all epochs, which have the same seeds, the last tells of those that are not in them.
            note = f"{lost} of {len(own)} diverged" if lost and values and epoch == ticks[-1] else ""
            cells.append(Cell(f"{Spread.of(values):.2f}" if values else "diverged", note=note))
        rows.append((Cell(str(epoch)), *cells))
    names = tuple(setting.rule for setting in courses)
    numbers = frozenset(range(1, len(names) + 1))
    return Grid(("epoch", *names), tuple(rows), numbers, names=numbers)
