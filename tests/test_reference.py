"""The reference: a step of any rule with the arrays of any library."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprule import NonNegative, Real, reference, rule, rules
from steprule.notation import where
from tests.conformance import users_rules
from tests.libraries import LIBRARIES, Library
from tests.requirements import require_installed, require_release

KINDS = [(name, dtype) for name, library in LIBRARIES.items() for dtype in ("float32", "float64", *library.lower)]


@pytest.fixture(params=KINDS, ids=" ".join)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[Library, str]]:
    name, dtype = request.param
    with LIBRARIES[name].within():
        yield LIBRARIES[name], dtype


@rule
def curved(g, t, h, g2, *, mu: NonNegative = 0.5):
    """A rule that takes all that there is."""
    return -g / (abs(h) + mu) + t * g2


@rule
def two_speeds(g, rate=0.5, *, slow: Real = 0.1, fast: Real = 0.7):
    """A rule that chooses between two numbers."""
    rate = where(g > 0, slow, fast) + 0.0 * rate
    return -rate * g, rate


@rule
def gate(g, count=0.0):
    """A rule that chooses between a number and an array, and sets a slot to a number."""
    return where(g > 0, -0.1, 0.0) * g, 2.0


def test_a_power_of_the_step_count_may_be_a_long_integer(kind: tuple[Library, str]):
    @rule
    def fades(g, t):
        return -g / 2**t

    library, dtype = kind
    if dtype == "float16":
        pytest.skip("its numbers end at 65504")
    x, _ = reference.step(fades, library.array([0.0], dtype), library.array([0.5], dtype), {"step": 69})
    assert library.numbers(x).tolist() == [-(2.0**-71)]


def test_the_first_state_is_of_the_parameters_kind(kind: tuple[Library, str]):
    library, dtype = kind
    x = library.array([1.0, -2.0], dtype)
    state = reference.init(users_rules.yogi, x)
    assert list(state) == ["step", "exp_avg", "exp_avg_sq"]
    assert state["step"] == 0
    for slot, initial in users_rules.yogi.slots.items():
        assert type(state[slot]) is type(x)
        assert (state[slot].dtype, state[slot].shape) == (x.dtype, x.shape)
        # float16 has numbers as small as this with few digits.
        assert library.numbers(state[slot])[1] == pytest.approx(initial, rel=2**-5 if dtype == "float16" else 2**-8)


def test_a_plain_number_is_a_parameter_too():
    x, state = reference.step(rules.momentum, 1.0, 2.0, reference.init(rules.momentum, 1.0), lr=0.25, rho=0.5)
    assert (x, state) == (0.5, {"step": 1, "velocity": -0.5})


def test_slots_begin_alike_where_the_parameter_is_no_number():
    with np.errstate(invalid="ignore"):
        state = reference.init(rules.adagrad, np.array([np.inf, np.nan, 1.0]))
    assert np.array_equal(state["sum"], np.zeros(3))


def test_a_step_changes_nothing_in_place(kind: tuple[Library, str]):
    library, dtype = kind
    x, g = library.array([1.0, -2.0], dtype), library.array([3.0, 0.5], dtype)
    state = reference.init(rules.adam, x)
    given = [x, g, *(state[slot] for slot in rules.adam.slots)]
    before = copy.deepcopy([library.numbers(array) for array in given])
    reference.step(rules.adam, x, g, state, weight_decay=0.1)
    assert state["step"] == 0
    assert np.array_equal(before, [library.numbers(array) for array in given])


def test_a_slot_that_is_set_to_an_input_is_an_array_of_its_own(kind: tuple[Library, str]):
    @rule
    def last(g, x, before=1.0, place=1.0):
        return before - g, g, x

    library, dtype = kind
    x, g = library.array([0.0, -0.0, 2.0], dtype), library.array([0.5, -0.0, -2.0], dtype)
    _, state = reference.step(last, x, g, reference.init(last, x))
    for found, given in ((state["before"], g), (state["place"], x)):
        assert found is not given
        assert np.array_equal(np.signbit(library.numbers(found)), np.signbit(library.numbers(given)))
        np.testing.assert_array_equal(library.numbers(found), library.numbers(given))


def test_steps_are_counted_from_one():
    @rule
    def clock(g, t):
        return 0 * g + t

    x, state = np.zeros(1), reference.init(clock, np.zeros(1))
    for expected in (1.0, 3.0, 6.0):
        x, state = reference.step(clock, x, x, state)
        assert x == expected
    assert state == {"step": 3}


@pytest.mark.parametrize("kept", [2, 2.0, np.int64(2), np.array(2), np.array(2.0)], ids=repr)
def test_a_step_count_may_be_what_numpy_kept_of_it(kept: Any):
    x, g = np.ones(3), np.array([0.5, -2.0, 0.0])
    state = reference.step(rules.adam, x, g, reference.step(rules.adam, x, g, reference.init(rules.adam, x))[1])[1]
    expected, expected_state = reference.step(rules.adam, x, g, state)
    found, found_state = reference.step(rules.adam, x, g, {**state, "step": kept})
    np.testing.assert_array_equal(found, expected)
    assert found_state["step"] == expected_state["step"] == 3


@pytest.mark.parametrize("step", [-1, 0.5, "0", None, True, math.nan, np.ones(3), np.array(-1)], ids=repr)
def test_what_counts_no_steps_is_refused(step: Any):
    shown = re.escape(repr(step.item() if np.shape(step) == () and hasattr(step, "item") else step))
    with pytest.raises(ValueError, match=rf"^state has the step {shown}; allowed is"):
        reference.step(rules.adam, 1.0, 1.0, {"step": step, "exp_avg": 0.0, "exp_avg_sq": 0.0})


@pytest.mark.parametrize("each", [rules.adam, rules.adadelta], ids=lambda each: each.name)
def test_a_step_is_compiled_by_jax(each: Any):
    require_installed("jax")
    import jax
    import jax.numpy as jnp

    def step(x, state):
        return reference.step(each, x, jnp.array([0.5, -2.0, 0.0]), state, lr_decay=0.1)

    found = expected = jnp.ones(3)
    state = traced = reference.init(each, found)
    for _ in range(3):
        found, traced = jax.jit(step)(found, traced)
        expected, state = step(expected, state)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert traced["step"] == 3


def test_every_input_reaches_the_rule():
    x, g = np.array([1.0]), np.array([3.0])
    found, _ = reference.step(curved, x, g, {"step": 4}, h=np.array([-1.0]), g2=np.array([10.0]), mu=0.5)
    assert found == 1.0 - 3.0 / 1.5 + 50.0


@pytest.mark.parametrize(("given", "missing"), [({}, "h"), ({"h": 1.0}, "g2"), ({"g2": 1.0}, "h")])
def test_a_missing_input_is_named(given: dict[str, Any], missing: str):
    with pytest.raises(TypeError, match=rf"^rule curved takes {missing}, and none was given$"):
        reference.step(curved, 1.0, 1.0, {"step": 0}, **given)


def test_an_input_that_a_rule_does_not_take_is_no_matter():
    state = reference.init(rules.sgd, 1.0)
    assert reference.step(rules.sgd, 1.0, 1.0, state, h=5.0, lr=0.5)[0] == 0.5


def test_hyperparameters_are_checked():
    state = reference.init(rules.adadelta, 1.0)
    with pytest.raises(TypeError, match="adadelta has no hyperparameter 'beta'"):
        reference.step(rules.adadelta, 1.0, 1.0, state, beta=0.5)
    with pytest.raises(ValueError, match=r"^rho is 1\.1; allowed is a number in \[0, 1\)$"):
        reference.step(rules.adadelta, 1.0, 1.0, state, rho=1.1)
    with pytest.raises(TypeError, match="sgd needs lr"):
        reference.step(rules.sgd, 1.0, 1.0, {"step": 0})
    with pytest.raises(ValueError, match=r"^maximize is 'no'; allowed is False or True$"):
        reference.step(rules.sgd, 1.0, 1.0, {"step": 0}, lr=0.5, maximize="no")


def test_what_is_around_the_rule():
    def step(**around: Any) -> float:
        return reference.step(rules.sgd, 10.0, 2.0, {"step": 0}, lr=0.5, **around)[0]

    assert step() == 9.0
    assert step(maximize=True) == 11.0
    assert step(weight_decay=0.1) == 8.5
    assert step(weight_decay=0.1, decoupled_weight_decay=True) == 8.5
    assert step(weight_decay=0.1, maximize=True) == 10.5
    # Where the rule divides by what the gradient is, the two decays part.
    state = reference.init(rules.adagrad, 10.0)
    coupled, _ = reference.step(rules.adagrad, 10.0, 2.0, state, weight_decay=0.1, eps=0, lr=0.5)
    decoupled, _ = reference.step(
        rules.adagrad, 10.0, 2.0, state, weight_decay=0.1, eps=0, lr=0.5, decoupled_weight_decay=True
    )
    assert (coupled, decoupled) == (9.5, 9.0)


@pytest.mark.parametrize("each", [two_speeds, gate], ids=lambda each: each.name)
def test_a_step_keeps_the_parameters_type(kind: tuple[Library, str], each: Any):
    library, dtype = kind
    x = library.array([1.0, -2.0], dtype)
    new_x, state = reference.step(each, x, x, reference.init(each, x))
    (slot,) = each.slots
    assert type(new_x) is type(state[slot]) is type(x)
    assert new_x.dtype == x.dtype
    assert state[slot].dtype == x.dtype


def test_two_numbers_keep_the_digits_that_the_type_has(kind: tuple[Library, str]):
    library, dtype = kind
    x = library.array([1.0, -2.0], dtype)
    _, state = reference.step(two_speeds, x, x, reference.init(two_speeds, x))
    assert np.array_equal(library.numbers(state["rate"]), library.numbers(library.array([0.1, 0.7], dtype)))


def test_plain_numbers_divide_as_python_does():
    @rule
    def over(g, *, a: NonNegative = 0.0):
        return -g * (1 / a)

    # A kernel's scalar would be an infinity: docs/numbers.md says so.
    with pytest.raises(ZeroDivisionError):
        reference.step(over, np.array([1.0]), np.array([1.0]), {"step": 0})


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_parameter_of_integers_is_refused(name: str, dtype: str):
    library = LIBRARIES[name]
    if (name, dtype) == ("MXNet's older arrays", "bool"):
        pytest.skip("MXNet's older arrays hold no truths")
    x = library.array(np.array([1, 0], dtype), dtype)
    said = rf"^x is an array of {dtype}; allowed is one of a floating-point type, such as float32$"
    with pytest.raises(TypeError, match=said):
        reference.init(rules.adam, x)
    with pytest.raises(TypeError, match=said):
        reference.step(rules.sgd, x, x, {"step": 0}, lr=0.5)


@pytest.mark.parametrize("shape", [(3, 1), (2, 3), (1,), ()])
def test_arrays_of_another_shape_are_refused(shape: tuple[int, ...]):
    x, other = np.ones(3), np.ones(shape)
    state = reference.init(rules.adadelta, x)
    for name, g, slots in (("g", other, state), ("square_avg", x, state | {"square_avg": other})):
        with pytest.raises(
            ValueError, match=rf"^{name} has the shape {re.escape(str(shape))}; allowed is that of x, \(3,\)$"
        ):
            reference.step(rules.adadelta, x, g, slots)


def test_what_is_no_array_is_refused_by_its_name():
    x = np.ones(2)
    for given in ([0.5, -2.0], None):
        with pytest.raises(TypeError, match=rf"^g is of type {type(given).__name__}; allowed is an array of the shape"):
            reference.step(rules.adam, x, given, reference.init(rules.adam, x))
        said = rf"^x is of type {type(given).__name__}; allowed is an array of a floating-point type"
        with pytest.raises(TypeError, match=said):
            reference.init(rules.adam, given)
        with pytest.raises(TypeError, match=said):
            reference.step(rules.sgd, given, given, {"step": 0}, lr=0.5)


@pytest.mark.parametrize("state", [{}, {"exp_avg": 0.0, "exp_avg_sq": 0.0}, reference.init(rules.adadelta, 1.0)])
def test_a_state_of_another_rule_is_refused(state: dict[str, Any]):
    said = r"^state has .*; allowed for adam, as init or step returns it, is step, exp_avg, exp_avg_sq$"
    with pytest.raises(ValueError, match=said):
        reference.step(rules.adam, 1.0, 1.0, state)


def test_a_rule_that_writes_to_its_operands_is_refused_before_it_does():
    @rule
    def writes(g, last=0.0):
        last += g
        return -g, last

    with pytest.raises(TypeError, match="in place"):
        reference.init(writes, np.ones(2))


def test_complex_numbers_are_refused():
    x = np.ones(3, np.complex64)
    said = "^x is an array of complex64; allowed are its real and its imaginary part, each as one of floats$"
    with pytest.raises(TypeError, match=said):
        reference.init(rules.adam, x)
    with pytest.raises(TypeError, match=said):
        reference.step(rules.sgd, x, x, {"step": 0}, lr=0.5)


def test_a_name_is_no_rule():
    x = np.ones(2)
    for call in (lambda: reference.init("adadelta", x), lambda: reference.step("adadelta", x, x, {"step": 0})):
        with pytest.raises(TypeError, match="'adadelta'"):
            call()


@pytest.mark.parametrize("library", [name.lower() for name in ("NumPy", "MXNet") if name in LIBRARIES])
def test_the_documentations_examples_run_as_they_stand(library: str):
    text = (Path(__file__).parents[1] / "docs" / "arrays.md").read_text(encoding="utf-8")
    found = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if f"import {library}" in block:
            exec(compile(block, "docs/arrays.md", "exec"), found)
    if library == "mxnet":
        found["mx"].npx.reset_np()
    assert found["state"]["step"] == 1
    assert [float(value) for value in found["x"]] == pytest.approx([1.0 - 0.003162, 1.0 + 0.003162, 1.0], abs=1e-4)


def test_a_step_can_be_differentiated_in_torch():
    require_installed("torch")
    import torch

    lr = torch.tensor(3.0, requires_grad=True)
    x, _ = reference.step(rules.sgd, lr * 2.0, torch.tensor(1.0), {"step": 0}, lr=0.5)
    x.backward()
    assert lr.grad.item() == 2.0


@pytest.mark.parametrize("each", [rules.adadelta, users_rules.yogi, two_speeds], ids=lambda each: each.name)
def test_a_step_is_traced_by_tensorflow(each: Any):
    require_installed("tensorflow")
    import tensorflow as tf

    x, g = tf.Variable([1.0, -2.0]), tf.constant([3.0, -0.5])
    state = reference.init(each, x)

    @tf.function
    def traced(x: Any, g: Any, slots: Any) -> Any:
        return reference.step(each, x, g, {"step": 0, **slots})

    slots = {slot: state[slot] for slot in each.slots}
    found, expected = traced(x, g, slots)[0], reference.step(each, x, g, state)[0]
    assert found.numpy().tolist() == pytest.approx(expected.numpy().tolist(), rel=2**-22)


def test_a_step_is_compiled_by_torch_as_one_graph():
    require_installed("torch")
    require_release("torch", "2.12", "its compiler does not know all that the reference does with numbers")
    import torch

    x, g = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])
    state = reference.init(two_speeds, x)
    compiled = torch.compile(lambda: reference.step(two_speeds, x, g, state)[0], backend="eager", fullgraph=True)
    assert torch.equal(compiled(), reference.step(two_speeds, x, g, state)[0])
