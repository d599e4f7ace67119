"""Steps by sparse gradients: at the cost of the rows that they name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from ..kernels import cpu
from ..kernels.codecs import STORAGES
from ..kernels.cpu import Elements
from ..program import Program, lower
from ..sparsity import scales_without_gradient
from ..specification import Rule
from .lag import Lags, multiplied
from .launch import Bound, Given, elements_of, real_of
from .plain import stepped

__all__ = ["SparseSteps"]


@dataclass
class _Rows:
    """Distinct rows of a parameter, and the gradient of each: (rows, *shape of a row), contiguous."""

    numbers: NDArray[np.int64]
    grads: Tensor


class SparseSteps:
    """The parameters whose gradients are sparse, each by its place in the plan.

    All rows of a parameter step, as by the dense gradient, though those that the gradient does not name are caught up
    later (`Lag`); where the parameter is `lazy`, only those that it names step.
    """

    def __init__(self, rule: Rule, bounds: Mapping[int, Bound], lags: Lags) -> None:
        self._steppers: Final = {place: _RowSteps(rule, bound, lags) for place, bound in bounds.items()}
        self._stepping = self._steppers
        """Those of parameters that do not rest."""
        self.kept: Final = [tensor for each in self._steppers.values() for tensor in each.arrays.values()]
        """The tensors whose memory must stay where it is: parameters and slots."""

    @property
    def may_rest(self) -> Collection[int]:
        """The places of those that can be passed over."""
        return self._steppers.keys()

    def rest(self, resting: Sequence[bool]) -> None:
        """Pass over the parameters of the plan that are `resting` until this is called again."""
        self._stepping = {place: each for place, each in self._steppers.items() if not resting[place]}

    def regroup(self, steps: NDArray[np.float32]) -> None:
        """Nothing is kept of earlier counts."""

    def prepare(self, given: Given, values: Sequence[Mapping[str, float]], steps: NDArray[np.float32]) -> None:
        """Look at what the next `step` gets, after `steps` by each parameter of the plan, before anything moves.

        Raises `TypeError` where a gradient has no rows, or where the rule changes rows without gradient in a way that
        cannot be caught up, `ValueError` where it may make NaN of them, or the gradient names a row that there is not, and
        `RuntimeError` where nobody would catch up rows before they are read.
        """
        for place, stepper in self._stepping.items():
            stepper.prepare(given["g"][place], values[stepper.group], float(steps[place]) + 1)

    def step(
        self,
        given: Given,  # noqa: ARG002  # looked at by `prepare`
        values: Sequence[Mapping[str, float]],
        passed: int,  # noqa: ARG002  # as `given`
        changed: bool,  # noqa: ARG002  # as `given`
    ) -> list[Bound]:
        """Step the parameters as they were prepared for; return those whose gradient a guarded step found not finite."""
        flagged = []
        for stepper in self._stepping.values():
            if not stepper.step(values[stepper.group]):
                flagged.append(stepper.bound)
        return flagged


class _RowSteps:
    """The steps of one parameter: looked at by `prepare`, then taken by `step`."""

    def __init__(self, rule: Rule, bound: Bound, lags: Lags) -> None:
        self._rule, self.bound, self._lags = rule, bound, lags
        _refuse(rule, bound)
        self.group: Final = bound.group
        self.arrays: Final = {"x": bound.parameter, **{name: bound.state[name] for name in rule.slots}}
        self._program: Final[Program] = lower(rule, bound.around)
        # The guard leaves rows whose gradient is not finite as they are; a row without gradient is none of them.
        self._unguarded: Final = lower(rule, dataclasses.replace(bound.around, guard=False))
        self._real: Final = np.dtype(real_of(bound.parameter.dtype))
        contiguous = all(tensor.is_contiguous() for tensor in self.arrays.values())
        # A gradient of the parameter's own form stands for the rows, which are made contiguous.
        self._fused: Final = contiguous and elements_of(bound, {"g": bound.parameter}) == Elements(self._real.name)
        self._width: Final = bound.parameter[:1].numel()
        self._scalars: NDArray[Any] | None = None
        self._scales: dict[str, float] = {}
        self._t = 0.0
        self._stamps: NDArray[np.int32] | None = None
        self._rows: _Rows | None = None
        lags.check(self.arrays, fresh=bool(rule.slots) and not bound.state["step"])
        if bound.lazy:
            lags.settle(bound.parameter)

    def prepare(self, grad: Tensor, values: Mapping[str, float], t: float) -> None:
        scalars = np.array(self._program.fold(t=t, **values), self._real)
        if self._scalars is None or not np.array_equal(scalars, self._scalars, equal_nan=True):
            self._scales = {} if self.bound.lazy else self._derived(values, t)
            self._scalars = scalars
        if "x" in self._scales and not self._lags.watches(self.bound.parameter):
            raise RuntimeError(
                f"a step shrinks every row of a parameter of shape {tuple(self.bound.parameter.shape)}, those without "
                "gradient too, and a forward pass would read them before they are caught up; call "
                'optimizer.watch(module) with the module that holds it, or choose sparse="lazy"'
            )
        self._t, self._rows = t, self._distinct(grad)

    def _derived(self, values: Mapping[str, float], t: float) -> dict[str, float]:
        try:
            return scales_without_gradient(self._unguarded, values, self._rule.slots, t=t, real=self._real)
        except (TypeError, ValueError) as error:
            named = ", ".join(f"{name}={value:g}" for name, value in values.items())
            raise type(error)(
                f"{self._rule.name} with {named} cannot take the sparse gradient of a parameter of shape "
                f"{tuple(self.bound.parameter.shape)}, since {error}; give it a dense one, or choose "
                'sparse="lazy", which steps only the rows that the gradient names'
            ) from None

    def _distinct(self, grad: Tensor) -> _Rows:
        """Return the gradient by distinct rows, those of one number summed."""
        shape = tuple(self.bound.parameter.shape)
        if grad.sparse_dim() != 1:
            raise TypeError(
                f"the gradient of a parameter of shape {shape} is sparse in {grad.sparse_dim()} dimensions; allowed is "
                "one, its rows"
            )
        numbers, grads = grad._indices()[0].cpu().numpy(), grad._values().detach()
        if not grads.numel():
            return _Rows(numbers[:0], grads[:0])
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= shape[0]:
            raise ValueError(
                f"the gradient of a parameter of shape {shape} names row {low if low < 0 else high}; allowed are 0 to "
                f"{shape[0] - 1}"
            )
        if self._stamps is None:
            self._stamps = np.empty(shape[0], np.int32)
        # Where two have one number, the stamp of one of them is lost: faster than to sort them.
        order = np.arange(len(numbers), dtype=np.int32)
        self._stamps[numbers] = order
        if np.array_equal(self._stamps[numbers], order):
            return _Rows(np.ascontiguousarray(numbers), grads.contiguous())
        return _summed(numbers, grads)

    @torch.no_grad()
    def step(self, values: Mapping[str, float]) -> bool:
        """Step; return False only where `on_nonfinite` is "raise" and the gradient is not finite."""
        # Between two steps, nobody must keep the gradient's memory from being freed.
        rows, self._rows = self._rows, None
        assert rows is not None
        lag = self._lags.of(self.arrays, self._scales)
        factors = {} if lag is None else lag.factors(rows.numbers)
        if len(rows.numbers) and self._fused:
            self._launch(rows, factors)
        elif len(rows.numbers):
            self._step(rows, factors, values)
        if lag is not None:
            lag.stepped(rows.numbers)
        return not self.bound.raises or bool(rows.grads.isfinite().all())

    def _launch(self, rows: _Rows, factors: Mapping[str, NDArray[Any]]) -> None:
        # A gradient may have a type of its own.
        columns: dict[str, Tensor] = {**self.arrays, "g": rows.grads.to(self.bound.parameter.dtype)}
        addresses = [columns[name].data_ptr() for name in self._program.arrays]
        addresses += [self._width, rows.numbers.ctypes.data]
        addresses += [factors[name].ctypes.data for name in self._scales]
        table = cpu.Table(np.array([addresses], np.int64), [len(rows.numbers)], self._width)
        run = cpu.row_kernel(self._program, self._real.name, tuple(self._scales))
        assert self._scalars is not None
        cpu.launch(run, table, self._scalars, torch.get_num_threads())
        # As in `Launch.step`.
        torch.autograd.graph.increment_version([self.bound.parameter])

    def _step(self, rows: _Rows, factors: Mapping[str, NDArray[Any]], values: Mapping[str, float]) -> None:
        """Step the rows through torch's operations, lower types widened to float32."""
        real: torch.dtype = getattr(torch, self._real.name)
        places = torch.from_numpy(rows.numbers).to(self.bound.parameter.device)
        taken = {name: array.index_select(0, places).to(real) for name, array in self.arrays.items()}
        for name in factors:
            multiplied(taken[name], factors[name])
        inputs = {"x": taken.pop("x"), "g": rows.grads.to(real), "t": self._t}
        x, new = stepped(self._rule, self.bound.around, inputs, taken, values)
        for name, value in {"x": x, **new}.items():
            array = self.arrays[name]
            # It may be a number that stands for all of them.
            made = torch.as_tensor(value, dtype=array.dtype, device=array.device).expand_as(x)
            array.index_copy_(0, places, made)


def _refuse(rule: Rule, bound: Bound) -> None:
    """Raise `TypeError` for a parameter whose state is kept in a form that rows cannot be stepped in."""
    shape = tuple(bound.parameter.shape)
    if rule.curvature:
        raise TypeError(
            f"{rule.name} takes {' and '.join(rule.curvature)}, and a parameter of shape {shape} has a sparse gradient; "
            "allowed is a dense one"
        )
    low = [slot for slot, storage in bound.storing.stored(bound.parameter) if STORAGES[storage].random]
    if low or bound.storing.has_master(bound.parameter) or bound.capturable:
        raise TypeError(
            f"{rule.name} steps a parameter of shape {shape} by a sparse gradient; allowed for that are state_dtype=None or "
            "torch.float32, master_copies=False and capturable=False"
        )


def _summed(numbers: NDArray[np.int64], grads: Tensor) -> _Rows:
    order = np.argsort(numbers, kind="stable")
    sorted_ = numbers[order]
    first = np.flatnonzero(np.concatenate(([True], sorted_[1:] != sorted_[:-1])))
    # The sum of bags of rows is what this is, and by far the fastest of torch's sums over rows.
    bags = torch.nn.functional.embedding_bag(
        torch.from_numpy(order).to(grads.device),
        grads.reshape(len(grads), -1),
        torch.from_numpy(first).to(grads.device),
        mode="sum",
    )
    return _Rows(sorted_[first], bags.reshape(-1, *grads.shape[1:]))
