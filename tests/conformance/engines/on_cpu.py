"""The fused loop on the CPU, which needs no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from tests.conformance.cases import Arrays, Form, beside

from steprule import Rule, around
from steprule.around import Around
from steprule.kernels import cpu
from steprule.program import lower

from .engine import Engine, State


class _Kernel:
    """`steprule.kernels.cpu` by itself, with one table for all tensors."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        complete = around.validated(rule, {**values, **form.values})
        self._rule, self._values = rule, complete
        self._program = lower(rule, Around.of(complete, decoupled=form.decoupled, maximize=form.maximize))
        self._run = cpu.kernel(self._program, dtype)
        self._dtype, self._t = dtype, 0
        self._arrays = [
            {"x": x.astype(dtype)}
            | {name: np.zeros(x.shape, dtype) for name in ("g", *beside(rule, x))}
            | {name: np.full(x.shape, initial, dtype) for name, initial in rule.slots.items()}
            for x in start
        ]
        addresses = [[arrays[name].ctypes.data for name in self._program.arrays] for arrays in self._arrays]
        self._table = cpu.Table(np.array(addresses), [x.size for x in start])

    def step(self, grads: Arrays) -> None:
        self._t += 1
        for arrays, g in zip(self._arrays, grads, strict=True):
            for name, each in ({"g": g} | beside(self._rule, g)).items():
                arrays[name][...] = each
        scalars = np.array([self._program.fold(t=self._t, **self._values)], self._dtype)
        cpu.launch(self._run, self._table, scalars, threads=2)

    def state(self) -> State:
        return [
            {name: array.astype(np.float64) for name, array in arrays.items() if name not in ("g", "h", "g2")}
            for arrays in self._arrays
        ]


ENGINES: Final[Mapping[str, Engine]] = {
    "CPU kernel": Engine(_Kernel, flushes=True),
}
