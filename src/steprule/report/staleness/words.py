"""What the table, the page and the figures say of a rule at a number of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ...lab.staleness import Study
from ...lab.staleness.study import STANDS
from ...lab.summary import SettingSummary
from .. import words

__all__ = [
    "HEADINGS",
    "WHICH",
    "Line",
    "Which",
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
    held_out = "on held-out training data" if study.chosen_on == "validation" else "on the test data, which flatters"
    return f"Each rule at the setting of its grid that is best {where}, chosen {held_out} with seed 0."


def protocol(study: Study) -> str:
    """Return what all trainings have in common."""
    return (
        f"{words.plural(study.epochs, 'epoch')} of pushes in all, however many replicas; mean ± sample standard deviation "
        f"over {words.plural(study.seeds, 'seed')}. A rule stands as many replicas as leave its mean at most {STANDS:g} "
        "times that of one."
    )


def staleness_lines(study: Study) -> list[tuple[str, str, str, str]]:
    """Return the number of replicas, and the mean, median and largest staleness of a push, as text."""
    return [
        (str(number), f"{each.mean:.1f}", f"{each.median:g}", str(each.largest))
        for number, each in study.staleness.items()
    ]


def lines(study: Study, which: Which) -> list[Line]:
    """Return a line for each rule, those that stand the most first."""
    found = [_line(study, rule, which) for rule in study.grids]
    return sorted(found, key=lambda line: -study.stands(line.rule, which))


def _line(study: Study, rule: str, which: Which) -> Line:
    settings: Sequence[SettingSummary | None] = [getattr(study.row(rule, number), which) for number in study.staleness]
    stood = study.stands(rule, which)
    return Line(
        rule,
        tuple(measured(each) for each in settings),
        tuple(
            words.NOTHING if each is None else words.hyperparameters(each.setting.hyperparameters) for each in settings
        ),
        str(stood) if stood else words.NOTHING,
    )


def measured(setting: SettingSummary | None) -> str:
    """Return the metric over the seeds, or what became of it."""
    if setting is None:
        return "none finished"
    if setting.state != "finished" or setting.test is None:
        return words.state(setting)
    return f"{setting.test:.2f}"
