"""The reproduction as tables for a terminal of 80 columns."""

from __future__ import annotations

from ...lab.d2l.results import Reproduction
from ...lab.d2l.summary import Summary, summarise
from ..terminal import Group, Table, Text, empty_table, plain
from . import words

__all__ = ["as_text", "terminal_table"]


def terminal_table(reproduction: Reproduction) -> Group:
    """Return a row for each way to train, beside the book's figures, and what is missing."""
    summary = summarise(reproduction)
    parts: list[Table | Text] = [_table(summary)] if summary.lines else []
    sentences = [words.verdict(reproduction, summary), words.agreement(summary), *words.rankings(summary)]
    parts.append(Text("\n".join(["", *filter(None, sentences), words.CLOCK, ""])))
    for each in reproduction.missing:
        install = f" Install: {each.command}" if each.command else ""
        parts.append(Text(f"{each.engine}: {each.cause}.{install}"))
    return Group(*parts)


def as_text(reproduction: Reproduction) -> str:
    """Return what the terminal shows as lines of 80 columns, for a file."""
    return plain(terminal_table(reproduction))


def _table(summary: Summary) -> Table:
    table = empty_table()
    table.add_column("airfoil", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("book", no_wrap=True)
    table.add_column("s/epoch", justify="right")
    table.add_column("loading", justify="right")
    table.add_column("book", justify="right")
    for line in summary.lines:
        told = (words.name(line), words.loss(line)[0], words.book_loss(line))
        timed = (words.seconds(line.seconds), words.seconds(line.loading), words.seconds(line.plan.seconds))
        table.add_row(*map(Text, (*told, *timed)))
    return table
