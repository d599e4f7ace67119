"""Steps by a sparse gradient of an embedding: ours, our dense step, and PyTorch's sparse ones."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from .. import torch as ours
from .timing import Times, interleaved

__all__ = ["RULES", "SparseBench", "measure_sparse"]

ROWS: Final = 1_000_000
WIDTH: Final = 64
TOUCHED: Final = 4_096
_GRADIENTS: Final = 16
_REPEATS: Final = (5, 20)
"""Turns, and steps in each."""


@dataclass(frozen=True)
class _Contenders:
    sparse: Callable[..., torch.optim.Optimizer]
    dense: Callable[..., torch.optim.Optimizer]
    theirs: Callable[..., torch.optim.Optimizer] | None
    lazy: bool = False


RULES: Final = {
    "adagrad": _Contenders(ours.Adagrad, ours.Adagrad, torch.optim.Adagrad),
    "adadelta": _Contenders(ours.Adadelta, ours.Adadelta, None),
    "adam": _Contenders(ours.Adam, ours.Adam, torch.optim.SparseAdam, lazy=True),
}
"""Adam's sparse step is the lazy one, as PyTorch's SparseAdam is; PyTorch has no sparse Adadelta."""


@dataclass(frozen=True)
class SparseBench:
    """The times of one rule: "sparse" and "dense", ours, and "torch", where it has a sparse step."""

    rule: str
    rows: int
    width: int
    touched: int
    times: Mapping[str, Times]

    def ratio(self, name: str) -> float | None:
        """The median of `name` over that of our sparse step."""
        return self.times[name].median / self.times["sparse"].median if name in self.times else None


def measure_sparse(name: str) -> SparseBench:
    """Time one step of the rule `name` for a table of `ROWS` x `WIDTH` in float32, of which a gradient names `TOUCHED` rows.

    The gradients are as an embedding's backward pass leaves them, not coalesced; their rows are distinct, at random, and
    others from step to step.
    """
    generator = torch.Generator().manual_seed(0)
    gradients = [_gradient(generator) for _ in range(_GRADIENTS)]
    contenders = RULES[name]
    options: dict[str, Any] = {"sparse": "lazy"} if contenders.lazy else {}
    calls = {
        "sparse": _stepping(lambda parameters: contenders.sparse(parameters, **options), gradients),
        "dense": _stepping(contenders.dense, [torch.randn(ROWS, WIDTH, generator=generator)]),
    }
    if contenders.theirs is not None:
        calls["torch"] = _stepping(contenders.theirs, gradients)
    # PyTorch's own steps make sparse tensors, and it warns of what they leave to chance unless somebody has chosen.
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
        times = interleaved(calls, *_REPEATS)
    gc.collect()
    return SparseBench(name, ROWS, WIDTH, TOUCHED, times)


def _gradient(generator: torch.Generator) -> Tensor:
    rows = torch.randperm(ROWS, generator=generator)[:TOUCHED]
    values = torch.randn(TOUCHED, WIDTH, generator=generator)
    return torch.sparse_coo_tensor(rows[None], values, (ROWS, WIDTH), check_invariants=True)


def _stepping(optimizer: Callable[..., torch.optim.Optimizer], gradients: Sequence[Tensor]) -> Callable[[], object]:
    parameter = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    stepper, following = optimizer([parameter]), itertools.cycle(gradients)

    def step() -> None:
        parameter.grad = next(following)
        stepper.step()

    return step
