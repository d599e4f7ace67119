"""Steps through torch's own operations: for every tensor that no fused loop takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..around import Around
from ..kernels.codecs import STORAGES
from ..program import lower
from ..specification import Rule
from .gpu import counted
from .launch import Bound, Given, real_of
from .storing import load, random_bits, save

__all__ = ["PlainSteps", "stepped"]


class PlainSteps:
    """The parameters that step one by one, each by its place in the plan; `differentiable` if autograd goes along."""

    kept: Sequence[Tensor] = ()

    def __init__(self, rule: Rule, bounds: Mapping[int, Bound], *, differentiable: bool = False) -> None:
        self._rule: Final = rule
        self._bounds: Final = bounds
        self._stepping = bounds
        """Those that do not rest."""
        self._differentiable: Final = differentiable
        self._steps = np.zeros(0, np.float32)

    @property
    def may_rest(self) -> Collection[int]:
        """The places of those that can be passed over."""
        return self._bounds.keys()

    def rest(self, resting: Sequence[bool]) -> None:
        """Pass over the parameters of the plan that are `resting` until this is called again."""
        self._stepping = {place: bound for place, bound in self._bounds.items() if not resting[place]}

    def regroup(self, steps: NDArray[np.float32]) -> None:
        """Take over what each parameter of the plan has counted."""
        self._steps = steps.copy()

    def step(
        self,
        given: Given,
        values: Sequence[Mapping[str, Any]],
        passed: int,
        changed: bool,  # noqa: ARG002  # nothing is kept of earlier values
    ) -> list[Bound]:
        """Step the parameters, `passed` steps after `regroup`, as `Launch.step` does."""
        with torch.set_grad_enabled(self._differentiable):
            for place, bound in self._stepping.items():
                t = counted(bound) if bound.capturable else int(self._steps[place]) + passed
                own = {name: tensors[place] for name, tensors in given.items()}
                self._step(bound, own, values[bound.group], t)
        return [
            bound
            for place, bound in self._stepping.items()
            if bound.raises and not bool(given["g"][place].isfinite().all())
        ]

    def _step(self, bound: Bound, given: Mapping[str, Tensor], values: Mapping[str, Any], t: Any) -> None:
        """Step one parameter, lower types widened to float32."""
        arrays = lower(self._rule, bound.around).arrays  # what is no rule must not be called on the tensors themselves
        real: torch.dtype = getattr(torch, real_of(bound.parameter.dtype))
        columns = bound.columns()
        before = self._read(columns["x"], real)
        inputs = {"x": before, "t": t} | {name: self._read(tensor, real) for name, tensor in given.items()}
        slots = {name: self._read(load(bound.state, name, self._rule), real) for name in self._rule.slots}
        values = {
            name: self._read(value, real) if isinstance(value, Tensor) else value for name, value in values.items()
        }
        x, new = stepped(self._rule, bound.around, inputs, slots, values)
        # All is read before anything is written: a slot may become what the parameter or another slot was.
        read = [each for each in (*inputs.values(), *slots.values()) if isinstance(each, Tensor)]
        new = {name: value.clone() if any(value is each for each in read) else value for name, value in new.items()}
        for name in ("x", "copy"):
            if name in columns:
                columns[name].copy_(_complex(x, before) if columns[name].is_complex() else x)
        self._write(bound, {name: new[name] for name in arrays if name in new}, before, t)

    def _write(self, bound: Bound, new: Mapping[str, Any], like: Tensor, t: Any) -> None:
        stored = dict(bound.storing.stored(bound.parameter))
        bits = random_bits(bound.storing.seed, bound.number, t, bound.parameter)
        # In the fused loop's order, so that each slot has the bits that it has there; another slot stays as it is.
        for name, value in new.items():
            slot = bound.state[name]
            if name in stored and STORAGES[stored[name]].random:
                save(bound.state, name, stored[name], value, next(bits))
            else:
                slot.copy_(_complex(value, like) if slot.is_complex() else value)

    def _read(self, tensor: Tensor, real: torch.dtype) -> Tensor:
        """Return what a rule computes on: real numbers, of a complex tensor each one's two."""
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        # What autograd keeps for its way back must not change when the step is written.
        return tensor.to(real, copy=self._differentiable)


def stepped(
    rule: Rule, form: Around, inputs: Mapping[str, Any], slots: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the parameter and the slots after `around.step`, with scalars that are infinite or NaN where a kernel's are.

    NumPy's numbers divide by zero, where Python refuses.
    """

    def scalar(value: Any) -> Any:
        return value if isinstance(value, Tensor) else np.float64(value)

    numbers = {name: scalar(value) for name, value in values.items()}
    with np.errstate(all="ignore"):
        x, new, _ = around.step(rule, form, {**inputs, "t": scalar(inputs["t"])}, slots, numbers)
    return x, new


def _complex(value: Any, like: Tensor) -> Tensor:
    """Return the complex tensor of the pairs of `value`, which may be a number that stands for all of them."""
    pairs = torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(like.shape)
    return torch.view_as_complex(pairs.contiguous())
