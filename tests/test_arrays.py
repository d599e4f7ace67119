"""A program on arrays comes to what the rule does, its scalars in float64 whatever the arrays are."""

from __future__ import annotations

import numpy as np
import pytest

from steprule import Rule, around, notation, rule
from steprule.around import Around
from steprule.arrays import elements, scalars
from steprule.program import lower
from tests.conformance.cases import FORMS, RULES, hyper
from tests.conformance.tolerances import ROUNDINGS_OF_RULE, ulps


def step(each: Rule, form: Around, values: dict, t: object, dtype: str = "float64") -> dict:
    program = lower(each, form)
    rng = np.random.default_rng(0)
    arrays = {name: rng.random(7).astype(dtype) for name in ("x", "g", "h", "g2", *each.slots)}
    known = scalars(program, {**values, "t": t}, np.asarray, lambda number: np.asarray(number, dtype))
    return {"arrays": arrays, "made": elements(program, arrays, known)}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RULES)
def test_a_program_does_as_the_rule(name: str, form: str, traced: bool):
    each, asked = RULES[name], FORMS[form]
    values = around.validated(each, {**hyper(name), **asked.values})
    kind = Around.of(values, decoupled=asked.decoupled, maximize=asked.maximize)
    # A count that is an array stands for one of a traced computation.
    run = step(each, kind, values, np.asarray(3.0) if traced else 3)
    inputs = {**run["arrays"], "t": 3}
    x, new, _ = around.step(each, kind, inputs, run["arrays"], values)
    cheaper = ("CPU kernel", "float64", name) in ROUNDINGS_OF_RULE
    for quantity, expected in ({"x": x} | new).items():
        assert ulps(run["made"][quantity], expected, "float64", 1.0).max() <= (4 if cheaper else 0)


def test_scalars_are_rounded_once():
    @rule
    def averaged(g, average=0.0, *, rho=0.999):
        average = rho * average + (1 - rho) * g
        return -average, average

    run = step(averaged, Around(), around.validated(averaged, {}), 1, "float32")
    assert run["made"]["average"].dtype == np.float32
    arrays = run["arrays"]
    expected = np.float32(0.999) * arrays["average"] + np.float32(1 - 0.999) * arrays["g"]
    np.testing.assert_array_equal(run["made"]["average"], expected)


def test_a_condition_of_the_count_chooses_numbers_of_float64():
    @rule
    def warmed(g, t, *, low=0.1, high=0.7):
        return -notation.where(t < 3, low, high) * g

    values = around.validated(warmed, {})
    for t, rate in ((1, 0.1), (3, 0.7)):
        for count in (t, np.asarray(float(t))):
            run = step(warmed, Around(), values, count)
            np.testing.assert_array_equal(run["made"]["x"], run["arrays"]["x"] + -rate * run["arrays"]["g"])


def test_a_division_by_zero_is_infinite():
    @rule
    def odd(g, *, rho=0.0):
        return -(1 / rho) * g

    run = step(odd, Around(), around.validated(odd, {}), 1)
    assert np.isinf(run["made"]["x"]).all()
