"""The classes of `torch.optim` that ours stand in the place of, arguments that both take, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tests.conformance.tolerances import ULPS, ulps

import torch
from steprule import torch as ours

__all__ = ["TWINS", "Apart", "Twin", "gradients", "start", "train"]

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class Twin:
    """Our class and torch's, arguments for all parameters, and what the second group has for itself."""

    ours: Callable[..., Any]
    theirs: Callable[..., Optimizer]
    values: Mapping[str, Any]
    second: Mapping[str, Any]

    def classes(self) -> dict[str, Callable[..., Any]]:
        return {"ours": self.ours, "theirs": self.theirs}


# Each value is away from both libraries' defaults.
TWINS: Final[Mapping[str, Twin]] = {
    "SGD": Twin(ours.SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.03}, {"lr": 0.02, "maximize": True}),
    "Adagrad": Twin(
        ours.Adagrad,
        torch.optim.Adagrad,
        {"lr": 0.1, "eps": 1e-3, "lr_decay": 0.25, "initial_accumulator_value": 0.5, "weight_decay": 0.03},
        {"eps": 1e-2, "lr_decay": 0.0},
    ),
    "Adadelta": Twin(
        ours.Adadelta,
        torch.optim.Adadelta,
        {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.03},
        {"rho": 0.99, "maximize": True},
    ),
    "Adam": Twin(
        ours.Adam,
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.03},
        {"betas": (0.5, 0.99)},
    ),
    "AdamW": Twin(
        ours.AdamW,
        torch.optim.AdamW,
        {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.3},
        {"weight_decay": 0.0, "maximize": True},
    ),
}

SHAPES: Final = [(3, 5), (17,), (), (0, 2)]


def start(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(2)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in SHAPES]


def gradients(dtype: torch.dtype, steps: int) -> list[list[torch.Tensor]]:
    """Return for each step the gradient of each parameter of `start`, of several magnitudes."""
    generator = torch.Generator().manual_seed(3)
    scales = torch.randint(-2, 2, (steps,), generator=generator)
    return [
        [torch.randn(shape, dtype=dtype, generator=generator) * 10.0 ** int(scale) for shape in SHAPES]
        for scale in scales
    ]


def _exactly(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_conj()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).to(torch.float64, copy=True).numpy()


class Apart:
    """How far some runs are from another, in parameters and state; a sum is measured by the largest that it has been."""

    def __init__(self) -> None:
        self._largest: dict[Any, Any] = {}
        self._kept: list[dict[Any, np.ndarray]] = []

    def keep(self, optimizer: Optimizer) -> None:
        """Look at what is expected after one more step."""
        found = _values(optimizer)
        for key, value in found.items():
            self._largest[key] = np.maximum(self._largest.get(key, 0.0), np.abs(value))
        self._kept.append(found)

    def check(self, optimizer: Optimizer, dtype: torch.dtype) -> None:
        """Assert that another optimizer has come to what the last `keep` saw."""
        kind = "float64" if dtype in (torch.float64, torch.complex128) else "float32"
        allowed = ULPS["twin of torch.optim"]
        found = _values(optimizer)
        assert found.keys() == self._kept[-1].keys()
        for key, value in self._kept[-1].items():
            apart = ulps(found[key], value, kind, self._largest[key])
            assert apart.max(initial=0.0) <= allowed.amount, (key, allowed.reason)


def _values(optimizer: Optimizer) -> dict[Any, np.ndarray]:
    found: dict[Any, np.ndarray] = {}
    for place, each in enumerate(each for group in optimizer.param_groups for each in group["params"]):
        state = {name: value for name, value in optimizer.state.get(each, {}).items() if value is not None}
        found |= {(place, name): _exactly(torch.as_tensor(value)) for name, value in ({"x": each} | state).items()}
    return found


def train(optimizer: Optimizer, grads: Sequence[Sequence[torch.Tensor | None]], each_step: Callable[[], None]) -> None:
    """Step once with each of `grads`, and call `each_step` after each."""
    params = [each for group in optimizer.param_groups for each in group["params"]]
    for step in grads:
        for each, g in zip(params, step, strict=True):
            each.grad = None if g is None else g.clone()
        optimizer.step()
        each_step()
