"""Which loop steps which parameter of a plan: the fused one where it can, PyTorch's operations where it cannot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from ..around import Around
from ..kernels.cpu import Elements
from ..specification import Rule
from . import gpu
from .lag import Lags
from .launch import Bound, Given, Launch, elements_of
from .memory import sharing
from .plain import PlainSteps
from .sparse import SparseSteps

__all__ = ["Stepper", "steppers"]


class Stepper(Protocol):
    """What steps some parameters of a plan, and passes over those that `rest`: any at the places `may_rest`.

    `kept` are the tensors that must stay where they are in memory. Of a guarded step, `step` returns the parameters whose
    gradient is not finite.
    """

    @property
    def kept(self) -> Sequence[Tensor]: ...
    @property
    def may_rest(self) -> Collection[int]: ...
    def rest(self, resting: Sequence[bool]) -> None: ...
    def regroup(self, steps: NDArray[np.float32]) -> None: ...
    def step(self, given: Given, values: Sequence[Mapping[str, float]], passed: int, changed: bool) -> list[Bound]: ...


def steppers(rule: Rule, bounds: Sequence[Bound], given: Given, lags: Lags, *, differentiable: bool) -> list[Stepper]:
    """Return what steps parameters that are given this: each by its place, those with sparse gradients last."""
    if differentiable:
        return [PlainSteps(rule, dict(enumerate(bounds)), differentiable=True)]
    # Parameters in the same memory step one after the other, and a launch's threads step all at once.
    in_turn = sharing([bound.columns().values() for bound in bounds])
    launches: dict[tuple[Around, Elements | gpu.Kind], dict[int, Bound]] = {}
    plain: dict[int, Bound] = {}
    sparse: dict[int, Bound] = {}
    for place, bound in enumerate(bounds):
        own = {name: tensors[place] for name, tensors in given.items()}
        if own["g"].layout is torch.sparse_coo:
            sparse[place] = bound
            continue
        lags.settle(bound.parameter)
        kind = None if place in in_turn else gpu.kind_of(bound, own) or elements_of(bound, own)
        into = plain if kind is None else launches.setdefault((bound.around, kind), {})
        into[place] = bound
    found: list[Stepper] = [
        Launch(rule, form, kind, some) if isinstance(kind, Elements) else gpu.DeviceLaunch(rule, form, kind, some)
        for (form, kind), some in launches.items()
    ]
    found += [PlainSteps(rule, plain)] if plain else []
    return [*found, SparseSteps(rule, sparse, lags)] if sparse else found
