"""The search for what the paper leaves out: each way to begin, tried on the cells of its tables that tell them apart.

At low rates six epochs do not suffice, and how far a net comes depends on where it began: those cells of Table 1 tell the
initialisations apart. A cell of momentum is near SGD's at ten times the rate, and would add nothing. A held-out part of
the training set stands for the paper's test set, by which nothing is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from ..comparison import Progress, compare
from ..places import Place
from ..results import Setting
from ..spread import Spread
from ..summary import SettingSummary, summarise
from .candidates import EPOCHS, Candidate, Units
from .protocol import experiments

__all__ = ["DECIDING", "DEFAULT", "Tried", "best", "expected", "try_out"]

DECIDING: Final[Mapping[Units, tuple[Setting, ...]]] = {
    "rectified": (Setting("sgd", {"lr": 1e-3}), Setting("sgd", {"lr": 1e-4}), Setting("adagrad", {"lr": 1e-4})),
    "tanh": (),
}
"""The low-rate cells of Table 1 that are compared; of tanh units the paper has none."""

DEFAULT: Final = Setting("adadelta", {"eps": 1e-6, "rho": 0.95})
"""ADADELTA as the paper uses it, of which it has a figure with both kinds of units."""

_PART: Final[Mapping[Units, str]] = {"rectified": "table2", "tanh": "tanh"}


@dataclass(frozen=True)
class Tried:
    """A candidate that was trained by each of its settings, the deciding ones first."""

    candidate: Candidate
    measured: tuple[SettingSummary, ...]
    seeds: int
    epochs: int

    def held_out(self, setting: Setting) -> Spread | None:
        """Return the held-out error in % of the seeds, None where one has diverged or failed."""
        found = next(each for each in self.measured if each.setting == setting)
        return found.validation if found.state == "finished" else None

    def ratio(self, setting: Setting) -> float | None:
        """Return the held-out error as a multiple of the paper's test error."""
        error = self.held_out(setting)
        return None if error is None else error.mean / expected(self.candidate.units, setting)

    @property
    def _ratios(self) -> list[float] | None:
        ratios = [self.ratio(setting) for setting in DECIDING[self.candidate.units]]
        found = [ratio for ratio in ratios if ratio]
        return found if found and len(found) == len(ratios) else None

    @property
    def median_ratio(self) -> float | None:
        """The median of the deciding cells' ratios; None without all of them."""
        return None if self._ratios is None else median(self._ratios)

    @property
    def factor(self) -> float | None:
        """By what factor the deciding cells are from the paper's, up or down, as a geometric mean: 1 if they agree."""
        return None if self._ratios is None else math.exp(fmean(abs(math.log(ratio)) for ratio in self._ratios))

    def as_json(self) -> dict[str, Any]:
        """Return what was measured, as plain data."""
        weights, biases, inputs = self.candidate.words
        cells = [
            {
                "rule": each.setting.rule,
                "at": dict(each.setting.hyperparameters),
                "paper": expected(self.candidate.units, each.setting),
                "held out": None if each.validation is None else each.validation.mean,
                "test": None if each.test is None else each.test.mean,
                "state": each.state,
            }
            for each in self.measured
        ]
        return {
            "units": self.candidate.units,
            "weights": weights,
            "biases": biases,
            "inputs": inputs,
            "problem": self.candidate.problem,
            "seeds": self.seeds,
            "epochs": self.epochs,
            "cells": cells,
            "median ratio": self.median_ratio,
            "factor": self.factor,
        }


def expected(units: Units, setting: Setting) -> float:
    """Return the paper's test error, in %, of a cell that is tried of nets with such `units`."""
    part = "table1" if setting in DECIDING[units] else _PART[units]
    found = experiments()[part].printed.error(setting, 1)
    assert found is not None
    return found


def try_out(
    candidate: Candidate,
    *,
    seeds: int = 1,
    epochs: int | None = None,
    on: str | Place = "processes",
    out: str | Path = "zeiler2012",
    fresh: bool = False,
    progress: Progress | None = None,
) -> Tried:
    """Train one candidate by each cell that is compared, with seeds 0 to `seeds - 1`, and return what was measured.

    This is a `steprule.lab.compare` in `out/search/`: what is finished there is kept, unless `fresh`. `epochs` is
    `candidates.EPOCHS` unless given. Raises as `compare` does.
    """
    settings = (*DECIDING[candidate.units], DEFAULT)
    made = compare(
        candidate.problem,
        rules=list(dict.fromkeys(setting.rule for setting in settings)),
        epochs=EPOCHS if epochs is None else epochs,
        seeds=seeds,
        grid=_grid(settings),
        on=on,
        out=Path(out) / "search" / candidate.units / candidate.name,
        fresh=fresh,
        progress=progress,
    )
    found = {each.setting: each for rule in summarise(made).rules for each in rule.settings}
    return Tried(candidate, tuple(found[setting] for setting in settings), made.seeds, made.epochs)


def _grid(settings: Iterable[Setting]) -> dict[str, dict[str, list[float]]]:
    grid: dict[str, dict[str, list[float]]] = {}
    for setting in settings:
        for name, value in setting.hyperparameters.items():
            values = grid.setdefault(setting.rule, {}).setdefault(name, [])
            values += [] if value in values else [value]
    return grid


def best(tried: Iterable[Tried], units: Units) -> Tried | None:
    """Return the candidate to choose for such `units`, None where none can be.

    It is the one nearest to the paper in the deciding cells (`factor`); where there are none, the one whose ADADELTA has the
    least held-out error.
    """
    found = {each: _badness(each) for each in tried if each.candidate.units == units}
    least = min(found, key=lambda each: found[each], default=None)
    return least if least is not None and math.isfinite(found[least]) else None


def _badness(tried: Tried) -> float:
    if DECIDING[tried.candidate.units]:
        return math.inf if tried.factor is None else tried.factor
    error = tried.held_out(DEFAULT)
    return math.inf if error is None else error.mean
