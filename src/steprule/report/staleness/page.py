"""The study as a page, with its figures and tables."""

from __future__ import annotations

from pathlib import Path

from ...lab.staleness import Study
from ..sheet import write_sheet
from . import words
from .figures import figures

__all__ = ["write_study"]


def write_study(study: Study, folder: Path) -> Path:
    """Write `folder/index.html` and the figures' files; return the page's path.

    Raises `OSError` where the folder cannot be written.
    """
    drawn = figures(study)
    by_part = {figure.part: figure for figure in drawn}
    parts = [
        {
            "name": which,
            "heading": words.HEADINGS[which],
            "figure": by_part.get(which),
            "lines": words.lines(study, which),
        }
        for which in words.WHICH
    ]
    run = study.run
    facts = [("Command", [run.command]), *((name.capitalize(), [value]) for name, value in run.machine.items())]
    content = {
        "study": study,
        "protocol": words.protocol(study),
        "staleness": words.staleness_lines(study),
        "parts": parts,
        "facts": [*facts, ("Versions", [f"{name} {version}" for name, version in run.versions.items()])],
    }
    return write_sheet(folder, "staleness.html.jinja", drawn, study.grids, content)
