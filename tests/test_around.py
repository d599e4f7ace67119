"""Learning-rate multiplier, weight decay and maximize, on any rule."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprule import NonNegative, Real, Rule, around, rule, rules
from steprule.around import PLAIN, Around

FORMS = [Around(decay, maximize) for decay in ("none", "coupled", "decoupled") for maximize in (False, True)]


@rule
def half(g, mean=0.0):
    """A rule without a rate."""
    mean = 0.5 * mean + g
    return -mean, mean


@rule
def pull(g, x, *, lr: NonNegative = 0.25, weight_decay: Real = 3.0):
    """A rule with a decay of its own."""
    return -lr * (g + weight_decay * x)


def stepped(each: Rule, form: Around, x: float, g: float, slots: dict, **values: float) -> tuple:
    return around.step(each, form, {"x": x, "g": g, "t": 1}, slots, around.validated(each, values))


def test_a_whole_step_has_lr_the_rules_own_and_what_decays():
    assert list(around.hyperparameters(half)) == ["lr", "weight_decay", "lr_decay"]
    assert list(around.hyperparameters(rules.adadelta)) == ["lr", "rho", "eps", "weight_decay", "lr_decay"]
    assert list(around.hyperparameters(rules.momentum)) == ["lr", "rho", "weight_decay", "lr_decay"]


def test_what_a_rule_has_in_its_equations_is_the_rules_own():
    found = around.hyperparameters(pull)
    assert {name: found[name] for name in pull.hyperparameters} == pull.hyperparameters
    assert list(found) == ["lr", "weight_decay", "lr_decay"]
    assert around.hyperparameters(rules.sgd)["lr"].default is None


def test_lr_multiplies_an_update_that_has_none():
    assert stepped(half, PLAIN, 10.0, 2.0, {"mean": 4.0}, lr=0.1) == (10.0 + 0.1 * -4.0, {"mean": 4.0}, -4.0)
    assert stepped(half, PLAIN, 10.0, 2.0, {"mean": 4.0}) == (6.0, {"mean": 4.0}, -4.0)


def test_lr_of_the_equations_is_not_applied_twice():
    assert stepped(rules.sgd, PLAIN, 10.0, 2.0, {}, lr=0.5) == (9.0, {}, -1.0)


def test_coupled_decay_is_added_to_the_gradient():
    x, slots, _ = stepped(half, Around("coupled"), 10.0, 2.0, {"mean": 4.0}, lr=0.5, weight_decay=0.25)
    assert (x, slots) == (10.0 + 0.5 * -(2.0 + 4.5), {"mean": 2.0 + 4.5})


def test_decoupled_decay_shrinks_the_parameter_by_rate_times_decay():
    x, slots, _ = stepped(half, Around("decoupled"), 10.0, 2.0, {"mean": 4.0}, lr=0.5, weight_decay=0.25)
    assert (x, slots) == ((1 - 0.125) * 10.0 + 0.5 * -4.0, {"mean": 4.0})
    assert stepped(rules.sgd, Around("decoupled"), 10.0, 2.0, {}, lr=0.5, weight_decay=0.25)[0] == 8.75 - 1.0


def test_maximize_turns_the_gradient_and_not_the_decay():
    x, _, _ = stepped(half, Around("coupled", maximize=True), 10.0, 2.0, {"mean": 4.0}, weight_decay=0.25)
    assert x == 10.0 - (0.5 * 4.0 + (-2.0 + 2.5))


def test_a_rule_sees_the_parameter_that_decay_has_shrunk():
    @rule
    def seer(g, x):
        return -x

    assert stepped(seer, Around("decoupled"), 8.0, 1.0, {}, weight_decay=0.5) == (0.0, {}, -4.0)


@pytest.mark.parametrize("decay", ["none", "coupled", "decoupled"])
def test_a_decay_of_the_equations_is_the_only_one(decay: str):
    assert stepped(pull, Around(decay), 8.0, 1.0, {})[0] == 8.0 - 0.25 * (1.0 + 24.0)


def test_the_rate_of_a_later_step_is_divided():
    form = Around("decoupled", lr_decay=True)
    values = around.validated(rules.sgd, {"lr": 0.5, "lr_decay": 0.25, "weight_decay": 0.5})
    for t, rate in ((1, 0.5), (5, 0.25)):
        x, _, _ = around.step(rules.sgd, form, {"x": 8.0, "g": 2.0, "t": t}, {}, values)
        assert x == (1 - rate * 0.5) * 8.0 - rate * 2.0


def test_a_rate_that_decays_in_the_equations_does_so_alone():
    @rule
    def own(g, t, *, lr: NonNegative = 1.0, lr_decay: NonNegative = 1.0):
        return -lr / (t + lr_decay) * g

    assert around.hyperparameters(own)["lr_decay"].default == 1.0
    values = around.validated(own, {})
    assert around.step(own, Around(lr_decay=True), {"x": 0.0, "g": 1.0, "t": 3}, {}, values)[0] == -0.25


NUMBERS = st.floats(-1e6, 1e6)


@given(x=NUMBERS, g=NUMBERS, slot=NUMBERS, decay=st.floats(0, 2), form=st.sampled_from(FORMS))
def test_to_climb_a_loss_is_to_descend_its_negative(x: float, g: float, slot: float, decay: float, form: Around):
    opposite = Around(form.weight_decay, not form.maximize)
    for each, slots in ((half, {"mean": slot}), (rules.momentum, {"velocity": slot})):
        assert stepped(each, form, x, g, slots, lr=0.5, weight_decay=decay) == stepped(
            each, opposite, x, -g, slots, lr=0.5, weight_decay=decay
        )


@pytest.mark.parametrize("maximize", [False, True])
def test_the_form_follows_from_the_values(maximize: bool):
    for decoupled in (False, True):
        assert Around.of({"weight_decay": 0.0}, decoupled=decoupled, maximize=maximize) == Around("none", maximize)
        assert Around.of({}, decoupled=decoupled, maximize=maximize) == Around("none", maximize)
    assert Around.of({"weight_decay": 0.1}, decoupled=True, maximize=maximize) == Around("decoupled", maximize)
    assert Around.of({"weight_decay": 0.1}, decoupled=False, maximize=maximize) == Around("coupled", maximize)
    assert Around.of({"lr_decay": 0.1}, decoupled=False, maximize=maximize) == Around("none", maximize, lr_decay=True)


@pytest.mark.parametrize("value", ["no", "", 0.01, 0.0, 2, [True]])
@pytest.mark.parametrize("name", ["decoupled", "maximize"])
def test_what_is_neither_true_nor_false_is_no_switch(name: str, value: object):
    with pytest.raises(ValueError, match=rf"{name}.* is {re.escape(repr(value))}; allowed is False or True"):
        Around.of({}, **{"decoupled": False, "maximize": False, name: value})


@pytest.mark.parametrize(("value", "truth"), [(1, True), (0, False), (None, False), (np.True_, True)])
def test_what_counts_as_a_truth(value: Any, truth: bool):
    assert Around.of({}, decoupled=False, maximize=value) == Around("none", truth)


def test_values_are_completed_in_order_as_floats():
    found = around.validated(rules.adadelta, {"eps": 1})
    assert found == {"lr": 1.0, "rho": 0.95, "eps": 1.0, "weight_decay": 0.0, "lr_decay": 0.0}
    assert list(around.validated(rules.adam, {"eps": 1})) == ["lr", "beta1", "beta2", "eps", "weight_decay", "lr_decay"]
    assert {type(value) for value in around.validated(rules.sgd, {"lr": 1}).values()} == {float}


@pytest.mark.parametrize("decay", ["L2", "", None, 0.1])
def test_an_unknown_decay_is_refused_with_what_there_is(decay: Any):
    with pytest.raises(
        ValueError, match=rf"^weight_decay is {decay!r}; allowed are 'none', 'coupled' and 'decoupled'$"
    ):
        Around(decay)


def test_an_unknown_hyperparameter_is_refused_with_what_there_is():
    with pytest.raises(
        TypeError, match=r"^adadelta has no hyperparameter 'beta'; it has: lr, rho, eps, weight_decay, lr_decay$"
    ):
        around.validated(rules.adadelta, {"beta": 0.5})


@pytest.mark.parametrize("values", [{}, {"lr": None}])
def test_a_missing_hyperparameter_is_named(values: dict):
    with pytest.raises(TypeError, match=r"^sgd needs lr, a number in \[0, inf\); it has no default$"):
        around.validated(rules.sgd, values)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_what_is_around_has_a_range_too(name: str, value: float):
    with pytest.raises(ValueError, match=rf"^{name} is {value}; allowed is a number in \[0, inf\)$"):
        around.validated(rules.adadelta, {name: value})


def test_a_rule_must_return_its_update_and_its_slots():
    @rule
    def short(g, first=0.0, second=0.0):
        return -g, first

    @rule
    def long(g):
        return -g, g

    with pytest.raises(
        TypeError, match=r"^rule short returned 2 values; it has 2 slots, so that it returns the update and"
    ):
        stepped(short, PLAIN, 1.0, 1.0, {"first": 0.0, "second": 0.0})
    with pytest.raises(TypeError, match=r"^rule long returned 2 values; it has 0 slots, .* and then nothing else$"):
        stepped(long, PLAIN, 1.0, 1.0, {})
