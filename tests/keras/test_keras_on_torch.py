"""What only PyTorch has: one fused loop for all variables, and gradients that are the tensors' own."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from tests.conformance.cases import RULES, hyper
from tests.keras.digits_model import compiled, data
from tests.keras.runs import gradients, named, start, stepped, values_of, variables

import steprule.keras as ours

if keras.config.backend() != "torch":
    pytest.skip("needs PyTorch as the backend", allow_module_level=True)

from tests.conformance.paths import paths

import torch
from steprule.kernels import cpu


def made(name: str, **more: Any) -> Any:
    cls = ours.optimizer(RULES[name])
    return cls(**named(cls, hyper(name)), **more)


@pytest.mark.parametrize("name", RULES)
def test_a_step_is_one_launch_for_all_variables(name: str):
    optimizer, own = made(name), variables("float32")
    with mock.patch.object(cpu, "launch", wraps=cpu.launch) as launch:
        stepped(optimizer, gradients(3), own)
    assert launch.call_count == 3
    assert paths(optimizer._fused.optimizer) == (len(own), 0)


def test_fit_goes_through_the_fused_loop_in_the_memory_of_the_variables():
    model = compiled(ours.Adadelta())
    before = [each.value.data_ptr() for each in (*model.trainable_variables, *model.optimizer.variables)]
    images, targets = data()
    with mock.patch.object(cpu, "launch", wraps=cpu.launch) as launch:
        model.fit(images, targets, batch_size=64, epochs=1, verbose=0)
    assert launch.call_count == 29
    assert [each.value.data_ptr() for each in model.trainable_variables] == before[:4]
    fused = model.optimizer._fused.optimizer
    for index, variable in enumerate(model.trainable_variables):
        for name, slot in model.optimizer._slots_of(index).items():
            assert fused.state[variable.value][name] is slot.value


def test_the_gradients_of_the_tensors_stay_as_they_were():
    optimizer, own = ours.Adadelta(), variables("float32")
    grads = [torch.tensor(g, dtype=torch.float32) for g in gradients(1)[0]]
    own[0].value.grad = grads[0]
    own[1].value.grad = kept = torch.ones(17)
    optimizer.apply(grads, own)
    assert [each.value.grad for each in own] == [grads[0], kept, None]


def test_the_curvature_of_a_step_is_held_no_longer_than_the_step():
    optimizer, own = made("diagonal_newton"), variables("float32")
    grads = [torch.tensor(g, dtype=torch.float32) for g in gradients(1)[0]]
    own[1].value.h = kept = torch.ones(17)
    optimizer.apply(grads, own, h=[each.abs() for each in grads])
    assert [getattr(each.value, "h", None) for each in own] == [None, kept, None]


@pytest.mark.parametrize("cls", [ours.SGD, ours.Adagrad])
def test_a_decaying_rate_goes_on_where_the_steps_were_counted_before(cls: Any):
    def decayed(iterations: int) -> Any:
        optimizer, own = cls(learning_rate=1.0, lr_decay=1.0), variables("float64")
        optimizer.build(own)
        optimizer.iterations.assign(iterations)
        before = [values_of(each) for each in own]
        optimizer.apply([torch.ones(tuple(each.shape), dtype=torch.float64) for each in own], own)
        return [values_of(each) - x for each, x in zip(own, before, strict=True)]

    for first, tenth in zip(decayed(0), decayed(9), strict=True):
        np.testing.assert_allclose(10 * tenth, first)


def test_rates_are_recorded_of_a_compiled_step(monkeypatch: pytest.MonkeyPatch):
    # As the compiler traces it, without the minutes that its code takes to be made.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    tables = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, name="layer")], name="model")
        model.compile(ours.Adadelta(), "mse", jit_compile=jit_compile)
        callback = ours.RateMonitorCallback(every=2)
        model.fit(
            np.ones((32, 4), "float32"), np.ones((32, 1), "float32"), batch_size=4, verbose=0, callbacks=[callback]
        )
        tables.append(callback.rates.table())
    assert len(tables[0]["rate"]) == 4 * 5
    for name, column in tables[0].items():
        np.testing.assert_array_equal(column, tables[1][name])


def test_a_variable_that_missed_a_step_counts_those_of_the_optimizer():
    # As Keras has it: the bias corrections are those of the whole optimizer's step.
    steps = gradients(3)
    own = variables("float32")
    optimizer = ours.Adam()
    for number, grads in enumerate(steps):
        tensors = [torch.tensor(g, dtype=torch.float32) for g in grads]
        if number == 1:
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply([None, *tensors[1:]], own)
        else:
            optimizer.apply(tensors, own)
    x, m, v = start()[0], 0.0, 0.0
    for t in (1, 3):
        g = steps[t - 1][0]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(values_of(own[0]), x, rtol=1e-6)


def test_a_sparse_gradient_steps_as_the_dense_one():
    dense = [torch.tensor(g, dtype=torch.float32) for g in gradients(1)[0]]
    one, other = variables("float32"), variables("float32")
    ours.Adam().apply(dense, one)
    ours.Adam().apply([dense[0].to_sparse(1), *dense[1:]], other)
    for each, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(values_of(each), values_of(again))


def test_a_subclass_may_step_a_variable_in_its_own_way():
    class Halved(ours.Momentum):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient * 0.5, variable, learning_rate)

    one, other = variables("float64"), variables("float64")
    stepped(Halved(0.2), gradients(3), one)
    stepped(ours.Momentum(0.1), gradients(3), other)
    for each, again in zip(one, other, strict=True):
        np.testing.assert_allclose(values_of(each), values_of(again), rtol=1e-6)
