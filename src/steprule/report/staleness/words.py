"""What the table, the page and the figures say of a rule at a number of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ...lab.staleness import Study
from ...lab.staleness.study import STANDS
from ...lab.summary import SettingSummary, worse_by
from .. import words

__all__ = [
    "HEADINGS",
    "WHICH",
    "Line",
    "Which",
    "decimals",
    "explained",
    "lines",
    "measured",
    "protocol",
    "staleness_lines",
    "titled",
]

Which = Literal["kept", "own"]
WHICH: Final[tuple[Which, ...]] = ("kept", "own")
HEADINGS: Final[dict[Which, str]] = {
    "kept": "With the setting that suits one replica",
    "own": "With a setting for each",
}


@dataclass(frozen=True)
class Line:
    """One rule: what was measured at each number of replicas, the setting of each, and how many replicas it stands."""

    rule: str
    cells: tuple[str, ...]
    settings: tuple[str, ...]
    stands: str


def titled(study: Study, which: Which) -> str:
    """Return the title of the figure of one half of the study."""
    metric = words.capital(study.metric.name)
    return f"{metric} by number of replicas, {'one setting for all' if which == 'kept' else 'a setting for each'}"


def explained(study: Study, which: Which) -> str:
    """Return how the settings of one half were chosen."""
    where = "with one replica" if which == "kept" else "at each number of replicas"
    held_out = study.chosen_on == "validation"
    data = "on validation data with seed 0" if held_out else "on the test data with seed 0, which flatters"
    return f"Each rule at the setting of its grid that is best {where}, chosen {data}."


def protocol(study: Study) -> str:
    """Return what all trainings have in common."""
    spread = f"mean ± sample standard deviation over {study.seeds} seeds" if study.seeds > 1 else "one seed"
    if study.metric.lower_is_better:
        stands = f"leave its mean at most {STANDS:g} times that of one"
    elif study.metric.unit == "%":
        stands = f"leave what its mean lacks to 100{words.NO_BREAK_SPACE}% at most {STANDS:g} times that of one"
    else:
        stands = f"leave its mean at most {100 * (STANDS - 1):.0f}{words.NO_BREAK_SPACE}% worse than that of one"
    return (
        f"{words.plural(study.epochs, 'epoch')} of pushes in all, however many replicas; {spread}. A rule stands as many "
        f"replicas as {stands}."
    )


def staleness_lines(study: Study) -> list[tuple[str, str, str, str]]:
    """Return the number of replicas, and the mean, median and largest staleness of a push, as text."""
    return [
        (str(number), f"{each.mean:.1f}", f"{each.median:g}", str(each.largest))
        for number, each in study.staleness.items()
    ]


def lines(study: Study, which: Which) -> list[Line]:
    """Return a line for each rule, those that stand the most first."""
    digits = decimals(study)
    found = [_line(study, rule, which, digits) for rule in study.grids]
    return sorted(found, key=lambda line: -study.stands(line.rule, which))


def _line(study: Study, rule: str, which: Which, digits: int) -> Line:
    settings: Sequence[SettingSummary | None] = [getattr(study.row(rule, number), which) for number in study.staleness]
    stood = study.stands(rule, which)
    return Line(
        rule,
        tuple(measured(each, digits) for each in settings),
        tuple(
            words.NOTHING if each is None else words.hyperparameters(each.setting.hyperparameters) for each in settings
        ),
        str(stood) if stood else words.NOTHING,
    )


def measured(setting: SettingSummary | None, digits: int) -> str:
    """Return the metric over the seeds with `digits` after the point, or what became of it."""
    if setting is None:
        return "none finished"
    if setting.state != "finished" or setting.test is None:
        return words.state(setting)
    sd = "" if setting.test.sd is None else f" ± {words.number(setting.test.sd, digits)}"
    return words.number(setting.test.mean, digits) + sd


def decimals(study: Study) -> int:
    """As `decimals` of a comparison: one number for the whole study."""
    settings = (each for row in study.rows for each in (row.kept, row.own) if each is not None)
    scores = [each.score.mean for each in settings if each.state == "finished"]
    best = min(scores, key=lambda score: worse_by(study.metric, score, 0.0), default=0.0)
    return words.decimals_of(study.metric, best)
