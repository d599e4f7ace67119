"""The paper's experiments as a page: its figures beside ours, and a page for each comparison behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...lab.zeiler2012 import Reproduced
from ..page import write_report
from ..sheet import write_sheet
from .words import lines, near

__all__ = ["write_reproduction"]


def write_reproduction(reproduced: Sequence[Reproduced], folder: Path) -> Path:
    """Write `folder/index.html`, and each comparison's own page where its results are; return the page's path.

    Raises `OSError` where the folder cannot be written.
    """
    parts = []
    for part in reproduced:
        links = []
        for number, comparison in enumerate(part.comparisons, 1):
            place = Path(part.part.name) / str(number)
            write_report(comparison, folder / place)
            links.append({"text": comparison.description, "href": f"{place.as_posix()}/index.html"})
        several = len(part.comparisons) > 1
        parts.append(
            {
                "name": part.part.name,
                "title": part.part.title,
                "several": several,
                "lines": lines(part),
                "near": near(list(part.rows())),
                "links": links,
                "facts": [("Seeds", [str(part.comparisons[0].seeds)]), ("Command", [part.comparisons[0].run.command])],
            }
        )
    return write_sheet(folder, "zeiler2012.html.jinja", (), (), {"parts": parts})
