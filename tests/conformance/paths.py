"""Which path the parameters took in an optimizer of `steprule.torch`; PyTorch is imported by what asks."""

from __future__ import annotations

from typing import Any

__all__ = ["paths", "sparse_paths"]


def paths(made: Any) -> tuple[int, int]:
    """Return how many parameters the last step took through the fused loop, and how many through torch's operations."""
    from steprule.torch.launch import Launch
    from steprule.torch.plain import PlainSteps

    plan: Any = made._plan
    fused = sum(len(each.stepping) for each in plan._steppers if isinstance(each, Launch))
    return fused, sum(len(each._stepping) for each in plan._steppers if isinstance(each, PlainSteps))


def sparse_paths(made: Any) -> tuple[int, int]:
    """Return of the parameters with sparse gradients how many the last step took as `paths` has it."""
    from steprule.torch.sparse import SparseSteps

    plan: Any = made._plan
    fused = [row._fused for each in plan._steppers if isinstance(each, SparseSteps) for row in each._stepping.values()]
    return sum(fused), len(fused) - sum(fused)
