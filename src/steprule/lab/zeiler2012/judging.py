"""How a claim of the paper gets its verdict: from differences of errors that are taken seed by seed.

Two errors of one seed are of the same initial weights and the same order of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ..grids import settings
from ..results import Setting
from . import confidence
from .errors import Errors, of_comparison
from .experiments import Cell, Reproduced
from .figure2 import Trainings
from .parts import Result
from .protocol import Claim

__all__ = ["RULE", "Asked", "Evidence", "Function", "Judged", "NotRunError", "Verdict", "judge"]

Verdict = Literal["holds", "does not hold", "within noise", "one seed", "not run"]

RULE: Final = (
    "A claim is one or more differences, each taken seed by seed. It holds where the "
    f"{100 * confidence.LEVEL:.0f} % interval of every mean difference (Student's t over the seeds) is on the claimed side "
    "of 0; it does not hold where one is on the other side; else it is within noise. One seed decides nothing, and a seed "
    "that diverged has an infinite error."
)


@dataclass(frozen=True)
class Evidence:
    """A figure that decides a claim, in words, and the differences behind it: one number for each seed."""

    says: str
    differences: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, and the evidence for it."""

    claim: Claim
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()


class NotRunError(LookupError):
    """Runs that a claim needs are not there."""


@dataclass(frozen=True)
class Asked:
    """A claim and the results that may decide it, by the name of their part."""

    claim: Claim
    results: Mapping[str, Result]

    @property
    def limit(self) -> float:
        """The number that stands for a word of the paper's."""
        if self.claim.limit is None:
            raise ValueError(f"the claim {self.claim.name} has no limit in expected.toml")
        return self.claim.limit

    def result(self, part: str) -> Reproduced:
        """Return the result of a part that is made of comparisons. Raises `NotRunError` where there is none."""
        result = self.results.get(part)
        if not isinstance(result, Reproduced):
            raise NotRunError(part)
        return result

    def trainings(self) -> Trainings:
        """Return the trainings of Fig. 2. Raises `NotRunError` where there are none of as many epochs as the paper's."""
        result = self.results.get("fig2")
        if not isinstance(result, Trainings) or result.is_empty or result.settings != result.part.settings:
            raise NotRunError("fig2")
        return result

    def printed(self, part: str) -> tuple[Cell, ...]:
        """Return what the paper prints of a part."""
        return self.result(part).part.printed.cells

    def errors(self, part: str) -> dict[Setting, Errors]:
        """Return the errors of the settings in a part's first comparison.

        Raises `NotRunError` where one of them was not run for as many epochs as the paper's.
        """
        result = self.result(part)
        comparison, run = result.comparisons[0], result.part.runs[0]
        found = of_comparison(comparison)
        if comparison.epochs != run.epochs or not found.keys() >= set(settings(run.grids)):
            raise NotRunError(part)
        return found

    def methods(self, part: str) -> dict[str, list[Errors]]:
        """Return the settings of each rule."""
        found: dict[str, list[Errors]] = {}
        for setting, errors in self.errors(part).items():
            found.setdefault(setting.rule, []).append(errors)
        return found

    def curves(self) -> dict[str, Errors]:
        """Return the one setting of each rule in Fig. 1."""
        return {rule: errors for rule, (errors,) in self.methods("fig1").items()}


Function = Callable[[Asked], Iterable[Evidence]]


def judge(function: Function, asked: Asked) -> Judged:
    """Return the claim with its verdict, by `RULE`."""
    try:
        evidence = tuple(function(asked))
    except NotRunError:
        return Judged(asked.claim, "not run")
    differences = [each for one in evidence for each in one.differences]
    if any(len(each) < 2 for each in differences):
        return Judged(asked.claim, "one seed", evidence)
    signs = {confidence.sign(each) for each in differences}
    if "above" in signs:
        return Judged(asked.claim, "does not hold", evidence)
    return Judged(asked.claim, "holds" if signs == {"below"} else "within noise", evidence)
