"""What only JAX has: steps without state within a compiled loop, and scalars in float64 where nothing else has it."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from tests.conformance.cases import RULES, hyper
from tests.conformance.tolerances import ULPS
from tests.keras.runs import by_reference, check, gradients, named, tensors_for, values_of, variables

import steprule.keras as ours

if keras.config.backend() != "jax":
    pytest.skip("needs JAX as the backend", allow_module_level=True)

import jax


@pytest.mark.parametrize("name", RULES)
def test_a_compiled_loop_of_steps_without_state(name: str):
    cls = ours.optimizer(RULES[name])
    optimizer, own, steps = cls(**named(cls, hyper(name))), variables("float32"), gradients(6)
    optimizer.build(own)
    more = tensors_for(optimizer, "float32")
    stacked = [np.stack(each).astype("float32") for each in zip(*steps, strict=True)]

    def step(carried: tuple, grads: list) -> tuple:
        xs, held = optimizer.stateless_apply(carried[1], grads, carried[0], **more)
        return (xs, held), None

    begun = ([each.value for each in own], [each.value for each in optimizer.variables])
    (xs, held), _ = jax.jit(lambda begun: jax.lax.scan(step, begun, stacked))(begun)
    narrow = [[g.astype("float32").astype("float64") for g in grads] for grads in steps]
    expected = by_reference(RULES[name], narrow, lambda *_: hyper(name))
    check([np.asarray(x, np.float64) for x in xs], expected, ULPS["twin in Keras"], "float32")
    assert int(held[0]) == 6
    assert [each.dtype for each in held[1:]] == ["float32"] * (len(held) - 1)
    assert int(optimizer.iterations) == 0


def test_scalars_have_float64():
    # In float32, 1 - 0.9999 is off by 1e-4, and with it the first correction.
    assert not jax.config.jax_enable_x64
    optimizer, own = ours.Adam(1.0, beta_2=0.9999, epsilon=0.0), variables("float32")
    before = values_of(own[1])
    optimizer.apply([np.asarray(g, "float32") for g in gradients(1)[0]], own)
    np.testing.assert_allclose(np.abs(values_of(own[1]) - before), 1.0, rtol=5e-7)


_ON_TWO_DEVICES = """
import keras, numpy as np
import steprule.keras as ours
from steprule.keras.monitor import RateMonitorCallback
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu")))
model = keras.Sequential([keras.layers.Dense(2)])
model.compile(ours.SGD(0.25), "mse")
rows = np.random.default_rng(0).standard_normal((64, 3)).astype("float32")
callback = RateMonitorCallback(every=4)
model.fit(rows, rows[:, :2], batch_size=4, verbose=0, callbacks=[callback])
assert len(model.trainable_variables[0].value.sharding.device_set) == 2
table = callback.rates.table()
assert list(dict.fromkeys(table["step"])) == [1, 5, 9, 13]
np.testing.assert_allclose(table["update"], -0.25 * table["gradient"], rtol=1e-5, atol=1e-6)
"""


def test_rates_are_recorded_on_two_devices():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _ON_TWO_DEVICES]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
