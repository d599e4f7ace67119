"""Steps through torch's own operations: for every tensor that no fused loop takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..kernels.codecs import STORAGES
from ..specification import Rule
from .codecs import turned
from .gpu import counted
from .launch import Bound
from .storing import load, random_bits, save

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
    ) -> list[Bound]:
        """Step the parameters, `passed` steps after `regroup`, as `Launch.step` does."""
        for place, bound in self._bounds.items():
            t = counted(bound) if bound.capturable else int(self._steps[place]) + passed
            self._step(bound, grads[place], values[bound.group], t)
        return [
            bound for place, bound in self._bounds.items() if bound.raises and not bool(grads[place].isfinite().all())
        ]

    @torch.no_grad()
    def _step(self, bound: Bound, grad: Tensor, values: Mapping[str, float], t: Any) -> None:
        """Step one parameter, lower types widened to float32."""
        real = torch.float64 if bound.parameter.dtype is torch.float64 else torch.float32
        state, storing = bound.state, bound.storing
        columns = bound.columns()
        inputs = {"x": columns["x"].to(real), "g": grad.to(real), "t": t}
        slots = {name: load(state, name, self._rule).to(real) for name in self._rule.slots}
        x, new, _ = around.step(self._rule, bound.around, inputs, slots, values)
        for name in ("x", "copy"):
            if name in columns:
                columns[name].copy_(x)
        random = None
        for name, value in new.items():
            storage = storing.storage(name, bound.parameter)
            if not storage or not STORAGES[storage].random:
                state[name].copy_(value)
                continue
            random = random_bits(storing.seed, bound.number, t, grad) if random is None else turned(random)
            save(state, name, storage, value, random)
