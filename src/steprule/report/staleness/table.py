"""The study as tables for a terminal."""

from __future__ import annotations

from ...lab.staleness import Study
from ..terminal import Group, Table, Text, empty_table, plain
from . import words

__all__ = ["as_text", "terminal_table"]


def as_text(study: Study) -> str:
    """Return the tables as plain text of 100 columns."""
    return plain(terminal_table(study), 100)


def terminal_table(study: Study) -> Group:
    """Return the staleness at each number of replicas, and a table for each way to choose the settings."""
    stale = _table("Updates between fetch and push", "replicas", "mean", "median", "largest")
    for line in words.staleness_lines(study):
        stale.add_row(*line)
    tables = [stale, *(_rules(study, which) for which in words.WHICH)]
    return Group(*(each for table in tables for each in (table, Text())), Text(words.protocol(study)))


def _rules(study: Study, which: words.Which) -> Table:
    unit = f", {study.metric.unit}" if study.metric.unit else ""
    numbers = [str(number) for number in study.staleness]
    table = _table(f"{words.titled(study, which)}{unit}", "rule", *numbers, "stands")
    for line in words.lines(study, which):
        shown = line.settings if which == "own" else (line.settings[0], *[""] * (len(numbers) - 1))
        cells = ("\n".join(filter(None, each)) for each in zip(line.cells, shown, strict=True))
        table.add_row(line.rule, *map(Text, cells), line.stands)
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = empty_table(title)
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right")
    return table
