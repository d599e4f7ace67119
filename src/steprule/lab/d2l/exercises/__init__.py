"""The section's exercises, each answered by runs: `answers` yields what was measured, as curves with their words.

All of it is computed with NumPy, whose losses are those of the other engines to rounding (see the reproduction).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ....counts import check_count
from . import breaking, family, rescaled, rho
from .series import Chart, Exercise, Point, Series

__all__ = ["EXERCISES", "Chart", "Exercise", "Point", "Series", "answers"]

EXERCISES: Final[Mapping[str, Callable[[int], Exercise]]] = {
    "rho": rho.answer,
    "rescaled": rescaled.answer,
    "breaking": breaking.answer,
    "family": family.answer,
}


def answers(seeds: int = 10, begun: Callable[[str], None] | None = None) -> Iterator[Exercise]:
    """Run the four exercises, those on the airfoil data with seeds 0 to `seeds - 1`, and yield each when it is answered.

    `begun` is told the name of each as it begins. Raises `ValueError` where `seeds` is no whole number from 1, and
    `steprule.lab.data.DataError` where the data set cannot be had.
    """
    check_count("seeds", seeds)
    for name, answer in EXERCISES.items():
        if begun:
            begun(name)
        yield answer(seeds)
