"""Every rule on every engine against the float64 reference, step by step.

Each step of the reference starts from what the engine had before it, so that the comparison sees one step's rounding and
no history; by induction the whole trajectory is right.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.conformance import rounding
from tests.conformance.cases import FORMS, RULES, SHAPES, Form, Shapes, beside, gradients, hyper, parameters
from tests.conformance.engines import ENGINES, State, initial
from tests.conformance.tolerances import ROUNDINGS, ROUNDINGS_OF_RULE

from steprule import Range
from steprule.around import Around, hyperparameters, validated

STEPS = 4


CASES = [
    pytest.param(name, dtype, rule, id=f"{name}-{dtype}-{rule}")
    for name, engine in ENGINES.items()
    if not engine.absent
    for dtype in engine.dtypes
    for rule, each in RULES.items()
    if engine.takes(each)
] + [
    pytest.param(name, "", "", id=name, marks=pytest.mark.skip(reason=engine.absent))
    for name, engine in ENGINES.items()
    if engine.absent
]


def _agrees(
    name: str,
    dtype: str,
    rule_name: str,
    form: Form,
    each_by_itself: list[Shapes],
    *,
    non_finite: bool = False,
    values: dict[str, float] | None = None,
) -> None:
    """Assert that the engine steps as the reference does, on each of some shapes in a beginning of its own."""
    rule, values = RULES[rule_name], hyper(rule_name) if values is None else values
    complete = validated(rule, {**values, **form.values})
    around = Around.of(complete, decoupled=form.decoupled, maximize=form.maximize)
    allowed = ROUNDINGS_OF_RULE.get((name, dtype, rule_name), ROUNDINGS[name, dtype])
    kind = ENGINES[name]
    starts = [parameters(shapes, dtype) for shapes in each_by_itself]
    with kind.within():
        begun = [kind.begin(rule, values, form, dtype, start) for start in starts]
    shapes = [shape for shapes in each_by_itself for shape in shapes]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    states = [state for start in starts for state in initial(rule, start, dtype)]
    given = (gradients(shapes, dtype, STEPS, non_finite=non_finite) for shapes in each_by_itself)
    for t, grads in enumerate(zip(*given, strict=True), 1):
        with kind.within():
            for engine, own in zip(begun, grads, strict=True):
                engine.step(own)
            found = [state for engine in begun for state in engine.state()]
        assert all(array.shape == shape for shape, each in zip(shapes, found, strict=True) for array in each.values())
        # Rules go element by element, and one long array takes the reference less time than many short ones.
        before, after = _joined(states), _joined(found)
        taken = _joined([{"g": g, **beside(rule, g)} for own in grads for g in own])
        slots = {slot: before[slot] for slot in rule.slots}
        inputs = {"x": before["x"], "t": t, **taken}
        ways = {"widens": kind.widens, "summed": kind.summed, "flushes": kind.flushes}
        expected = rounding.step(rule, around, inputs, slots, complete, dtype, **ways)
        assert after.keys() == expected.keys()
        for quantity, value in expected.items():
            times = rounding.times_too_far(after[quantity], value)
            for shape, each in zip(shapes, np.split(times, ends[:-1]), strict=True):
                assert each.max(initial=0.0) <= allowed.amount, (
                    f"{quantity} of shape {shape} in step {t} of {form}; {allowed.reason}"
                )
        states = found


def _joined(states: State) -> dict[str, NDArray[np.float64]]:
    """Return the elements of all tensors, one after the other, by name."""
    return {name: np.concatenate([np.ravel(each[name]) for each in states]) for name in states[0]}


# Of "module" scope, so that tests of one engine and rule follow each other: what the first compiles serves the second.
@pytest.mark.parametrize(("engine", "dtype", "rule"), CASES, scope="module")
def test_engine_agrees_with_the_reference(engine: str, dtype: str, rule: str):
    kind = ENGINES[engine]
    for form in kind.forms:
        _agrees(engine, dtype, rule, FORMS[form], [SHAPES[shape] for shape in kind.shapes_with(form)])


@pytest.mark.parametrize(("engine", "dtype", "rule"), CASES, scope="module")
def test_infinities_and_nan_stand_where_the_reference_has_them(engine: str, dtype: str, rule: str):
    kind = ENGINES[engine]
    shapes = SHAPES[kind.shapes[-1] if kind.compiled else "500"]
    for form in kind.forms:
        _agrees(engine, dtype, rule, FORMS[form], [shapes], non_finite=True)


_VALUES = {
    "decay": st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.9, 0.999, 0.999999])),
    "rate": st.one_of(st.floats(0, 10), st.sampled_from([0.0, 1e-12, 1.0])),
}


def _least(range_: Range) -> float:
    """Return a number in the range, near its lower end."""
    return range_.low + 1e-12 * range_.without_low


@st.composite
def _rules_and_values(draw: st.DrawFn) -> tuple[str, dict[str, float], Form]:
    name = draw(st.sampled_from(sorted(RULES)))
    values = {
        each: max(draw(_VALUES["decay" if 1.0 not in declared.range else "rate"]), _least(declared.range))
        for each, declared in hyperparameters(RULES[name]).items()
        if each != "lr_decay"
    }
    # Forms that the tests above have compiled.
    return name, values, Form({}, decoupled=False, maximize=draw(st.booleans()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(case=_rules_and_values())
@settings(derandomize=True, max_examples=100)
def test_a_kernel_agrees_with_the_reference_whatever_the_hyperparameters(dtype: str, case: tuple):
    name, values, form = case
    _agrees("CPU kernel", dtype, name, form, [((200,),)], values=values)


def test_each_rule_has_hyperparameters_of_its_own():
    assert [name for name in RULES if not hyper(name)] == []
