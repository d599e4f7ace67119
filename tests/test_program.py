"""A rule as a straight-line program: what is traced, what is split off, and what the numbers are."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from steprule import NonNegative, Positive, Real, Rule, around, notation, rule, rules
from steprule.around import PLAIN, Around
from steprule.notation import maximum, sign, sqrt, where
from steprule.program import Program, Value, expression, lower
from tests.conformance import rounding
from tests.conformance.cases import Form
from tests.conformance.engines import ENGINES
from tests.conformance.tolerances import ROUNDINGS
from tests.random_rules import equations, made, random_rules
from tests.requirements import require


def folded(each: Rule, t: int = 1, form: Around = PLAIN, **values: float) -> dict[str, float]:
    """Return each scalar of the program by its expression."""
    program = lower(each, form)
    numbers = program.fold(t=t, **around.validated(each, values))
    return dict(zip(map(expression, program.scalars), numbers, strict=True))


def shown(program: Program, output: str) -> str:
    return expression(program.outputs[output])


# Bytes for float32, each input read and each output written once, and operations, counted by hand.
COSTS = {
    "sgd": (12, 2),  # c g; x + dx
    "momentum": (20, 4),  # rho v, lr g, -; x + dx
    "nesterov": (20, 6),  # momentum's 3; (1 + rho) v', - rho v, which is there already; x + dx
    "adagrad": (20, 7),  # g g, +; root, + eps, -lr / it, * g; x + dx
    "rmsprop": (20, 9),  # 4 of the average; + eps, root, -lr / it, * g; x + dx
    "rmsprop_nesterov": (28, 13),  # 4; + eps, root, lr / it, * g, alpha v, -; (1 + alpha) v', -; x + dx
    "adadelta": (28, 16),  # 4; + eps, root, -, + eps, root, /, * g; 4; lr dx, x + it
    "adam": (28, 14),  # 3; 4; 2 corrections; -lr m; root, + eps, /; x + dx
    "delta_bar_delta": (28, 16),  # start, its sign; bar g; 2 signs, +, *, 2 choices; 3; -rate, * g; lr dx, x + it
    "diagonal_newton": (16, 6),  # |h|, + mu, -g, /; lr dx, x + it
    # memory; caution 5; 3; 4; 5; square; 3 of the signal; 4 of tau; 2, 4 of the share; 4 of the rate; 3; lr dx, x + it
    "vsgd": (52, 41),
    # 3 apart; 5, 5, 2 of outliers; 2; caution 5, squared; 2, 4, 3, 5; square; 3; 4; 2, 4; 3, 1; 3; lr dx, x + it
    "vsgd_fd": (60, 60),
}


@pytest.mark.parametrize("name", rules.ALL)
def test_bytes_and_operations_per_element(name: str):
    program = lower(rules.ALL[name])
    assert (program.bytes_per_element(4), program.operations) == COSTS[name]
    assert program.bytes_per_element(8) == 2 * COSTS[name][0]


def test_decay_costs_no_more_memory():
    for decay in ("coupled", "decoupled"):
        assert lower(rules.adadelta, Around(decay)).bytes_per_element(4) == 28


def test_a_program_reads_as_the_rule_does():
    program = lower(rules.adadelta)
    assert program.title == "adadelta"
    assert program.inputs == ("x", "g", "square_avg", "acc_delta")
    assert list(program.outputs) == ["x", "square_avg", "acc_delta"]
    assert shown(program, "square_avg") == "rho * square_avg + (1 - rho) * (g * g)"
    assert expression(program.outputs["x"], program.names) == "new_x"
    names = {
        id(program.outputs["square_avg"]): "r",
        **{id(v): "dx" for v in program.values() if program.names.get(id(v)) == "dx"},
    }
    assert expression(program.outputs["x"], names) == "x + lr * dx"
    (dx,) = (value for value in program.values() if program.names.get(id(value)) == "dx")
    assert expression(dx, {id(program.outputs["square_avg"]): "r"}) == "-sqrt((acc_delta + eps) / (r + eps)) * g"


def test_a_quotient_of_roots_is_one_root_in_a_step_and_stands_as_printed_in_the_rule_alone():
    (dx,) = (value for name, value in lower(rules.adadelta, None).outputs.items() if name == "dx")
    assert expression(dx).startswith("-sqrt(acc_delta + eps) / sqrt(rho * square_avg")


def test_values_come_in_the_order_in_which_the_rule_makes_them():
    program = lower(rules.adadelta)
    positions = [value.position for value in program.values()]
    assert positions == sorted(positions)
    made_before = {id(value) for value in program.scalars}
    for value in program.values():
        assert all(id(operand) in made_before for operand in value.operands)
        made_before.add(id(value))


@pytest.mark.parametrize("name", rules.ALL)
def test_no_arithmetic_on_scalars_is_left_in_the_loop(name: str):
    program = lower(rules.ALL[name], Around("coupled", maximize=True))
    for value in program.values():
        assert value.operation == "symbol" or any(operand.varies for operand in value.operands)
    assert not any(value.varies for value in program.scalars)


def test_scalars_are_computed_in_float64():
    rho = 0.999
    found = folded(rules.adadelta, rho=rho)["1 - rho"]
    assert found == 1 - rho
    # Rounded before the subtraction, it would be off by far more than by a rounding.
    assert np.float32(found) != np.float32(1) - np.float32(rho)


def test_bias_correction_is_a_scalar_of_the_step_count():
    found = folded(rules.adam, t=3, beta1=0.5, beta2=0.75, lr=0.1)
    assert found["1 / (1 - beta1 ** t)"] == 1 / (1 - 0.125)
    assert found["1 / (1 - beta2 ** t)"] == 1 / (1 - 0.75**3)
    assert found["-lr"] == -0.1


@pytest.mark.parametrize("name", rules.ALL)
def test_which_rules_count_steps(name: str):
    assert lower(rules.ALL[name]).counts == (name in ("adam", "vsgd", "vsgd_fd"))


def test_a_division_by_a_scalar_is_a_product_in_a_loop_and_a_division_in_an_equation():
    @rule
    def over(g, *, scale: Positive = 3.0):
        return -g / scale

    assert shown(lower(over), "x") == "x + lr * (-g * (1 / scale))"
    assert shown(lower(over, None), "dx") == "-g / scale"


def test_the_rule_alone_has_its_update_as_output():
    program = lower(rules.momentum, None)
    assert list(program.outputs) == ["dx", "velocity"]
    assert program.outputs["dx"] is program.outputs["velocity"]
    assert shown(program, "dx") == "rho * velocity - lr * g"


def test_lowering_the_same_twice_gives_the_same_program():
    assert lower(rules.adam, Around("coupled")) is lower(rules.adam, Around("coupled"))
    assert lower(rules.adam, Around("coupled")) is not lower(rules.adam, Around("decoupled"))


def test_equal_values_are_computed_once():
    @rule
    def twice(g):
        return (g * g) * 0.5 + (g * g) * 0.5

    # g g, its half, the sum; lr times it, added to x.
    assert lower(twice).operations == 5


def test_a_number_and_its_negative_zero_are_two():
    @rule
    def zeros(g):
        return g * 0.0 + g * -0.0

    assert {math.copysign(1, value) for value in folded(zeros).values() if value == 0} == {1.0, -1.0}


def test_what_is_not_returned_is_not_computed():
    @rule
    def wasteful(g, mean=0.0):
        mean = 0.5 * mean + g
        sqrt(mean * g)
        return -g, mean

    assert "sqrt" not in {value.operation for value in lower(wasteful).values()}


def test_a_slot_that_stays_is_not_written():
    @rule
    def still(g, kept=2.0, unused=3.0):
        return -g * kept, kept, unused

    program = lower(still)
    assert list(program.outputs) == ["x"]
    assert program.inputs == ("x", "g", "kept")


def test_a_square_is_a_product_and_a_root_is_a_root():
    @rule
    def powers(g, mean=1.0):
        return g**2 + mean**0.5, g**1

    program = lower(powers, None)
    assert shown(program, "dx") == "g * g + sqrt(mean)"
    assert shown(program, "mean") == "g"


@pytest.mark.parametrize(
    "counted",
    [lambda g, x: -g * (x > 0), lambda g, x: -(g < x), lambda g, x: (g > 0) + (x > 0), lambda g, x: sqrt(g == x)],
)
def test_a_comparison_is_no_number(counted):
    @rule
    def gate(g, x):
        return counted(g, x)

    with pytest.raises(
        TypeError, match=r"^a rule counts with a comparison, .*; where\(condition, 1\.0, 0\.0\) makes a number"
    ):
        lower(gate)


@pytest.mark.parametrize("form", [PLAIN, Around(guard=True), None])
def test_a_comparison_is_no_slot(form: Around | None):
    @rule
    def remembers(g, ahead=0.0):
        return -g, g > 0

    with pytest.raises(TypeError, match=r"^a rule counts with a comparison, "):
        lower(remembers, form)


def test_a_condition_is_left_as_it_is():
    @rule
    def gate(g, x, *, edge: Real = 0.5):
        return where(x >= edge, -g, g)

    assert shown(lower(gate, None), "dx") == "where(x >= edge, -g, g)"


# Python prints some of them with an exponent, which may have a sign and a zero in it.
CONSTANTS = [0.1, 3.0, 1e16, 1e22, 5e-324, -2.5, 0.0, -0.0, 1e-4, 1e-5, 2.5e-6, 1e-8, -1e-9, 1e-10, 123456789.125]


@pytest.mark.parametrize("constant", [*CONSTANTS, math.inf, -math.inf])
def test_a_constant_of_an_equation_comes_through_exactly(constant: float):
    @rule
    def shifted(g):
        return g + constant

    assert [repr(float(value)) for value in folded(shifted).values()] == [repr(constant), "1.0"]


def test_a_constant_nan_comes_through():
    @rule
    def lost(g):
        return g + math.nan

    assert any(math.isnan(value) for value in folded(lost).values())


@pytest.mark.parametrize("name", ["inf", "nan"])
def test_a_hyperparameter_may_be_called_as_a_constant_is(name: str):
    scope = {"minimum": notation.minimum}
    exec(f"def capped(g, *, {name}=3.0): return -{name} * minimum(g, float({name!r}))", scope)
    each = rule(scope["capped"])
    assert str(float(name)) in map(str, folded(each, **{name: 3.0}).values())


def test_a_scalar_division_by_zero_is_an_infinity_or_nan_as_in_numpy():
    @rule
    def over(g, *, a: NonNegative = 0.0, b: NonNegative = 0.0):
        return -g * (1 / a) + b / a

    found = folded(over)
    assert found["1 / a"] == math.inf
    assert math.isnan(found["b / a"])
    assert folded(over, a=2.0)["1 / a"] == 0.5


def test_a_scalar_beyond_float64_is_an_infinity():
    @rule
    def huge(g, *, a: NonNegative = 1e200):
        return -g * (a**2)

    assert folded(huge)["a ** 2"] == math.inf


def test_a_scalar_root_of_a_negative_number_is_nan():
    @rule
    def rooted(g, *, a: Real = -0.5):
        return -g * a**0.5

    assert math.isnan(folded(rooted)["a ** 0.5"])


def test_a_number_of_the_equation_may_be_what_divides_by_zero():
    @rule
    def over(g, t, *, n: NonNegative = 5.0):
        return -g / where(t > n, 1.0, 0.0) + g / -0.0

    found = folded(over)
    assert found["1 / where(t > n, 1, 0)"] == math.inf
    assert found["1 / (-0.0)"] == -math.inf
    assert folded(over, t=6)["1 / where(t > n, 1, 0)"] == 1.0


def test_what_divides_by_zero_may_be_what_a_function_makes():
    @rule
    def over(g, *, a: NonNegative = 0.0):
        return -g * (sqrt(1 + a) / sqrt(a)) + sqrt(a) / sign(a)

    found = folded(over)
    assert found["sqrt(1 + a) / sqrt(a)"] == math.inf
    assert math.isnan(found["sqrt(a) / sign(a)"])


def test_what_is_made_of_a_root_that_there_is_not_is_nan_too():
    @rule
    def rooted(g, *, a: Real = -0.5):
        return -g * abs(a**0.5) + where(a**0.5 > 1, g, 2 * g)

    found = folded(rooted)
    assert math.isnan(found["abs(a ** 0.5)"])
    assert not found["a ** 0.5 > 1"]


def test_functions_of_scalars_are_folded_too():
    @rule
    def capped(g, t, *, a: Real = -4.0):
        return -g * maximum(sqrt(abs(a)), sign(a)) * where(t > 2, 5.0, 7.0)

    found = folded(capped)
    assert found["maximum(sqrt(abs(a)), sign(a))"] == 2.0
    assert found["where(t > 2, 5, 7)"] == 7.0
    assert folded(capped, t=3)["where(t > 2, 5, 7)"] == 5.0


@pytest.mark.parametrize(
    "branch",
    [
        lambda g, t, a: g if g > 0 else a,
        lambda g, t, a: g if g else a,
        lambda g, t, a: g and a,
        lambda g, t, a: 0 < g < 1,
        lambda g, t, a: g if t == 1 else a,
        lambda g, t, a: g if a > 0 else g,
        lambda g, t, a: max(g, a),
        lambda g, t, a: not g,
    ],
)
def test_a_branch_on_an_operand_is_refused(branch):
    @rule
    def branches(g, t, *, a: Real = 1.0):
        return branch(g, t, a)

    with pytest.raises(TypeError, match=r"^a rule must not branch on its operands, .*; use steprule\.notation\.where"):
        lower(branches)


@pytest.mark.parametrize("statement", ["last += g", "g -= last", "x *= p", "t += 1", "p /= t", "last **= 2"])
def test_what_would_write_to_an_array_is_refused(statement: str):
    scope: dict = {}
    exec(f"def writes(g, x, t, last=0.0, *, p=0.5):\n    {statement}\n    return -g * x * t * p, last", scope)

    with pytest.raises(TypeError, match=r"^a rule must not change its operands in place, .*; write `a = a \+ b`"):
        lower(rule(scope["writes"]))


@pytest.mark.parametrize(
    "call",
    [
        lambda g, a: np.sqrt(g * g),
        lambda g, a: math.sqrt(a) * g,
        lambda g, a: g // 2,
        lambda g, a: g % a,
        lambda g, a: where((g > 0) & (a > 0), g, a),
        lambda g, a: g / (g * g).sum(),
        lambda g, a: round(g),
    ],
)
def test_what_is_none_of_the_notation_is_refused_with_what_there_is(call):
    @rule
    def calls(g, *, a: Real = 1.0):
        return call(g, a)

    with pytest.raises(
        TypeError, match=r"^rule calls computes what no .*; allowed are .* sqrt, .* of steprule\.notation$"
    ):
        lower(calls)


@pytest.mark.parametrize("operand", ["1", None, True, 1j, np.ones(1), [1.0], np.float32(1), np.int64(1)], ids=repr)
def test_an_operand_that_is_no_number_is_refused(operand: object):
    @rule
    def odd(g):
        return maximum(g, operand)

    with pytest.raises(
        TypeError, match=r"^a rule's equation holds .+, an? \w+; allowed are numbers of Python's, int and float$"
    ):
        lower(odd)


@pytest.mark.parametrize("each", ["adam", rules.adam.function, None])
def test_what_is_no_rule_is_refused(each: Any):
    with pytest.raises(TypeError, match=rf"^rule is {re.escape(repr(each))}; allowed is a rule"):
        lower(each)


def test_a_rule_without_return_is_refused():
    @rule
    def silent(g):
        sqrt(g)

    with pytest.raises(TypeError, match=r"^rule silent returned None; allowed is what its equations make"):
        lower(silent)


def test_a_rule_may_return_a_list():
    @rule
    def listed(g, mean=0.0):
        return [-g, mean + g]

    assert list(lower(listed).outputs) == ["x", "mean"]


def test_a_wrong_number_of_results_is_refused():
    @rule
    def short(g, mean=0.0):
        return -g

    with pytest.raises(TypeError, match="rule short returned 1 values; it has 1 slots"):
        lower(short)


def test_what_needs_a_line_of_its_own():
    program = lower(rules.nesterov)
    named = [program.names.get(id(value), "shared") for value in program.line_values()]
    assert named == ["shared", "new_velocity", "dx", "new_x"]  # rho * velocity stands in eq. 3 and eq. 4


def test_the_arrays_of_a_step_are_what_it_reads_and_then_what_it_only_writes():
    @rule
    def remembers(g, last=0.0, mean=0.0):
        return -mean, g, 0.5 * mean + g

    program = lower(remembers)
    assert program.inputs == ("x", "g", "mean")
    assert program.arrays == ("x", "g", "mean", "last")
    assert program.bytes_per_element(4) == 24


def test_inputs_beyond_the_gradient_are_read():
    @rule
    def newton(g, h, g2, *, mu: NonNegative = 0.5):
        return -g / (abs(h) + mu) * g2

    program = lower(newton)
    assert program.inputs == ("x", "g", "h", "g2")
    assert program.bytes_per_element(4) == 20


def _evaluated(value: Value, names: dict) -> object:
    scope = {name: getattr(notation, name) for name in notation.__all__}
    with np.errstate(all="ignore"):
        return eval(expression(value), scope, names)


@given(text=equations())
@settings(derandomize=True, max_examples=150)
def test_an_expression_says_what_the_rule_computes(text: str):
    names = {"g": np.array([0.0, -2.0, 1.5, 1e-3]), "x": np.array([1.0, 0.3, -0.7, 1e3])}
    slots = {"slow": np.array([0.5, 0.0, -3.0, 2.0]), "fast": np.array([-1.0, 1.0, 0.1, 0.0])}
    values = {"p": 0.75, "q": -1.25}
    each = made(text, "slow", "fast")
    with np.errstate(all="ignore"):
        dx, _ = around.update(each, {**names, "t": 3}, slots, values)
    found = _evaluated(lower(each, None).outputs["dx"], {**names, **slots, **values, "t": 3})
    assert np.array_equal(np.broadcast_to(found, 4), np.broadcast_to(dx, 4), equal_nan=True)


# Each example compiles two kernels.
@given(each=random_rules(), form=st.sampled_from([Form(), Form({"weight_decay": 0.5}, maximize=True)]))
@settings(
    derandomize=True,
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("engine", ["CPU kernel", "steprule.torch, plain"])
def test_a_random_rule_steps_as_in_the_reference(each: Rule, form: Form, engine: str, monkeypatch, tmp_path):
    require(engine in ENGINES, f"what {engine} needs is not installed")
    # Thrown away, since no other process will ask for these kernels.
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    rng = np.random.default_rng(4)
    shape, steps = (40,), 3
    grads = [rng.standard_normal(shape) for _ in range(steps)]
    grads[1][:4] = [np.nan, np.inf, 0.0, 1e-30]
    values = around.validated(each, form.values)
    for dtype in ("float64", "float32"):
        start = rng.standard_normal(shape).astype(dtype).astype(float)
        numpy = ENGINES["reference on NumPy"].begin(each, {}, form, "float64", [start])
        kernel = ENGINES[engine].begin(each, {}, form, dtype, [start])
        before = {"x": start, **{name: np.full(shape, value) for name, value in each.slots.items()}}
        for t, g in enumerate(grads, 1):
            g = g.astype(dtype).astype(float)
            kernel.step([g])
            (after,) = kernel.state()
            if dtype == "float64" and not ROUNDINGS[engine, dtype].amount:
                numpy.step([g])
                (expected,) = numpy.state()
                for name, found in after.items():
                    assert np.array_equal(found, expected[name], equal_nan=True), name
            else:
                wanted = rounding.step(
                    each,
                    Around.of(values, decoupled=False, maximize=form.maximize),
                    {"x": before["x"], "g": g, "t": t},
                    {name: before[name] for name in each.slots},
                    values,
                    dtype,
                )
                for name, found in after.items():
                    bound = wanted[name]
                    times = rounding.times_too_far(found, bound)
                    assert times.max(initial=0.0) <= ROUNDINGS[engine, dtype].amount, name
            before = after
