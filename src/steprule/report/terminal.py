"""Tables for a terminal: what they are made of, how all of them look, and what is shown as lines for a file."""

from __future__ import annotations

from io import StringIO

try:  # here alone, as Altair in `drawing`
    from rich import box
    from rich.console import Console, Group, RenderableType
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's tables need Rich: pip install 'steprule[lab]'") from missing

__all__ = ["Group", "Padding", "RenderableType", "Table", "Text", "empty_table", "plain"]


def empty_table(title: str = "") -> Table:
    """Return a table without columns, under its title if it has one."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
    table.title = Text(title, style="bold") if title else None
    return table


def plain(shown: RenderableType, width: int = 80) -> str:
    """Return what a terminal of so many columns shows."""
    console = Console(file=StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
