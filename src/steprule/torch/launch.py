"""The parameters that one kernel steps together, and what the kernel needs to know of them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from ..around import Around
from ..kernels import codecs, cpu
from ..kernels.cpu import Elements
from ..program import Program, lower
from ..specification import CURVATURE, Rule
from .identity import Addresses
from .memory import PLAIN_TYPES, alike, dense
from .storing import MASTER, NEAREST, Storing

__all__ = ["GIVEN", "Bound", "Given", "Launch", "elements_of", "lie_alike", "real_of"]

Given = Mapping[str, list[Tensor]]
"""What is new at each step, by a rule's name for it: of each parameter of a plan its gradient `g`, and `h` and `g2`."""

_SERVED: Final = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128)
_pointer: Final = Tensor.data_ptr

GIVEN: Final[tuple[str, ...]] = ("g", *CURVATURE)
"""What a `Given` may hold."""


@dataclass
class Bound:
    """One parameter that steps: its group's number and form of step, and its state.

    Its gradient is not held: between two steps, nobody must keep its memory from being freed.
    """

    parameter: Tensor
    group: int
    around: Around
    state: dict[str, Any]

    storing: Storing
    number: int
    """Its place in the optimizer."""
    name: str
    """What an error calls it."""
    raises: bool = False
    """Whether a gradient that is not finite is an error."""
    capturable: bool = False
    """Whether its step count is on its device and its step may be captured in a graph."""
    lazy: bool = False
    """Whether a sparse gradient steps only the rows that it names."""

    def columns(self) -> dict[str, Tensor]:
        """Return what a kernel reads and writes, by the names of `kernels.cpu.Elements.columns`, without the gradient."""
        names = [name for name in self.storing.names(self.parameter) if name != MASTER]
        found = {name: self.state[name] for name in names}
        if self.storing.has_master(self.parameter):
            return {"x": self.state[MASTER], "copy": self.parameter, **found}
        return {"x": self.parameter, **found}


def real_of(dtype: torch.dtype) -> str:
    """Return the type in which the step of a parameter of `dtype` is computed; a complex number is a pair of real ones."""
    return "float64" if dtype in (torch.float64, torch.complex128) else "float32"


def elements_of(bound: Bound, given: Mapping[str, Tensor]) -> Elements | None:
    """Return the elements of the kernel that can step this parameter by what is `given`, or None where none can.

    A kernel walks memory from the first element to the last, so that parameter, gradient and slots must lie in memory
    alike, with no gap and no overlap, in whatever order of dimensions.
    """
    parameter, columns = bound.parameter, bound.columns()
    alike = [parameter, *given.values(), *(tensor for name, tensor in columns.items() if not name.endswith("_scale"))]
    if not lie_alike(alike) or any(tensor.device.type != "cpu" for tensor in alike):
        return None
    if parameter.dtype not in _SERVED:
        return None
    real = real_of(parameter.dtype)
    stored = dict(bound.storing.stored(parameter))
    exact = parameter.dtype if parameter.is_complex() else getattr(torch, real)
    for name, tensor in (*given.items(), ("x", columns["x"])):
        if tensor.dtype in NEAREST and real == "float32":
            stored[name] = NEAREST[tensor.dtype]
        elif tensor.dtype is not exact:
            return None
    return Elements(real, tuple(sorted(stored.items())), NEAREST[parameter.dtype] if "copy" in columns else "")


def lie_alike(tensors: Sequence[Tensor]) -> bool:
    """Whether a kernel can walk all `tensors` at once: they lie in memory alike, with no gap and no overlap."""
    first = tensors[0]
    return dense(first) and all(
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and tensor.shape == first.shape
        and not tensor.is_neg()  # what lies in its memory is the negative of what it is
        and not tensor.is_conj()  # or its conjugate
        and not tensor._is_zerotensor()  # a zero that has no memory
        and alike(tensor, first)
        for tensor in tensors
    )


class Launch:
    """The parameters that one kernel steps, each by its place (`places`) in the plan."""

    _folds = True
    """Whether the scalars are computed here and not on the device."""

    def __init__(self, rule: Rule, around: Around, elements: Elements, bounds: Mapping[int, Bound]) -> None:
        self.program: Final[Program] = lower(rule, around)
        self.places: Final = list(bounds)
        self._bounds: Final = list(bounds.values())
        self.parameters: Final = [bound.parameter for bound in bounds.values()]
        self.stepping = self.parameters
        """Those that do not rest."""
        arrays = elements.columns(self.program)
        columns = [bound.columns() for bound in bounds.values()]
        self.kept: Final = [column[name] for column in columns for name in arrays if name not in GIVEN]
        """The tensors of the table whose memory stays where it is from step to step."""
        # The addresses of what is given are filled in at each step.
        self._table: Final = cpu.Table(
            np.array(
                [[0 if name in GIVEN else _pointer(column[name]) for name in arrays] for column in columns], np.int64
            ),
            [parameter.numel() * (1 + parameter.is_complex()) for parameter in self.parameters],
        )
        self._given: Final = {
            name: Addresses(self._table.pointers[:, arrays.index(name)]) for name in GIVEN if name in arrays
        }
        self._moves = 0
        """How often something was given elsewhere in memory than before."""
        self._groups: Final = [bound.group for bound in bounds.values()]
        self._elements: Final = elements
        self._run: Final = self._kernel()
        self._rows: list[tuple[int, float]] = []
        self._scalars: NDArray[Any] | None = None
        self._random: Final = elements.random(self.program)
        self._seeds: Final = np.array([bound.storing.seed for bound in bounds.values()], np.int64)
        self._numbers: Final = np.array([bound.number for bound in bounds.values()], np.int64)
        self._steps: NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def may_rest(self) -> Sequence[int]:
        """The places of those that can be passed over."""
        return self.places

    def _kernel(self) -> Any:
        return cpu.kernel(self.program, self._elements)

    def _launch(self, values: Sequence[Mapping[str, float]], changed: bool) -> None:  # noqa: ARG002  # the scalars hold them
        assert self._scalars is not None
        cpu.launch(self._run, self._table, self._scalars, torch.get_num_threads())

    def rest(self, resting: Sequence[bool]) -> None:
        """Pass over the parameters of the plan that are `resting` until this is called again."""
        mine = [resting[place] for place in self.places]
        self._leave_out(mine)
        self.stepping = list(itertools.compress(self.parameters, map(operator.not_, mine)))

    def _leave_out(self, tensors: Sequence[bool]) -> None:
        self._table.leave_out(tensors)

    def regroup(self, steps: NDArray[np.float32]) -> None:
        """Give parameters of one group and one step count one row of scalars; `steps` is what each has counted."""
        self._steps = steps[self.places].astype(np.int64)
        # Parameters that have missed a step, for want of a gradient, count apart.
        rows: dict[tuple[int, int], int] = {}
        pairs = zip(self._groups, self._steps.tolist(), strict=True)
        self._table.rows[:] = [rows.setdefault(pair, len(rows)) for pair in pairs]
        # As floats, which have a power of any count: integers have some that are beyond float64.
        self._rows = [(group, float(count)) for group, count in rows]
        self._scalars = None

    def step(self, given: Given, values: Sequence[Mapping[str, float]], passed: int, changed: bool) -> list[Bound]:
        """Step the parameters by each group's `values`, `passed` steps after `regroup`; `changed` if values are new.

        `given` is that of the whole plan. Return the parameters whose gradient a guarded step found not finite.
        """
        for name, addresses in self._given.items():
            tensors = given[name]
            mine = tensors if len(tensors) == len(self._bounds) else [tensors[place] for place in self.places]
            self._moves += addresses.follow(mine)
        if self._folds and (self._scalars is None or changed or self.program.counts):
            fold = self.program.fold
            rows = [fold(t=count + passed, **values[group]) for group, count in self._rows]
            self._scalars = np.array(rows, self._elements.real).reshape(len(rows), -1)
        if self._random:
            self._table.keys[:] = codecs.keys(self._seeds, self._numbers, self._steps + passed)
        self._launch(values, changed)
        # The kernel writes behind autograd's back; a backward pass over stale values must fail all the same.
        torch.autograd.graph.increment_version(self.stepping)
        if self.program.finite is None or not self._table.flags.any():
            return []
        flagged = [bound for bound, flag in zip(self._bounds, self._table.flags, strict=True) if flag]
        self._table.flags[:] = 0
        return flagged
