"""Training on real digits as users of Keras do it: compile, fit, save, load, go on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from examples.own_rule import yogi
from tests.conformance.cases import RULES
from tests.keras.digits_model import compiled, data, same_variables
from tests.keras.runs import BY_GRADIENT

import steprule.keras as ours

# Rates with which the net has learnt something after a few epochs, where a rule's default is not such a one.
RATES = {"sgd": 0.3, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.05, "yogi": 0.01, "lion": 1e-3}
REQUIRED = {"delta_bar_delta": {"initial_rate": 0.1, "kappa": 1e-3, "phi": 0.05}}
ENOUGH = 0.8  # who guesses is right a tenth of the time


def made(name: str, **more: Any) -> Any:
    rate = {"learning_rate": RATES[name]} if name in RATES else {}
    return ours.optimizer(RULES[name])(**{**rate, **REQUIRED.get(name, {}), **more})


def fitted(model: keras.Model, epochs: int = 8) -> float:
    history = model.fit(*data(), batch_size=64, epochs=epochs, shuffle=False, verbose=0).history
    return float(history["accuracy"][-1])


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_each_rule_learns_digits(name: str):
    assert fitted(compiled(made(name))) > ENOUGH


def test_adadelta_learns_with_its_default_rate_and_not_with_that_of_keras():
    assert fitted(compiled(ours.Adadelta())) > 0.9
    assert fitted(compiled(keras.optimizers.Adadelta())) < 0.3
    assert fitted(compiled(ours.Adadelta(keras.optimizers.Adadelta().get_config()["learning_rate"]))) < 0.3


# torch.compile looks at gradients that nobody keeps, and warns of it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["adam"])  # which has a scalar of the step count
def test_a_compiled_step_makes_what_the_other_makes(name: str):
    plain, jitted = compiled(made(name), jit_compile=False), compiled(made(name), jit_compile=True)
    fitted(plain, 1)
    if keras.config.backend() == "torch":
        # What compiles the graphs takes minutes; which graphs there are does not depend on it.
        with mock.patch("torch.compile", functools.partial(__import__("torch").compile, backend="eager")):
            fitted(jitted, 1)
    else:
        fitted(jitted, 1)
    for one, other in zip(plain.trainable_variables, jitted.trainable_variables, strict=True):
        # A compiler sums the products of a layer in another order.
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=2e-3)
    assert int(jitted.optimizer.iterations) == 29


@pytest.mark.parametrize("name", ["sgd", "adadelta", "adam", "yogi"])
def test_a_saved_model_goes_on_where_it_was(name: str, tmp_path: Path):
    # On JAX, a model that averages its weights and was saved does not go on in compiled steps, by Keras's own Adam either.
    model = compiled(made(name, weight_decay=1e-4, use_ema=True), jit_compile=False)
    fitted(model, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert same_variables(loaded.optimizer, model.optimizer)
    assert fitted(loaded, 1) == fitted(model, 1)
    assert same_variables(loaded.optimizer, model.optimizer)


def test_a_users_rule_is_found_by_a_saved_model_or_refused(tmp_path: Path):
    model = compiled(ours.optimizer(yogi)(0.01))
    assert fitted(model) > ENOUGH
    model.save(tmp_path / "model.keras")
    with mock.patch.dict(keras.src.saving.object_registration.GLOBAL_CUSTOM_OBJECTS):
        del keras.src.saving.object_registration.GLOBAL_CUSTOM_OBJECTS["steprule>Yogi"]
        with pytest.raises(TypeError, match="Could not locate class 'Yogi'"):
            keras.saving.load_model(tmp_path / "model.keras")
        with keras.saving.custom_object_scope({"steprule>Yogi": ours.optimizer(yogi)}):
            assert same_variables(keras.saving.load_model(tmp_path / "model.keras").optimizer, model.optimizer)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["adadelta", "adam"])
def test_mixed_precision(name: str, policy: str):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(made(name))
    finally:
        keras.config.set_dtype_policy(before)
    assert fitted(model) > ENOUGH
    scaled = policy == "mixed_float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == scaled
    inner = model.optimizer.inner_optimizer if scaled else model.optimizer
    assert {each.dtype for each in inner.variables[2:]} == {"float32"}


@pytest.mark.parametrize("name", ["adadelta", "nesterov"])
def test_options_together_learn(name: str):
    rate = keras.optimizers.schedules.CosineDecay(2.0 if name == "adadelta" else 0.2, 400)
    optimizer = made(
        name,
        learning_rate=rate,
        weight_decay=1e-4,
        global_clipnorm=5.0,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=10,
        gradient_accumulation_steps=2,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert fitted(compiled(optimizer)) > ENOUGH


def test_a_scheduler_of_the_rate_between_epochs():
    model = compiled(ours.Adadelta())
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    model.fit(*data(), epochs=3, verbose=0, callbacks=[callback])
    assert float(model.optimizer.learning_rate) == 0.125


def test_a_rule_that_takes_more_says_so_in_fit():
    from steprule import rule

    @rule
    def curved(g, h, *, mu=0.1):
        return -g / (h * h + mu)

    with pytest.raises(TypeError, match="rule curved takes h"):
        fitted(compiled(ours.optimizer(curved)()), 1)
