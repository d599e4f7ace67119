"""What the study trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..problem import Problem
from ..problems.mnist import mnist as whole

__all__ = ["mnist"]

HELD_OUT: Final = 5_000


def mnist() -> Problem:
    """Return the paper's net on MNIST, with the last 5,000 training images held out to choose settings by."""
    problem = whole()
    (inputs, targets), cut = problem.train, len(problem.train[0]) - HELD_OUT
    return replace(
        problem,
        description=f"{problem.description}; the last {HELD_OUT:,} training images held out, to choose settings by",
        train=(inputs[:cut], targets[:cut]),
        validation=(inputs[cut:], targets[cut:]),
    )
