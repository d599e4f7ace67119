"""The parts of the paper that are comparisons of settings: their protocol, how they are run, and what came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..comparison import Progress, compare
from ..grids import settings
from ..results import Comparison, Setting
from ..summary import SettingSummary, summarise
from . import files
from .parts import Options, Work

__all__ = ["Aims", "Cell", "Experiment", "Printed", "Reproduced", "Row", "Run"]

Shown = Literal["table", "curves", "lines"]


@dataclass(frozen=True)
class Cell:
    """The test error, in %, that the paper reports for a setting of the run with this number, which counts from 1."""

    setting: Setting
    error: float
    run: int = 1


@dataclass(frozen=True)
class Aims:
    """How near the paper a table should come; see `agreement.Agreement` for the three."""

    difference: float | None = None
    ratio: float | None = None
    rank: float | None = None


@dataclass(frozen=True)
class Printed:
    """What the paper prints of a part: `cells` column by column, `down` the hyperparameter that varies in a column."""

    cells: tuple[Cell, ...] = ()
    down: str = ""
    aims: Aims = Aims()

    def error(self, setting: Setting, run: int = 1) -> float | None:
        """Return the paper's figure for a setting, None where it has none."""
        return next((cell.error for cell in self.cells if (cell.setting, cell.run) == (setting, run)), None)


@dataclass(frozen=True)
class Run:
    """One problem with the rules and grids that are tried on it."""

    problem: str
    epochs: int
    grids: Mapping[str, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True)
class Row:
    """One setting beside the paper's figure; `measured` has its seeds."""

    part: str
    problem: str
    measured: SettingSummary
    expected: float | None


@dataclass(frozen=True)
class Experiment:
    """A part that is made of comparisons; `shown` says how the page shows it: as a table, curves or lines."""

    name: str
    title: str
    shown: Shown
    runs: tuple[Run, ...]
    printed: Printed

    def work(self, options: Options) -> Iterator[Work]:
        """Yield the trials that are not finished, setting by setting."""
        kept = dataclasses.replace(options, train=False)
        for run, comparison in zip(self.runs, self._comparisons(kept, None), strict=True):
            for outcome in comparison.outcomes:
                if options.fresh or not outcome.has_result:
                    yield Work(run.problem, outcome.trial.setting, comparison.epochs)

    def run(self, options: Options, progress: Progress | None = None) -> Reproduced:
        """Run each comparison by `steprule.lab.compare`, in `options.out/NAME/NUMBER`."""
        return Reproduced(self, tuple(self._comparisons(options, progress)))

    def read(self, told: Sequence[Mapping[str, Any]]) -> Reproduced:
        """Return the result whose `as_json` is `told`."""
        return Reproduced(self, tuple(map(files.comparison, told)))

    def _comparisons(self, options: Options, progress: Progress | None) -> Iterator[Comparison]:
        for number, run in enumerate(self.runs, 1):
            yield compare(
                run.problem,
                rules=list(run.grids),
                epochs=run.epochs if options.epochs is None else options.epochs,
                seeds=options.seeds,
                grid=run.grids,
                on=options.on,
                out=options.out / self.name / str(number),
                fresh=options.fresh,
                train=options.train,
                progress=progress,
            )


@dataclass(frozen=True)
class Reproduced:
    """An experiment that was run again: its comparisons, in the order of its runs."""

    part: Experiment
    comparisons: tuple[Comparison, ...]

    def rows(self) -> Iterator[Row]:
        """Yield every setting that was tried, in the order of the grids."""
        for number, comparison in enumerate(self.comparisons, 1):
            rules = {each.rule: each for each in summarise(comparison).rules}
            for rule in comparison.grids:
                for each in rules[rule].settings:
                    expected = self.part.printed.error(each.setting, number)
                    yield Row(self.part.name, comparison.problem, each, expected)

    @property
    def is_empty(self) -> bool:
        """Whether no trial has ended."""
        return not any(each.has_result for made in self.comparisons for each in made.outcomes)

    @property
    def missing(self) -> str:
        """How many of the trials that were planned are not there, or failed."""
        planned = sum(len(settings(made.grids)) * made.seeds for made in self.comparisons)
        there = sum(each.has_result for made in self.comparisons for each in made.outcomes)
        return f"{planned - there} of {planned} trials are not finished" if there < planned else ""

    def as_json(self) -> list[dict[str, Any]]:
        """Return the comparisons; of an experiment without curves, the last epoch of each trial alone."""
        return [
            files.as_json(comparison, whole=self.part.shown == "curves") | {"command": self._command(comparison)}
            for comparison in self.comparisons
        ]

    def _command(self, comparison: Comparison) -> str:
        """The command that makes it again, without the folders of whoever ran it."""
        given = [] if comparison.epochs in {run.epochs for run in self.part.runs} else ["--epochs", comparison.epochs]
        words = ["steprule reproduce zeiler2012", self.part.name, "--seeds", comparison.seeds, *given]
        return " ".join(map(str, words))
