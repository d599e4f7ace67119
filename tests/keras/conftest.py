"""One process has one backend of Keras: these tests are for a process that has chosen one (`make test-keras`)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "")
collect_ignore_glob = [] if BACKEND else ["test_*.py"]

if BACKEND == "tensorflow":
    import tensorflow as tf

    # For the mirrored strategy; before anything is computed.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/keras/" in item.path.as_posix():
            item.add_marker(pytest.mark.keras)


@pytest.fixture
def float64() -> Iterator[None]:
    """Let Keras have float64 for all that it is not told the type of, the rate among it."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    if BACKEND == "jax":
        import jax

        with jax.enable_x64(True):
            yield
    else:
        yield
    keras.config.set_floatx(before)
