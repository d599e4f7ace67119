"""Effective learning rates in `fit`, on each backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from tests.keras.digits_model import compiled, data

import steprule.keras as ours
from steprule.keras.monitor import RateMonitorCallback


def fitted(model: keras.Model, callback: Any = None, epochs: int = 1, **more: Any) -> Any:
    callbacks = [] if callback is None else [callback]
    model.fit(*data(), batch_size=64, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **more)
    return callback


def has_rate(table: Any, rate: float) -> None:
    there = np.isfinite(table["rate"])
    assert there.mean() > 0.5
    error = table["rounding"][there] / np.abs(table["gradient"][there])
    assert (np.abs(table["rate"][there] - rate) <= 1.01 * error + 1e-6 * rate).all()


class Values(keras.callbacks.Callback):
    """The model's variables before the first batch and after each."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.after = [[each.numpy().flatten() for each in model.trainable_variables]]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.after.append([each.numpy().flatten() for each in self.model.trainable_variables])


# What PyTorch's compiler makes of a training step takes minutes.
COMPILED = [False] if keras.config.backend() == "torch" else [False, True]


@pytest.mark.parametrize("jit_compile", COMPILED)
@pytest.mark.parametrize("made", [keras.optimizers.SGD, ours.SGD])
def test_the_rate_of_sgd_is_its_learning_rate(made: Any, jit_compile: bool):
    model = compiled(made(0.25), jit_compile=jit_compile)
    fitted(model, callback := RateMonitorCallback(every=10, sample=30), 2)
    table = callback.rates.table()
    assert sorted(set(table["step"])) == [1, 11, 21, 31, 41, 51]
    assert list(dict.fromkeys(table["layer"])) == [each.path for each in model.trainable_variables]
    assert np.isnan(table["rate"]).any(), "some pixels are black in the whole batch"
    has_rate(table, 0.25)


@pytest.mark.parametrize(("made", "batches"), [(keras.optimizers.SGD, 2), (ours.SGD, 4)])
def test_with_accumulation_a_step_is_an_update_by_the_mean_gradient(made: Any, batches: int):
    plain, watched = (compiled(made(0.25, gradient_accumulation_steps=batches)) for _ in range(2))
    callback = RateMonitorCallback(every=4, sample=30)
    values = Values(plain)
    for _ in range(2):  # of 29 batches each
        fitted(plain, values)
        fitted(watched, callback)
    table = callback.rates.table()
    steps, rows = np.unique(table["step"], return_counts=True)
    assert list(steps) == list(range(1, 2 * 29 // batches + 1, 4))
    assert len(set(rows)) == 1, "each step is recorded once"
    has_rate(table, 0.25)
    for step in steps:
        for number, variable in enumerate(watched.trainable_variables):
            chosen = (table["step"] == step) & (table["layer"] == variable.path)
            change = values.after[step * batches][number] - values.after[(step - 1) * batches][number]
            np.testing.assert_allclose(table["update"][chosen], change[table["dimension"][chosen]], rtol=0, atol=2e-6)


def test_a_fit_is_as_it_is_without_and_goes_on_unmonitored():
    plain, watched = (compiled(ours.Adadelta(), jit_compile=COMPILED[-1]) for _ in range(2))
    fitted(plain)
    fitted(plain)
    fitted(watched)  # compiled without the callback
    callback = fitted(watched, RateMonitorCallback(every=10))
    for one, other in zip(plain.trainable_variables, watched.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=2e-6)
    assert sorted(set(callback.rates.table()["step"])) == [31, 41, 51]
    assert "apply" not in vars(watched.optimizer)
    recorded = len(callback.rates.table()["step"])
    fitted(watched)
    assert len(callback.rates.table()["step"]) == recorded


@pytest.mark.parametrize("jit_compile", COMPILED)
def test_a_model_may_be_built_by_the_fit(jit_compile: bool):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(ours.SGD(0.25), loss, jit_compile=jit_compile)
    table = fitted(model, RateMonitorCallback(every=10, sample=30), 2).rates.table()
    assert sorted(set(table["step"])) == [1, 11, 21, 31, 41, 51]
    assert list(dict.fromkeys(table["layer"])) == [each.path for each in model.trainable_variables]
    has_rate(table, 0.25)


def test_what_keras_overwrites_with_its_gradient_has_no_rate():
    model = compiled(ours.Momentum(0.1, rho=0.5))
    for layer in model.layers:
        layer.quantize("float8")
    model.compile(model.optimizer, model.loss, jit_compile=COMPILED[-1])
    table = fitted(model, RateMonitorCallback(every=10, sample=30)).rates.table()
    assert {path.rsplit("/")[-1] for path in table["layer"]} == {"kernel", "bias"}


def test_a_fit_may_be_interrupted_and_watched_twice():
    model = compiled(ours.SGD(0.25), jit_compile=COMPILED[-1])

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    first, second = RateMonitorCallback(every=10, sample=3), RateMonitorCallback(every=15, sample=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), batch_size=64, verbose=0, callbacks=[first, Stop()])
    for callbacks in ([first, second], [second, first]):
        model.fit(*data(), batch_size=64, verbose=0, callbacks=callbacks)
    assert "apply" not in vars(model.optimizer)
    for callback, expected in (first, [1, 11, 21, 31, 41, 51]), (second, [16, 31, 46]):
        steps, rows = np.unique(callback.rates.table()["step"], return_counts=True)
        assert list(steps) == expected
        assert len(set(rows)) == 1, "each step is recorded once"


@pytest.mark.parametrize("batches", [None, 2])
def test_under_a_scaled_loss_the_gradient_is_the_unscaled_one(batches: int | None):
    # On JAX, Keras compiles the choice of whether to step anew in each step that is not compiled as a whole.
    inner = ours.SGD(0.25, gradient_accumulation_steps=batches)
    model = compiled(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**10), jit_compile=COMPILED[-1])
    callback = fitted(model, RateMonitorCallback())
    rates = callback.rates.table()["rate"]
    assert abs(np.nanmedian(rates) - 0.25) < 1e-4


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this version of Keras has none")
def test_of_several_optimizers_each_has_its_rate_and_none_may_accumulate():
    def several(**more: Any) -> keras.Model:
        made = [ours.SGD(rate, **more) for rate in (0.25, 0.125)]
        return compiled(keras.optimizers.MultiOptimizer(lambda variable: made[len(variable.shape) - 1]))

    table = fitted(several(), RateMonitorCallback(sample=30)).rates.table()
    for rate, name in ((0.25, "bias"), (0.125, "kernel")):
        has_rate({key: table[key][np.char.endswith(table["layer"], name)] for key in table}, rate)
    with pytest.raises(
        ValueError, match="gradient_accumulation_steps of .* is 2; allowed for RateMonitorCallback is None"
    ):
        fitted(several(gradient_accumulation_steps=2), RateMonitorCallback())


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="sample is 0; allowed is a whole number from 1"):
        RateMonitorCallback(sample=0)
