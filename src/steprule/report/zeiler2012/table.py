"""The paper's experiments as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

try:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's table needs Rich: pip install 'steprule[lab]'") from missing

from ...lab.zeiler2012 import Reproduced
from .words import lines, near

__all__ = ["terminal_table"]


def terminal_table(reproduced: Sequence[Reproduced]) -> Group:
    """Return a table for each part, a row for each setting."""
    return Group(*(each for part in reproduced for each in (_table(part), Text(near(list(part.rows())) + "\n"))))


def _table(reproduced: Reproduced) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        title=Text(reproduced.part.title),
        title_justify="left",
        title_style="bold",
    )
    several = len(reproduced.comparisons) > 1
    if several:
        table.add_column("problem", overflow="fold")
    table.add_column("rule")
    table.add_column("setting", overflow="fold")
    table.add_column("test error, %", justify="right")
    table.add_column("paper", justify="right")
    table.add_column("apart", justify="right")
    for line in lines(reproduced):
        cells = (line.rule, line.setting, line.measured, line.paper, line.apart)
        table.add_row(*map(Text, ((line.problem, *cells) if several else cells)))
    return table
