"""What a step does where the gradient is zero is read off the program, and the dense step does that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steprule import Decay, NonNegative, Rule, around, rule, rules
from steprule.around import Around
from steprule.notation import abs, maximum, sign, sqrt, where
from steprule.program import lower
from steprule.sparsity import scales_without_gradient
from tests.conformance.cases import FORMS, OF_THE_GRADIENT, RULES, Form, hyper
from tests.conformance.tolerances import FORMATS
from tests.random_rules import equations, made, random_rules

CAN = {"sgd", "adagrad", "rmsprop", "adadelta"}
REALS = {"float32": np.float32, "float64": np.float64}


def scales(spec: Rule, form: Form | None = None, dtype: str = "float64", t: int = 1, **values: float):
    form = form or Form()
    complete = around.validated(spec, {**values, **form.values})
    program = lower(spec, Around.of(complete, decoupled=form.decoupled, maximize=form.maximize))
    return scales_without_gradient(program, complete, spec.slots, t=t, real=dtype)


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_the_built_in_rules_that_can_are_those_that_forget_the_sign_of_a_gradient(name: str):
    if name in CAN:
        rho = hyper(name).get("rho")
        assert scales(RULES[name], **hyper(name)) == {slot: rho for slot in RULES[name].slots if rho is not None}
    else:
        with pytest.raises(TypeError, match="where the gradient is 0"):
            scales(RULES[name], **hyper(name))


@pytest.mark.parametrize("name", sorted(CAN))
@pytest.mark.parametrize("dtype", REALS)
def test_decoupled_decay_scales_the_parameter_too(name: str, dtype: str):
    found = scales(RULES[name], FORMS["decoupled"], dtype, **hyper(name))
    # The number that the loop multiplies by, not what it was rounded from.
    assert found["x"] == float(REALS[dtype](1 - hyper(name)["lr"] * FORMS["decoupled"].values["weight_decay"]))


@pytest.mark.parametrize("name", sorted(CAN - {"sgd"}))
def test_coupled_decay_is_a_gradient_that_is_nowhere_zero(name: str):
    with pytest.raises(TypeError, match="changes .* otherwise than by a factor where the gradient is 0"):
        scales(RULES[name], FORMS["coupled"], **hyper(name))


def test_for_gradient_descent_both_forms_of_decay_are_one():
    assert scales(rules.sgd, Form({"weight_decay": 0.5}), lr=0.25) == {"x": 1 - 0.25 * 0.5}


def test_momentum_says_what_moves_the_parameter():
    with pytest.raises(TypeError, match="^it moves the parameter by velocity where the gradient is 0$"):
        scales(rules.momentum, lr=0.1)


def test_what_a_hyperparameter_takes_out_does_not_count():
    assert scales(rules.momentum, lr=0.1, rho=0) == {"velocity": 0}
    assert scales(rules.adam, beta1=0) == {"exp_avg": 0, "exp_avg_sq": 0.999}
    assert scales(rules.adadelta, FORMS["decoupled"], lr=0) == {"square_avg": 0.95, "acc_delta": 0.95}


@pytest.mark.parametrize("name", sorted(CAN - {"sgd"}))
@pytest.mark.parametrize(("dtype", "eps"), [("float32", 0.0), ("float64", 0.0), ("float32", 1e-46)])
def test_a_possible_division_by_zero_is_refused(name: str, dtype: str, eps: float):
    with pytest.raises(ValueError, match="^where the gradient is 0 it may divide by 0 "):
        scales(RULES[name], dtype=dtype, **{**hyper(name), "eps": eps})


def test_what_is_zero_in_float32_need_not_be_in_float64():
    assert scales(rules.adagrad, dtype="float64", eps=1e-46) == {}


def test_a_factor_that_depends_on_the_step_count_is_refused():
    @rule
    def fades(g, t, mean=0.0, *, lr: NonNegative = 0.1):
        mean = mean * (1 - 1 / t) + g * g / t
        return -lr * g, mean

    with pytest.raises(TypeError, match="scales its slot mean where the gradient is 0 depends on the step count"):
        scales(fades, t=3)


def test_a_rate_may_depend_on_the_step_count():
    @rule
    def annealed(g, t, sum=0.0, *, lr: NonNegative = 0.1):
        sum = sum + g * g
        return -lr / t * g / (sqrt(sum) + 1e-3), sum

    assert scales(annealed, t=3) == {}


def test_rules_of_users_are_judged_by_what_they_do():
    @rule
    def signs(g, mean=0.0, *, lr: NonNegative = 0.1, rho: Decay = 0.5):
        mean = rho * mean + (1 - rho) * abs(g)
        return -lr * sign(g) * where(mean > 0.1, 1.0, 2.0), mean

    @rule
    def largest(g, most=0.0, *, rho: Decay = 0.5):
        return -g, maximum(rho * most, g * g)

    @rule
    def pulls(g, x, *, lr: NonNegative = 0.25, pull: NonNegative = 0.5):
        return -lr * (g + pull * x)

    @rule
    def divides(g, x, *, lr: NonNegative = 0.25):
        return -lr * g / x

    @rule
    def guarded(g, *, lr: NonNegative = 0.25):
        return where(g == 0, 0.0, -lr * g / sqrt(g * g))

    @rule
    def crossed(g, slow=0.0, fast=0.0):
        return -g, 0.5 * slow + 0.25 * fast, 0.5 * fast + g

    @rule
    def compares(g, h):
        return -g * where(g / g <= np.inf, h, 1 / h)

    assert scales(signs) == {"mean": 0.5}
    assert scales(pulls) == {"x": 1 - 0.25 * 0.5}
    assert scales(guarded) == {}
    with pytest.raises(TypeError, match="changes its slot most otherwise"):
        scales(largest)
    for each in (divides, compares):
        with pytest.raises(ValueError, match="may divide by 0"):
            scales(each)
    with pytest.raises(TypeError, match="moves its slot slow by fast"):
        scales(crossed)


def _times_g(own: str) -> st.SearchStrategy[str]:
    """Return equations of which many leave what is `own` alone where g is 0."""
    return equations().map(lambda equation: f"{own} + ({equation}) * g")


@given(
    spec=st.builds(made, _times_g("0.5 * x * p"), _times_g("q * slow"), _times_g("fast")) | random_rules(),
    form=st.sampled_from(list(FORMS.values())),
    slots=st.tuples(*[st.floats(-100, 100)] * 3),
    t=st.integers(1, 20),
)
@settings(derandomize=True, max_examples=400)
def test_what_is_promised_of_any_rule_is_what_its_step_does(spec: Rule, form: Form, slots: tuple, t: int):
    try:
        promised = scales(spec, form, t=t)
    except (TypeError, ValueError):
        # Were nearly all refused, hypothesis would fail the test.
        assume(False)
    x, slow, fast = (np.array([each]) for each in slots)
    values = around.validated(spec, form.values)
    new_x, new, _ = around.step(
        spec,
        Around.of(values, decoupled=form.decoupled, maximize=form.maximize),
        {"x": x, "g": np.zeros(1), "t": t},
        # A slot that starts from 0 or above and never gets below may be told to be there.
        {"slow": np.abs(slow), "fast": fast},
        values,
    )
    for name, before, after in (("x", x, new_x), ("slow", np.abs(slow), new["slow"]), ("fast", fast, new["fast"])):
        np.testing.assert_allclose(
            after, promised.get(name, 1.0) * before, rtol=64 * FORMATS["float64"].half, atol=1e-12
        )
