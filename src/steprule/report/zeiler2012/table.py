"""The paper's experiments as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...lab.zeiler2012 import Result
from ...lab.zeiler2012.checking import Checked
from ...lab.zeiler2012.claims import judged
from ...lab.zeiler2012.judging import RULE, Judged
from .. import words as numbers
from ..terminal import Group, Padding, RenderableType, Table, Text, empty_table, plain
from . import words
from .distance import KEYS, style
from .grid import Cell, Grid
from .sections import Section, section

__all__ = ["as_text", "checked_table", "terminal_table"]


def terminal_table(results: Sequence[Result]) -> Group:
    """Return a table for each part, then the paper's claims with their verdicts."""
    parts = [each for result in results for each in _section(section(result))]
    claims = judged(results)
    missing = words.not_here(results)
    return Group(_legend(), *parts, *(_claims(claims) if claims else ()), *([Text(missing)] if missing else []))


def as_text(results: Sequence[Result]) -> str:
    """Return what the terminal shows as lines of 80 columns without colours, for a file."""
    return plain(terminal_table(results))


def _legend() -> Text:
    text = Text("Test error in %, mean ± standard deviation over the seeds (the paper's). From the paper's:\n")
    for index, key in enumerate(KEYS):
        text.append(f" {key.label} ", style(index))
        text.append("\n" if index == len(KEYS) // 2 else " ")
    return text.append("\n")


def _section(part: Section) -> Iterable[RenderableType]:
    yield Text(part.title, style="bold")
    if part.grid:
        yield _table(part.grid)
    sentences = [*part.sentences, *([f"Not complete: {part.missing}."] if part.missing else [])]
    yield Text("\n".join([*sentences, ""]))


def _table(grid: Grid) -> Table:
    table = empty_table()
    for index, column in enumerate(grid.columns):
        is_number = index in grid.numbers
        table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(cell: Cell) -> Text:
    return Text(str(cell), "" if cell.shade is None else style(cell.shade))


def _claims(claims: Sequence[Judged]) -> Iterable[RenderableType]:
    yield Text("What the paper says", style="bold")
    for each in claims:
        verdict = Text(each.verdict, style="bold")
        yield Text.assemble(f"{each.claim.section}  {each.claim.says}: ", verdict)
        if each.evidence:
            yield Padding(Text(words.evidence(each)), (0, 0, 0, 5))
    yield Text(f"\n{words.verdict(claims)} {RULE}\n".lstrip())


def checked_table(checked: Sequence[Checked]) -> Table:
    """Return a row for each trial that was run again, beside the committed one."""
    table = empty_table()
    for name in ("part", "setting", "seed"):
        table.add_column(name, overflow="fold")
    for name in ("committed", "now", "must be"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in checked:
        trial = each.sampled.outcome.trial
        told = {True: "as committed", False: "NOT as committed", None: "not decided: one committed seed"}[each.agrees]
        cells = (
            each.sampled.part,
            numbers.setting_name(trial.setting),
            str(trial.seed),
            _error(each.before),
            "failed" if each.now is None else _error(each.now),
            "the same" if each.same else f"{_error(each.low)} to {_error(each.high)}",
            f"failed: {each.cause}" if each.now is None else told,
        )
        table.add_row(*map(Text, cells), style="" if each.agrees is not False else "bold")
    return table


def _error(value: float) -> str:
    return "diverged" if value == float("inf") else numbers.NOTHING if value == -float("inf") else f"{value:.2f}"
