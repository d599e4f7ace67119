"""What the table and the page say of a setting beside the paper's figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...lab.zeiler2012 import Reproduced, Row
from .. import words

__all__ = ["Line", "lines", "near"]


@dataclass(frozen=True)
class Line:
    """One setting in words: what it is, its test error over the seeds, the paper's, and how far they are apart."""

    problem: str
    rule: str
    setting: str
    measured: str
    paper: str
    apart: str


def lines(reproduced: Reproduced) -> list[Line]:
    """Return a line for each setting that was tried, in the order of the paper's tables."""
    return [_line(row) for row in reproduced.rows()]


def _line(row: Row) -> Line:
    summary = row.measured
    test = summary.test
    values = summary.setting.hyperparameters
    if summary.state == "finished" and test is not None:
        measured = f"{test.mean:.2f}" + ("" if test.sd is None else f" ± {test.sd:.2f}")
    elif summary.state == "diverged":
        measured = f"diverged ({summary.diverged} of {summary.seeds})"
    else:
        measured = summary.state
    comparable = test is not None and row.expected is not None and summary.state == "finished"
    return Line(
        row.problem,
        summary.setting.rule,
        ", ".join(f"{name}={value:g}" for name, value in values.items()) or "defaults",
        measured,
        words.NOTHING if row.expected is None else f"{row.expected:.2f}",
        f"{test.mean - row.expected:+.2f}" if comparable and test and row.expected is not None else words.NOTHING,
    )


def near(rows: Sequence[Row]) -> str:
    """Return the mean absolute difference from the paper over the settings that it has a figure for, as a sentence."""
    apart = [
        abs(row.measured.test.mean - row.expected)
        for row in rows
        if row.expected is not None and row.measured.test is not None and row.measured.state == "finished"
    ]
    if not apart:
        return ""
    return (
        f"{words.plural(len(apart), 'setting')} with a figure in the paper: on average {sum(apart) / len(apart):.2f} points "
        "from it."
    )
