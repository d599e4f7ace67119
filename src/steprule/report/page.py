"""The comparison as one page that needs no network, and its figures as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..lab.results import Comparison, Setting
from ..lab.summary import summarise
from . import contents, words
from .figures import figures
from .sheet import write_sheet

__all__ = ["write_report"]


def write_report(comparison: Comparison, folder: Path | str, published: Mapping[Setting, float] | None = None) -> Path:
    """Write `folder/index.html` and each figure as `folder/figures/NAME.png` and `.svg`; return the page's path.

    `published` has the metric that a paper reports for a setting, which then stands beside ours.
    See `steprule.report.sheet.write_sheet` for what the page needs and how files are replaced.

    Raises:
        ValueError: the comparison contradicts itself, see `steprule.lab.summary.summarise`.
        OSError: the folder cannot be written.
    """
    published = published or {}
    drawn = figures(comparison, published)
    summary = summarise(comparison)
    content = {
        "comparison": comparison,
        "summary": summary,
        "verdict": words.verdict(summary),
        "choice": words.choice(summary),
        "interruption": words.interruption(summary),
        "rows": contents.rule_rows(summary, published),
        "notes": contents.table_notes(summary),
        "published": bool(published),
        "parts": contents.PARTS,
        "figures": {part: [figure for figure in drawn if figure.part == part] for part, _ in contents.PARTS},
        "lead": contents.lead,
        "failures": contents.failures(summary),
        "facts": contents.facts(comparison, summary),
        "scope": contents.scope(summary),
    }
    names = [*comparison.grids, *(rule.rule for rule in summary.rules)]
    return write_sheet(folder, "page.html.jinja", drawn, names, content)
