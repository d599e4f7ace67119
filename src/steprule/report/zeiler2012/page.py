"""The paper's experiments as a page: its figures beside ours, its claims, and a page for each comparison behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...lab.zeiler2012 import Reproduced, Result
from ...lab.zeiler2012.claims import judged
from ...lab.zeiler2012.judging import RULE
from ..page import write_report
from ..sheet import write_sheet
from . import words
from .distance import KEYS
from .sections import place, section

__all__ = ["write_comparisons", "write_reproduction"]


def write_comparisons(result: Result, folder: Path) -> None:
    """Write the page of each comparison of a part where its results are, with the paper's numbers beside ours.

    A part that is not made of comparisons has none. Raises `OSError` where the folder cannot be written.
    """
    if not isinstance(result, Reproduced):
        return
    for number, comparison in enumerate(result.comparisons, 1):
        printed = {cell.setting: cell.error for cell in result.part.printed.cells if cell.run == number}
        write_report(comparison, folder / place(result, number), printed)


def write_reproduction(results: Sequence[Result], folder: Path, *, linked: bool = True) -> Path:
    """Write `folder/index.html` and the figures; return the page's path. See `steprule.report.sheet.write_sheet`.

    Where `linked`, it leads to the pages of `write_comparisons`.
    """
    sections = [section(result) for result in results]
    claims = judged(results)
    drawn = [figure for each in sections for figure in each.figures]
    content: dict[str, Any] = {
        "sections": sections,
        "linked": linked,
        "verdict": words.verdict(claims),
        "missing": words.not_here(results),
        "claims": [(each.claim, each.verdict, words.evidence(each)) for each in claims],
        "rule": RULE,
        "keys": KEYS,
    }
    names = dict.fromkeys(rule for figure in drawn for rule in figure.rules)
    return write_sheet(folder, "zeiler2012.html.jinja", drawn, names, content)
