"""Every rule on every engine against the float64 reference, step by step.

Each step of the reference starts from what the engine had before it, so that the comparison sees one step's rounding and
no history; by induction the whole trajectory is right.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.conformance import rounding
from tests.conformance.cases import FORMS, RULES, SHAPES, Form, beside, gradients, hyper, parameters
from tests.conformance.engines import ENGINES, State, initial
from tests.conformance.tolerances import ROUNDINGS, ROUNDINGS_OF_RULE

from steprule import Range
from steprule.around import Around, hyperparameters, validated

STEPS = 4


def _cases(kinds: list[str] | None = None) -> list[object]:
    return [
        pytest.param(name, dtype, rule, kind, id=f"{name}-{dtype}-{rule}-{kind}")
        for name, engine in ENGINES.items()
        if not engine.absent
        for dtype in engine.dtypes
        for rule, each in RULES.items()
        if engine.takes(each)
        for kind in kinds or engine.shapes
    ] + [
        pytest.param(name, "", "", "", id=name, marks=pytest.mark.skip(reason=engine.absent))
        for name, engine in ENGINES.items()
        if engine.absent
    ]


def _agrees(
    name: str,
    dtype: str,
    rule_name: str,
    form: Form,
    shapes: list,
    *,
    non_finite: bool = False,
    values: dict[str, float] | None = None,
) -> None:
    rule, values = RULES[rule_name], hyper(rule_name) if values is None else values
    complete = validated(rule, {**values, **form.values})
    around = Around.of(complete, decoupled=form.decoupled, maximize=form.maximize)
    allowed = ROUNDINGS_OF_RULE.get((name, dtype, rule_name), ROUNDINGS[name, dtype])
    start = parameters(shapes, dtype)
    kind = ENGINES[name]
    with kind.within():
        begun = kind.begin(rule, values, form, dtype, start)
    states = initial(rule, start, dtype)
    for t, grads in enumerate(gradients(shapes, dtype, STEPS, non_finite=non_finite), 1):
        with kind.within():
            begun.step(grads)
            found = begun.state()
        assert all(array.shape == x.shape for x, each in zip(start, found, strict=True) for array in each.values())
        # Rules go element by element, and one long array takes the reference less time than many short ones.
        before, after = _joined(states), _joined(found)
        given = _joined([{"g": g, **beside(rule, g)} for g in grads])
        slots = {slot: before[slot] for slot in rule.slots}
        inputs = {"x": before["x"], "t": t, **given}
        ways = {"widens": kind.widens, "summed": kind.summed, "flushes": kind.flushes}
        expected = rounding.step(rule, around, inputs, slots, complete, dtype, **ways)
        assert after.keys() == expected.keys()
        for quantity, value in expected.items():
            times = np.split(rounding.times_too_far(after[quantity], value), np.cumsum([x.size for x in start])[:-1])
            for shape, each in zip(shapes, times, strict=True):
                assert each.max(initial=0.0) <= allowed.amount, (
                    f"{quantity} of shape {shape} in step {t}; {allowed.reason}"
                )
        states = found


def _joined(states: State) -> dict[str, NDArray[np.float64]]:
    """Return the elements of all tensors, one after the other, by name."""
    return {name: np.concatenate([np.ravel(each[name]) for each in states]) for name in states[0]}


@pytest.mark.parametrize(("engine", "dtype", "rule", "shape"), _cases())
def test_engine_agrees_with_the_reference(engine: str, dtype: str, rule: str, shape: str):
    for form in ENGINES[engine].forms_with(shape):
        _agrees(engine, dtype, rule, FORMS[form], SHAPES[shape])


@pytest.mark.parametrize(("engine", "dtype", "rule", "kind"), _cases(["non-finite"]))
def test_infinities_and_nan_stand_where_the_reference_has_them(engine: str, dtype: str, rule: str, kind: str):
    for form in ENGINES[engine].forms:
        _agrees(engine, dtype, rule, FORMS[form], [(500,)], non_finite=True)


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
    _agrees("CPU kernel", dtype, name, form, [(200,)], values=values)


def test_each_rule_has_hyperparameters_of_its_own():
    assert [name for name in RULES if not hyper(name)] == []
