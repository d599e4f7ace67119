"""Our transformations against those of optax that promise the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jax
import numpy as np
import optax
import pytest
from tests.conformance.tolerances import ULPS, ulps

from steprule import jax as ours

STEPS = 12
SHAPES = [(3, 5), (17,), ()]


@dataclass(frozen=True)
class Twin:
    """One of our functions and optax's, each with the arguments that make both do the same."""

    mine: Callable[..., Any]
    theirs: Callable[..., Any]
    values: Mapping[str, Any]
    """Ours, but the rate."""
    their_values: Mapping[str, Any]


TWINS: Final[Mapping[str, Twin]] = {
    "sgd": Twin(ours.sgd, optax.sgd, {}, {}),
    "momentum": Twin(ours.momentum, optax.sgd, {"rho": 0.8}, {"momentum": 0.8}),
    "nesterov": Twin(ours.nesterov, optax.sgd, {"rho": 0.8}, {"momentum": 0.8, "nesterov": True}),
    "adagrad": Twin(ours.adagrad, optax.adagrad, {"eps": 0.0}, {"eps": 0.0, "initial_accumulator_value": 0.0}),
    "rmsprop": Twin(ours.rmsprop, optax.rmsprop, {"rho": 0.8, "eps": 1e-3}, {"decay": 0.8, "eps": 1e-3}),
    "adadelta": Twin(ours.adadelta, optax.adadelta, {"rho": 0.8, "eps": 1e-3}, {"rho": 0.8, "eps": 1e-3}),
    "adam": Twin(ours.adam, optax.adam, {"beta1": 0.8, "beta2": 0.9, "eps": 1e-7}, {"b1": 0.8, "b2": 0.9, "eps": 1e-7}),
    "adamw": Twin(
        ours.adamw,
        optax.adamw,
        {"beta1": 0.8, "beta2": 0.9, "eps": 1e-7, "weight_decay": 0.03},
        {"b1": 0.8, "b2": 0.9, "eps": 1e-7, "weight_decay": 0.03},
    ),
}

WITHOUT: Final = dict.fromkeys(
    ("rmsprop_nesterov", "delta_bar_delta", "diagonal_newton", "vsgd", "vsgd_fd"), "no large library has this form"
)

DIFFERENCES: Final[Mapping[str, tuple[str, Twin | None]]] = {
    "momentum": ("optax multiplies the sum of gradients by the present rate, we keep past steps", None),
    "nesterov": ("as momentum", None),
    "adagrad": (
        "optax adds eps under the root, and starts its sum at 0.1; we add eps to the root and start at 0",
        Twin(ours.adagrad, optax.adagrad, {"eps": 1e-3}, {"eps": 1e-3, "initial_accumulator_value": 0.0}),
    ),
    "adadelta": (
        "without a rate optax hands on the update with no sign: added to the parameters it ascends; its rho is 0.9",
        None,
    ),
}
"""Where a twin differs and why, with what shows it, where that is other arguments; each is shown below."""


def _farthest(twin: Twin, rate: Any) -> float:
    """Return how many ulps the parameters are apart at most, in units of the largest that each held."""
    rng = np.random.default_rng(2)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    both = []
    for made in (twin.mine(rate, **twin.values), twin.theirs(rate, **twin.their_values)):
        params = [jax.numpy.asarray(x) for x in start]
        both.append((made.init(params), params, jax.jit(made.update)))
    farthest, largest = 0.0, [np.abs(x) for x in start]
    rng = np.random.default_rng(3)
    for _ in range(STEPS):
        grads = [rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3, shape) for shape in SHAPES]
        for place, (state, params, update) in enumerate(both):
            updates, state = update(grads, state, params)
            both[place] = (state, optax.apply_updates(params, updates), update)
        for place, (found, expected) in enumerate(zip(both[0][1], both[1][1], strict=True)):
            largest[place] = np.maximum(largest[place], np.abs(expected))
            farthest = max(farthest, ulps(found, expected, "float64", largest[place]).max())
    return float(farthest)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", TWINS)
def test_twin_makes_the_same_steps(name: str):
    allowed = ULPS["twin of optax"]
    assert _farthest(TWINS[name], 0.1) <= allowed.amount, allowed.reason


@pytest.mark.parametrize("name", sorted(TWINS.keys() - {"momentum", "nesterov"}))
def test_twin_makes_the_same_steps_by_a_schedule(name: str):
    schedule = optax.linear_schedule(0.1, 0.01, 10)
    allowed = ULPS["twin of optax"]
    assert _farthest(TWINS[name], schedule) <= allowed.amount, allowed.reason


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_momentum_differs_from_optax_where_the_rate_changes(name: str):
    assert _farthest(TWINS[name], optax.linear_schedule(0.1, 0.01, 10)) > 1e6 * ULPS["twin of optax"].amount


@pytest.mark.parametrize("name", [name for name, (_, shows) in DIFFERENCES.items() if shows])
def test_a_difference_shows_itself(name: str):
    assert _farthest(DIFFERENCES[name][1], 0.1) > 1e6 * ULPS["twin of optax"].amount


def test_adadelta_descends_with_no_argument_at_all_and_that_of_optax_ascends():
    def after_steps(made: optax.GradientTransformation) -> float:
        x, state = jax.numpy.asarray(1.0), made.init(jax.numpy.asarray(1.0))
        for _ in range(100):
            updates, state = jax.jit(made.update)(2 * x, state, x)
            x = optax.apply_updates(x, updates)
        return float(x * x)

    assert after_steps(ours.adadelta()) < 0.8 < 1.0 < after_steps(optax.adadelta())


def test_every_function_has_a_twin_or_a_reason():
    functions = {name for name in ours.__all__ if hasattr(getattr(ours, name), "__steprule_keywords__")}
    assert functions == TWINS.keys() | WITHOUT.keys()
    assert DIFFERENCES.keys() < TWINS.keys()
