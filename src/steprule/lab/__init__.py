"""Experiments on update rules: problems, trials over grids of settings, and their comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .results import Comparison, Epoch, Metric, Outcome, Run, Setting, Trial

if TYPE_CHECKING:
    from .comparison import compare
    from .problem import Problem

__all__ = ["Comparison", "Epoch", "Metric", "Outcome", "Problem", "Run", "Setting", "Trial", "compare"]


def __getattr__(name: str) -> Any:
    # These import torch; data sets and results do not need it.
    if name == "compare":
        from .comparison import compare

        return compare
    if name == "Problem":
        from .problem import Problem

        return Problem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
