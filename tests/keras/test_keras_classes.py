"""The classes: what they take, keep, refuse and say of themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from typing import Any

import keras
import numpy as np
import pytest
from examples.own_rule import lion, yogi
from tests.conformance.cases import RULES, hyper
from tests.keras.runs import folds, gradients, named, start, stepped, values_of, variables

import steprule.keras as ours
from steprule import NonNegative, Positive, Rule, reference, rule, rules
from steprule.specification import Hyperparameter

CLASSES = {name: getattr(ours, name) for name in ours.__all__ if hasattr(getattr(ours, name), "rule")}


def made(name: str, **more: Any) -> Any:
    cls = ours.optimizer(RULES[name])
    return cls(**named(cls, hyper(name)), **more)


def test_each_rule_has_a_class():
    assert {cls.rule for cls in CLASSES.values()} == set(rules.ALL.values())
    assert all(issubclass(cls, keras.optimizers.Optimizer) and cls.__name__ == name for name, cls in CLASSES.items())


def test_the_same_rule_gives_the_same_class():
    assert ours.optimizer(rules.adadelta) is ours.Adadelta
    assert ours.optimizer(yogi) is ours.optimizer(yogi)
    assert ours.optimizer(yogi).__name__ == "Yogi"


def test_arguments_are_those_of_keras_in_their_order():
    theirs = list(keras.optimizers.Adadelta().get_config())
    taken = list(ours.Adadelta.__signature__.parameters)
    assert taken[:3] == ["learning_rate", "rho", "epsilon"]
    assert set(theirs) <= set(taken)
    assert (
        ours.Adam(0.1, 0.5, 0.6, 1e-4).get_config().items()
        >= {
            "beta_1": 0.5,
            "beta_2": 0.6,
            "epsilon": 1e-4,
        }.items()
    )


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_defaults_are_those_of_the_rule(name: str):
    cls = CLASSES[name]
    declared = cls.rule.hyperparameters
    for own, keras_name in cls.keywords.names.items():
        if own in declared:
            assert cls.keywords.defaults[keras_name] == declared[own].default
    if "lr" not in declared:
        assert cls.keywords.defaults["learning_rate"] == 1.0


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_docstring_describes_each_argument(name: str):
    cls = CLASSES[name]
    for argument in cls.__signature__.parameters:
        assert f"\n- `{argument}`: " in cls.__doc__


def test_a_rate_without_default_is_asked_for():
    with pytest.raises(
        TypeError, match=r"SGD: missing a required argument: 'learning_rate'; it takes: learning_rate, "
    ):
        ours.SGD()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": 1.0}, ValueError, r"rho is 1\.0; allowed is a number in \[0, 1\)"),
        ({"epsilon": -1e-6}, ValueError, r"epsilon is -1e-06; allowed is a number in \[0, inf\)"),
        ({"epsilon": "1"}, (TypeError, ValueError), "epsilon is '1', a str; allowed is a number"),
        ({"learning_rate": -1}, ValueError, r"learning_rate is -1\.0; allowed is a number in \[0, inf\)"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay is nan; allowed is a number"),
        ({"eps": 1e-6}, TypeError, "Adadelta has no argument 'eps'; as in Keras it is called epsilon"),
        (
            {"momentum": 0.9},
            TypeError,
            "Adadelta: got an unexpected keyword argument 'momentum'; it takes: learning_rate",
        ),
        ({"sparse": "lazy"}, ValueError, "sparse is 'lazy'; allowed are 'exact' and 'dense'"),
        ({"maximize": "no"}, ValueError, "maximize is 'no'; allowed is False or True"),
        ({"decoupled_weight_decay": 0.01}, ValueError, "decoupled_weight_decay is 0.01; allowed is False or True"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: Any, message: str):
    with pytest.raises(error, match=message):
        ours.Adadelta(**arguments)


@pytest.mark.parametrize("argument", ["rho", "epsilon", "weight_decay", "maximize", "sparse"])
def test_what_a_compiled_step_would_not_see_cannot_be_changed(argument: str):
    optimizer = ours.Adadelta()
    with pytest.raises(AttributeError, match=f"{argument} of Adadelta stays"):
        setattr(optimizer, argument, 0.5)
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("value", [-5, float("nan"), np.float32(-5), np.array(-5.0), True])
def test_a_rate_that_is_set_is_checked_as_one_that_is_given(value: Any):
    optimizer = ours.Adadelta(0.25)
    with pytest.raises((TypeError, ValueError), match=r"learning_rate is .*; allowed is a number in \[0, inf\)"):
        optimizer.learning_rate = value
    assert float(optimizer.learning_rate) == 0.25


def test_a_rate_may_be_set_to_a_number_of_any_library_and_a_schedule():
    optimizer = ours.Adadelta(0.25)
    for value in (2, np.float32(2), np.array(2.0), keras.ops.convert_to_tensor(2.0), keras.Variable(2.0)):
        optimizer.learning_rate = 0.5
        optimizer.learning_rate = value
        assert float(optimizer.learning_rate) == 2.0
    optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    assert float(optimizer.learning_rate) == 0.5


@rule
def above_zero(g, *, lr: Positive):
    """Step down by a rate that cannot be 0."""
    return -lr * g


def test_a_rule_whose_rate_is_above_zero_steps():
    own = variables("float32")
    grads = [keras.ops.convert_to_tensor(g, "float32") for g in gradients(1)[0]]
    ours.optimizer(above_zero)(0.5).apply(grads, own)
    for x, g, after in zip(start(), gradients(1)[0], own, strict=True):
        np.testing.assert_allclose(values_of(after), x - 0.5 * g, rtol=1e-5)


@rule
def remembers(g, x, older=2.0, last=1.0, place=0.0):
    """Step by what the gradients before were, and the parameter."""
    return -0.125 * g * older * last - place, last, g, x


def test_a_slot_may_become_what_another_slot_or_the_parameter_was():
    own = variables("float32")
    optimizer = ours.optimizer(remembers)(0.5)
    expected, states = start(), [reference.init(remembers, x) for x in start()]
    for grads in gradients(3):
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in grads], own)
        pairs = zip(expected, grads, states, strict=True)
        expected, states = zip(*(reference.step(remembers, x, g, state, lr=0.5) for x, g, state in pairs), strict=True)
    for number, (x, state) in enumerate(zip(expected, states, strict=True)):
        np.testing.assert_allclose(values_of(own[number]), x, rtol=1e-5)
        for name, slot in optimizer._slots_of(number).items():
            np.testing.assert_allclose(values_of(slot), state[name], rtol=1e-5)


@rule
def from_a_tenth(g, a=0.1, b=0.0, *, lr: NonNegative = 0.1):
    """Step by a rule with a slot that begins with a number that has to be rounded."""
    return -lr * g, a + b, b


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_slots_begin_where_they_stay_with_a_number_that_is_rounded_once(dtype: str):
    variable = keras.Variable(keras.ops.zeros((1000, 100), dtype), dtype=dtype)
    optimizer = ours.optimizer(from_a_tenth)()
    tracemalloc.start()
    optimizer.build([variable])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000, "an array on the host"
    expected = keras.ops.convert_to_numpy(keras.ops.cast(np.full((1000, 100), 0.1), dtype)).astype(np.float64)
    slot = optimizer._slots_of(0)["a"]
    np.testing.assert_array_equal(values_of(slot), expected)
    assert keras.config.backend() != "torch" or slot.value.is_contiguous()


@pytest.mark.parametrize("name", RULES)
def test_a_config_goes_through_json_and_back(name: str):
    optimizer = made(name, weight_decay=0.03, clipnorm=2.0, use_ema=True, decoupled_weight_decay=False)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    assert config["registered_name"] == f"steprule>{RULES[name].class_name}"
    for again in (keras.optimizers.deserialize(config), type(optimizer).from_config(optimizer.get_config())):
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()


def test_a_schedule_goes_through_a_config():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(ours.Adadelta(schedule)))
    assert again.get_config() == ours.Adadelta(schedule, name=again.name).get_config()


def test_the_class_of_another_rule_of_the_same_name_is_refused():
    @rule
    def adadelta(g, *, lr: Positive):
        """Step by a rule whose class would be saved as another's is."""
        return -lr * g

    with pytest.raises(ValueError, match="name is 'Adadelta', which is the class of the rule steprule.rules.adadelta"):
        ours.optimizer(adadelta)
    assert ours.optimizer(adadelta, name="MyAdadelta").__name__ == "MyAdadelta"


def of_a_factory(factor: float, *, default: float = 0.1, doubled: bool = False) -> Rule:
    """Return a rule; each is made at the same place."""
    if doubled:

        @rule
        def made_here(g, *, lr: NonNegative = default):
            """Step by a factor, twice."""
            return -lr * g * factor * 2

        return made_here

    @rule
    def made_here(g, *, lr: NonNegative = default):
        """Step by a factor."""
        return -lr * (lambda x: x * factor)(g)

    return made_here


def test_the_same_rule_made_again_has_the_name_and_another_of_the_same_place_has_not():
    first = ours.optimizer(of_a_factory(2.0))
    again = ours.optimizer(of_a_factory(2.0))
    assert again is not first
    for other in (of_a_factory(3.0), of_a_factory(2.0, default=0.2), of_a_factory(2.0, doubled=True)):
        with pytest.raises(
            ValueError, match=r"name is 'MadeHere', which is the class of another rule that was made at"
        ):
            ours.optimizer(other)
        assert ours.optimizer(other, name="Another").__name__ == "Another"
        keras.saving.get_custom_objects().pop("steprule>Another")


def test_a_cell_of_a_notebook_may_stand_on_other_lines():
    cell = 'def moved(g, *, lr=0.1):\n    """Step."""\n    return -lr * (lambda x: x)(g)\n'
    made_of = []
    for lines in ("", "\n\n"):
        scope: dict[str, Any] = {"__name__": "notebook"}
        exec(compile(lines + cell, f"<{len(lines)}>", "exec"), scope)
        made_of.append(rule(scope["moved"]))
    assert [ours.optimizer(each).__name__ for each in made_of] == ["Moved", "Moved"]


def test_other_defaults_need_another_name():
    message = (
        r"name is 'Adam', which is the class of the rule steprule\.rules\.adam\.adam with its own defaults; allowed for "
        r"that with the defaults weight_decay=0\.1 is another: optimizer\(rule, name=\.\.\.\)"
    )
    with pytest.raises(ValueError, match=message):
        ours.optimizer(rules.adam, weight_decay=0.1)
    assert keras.saving.get_registered_object("steprule>Adam") is ours.Adam
    assert ours.optimizer(rules.adam, name="AdamW", weight_decay=0.004) is ours.AdamW


@pytest.mark.parametrize("name", ["clipnorm", "iterations", "built", "sparse", "name"])
def test_a_hyperparameter_with_a_name_of_keras_is_refused(name: str):
    made_of: Rule = rule(lambda g, *, lr=0.1: -lr * g)
    made_of.hyperparameters[name] = Hyperparameter(name, made_of.hyperparameters["lr"].range, 0.5)
    with pytest.raises(TypeError, match=f"has a hyperparameter that is called '{name}' in Keras"):
        ours.optimizer(made_of, name="Refused")


@rule
def newton(g, h, g2, *, mu: NonNegative = 0.1):
    """Step against the gradient over the curvature."""
    return -g / (h * h + g2 + mu)


class TestARuleThatTakesMore:
    def given(self) -> dict[str, list[Any]]:
        rng = np.random.default_rng(4)
        return {
            name: [keras.ops.convert_to_tensor(rng.standard_normal(x.shape) ** 2, "float64") for x in start()]
            for name in ("h", "g2")
        }

    def grads(self) -> list[Any]:
        return [keras.ops.convert_to_tensor(g, "float64") for g in gradients(1)[0]]

    @pytest.mark.usefixtures("float64")
    def test_steps_by_what_is_handed_in(self):
        own, given = variables(), self.given()
        ours.optimizer(newton)(mu=0.5).apply(self.grads(), own, **given)
        for place, (x, g) in enumerate(zip(start(), gradients(1)[0], strict=True)):
            h, g2 = (keras.ops.convert_to_numpy(given[name][place]) for name in ("h", "g2"))
            np.testing.assert_array_equal(values_of(own[place]), x + -g / (h * h + g2 + 0.5))

    @pytest.mark.usefixtures("float64")
    def test_names_what_is_missing(self):
        given = self.given()
        with pytest.raises(TypeError, match=r"rule newton takes h \(diagonal curvature\), and none was given for"):
            ours.optimizer(newton)().apply(self.grads(), variables(), g2=given["g2"])

    @pytest.mark.usefixtures("float64")
    def test_refuses_what_does_not_fit(self):
        given = self.given()
        optimizer = ours.optimizer(newton)()
        with pytest.raises(ValueError, match="h has 2 tensors; allowed is one for each of 3 variables"):
            optimizer.apply(self.grads(), variables(), h=given["h"][:2], g2=given["g2"])
        with pytest.raises(TypeError, match="rule adadelta takes no h, and one was given; it takes g"):
            ours.Adadelta().apply(self.grads(), variables(), h=given["h"])
        own = variables()
        optimizer = ours.optimizer(newton)()
        with pytest.raises(ValueError, match=r"the h \(diagonal curvature\) of a variable of shape .* has the shape"):
            optimizer.apply(self.grads(), own, h=given["h"][::-1], g2=given["g2"])
        with pytest.raises(ValueError, match="gradient_accumulation_steps is 2; allowed for newton is None"):
            ours.optimizer(newton)(gradient_accumulation_steps=2)


@pytest.mark.usefixtures("float64")
def test_a_variable_without_gradient_stands_still():
    optimizer, own = ours.Adadelta(), variables()
    grads = [keras.ops.convert_to_tensor(g, "float64") for g in gradients(1)[0]]
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply([grads[0], None, grads[2]], own)
    assert [np.array_equal(values_of(each), x) for each, x in zip(own, start(), strict=True)] == [False, True, False]


def test_gradients_are_as_many_as_variables():
    optimizer, own = ours.Adadelta(), variables("float32")
    grads = [keras.ops.ones(each.shape) for each in own]
    for given in (grads[:2], [*grads, grads[0]]):
        with pytest.raises(ValueError, match=f"grads has {len(given)} tensors; allowed is one for each of 3 variables"):
            optimizer.apply(given, own)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("accumulates", [None, 2])
def test_a_variable_that_keras_overwrites_with_its_gradient_has_no_slots(accumulates: int | None):
    optimizer, own = ours.Adadelta(gradient_accumulation_steps=accumulates), variables()
    own[1].overwrite_with_gradient = True  # as the scales of float8 are
    steps = [gradients(1)[0]] * (accumulates or 1)
    found = stepped(optimizer, steps, own)
    expected = stepped(ours.Adadelta(), steps[:1])
    # On PyTorch, Keras takes the maximum of what it accumulates in float32.
    np.testing.assert_allclose(found[1], np.maximum(steps[0][1], 0.0) if accumulates else steps[0][1], rtol=1e-6)
    for place in 0, 2:
        np.testing.assert_allclose(found[place], expected[place], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_what_was_saved_of_one_optimizer_goes_on_in_another():
    steps = gradients(6)
    whole, first, second = made("adam"), made("adam"), made("adam")
    expected = stepped(whole, steps)
    own = variables()
    stepped(first, steps[:3], own)
    second.build(own)
    store: dict[str, Any] = {}
    first.save_own_variables(store)
    second.load_own_variables(store)
    for found, wanted in zip(stepped(second, steps[3:], own), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="there is one loop for all variables")
def test_scalars_are_computed_once_for_all_variables_of_a_step(monkeypatch: pytest.MonkeyPatch):
    made, optimizer, own = folds(monkeypatch), ours.Adam(0.1, weight_decay=0.5), variables("float32")
    optimizer.exclude_from_weight_decay([own[0]])
    optimizer.build(own)
    for number, grads in enumerate(gradients(2), 1):
        optimizer.apply([np.asarray(g, "float32") for g in grads], own)
        assert len(made) == 2 * number  # with decay and without
    optimizer.update_step(keras.ops.ones(own[0].shape), own[0], 0.1)
    assert len(made) == 5


def test_without_keras_the_error_says_what_to_install():
    code = "import sys; sys.modules['keras'] = None; import steprule.keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "steprule.keras needs keras: pip install 'steprule[keras]', and one of tensorflow, jax and torch" in done.stderr
    )


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_no_framework_is_loaded_that_keras_does_not_load():
    more = loaded_by("import steprule.keras") - loaded_by("import keras")
    assert more & {"torch", "tensorflow", "jax", "optax"} == set()


def test_lion_of_the_examples_has_its_class_too():
    assert ours.optimizer(lion)().learning_rate is not None
