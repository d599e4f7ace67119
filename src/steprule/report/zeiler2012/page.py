"""The paper's experiments as a page: its figures beside ours, and a page for each comparison behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...lab.results import Comparison
from ...lab.zeiler2012 import Reproduced
from ..page import write_report
from ..sheet import write_sheet
from .words import lines, near

__all__ = ["write_comparisons", "write_reproduction"]


def write_comparisons(reproduced: Reproduced, folder: Path) -> None:
    """Write the page of each comparison of a part where its results are. Raises `OSError` where that cannot be."""
    for place, comparison in _placed(reproduced):
        write_report(comparison, folder / place)


def _placed(reproduced: Reproduced) -> Iterator[tuple[Path, Comparison]]:
    for number, comparison in enumerate(reproduced.comparisons, 1):
        yield Path(reproduced.part.name) / str(number), comparison


def write_reproduction(reproduced: Sequence[Reproduced], folder: Path) -> Path:
    """Write `folder/index.html`, which leads to the pages of `write_comparisons`; return its path.

    Raises `OSError` where the folder cannot be written.
    """
    parts = []
    for part in reproduced:
        links = [
            {"text": comparison.description, "href": f"{place.as_posix()}/index.html"}
            for place, comparison in _placed(part)
        ]
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
