"""The engines that need TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .engine import FEW, Engine, Reference

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it tells at length of GPUs that are not there
import tensorflow as tf  # noqa: E402


class _TensorFlowReference(Reference):
    def array(self, values: NDArray[np.float64]) -> Any:
        return tf.constant(values, self._dtype)

    def numbers(self, array: Any) -> NDArray[np.float64]:
        return tf.cast(array, "float64").numpy()


ENGINES: Final[Mapping[str, Engine]] = {
    "reference on TensorFlow": Engine(_TensorFlowReference, shapes=FEW),
    "reference on TensorFlow, lower types": Engine(
        _TensorFlowReference, ("bfloat16", "float16"), ("3x5",), widens=False
    ),
}
