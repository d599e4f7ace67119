"""Our classes against those of `torch.optim` that promise the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pytest
from tests.conformance.tolerances import ULPS, ulps

import torch
from steprule import torch as ours

STEPS = 12
SHAPES = [(3, 5), (17,), ()]


@dataclass(frozen=True)
class Twin:
    """One of our classes and torch's: the same hyperparameters under each one's names; torch's may need more."""

    ours: Callable[..., torch.optim.Optimizer]
    theirs: Callable[..., torch.optim.Optimizer]
    names: Mapping[str, str]
    """Our name of each hyperparameter, and torch's; "beta1" and "beta2" are joined to its `betas`."""
    values: Mapping[str, float]
    """In the first group, by our names."""
    second: Mapping[str, float]
    """In the second group, by our names: what differs."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of torch's class alone."""
    slots: Mapping[str, str] = field(default_factory=dict)
    """State that both keep: our name and torch's."""


_MOMENTUM = {"lr": "lr", "rho": "momentum"}
_ADAM = {"lr": "lr", "beta1": "beta1", "beta2": "beta2", "eps": "eps"}
_ADAM_VALUES = {"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-7}
_ADAM_SLOTS = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}

TWINS: Final[Mapping[str, Twin]] = {
    "SGD": Twin(ours.SGD, torch.optim.SGD, {"lr": "lr"}, {"lr": 0.1}, {"lr": 0.02}),
    "Momentum": Twin(ours.Momentum, torch.optim.SGD, _MOMENTUM, {"lr": 0.1, "rho": 0.8}, {"lr": 0.02}),
    "Nesterov": Twin(
        ours.Nesterov, torch.optim.SGD, _MOMENTUM, {"lr": 0.1, "rho": 0.8}, {"rho": 0.5}, {"nesterov": True}
    ),
    "Adagrad": Twin(
        ours.Adagrad,
        torch.optim.Adagrad,
        {"lr": "lr", "eps": "eps"},
        {"lr": 0.1, "eps": 1e-3},
        {"eps": 1e-2},
        slots={"sum": "sum"},
    ),
    "Adadelta": Twin(
        ours.Adadelta,
        torch.optim.Adadelta,
        {"lr": "lr", "rho": "rho", "eps": "eps"},
        {"lr": 0.5, "rho": 0.8, "eps": 1e-3},
        {"rho": 0.99},
        slots={"square_avg": "square_avg", "acc_delta": "acc_delta"},
    ),
    "Adam": Twin(ours.Adam, torch.optim.Adam, _ADAM, _ADAM_VALUES, {"beta1": 0.5}, slots=_ADAM_SLOTS),
    "AdamW": Twin(ours.AdamW, torch.optim.AdamW, _ADAM, _ADAM_VALUES, {"beta2": 0.5}, slots=_ADAM_SLOTS),
    "RMSProp": Twin(
        ours.RMSProp,
        torch.optim.RMSprop,
        {"lr": "lr", "rho": "alpha", "eps": "eps"},
        {"lr": 0.01, "rho": 0.8, "eps": 1e-40},
        {"lr": 0.02},
        slots={"square_avg": "square_avg"},
    ),
}

DIFFERENCES: Final[Mapping[str, str]] = {
    "RMSProp": "torch adds eps to the root, we and the book to what is under it: they agree where eps is negligible",
    "Momentum": "torch multiplies the sum of gradients by the present lr, we keep past steps: they agree while lr stays",
    "Nesterov": "as Momentum",
}
"""Where a twin differs and why; each is shown below."""


def _translated(twin: Twin, values: Mapping[str, float]) -> dict[str, Any]:
    names = {twin.names.get(name, name): value for name, value in values.items()}
    if "beta1" in names or "beta2" in names:
        both = {**twin.values, **values}
        names["betas"] = (both["beta1"], both["beta2"])
    return {name: value for name, value in names.items() if name not in ("beta1", "beta2")}


def _parameters() -> list[torch.nn.Parameter]:
    rng = np.random.default_rng(2)
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(shape))) for shape in SHAPES]


def _groups(parameters: list[torch.nn.Parameter], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"params": parameters[:2]}, {"params": parameters[2:], **second}]


def _farthest(
    twin: Twin, form: Mapping[str, Any], change: Callable[[torch.optim.Optimizer, int], None] | None = None
) -> float:
    """Return how many ulps the two are apart at most, in parameters and state, in units of the largest that each held."""
    mine, theirs = _parameters(), _parameters()
    our = twin.ours(_groups(mine, twin.second), **twin.values, **form)
    their = twin.theirs(
        _groups(theirs, _translated(twin, twin.second)), **_translated(twin, twin.values), **twin.more, **form
    )
    rng = np.random.default_rng(3)
    farthest, largest = 0.0, {}
    for number in range(STEPS):
        for some, others in zip(mine, theirs, strict=True):
            g = rng.standard_normal(some.shape) * 10.0 ** rng.integers(-2, 3, some.shape)
            some.grad, others.grad = torch.tensor(g), torch.tensor(g)
        for each in (our, their):
            if change:
                change(each, number)
            each.step()
        for place, (some, others) in enumerate(zip(mine, theirs, strict=True)):
            pairs = [(some, others)] + [(our.state[some][a], their.state[others][b]) for a, b in twin.slots.items()]
            for kind, (found, expected) in enumerate(pairs):
                found, expected = found.detach().numpy(), expected.detach().numpy()
                seen = largest[place, kind] = np.maximum(largest.get((place, kind), 0.0), np.abs(expected))
                farthest = max(farthest, ulps(found, expected, "float64", seen).max())
    return farthest


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
@pytest.mark.parametrize("name", TWINS)
def test_twin_makes_the_same_steps(name: str, weight_decay: float, maximize: bool):
    form = {"weight_decay": weight_decay, "maximize": maximize}
    allowed = ULPS["twin of torch.optim"]
    assert _farthest(TWINS[name], form) <= allowed.amount, allowed.reason


def test_rmsprop_differs_from_torch_where_eps_is_not_negligible():
    twin = TWINS["RMSProp"]
    with_eps = Twin(twin.ours, twin.theirs, twin.names, {**twin.values, "eps": 1e-3}, twin.second, slots=twin.slots)
    assert _farthest(with_eps, {}) > 1e6 * ULPS["twin of torch.optim"].amount


@pytest.mark.parametrize("name", ["Momentum", "Nesterov"])
def test_momentum_differs_from_torch_where_lr_changes(name: str):
    def halve(optimizer: torch.optim.Optimizer, number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5 if number == 5 else 1.0

    assert _farthest(TWINS[name], {}, halve) > 1e6 * ULPS["twin of torch.optim"].amount


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(DIFFERENCES)))
def test_twin_makes_the_same_steps_while_lr_changes(name: str):
    def lower(optimizer: torch.optim.Optimizer, number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.8

    assert _farthest(TWINS[name], {"weight_decay": 0.03}, lower) <= ULPS["twin of torch.optim"].amount


def test_every_class_has_a_twin_or_a_reason():
    classes = {name for name in ours.__all__ if hasattr(getattr(ours, name), "rule")}
    # No large library has these.
    without = {"RMSPropNesterov", "DeltaBarDelta", "DiagonalNewton", "VSGD", "VSGDfd"}
    assert classes == set(TWINS) | without
