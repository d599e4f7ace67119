"""Steps through torch's own operations: for every tensor that no fused loop takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..specification import Rule
from .gpu import counted
from .launch import Bound

__all__ = ["PlainSteps"]


class PlainSteps:
    """The parameters that step one by one, each by its place in the plan."""

    kept: Sequence[Tensor] = ()

    def __init__(self, rule: Rule, bounds: Mapping[int, Bound]) -> None:
        self._rule: Final = rule
        self._bounds: Final = bounds
        self._steps = np.zeros(0, np.float32)

    def regroup(self, steps: NDArray[np.float32]) -> None:
        """Take over what each parameter of the plan has counted."""
        self._steps = steps.copy()

    def step(
        self,
        grads: Sequence[Tensor],
        values: Sequence[Mapping[str, float]],
        passed: int,
        changed: bool,  # noqa: ARG002  # nothing is kept of earlier values
    ) -> None:
        """Step the parameters, `passed` steps after `regroup`, as `Launch.step` does."""
        for place, bound in self._bounds.items():
            t = counted(bound) if bound.capturable else int(self._steps[place]) + passed
            self._step(bound, grads[place], values[bound.group], t)

    @torch.no_grad()
    def _step(self, bound: Bound, grad: Tensor, values: Mapping[str, float], t: Any) -> None:
        """Step one parameter, lower types widened to float32."""
        real = torch.float64 if bound.parameter.dtype is torch.float64 else torch.float32
        inputs = {"x": bound.parameter.to(real), "g": grad.to(real), "t": t}
        slots = {name: bound.state[name].to(real) for name in self._rule.slots}
        x, new, _ = around.step(self._rule, bound.around, inputs, slots, values)
        bound.parameter.copy_(x)
        for name, value in new.items():
            bound.state[name].copy_(value)
