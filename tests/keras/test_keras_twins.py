"""Our classes against those of Keras that have the same rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import keras
import pytest
from examples.own_rule import lion
from tests.conformance.tolerances import ULPS
from tests.keras.runs import OF_KERAS, check, gradients, stepped

import steprule.keras as ours

pytestmark = pytest.mark.usefixtures("float64")


@dataclass(frozen=True)
class Twin:
    """One of our classes and Keras's, the same values under the same names, and what Keras's needs to be the same."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """Our name of an argument, and Keras's, where they differ."""
    more: Mapping[str, Any] = field(default_factory=dict)
    differs: Mapping[str, Any] = field(default_factory=dict)
    """Values with which the two do not agree, for the reason in `DIFFERENCES`."""


_NEGLIGIBLE = 1e-30

TWINS: Final[Mapping[str, Twin]] = {
    "SGD": Twin(ours.SGD, keras.optimizers.SGD, {"learning_rate": 0.1}),
    "Momentum": Twin(ours.Momentum, keras.optimizers.SGD, {"learning_rate": 0.1, "rho": 0.8}, {"rho": "momentum"}),
    "Nesterov": Twin(
        ours.Nesterov, keras.optimizers.SGD, {"learning_rate": 0.1, "rho": 0.8}, {"rho": "momentum"}, {"nesterov": True}
    ),
    "Adadelta": Twin(ours.Adadelta, keras.optimizers.Adadelta, {"learning_rate": 0.5, "rho": 0.8, "epsilon": 1e-3}),
    "RMSProp": Twin(ours.RMSProp, keras.optimizers.RMSprop, {"learning_rate": 0.01, "rho": 0.8, "epsilon": 1e-3}),
    "Adagrad": Twin(
        ours.Adagrad,
        keras.optimizers.Adagrad,
        {"learning_rate": 0.1, "epsilon": _NEGLIGIBLE},
        more={"initial_accumulator_value": 0.0},
        differs={"epsilon": 1e-3},
    ),
    "Adam": Twin(
        ours.Adam,
        keras.optimizers.Adam,
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.9, "epsilon": _NEGLIGIBLE},
        differs={"epsilon": 1e-3},
    ),
    "AdamW": Twin(
        ours.AdamW,
        keras.optimizers.AdamW,
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.9, "epsilon": _NEGLIGIBLE},
        differs={"epsilon": 1e-3},
    ),
    "Lion": Twin(ours.optimizer(lion), keras.optimizers.Lion, {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.9}),
}

DIFFERENCES: Final[Mapping[str, str]] = {
    "Adagrad": "Keras adds epsilon to what is under the root, the book and we to the root, and begins with a sum of 0.1",
    "Adam": "Keras adds epsilon to the root of the uncorrected average (Kingma and Ba's epsilon hat), we to the other",
    "AdamW": "as Adam",
}
"""Where a twin differs and why; each is shown below. Defaults that differ are in the documentation."""


def pair(name: str, **more: Any) -> tuple[Any, Any]:
    twin = TWINS[name]
    values = {**twin.values, **more}
    theirs = {twin.names.get(each, each): value for each, value in values.items()}
    return twin.ours(**values), twin.theirs(**theirs, **twin.more)


@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
@pytest.mark.parametrize("name", TWINS)
def test_twin_makes_the_same_steps(name: str, weight_decay: float):
    mine, theirs = pair(name, weight_decay=weight_decay)
    check(stepped(mine, gradients(12)), stepped(theirs, gradients(12)), ULPS["twin in Keras"], OF_KERAS)


@pytest.mark.parametrize("name", TWINS)
def test_twin_makes_the_same_steps_while_the_rate_changes(name: str):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)
    mine, theirs = pair(name, learning_rate=schedule, weight_decay=0.03)
    check(stepped(mine, gradients(12)), stepped(theirs, gradients(12)), ULPS["twin in Keras"], OF_KERAS)


def test_each_difference_is_one():
    assert DIFFERENCES.keys() == {name for name, twin in TWINS.items() if twin.differs}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_twin_differs_where_it_is_said_to(name: str):
    mine, theirs = pair(name, **TWINS[name].differs)
    with pytest.raises(AssertionError, match="a dozen steps of a few units each"):
        check(stepped(mine, gradients(12)), stepped(theirs, gradients(12)), ULPS["twin in Keras"], OF_KERAS)


def test_every_class_has_a_twin_or_a_reason():
    classes = {name for name in ours.__all__ if hasattr(getattr(ours, name), "rule")}
    # Keras's RMSprop has momentum, and not Nesterov's; of the others it has none.
    without = {"RMSPropNesterov", "DeltaBarDelta", "DiagonalNewton", "VSGD", "VSGDfd"}
    assert classes == set(TWINS) - {"Lion"} | without
