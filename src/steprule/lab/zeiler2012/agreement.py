"""How near the tables come to the paper's, in three figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from scipy import stats

from . import confidence
from .errors import of_comparison
from .experiments import Reproduced

__all__ = ["Agreement", "Compared", "agreement", "compared"]


@dataclass(frozen=True)
class Compared:
    """A cell of the paper's beside ours: `ours` is the typical error of `errors.Errors`, in %.

    `diverged` says whether a seed of it diverged.

    `plausible` says whether the paper's figure, which is of one run, may be one further run of ours: it is in the interval
    of 95 % of such a run. None where there are fewer than two seeds.
    """

    ours: float
    papers: float
    diverged: bool
    plausible: bool | None


@dataclass(frozen=True)
class Agreement:
    """How near a table comes to the paper's, over the `cells` that both have.

    `difference` is the mean absolute difference in points, `ratio` the median of ours over the paper's, and `rank`
    Spearman's correlation; each is None where fewer than two cells can be compared. A setting that mostly diverged is in
    `rank` alone, as the worst; in `strict_rank` a setting is the worst as soon as one seed diverged. `plausible` counts the
    cells, of `judged`, whose figure in the paper may be a further run of ours.
    """

    cells: int
    difference: float | None
    ratio: float | None
    rank: float | None
    strict_rank: float | None
    plausible: int
    judged: int


def compared(reproduced: Reproduced) -> Iterator[Compared]:
    """Yield each cell that the paper prints and that has a seed here."""
    by_run = {number: of_comparison(each) for number, each in enumerate(reproduced.comparisons, 1)}
    for cell in reproduced.part.printed.cells:
        errors = by_run[cell.run].get(cell.setting)
        if errors is None:
            continue
        values = [error for error in errors.last().values() if math.isfinite(error)]
        plausible = None
        if len(values) > 1 and math.isfinite(errors.typical):
            low, high = confidence.further_run(values, confidence.LEVEL)
            plausible = low <= cell.error <= high
        yield Compared(errors.typical, cell.error, len(values) < len(errors.courses), plausible)


def agreement(reproduced: Reproduced) -> Agreement:
    """Set a table beside the paper's."""
    cells = list(compared(reproduced))
    finite = [cell for cell in cells if math.isfinite(cell.ours)]
    judged = [cell.plausible for cell in cells if cell.plausible is not None]
    two = len(finite) > 1
    papers = [cell.papers for cell in cells]
    return Agreement(
        cells=len(cells),
        difference=fmean(abs(cell.ours - cell.papers) for cell in finite) if two else None,
        ratio=median(cell.ours / cell.papers for cell in finite) if two else None,
        rank=_rank([cell.ours for cell in cells], papers),
        strict_rank=_rank([math.inf if cell.diverged else cell.ours for cell in cells], papers),
        plausible=sum(judged),
        judged=len(judged),
    )


def _rank(ours: list[float], papers: list[float]) -> float | None:
    # Spearman's correlation of equal numbers is not defined.
    if len(set(ours)) < 2 or len(set(papers)) < 2:
        return None
    return float(stats.spearmanr(ours, papers).statistic)
