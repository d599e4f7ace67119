"""What a signature says, and what is refused."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprule import Decay, NonNegative, Positive, Range, Real, rule, rules
from steprule.specification import Hyperparameter
from tests.conformance import users_rules
from tests.libraries import LIBRARIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Share = Annotated[float, Range(low=0, high=0.5)]


@rule(source="Somebody 2024, eq. 1", url="https://example.org")
def whole(g, x, t, h, g2, slow=0.0, fast=1, *, rate: Positive, decay: Decay = 0.5, shift=-2):
    """A rule of everything."""
    return -rate * g, slow, fast


def test_a_signature_is_the_specification():
    assert whole.inputs == ("g", "x", "t", "h", "g2")
    assert whole.curvature == ("h", "g2")
    assert whole.slots == {"slow": 0.0, "fast": 1}
    assert whole.hyperparameters == {
        "rate": Hyperparameter("rate", Range(low=0, without_low=True), None),
        "decay": Hyperparameter("decay", Range(low=0, high=1, without_high=True), 0.5),
        "shift": Hyperparameter("shift", Range(), -2.0),
    }
    assert list(whole.hyperparameters) == ["rate", "decay", "shift"]
    assert isinstance(whole.hyperparameters["shift"].default, float)


def test_a_rule_keeps_what_its_function_says_of_itself():
    assert (whole.name, whole.source, whole.url) == ("whole", "Somebody 2024, eq. 1", "https://example.org")
    assert whole.__doc__ == "A rule of everything."
    assert whole.__module__ == __name__
    assert repr(whole) == "<rule whole: Somebody 2024, eq. 1>"


def test_the_decorator_needs_no_brackets():
    @rule
    def bare(g):
        return -g

    assert (bare.name, bare.source, bare.url, repr(bare)) == ("bare", "", "", "<rule bare>")
    assert bare.inputs == ("g",)


def test_a_rule_is_the_function_that_it_was_made_of():
    assert whole(2.0, 0.0, 1, 0.0, 0.0, 3.0, 4.0, rate=0.5) == (-1.0, 3.0, 4.0)
    assert users_rules.lion(2.0, lr=0.5)[0] == -0.5


def test_a_rules_own_range():
    @rule
    def sized(g, *, size: Annotated[float, "a remark", Range(low=1, high=2)] = 1.5):
        return -size * g

    assert sized.hyperparameters["size"].range == Range(1, 2)


def test_a_range_may_stand_for_itself():
    @rule
    def own(g, *, share: Range(low=0, high=0.5) = 0.25):  # type: ignore[valid-type]
        return -g

    assert own.hyperparameters["share"].range == Range(low=0, high=0.5)


def test_a_decorated_function_has_the_ranges_of_its_own_module():
    scope: dict = {"Share": Annotated[float, Range(low=0, high=0.5)]}
    exec("from __future__ import annotations\ndef step(g, *, rho: Share = 0.25): return -rho * g", scope)

    @functools.wraps(scope["step"])
    def wrapped(*operands, **values):
        return scope["step"](*operands, **values)

    assert rule(wrapped).hyperparameters["rho"].range == Range(low=0, high=0.5)


def _annotated(hint):
    def step(g, *, rho=0.25):
        return -rho * g

    step.__annotations__["rho"] = hint
    return step


@pytest.mark.parametrize("hint", [Share | None, Optional[Share], "Share", "'Share'"])  # noqa: UP045
def test_a_range_is_found_within_what_is_around_it(hint):
    assert rule(_annotated(hint)).hyperparameters["rho"].range == Range(low=0, high=0.5)


def test_a_range_is_found_under_a_name_of_the_type_statement():
    named = pytest.importorskip("typing_extensions").TypeAliasType("named", Share)
    assert rule(_annotated(named)).hyperparameters["rho"].range == Range(low=0, high=0.5)


@pytest.mark.parametrize("hint", [float, float | None, int, "float"])
def test_an_annotation_without_a_range_allows_any_finite_number(hint):
    assert rule(_annotated(hint)).hyperparameters["rho"].range == Range()


@pytest.mark.parametrize("hint", [Range, (0, 1), Decay()])
def test_what_is_no_range_is_not_taken_for_any_number(hint):
    with pytest.raises(TypeError, match=rf"^rule step: the range of rho is {re.escape(repr(hint))}; allowed is"):
        rule(_annotated(hint))


def test_a_range_that_only_a_type_checker_sees_is_refused_by_its_name():
    def step(g, *, edge: Edge = 0.5):  # noqa: F821
        return -g

    with pytest.raises(TypeError, match=r"^rule step: the range of edge is 'Edge', .*name 'Edge' is not defined"):
        rule(step)


def test_an_annotation_for_a_type_checker_is_no_matter():
    @rule
    def typed(g: NDArray[np.float64], *, size: Positive = 1.5) -> NDArray[np.float64]:
        return -size * g

    assert typed.hyperparameters["size"].range == Range(low=0, without_low=True)


def _undecorated(g, *, lr: NonNegative):
    return -lr * g


decorated = rule(_undecorated)


@pytest.mark.parametrize("each", [*rules.ALL.values(), users_rules.yogi, whole, decorated], ids=lambda each: each.name)
def test_a_copy_of_a_rule_is_the_rule(each):
    assert pickle.loads(pickle.dumps(each)) is each
    assert copy.deepcopy(each) is each
    assert copy.copy(each) is each


# To find it, pickle looks into every module that is loaded, and some warn of it.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_rule_of_no_module_is_copied_and_not_pickled():
    scope: dict = {}
    exec("def step(g): return -g", scope)
    made = rule(scope["step"])
    assert copy.deepcopy(made) is made
    with pytest.raises(pickle.PicklingError, match="step"):
        pickle.dumps(made)


def _refused(function: Callable) -> str:
    with pytest.raises(TypeError) as caught:
        rule(function)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_input_is_refused_with_what_is_allowed():
    def odd(g, grad):
        return -g

    message = _refused(odd)
    assert message.startswith(
        "rule odd has the input 'grad'; an input is one of g (gradient), x (parameter), t (step count"
    )


def test_a_rule_without_gradient_is_refused():
    def odd(x):
        return -x

    assert _refused(odd) == "rule odd does not take the gradient `g`"


@pytest.mark.parametrize("made_of", ["Zeiler 2012", 3, None, functools.partial(rules.sgd.function, lr=0.1)])
def test_what_is_no_function_with_a_name_makes_no_rule(made_of: object):
    if made_of is None:
        with pytest.raises(TypeError, match="^a rule is made of None; allowed is a function that has a name"):
            rule(source="Zeiler 2012")(made_of)
    else:
        assert _refused(made_of).startswith(f"a rule is made of {made_of!r}; allowed is a function that has a name")


def test_variadic_parameters_are_refused():
    def many(g, *slots):
        return -g

    def named(g, **hyper):
        return -g

    assert _refused(many) == "rule many takes *slots; a rule names each of its inputs, slots and hyperparameters"
    assert _refused(named) == "rule named takes **hyper; a rule names each of its inputs, slots and hyperparameters"


@pytest.mark.parametrize("start", [None, "0", True, [0.0], 0j, np.float32(0.5), np.int64(0)], ids=repr)
def test_a_slot_starts_with_a_number(start: object):
    def odd(g, mean=start):
        return -g, mean

    assert _refused(odd) == (
        f"rule odd: slot mean starts with {start!r}, a {type(start).__name__}; allowed is a number of Python's, an int or "
        "a float"
    )


def test_what_divides_every_gradient_is_no_hyperparameter():
    def odd(g, *, grad_scale=0.5):
        return -grad_scale * g

    assert "'grad_scale' has a meaning of its own" in _refused(odd)


@pytest.mark.parametrize("name", ["dx", "master", "copy", "mean_codes", "mean_scale"])
def test_what_engines_keep_beside_the_slots_is_no_slot(name: str):
    scope: dict = {}
    exec(f"def odd(g, mean=0.0, {name}=0.0): return -g, mean, {name}", scope)
    assert f"{name!r} has a meaning of its own" in _refused(scope["odd"])


def test_a_hyperparameter_may_have_any_other_name():
    @rule
    def odd(g, *, self=0.5):
        return -self * g

    assert odd(2.0, self=0.25) == -0.5


@pytest.mark.parametrize(
    "name", ["g", "x", "t", "h", "g2", "step", "sqrt", "abs", "sign", "where", "maximum", "minimum"]
)
def test_a_name_with_a_meaning_is_no_slot_and_no_hyperparameter(name: str):
    others = "" if name == "g" else "g, "
    for signature in (f"{others}{name}=0.0", f"{others}*, {name}=0.5"):
        scope: dict = {}
        exec(f"def odd({signature}): return 0.0, 0.0", scope)
        assert _refused(scope["odd"]) == (
            "rule odd does not take the gradient `g`"
            if name == "g"
            else f"rule odd: {name!r} has a meaning of its own; choose another name for the slot or hyperparameter"
        )


def test_a_default_out_of_range_is_refused_where_the_rule_is_defined():
    def late(g, *, rho: Decay = 1.0):
        return -g

    with pytest.raises(ValueError, match=r"^rule late: the default of rho is 1\.0; allowed is a number in \[0, 1\)$"):
        rule(late)


def test_a_default_that_is_no_number_is_refused():
    def late(g, *, rho: Decay = "high"):
        return -g

    assert _refused(late) == "rule late: the default of rho is 'high', a str; allowed is a number in [0, 1)"


@pytest.mark.parametrize(
    ("annotation", "text", "inside", "outside"),
    [
        (Real, "(-inf, inf)", [-1e300, 0.0, 5.0], []),
        (NonNegative, "[0, inf)", [0.0, -0.0, 5e-324, 1e300], [-5e-324, -1.0]),
        (Positive, "(0, inf)", [5e-324, 1e300], [0.0, -0.0, -1.0]),
        (Decay, "[0, 1)", [0.0, 0.999, math.nextafter(1, 0)], [-0.1, 1.0, 1.1]),
    ],
)
def test_the_named_ranges(annotation, text: str, inside: list[float], outside: list[float]):
    (allowed,) = annotation.__metadata__
    assert str(allowed) == text
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in [*outside, math.nan, math.inf, -math.inf])


ANY = st.floats()
ENDS = st.floats(allow_nan=False)


@given(value=ANY, low=ENDS, high=ENDS, without_low=st.booleans(), without_high=st.booleans())
def test_a_range_holds_what_its_text_says(value: float, low: float, high: float, without_low: bool, without_high: bool):
    allowed = Range(low, high, without_low, without_high)
    above = value > low or (value == low and not without_low)
    below = value < high or (value == high and not without_high)
    assert (value in allowed) == (math.isfinite(value) and above and below)
    left, right = str(allowed)[0], str(allowed)[-1]
    if math.isfinite(low) and math.isfinite(high):
        assert (left, right) == ("(" if without_low else "[", ")" if without_high else "]")


# Those whose float64 needs no leave.
_ARRAYS = [LIBRARIES[name].array for name in ("NumPy", "torch", "array-api-strict") if name in LIBRARIES]


@given(
    value=st.floats(),
    number=st.sampled_from(
        [
            float,
            np.float64,
            *(functools.partial(lambda array, value: array(value, "float64"), each) for each in _ARRAYS),
        ]
    ),
)
def test_a_value_is_checked_against_the_range_in_whatever_number_it_comes(value: float, number: Callable):
    rho = rules.adadelta.hyperparameters["rho"]
    given_value = float(number(value))
    if 0 <= given_value < 1:
        assert rho.validated(number(value)) == given_value
        assert type(rho.validated(number(value))) is float
    else:
        with pytest.raises(ValueError, match=r"^rho is .+; allowed is a number in \[0, 1\)$"):
            rho.validated(number(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "0.5",
        True,
        0.5j,
        [0.5],
        np.True_,
        *(array([0.5, 0.6], "float32") for array in _ARRAYS),
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused(value: object):
    with pytest.raises(TypeError, match=r"^eps is .*a \w+; allowed is a number in \[0, inf\)$"):
        rules.adadelta.hyperparameters["eps"].validated(value)


def test_an_integer_beyond_float64_is_out_of_range():
    with pytest.raises(ValueError, match="lr is "):
        rules.sgd.hyperparameters["lr"].validated(10**400)
