"""What every optimizer of Keras can do, with each rule: the same as the reference does with gradients changed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
from tests.conformance.cases import RULES, hyper
from tests.conformance.tolerances import ULPS
from tests.keras.runs import (
    BY_GRADIENT,
    OF_KERAS,
    Arrays,
    by_reference,
    check,
    gradients,
    named,
    statelessly,
    stepped,
    values_of,
    variables,
)

from steprule.keras import optimizer

pytestmark = pytest.mark.usefixtures("float64")


def of_each(norm: float) -> Callable[[Arrays], Arrays]:
    return lambda grads: [g * norm / max(norm, np.sqrt((g * g).sum())) for g in grads]


def of_all(norm: float) -> Callable[[Arrays], Arrays]:
    def clip(grads: Arrays) -> Arrays:
        whole = np.sqrt(sum((g * g).sum() for g in grads))
        return [g * min(1.0, norm / whole) for g in grads]

    return clip


@dataclass(frozen=True)
class Option:
    """Arguments of the class, and what they do: to gradients, and to the hyperparameters of a variable by its place."""

    arguments: Mapping[str, Any]
    clipped: Callable[[Arrays], Arrays] = lambda grads: grads
    values: Callable[[int], Mapping[str, float]] = lambda _: {}
    form: Mapping[str, bool] = field(default_factory=dict)
    dtype: str = "float64"
    """In what Keras computes it at least: on PyTorch, some of its operations have float32 for a plain number."""


OPTIONS = {
    "clipnorm": Option({"clipnorm": 0.7}, of_each(0.7), dtype="float32"),
    "clipvalue": Option({"clipvalue": 0.3}, lambda grads: [np.clip(g, -0.3, 0.3) for g in grads]),
    "global_clipnorm": Option({"global_clipnorm": 0.7}, of_all(0.7), dtype="float32"),
    "loss_scale_factor": Option({"loss_scale_factor": 8.0}, lambda grads: [g / 8.0 for g in grads]),
    "weight_decay": Option(
        {"weight_decay": 0.03}, values=lambda _: {"weight_decay": 0.03}, form={"decoupled_weight_decay": True}
    ),
    "coupled": Option({"weight_decay": 0.03, "decoupled_weight_decay": False}, values=lambda _: {"weight_decay": 0.03}),
    "maximize": Option({"maximize": True}, form={"maximize": True}),
    "lr_decay": Option({"lr_decay": 0.25}, values=lambda _: {"lr_decay": 0.25}),
}


def made(name: str, **more: Any) -> Any:
    cls = optimizer(RULES[name])
    return cls(**{**named(cls, hyper(name)), **more})


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", RULES)
def test_an_option_does_what_it_says(name: str, option: str):
    asked, steps = OPTIONS[option], gradients()
    found = stepped(made(name, **asked.arguments), steps)
    clipped = [asked.clipped(grads) for grads in steps]
    expected = by_reference(RULES[name], clipped, lambda _, place: {**hyper(name), **asked.values(place)}, **asked.form)
    check(found, expected, ULPS["twin in Keras"], asked.dtype)


@pytest.mark.parametrize("name", RULES)
def test_weight_decay_leaves_out_what_is_excluded(name: str):
    steps, own = gradients(), variables()
    optimizer = made(name, weight_decay=0.03)
    optimizer.exclude_from_weight_decay(var_list=[own[0]], var_names=["v2"])
    found = stepped(optimizer, steps, own)
    expected = by_reference(
        RULES[name],
        steps,
        lambda _, place: {**hyper(name), "weight_decay": 0.03 if place == 1 else 0.0},
        decoupled_weight_decay=True,
    )
    check(found, expected, ULPS["twin in Keras"])


@pytest.mark.parametrize("name", RULES)
def test_a_schedule_drives_the_rate(name: str):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.7)
    rates = [0.05 * 0.7 ** (number / 2) for number in range(6)]
    found = stepped(made(name, learning_rate=schedule), gradients())
    expected = by_reference(RULES[name], gradients(), lambda number, _: {**hyper(name), "lr": rates[number]})
    check(found, expected, ULPS["twin in Keras"], OF_KERAS)


@pytest.mark.parametrize("name", RULES)
def test_the_rate_may_be_set_and_may_be_a_function(name: str):
    rates = [0.05 * 0.7**number for number in range(6)]
    expected = by_reference(RULES[name], gradients(), lambda number, _: {**hyper(name), "lr": rates[number]})
    by_hand = made(name)
    check(
        stepped(by_hand, gradients(), change=lambda number: setattr(by_hand, "learning_rate", rates[number])),
        expected,
        ULPS["twin in Keras"],
    )
    rest = iter(rates)
    check(stepped(made(name, learning_rate=lambda: next(rest)), gradients()), expected, ULPS["twin in Keras"])


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_accumulated_gradients_step_by_their_mean(name: str):
    steps = gradients(6)
    means = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in zip(steps[::2], steps[1::2], strict=True)]
    found = stepped(made(name, gradient_accumulation_steps=2), steps)
    check(found, by_reference(RULES[name], means, lambda *_: hyper(name)), ULPS["twin in Keras"])


@pytest.mark.parametrize("name", RULES)
def test_the_moving_average_of_the_variables(name: str):
    steps, own = gradients(4), variables()
    optimizer = made(name, use_ema=True, ema_momentum=0.8)
    stepped(optimizer, steps, own)
    optimizer.finalize_variable_values(own)
    xs = [by_reference(RULES[name], steps[: number + 1], lambda *_: hyper(name)) for number in range(4)]
    average = xs[0]
    for each in xs[1:]:
        average = [0.8 * one + 0.2 * other for one, other in zip(average, each, strict=True)]
    check([values_of(each) for each in own], average, ULPS["twin in Keras"])


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_scaled_loss_steps_alike_and_skips_infinities(name: str):
    steps = gradients(4)
    wrapped = keras.optimizers.LossScaleOptimizer(made(name), initial_scale=1024.0)
    scaled = [[g * 1024.0 for g in grads] for grads in steps]
    scaled.insert(2, [np.full_like(g, np.inf) for g in steps[0]])
    halved = [[g / 2 for g in grads] if place > 2 else grads for place, grads in enumerate(scaled)]
    found = statelessly(wrapped, halved) if keras.config.backend() == "jax" else stepped(wrapped, halved)
    check(found, by_reference(RULES[name], steps, lambda *_: hyper(name)), ULPS["twin in Keras"])


@pytest.mark.skipif(keras.config.backend() == "tensorflow", reason="Keras has no stateless_apply on TensorFlow")
@pytest.mark.parametrize("name", RULES)
def test_a_step_without_state_changes_nothing_and_comes_to_the_same(name: str):
    found = statelessly(made(name, weight_decay=0.03), gradients())
    expected = by_reference(
        RULES[name], gradients(), lambda *_: {**hyper(name), "weight_decay": 0.03}, decoupled_weight_decay=True
    )
    check(found, expected, ULPS["twin in Keras"])


@pytest.mark.parametrize("name", RULES)
def test_a_constraint_holds_after_the_step(name: str):
    own = variables()
    own[0].constraint = keras.constraints.NonNeg()
    found = stepped(made(name), gradients(1), own)
    expected = by_reference(RULES[name], gradients(1), lambda *_: hyper(name))
    check(found, [np.maximum(expected[0], 0.0), *expected[1:]], ULPS["twin in Keras"], "float32")  # as Option.dtype
