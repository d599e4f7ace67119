"""The parameters that one kernel steps together, and what the kernel needs to know of them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from ..around import Around
from ..kernels import cpu
from ..program import Program, lower
from ..specification import Rule

__all__ = ["Bound", "Launch", "element_type"]

_REALS: Final = {torch.float32: "float32", torch.float64: "float64"}
_PLAIN_TYPES: Final = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
_pointer: Final = Tensor.data_ptr


@dataclass
class Bound:
    """One parameter that steps: its group's number and form of step, and its state.

    Its gradient is not held: between two steps, nobody must keep its memory from being freed.
    """

    parameter: Tensor
    group: int
    around: Around
    state: dict[str, Any]
    lazy: bool = False
    """Whether a sparse gradient steps only the rows that it names."""


def element_type(bound: Bound, grad: Tensor, rule: Rule) -> str | None:
    """Return the type of the kernel that can step this parameter, or None where none can.

    A kernel walks memory from the first element to the last, so that parameter, gradient and slots must lie in memory
    alike, with no gap and no overlap, in whatever order of dimensions.
    """
    parameter = bound.parameter
    tensors = [parameter, grad, *(bound.state[name] for name in rule.slots)]
    fits = all(
        type(tensor) in _PLAIN_TYPES
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.dtype is parameter.dtype
        and tensor.shape == parameter.shape
        and not tensor.is_neg()  # what lies in its memory is the negative of what it is
        and not tensor._is_zerotensor()  # a zero that has no memory
        and (tensor.stride() == parameter.stride() or (tensor.is_contiguous() and parameter.is_contiguous()))
        for tensor in tensors
    )
    return _REALS.get(parameter.dtype) if fits and _dense(parameter) else None


def _dense(tensor: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


class Launch:
    """The parameters that one kernel steps, each by its place (`places`) in the plan."""

    def __init__(self, rule: Rule, around: Around, real: str, bounds: Mapping[int, Bound]) -> None:
        self.program: Final[Program] = lower(rule, around)
        self._select: Final = operator.itemgetter(
            *bounds, next(iter(bounds))
        )  # one more, since of one it makes no tuple
        self._places: Final = np.array(list(bounds))
        self.parameters: Final = [bound.parameter for bound in bounds.values()]
        # The gradients' addresses are filled in at each step.
        columns: dict[str, list[Tensor]] = {"x": self.parameters, "g": self.parameters}
        columns |= {name: [bound.state[name] for bound in bounds.values()] for name in rule.slots}
        arrays = self.program.arrays
        self.kept: Final = [tensor for name in arrays if name != "g" for tensor in columns[name]]
        """The tensors of the table whose memory stays where it is from step to step: all but the gradients."""
        self._table: Final = cpu.Table(
            np.array([list(map(_pointer, columns[name])) for name in arrays], dtype=np.int64).T,
            [parameter.numel() for parameter in self.parameters],
        )
        self._grad_column: Final = self._table.pointers[:, arrays.index("g")] if "g" in arrays else None
        self._grad_pointers: list[int] = []
        self._groups: Final = np.array([bound.group for bound in bounds.values()])
        self._real: Final = real
        self._run: Final = cpu.kernel(self.program, real)
        self._rows: list[tuple[int, int]] = []
        self._scalars: NDArray[Any] | None = None

    def regroup(self, steps: NDArray[np.float32]) -> None:
        """Give parameters of one group and one step count one row of scalars; `steps` is what each has counted."""
        # Parameters that have missed a step, for want of a gradient, count apart.
        pairs = np.stack([self._groups, steps[self._places]], axis=1).astype(np.int64)
        distinct, rows = np.unique(pairs, axis=0, return_inverse=True)
        self._rows = [(int(group), int(count)) for group, count in distinct]
        self._table.rows[:] = rows.reshape(-1)
        self._scalars = None

    def step(self, grads: Sequence[Tensor], values: Sequence[Mapping[str, float]], passed: int, changed: bool) -> None:
        """Step the parameters by each group's `values`, `passed` steps after `regroup`; `changed` if values are new.

        `grads` are the gradients of the whole plan.
        """
        pointers = list(map(_pointer, self._select(grads)))[:-1]
        if self._grad_column is not None and pointers != self._grad_pointers:
            self._grad_column[:] = self._grad_pointers = pointers
        if self._scalars is None or changed or self.program.counts:
            fold = self.program.fold
            rows = [fold(t=count + passed, **values[group]) for group, count in self._rows]
            self._scalars = np.array(rows, self._real).reshape(len(rows), -1)
        cpu.launch(self._run, self._table, self._scalars, torch.get_num_threads())
        # The kernel writes behind autograd's back; a backward pass over stale values must fail all the same.
        torch.autograd.graph.increment_version(self.parameters)
