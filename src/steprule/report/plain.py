"""What a terminal shows, as lines without colours, for a file."""

from __future__ import annotations

from io import StringIO

try:
    from rich.console import Console, RenderableType
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("the report's tables need Rich: pip install 'steprule[lab]'") from missing

__all__ = ["plain"]


def plain(shown: RenderableType, width: int = 80) -> str:
    """Return what a terminal of so many columns shows."""
    console = Console(file=StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
