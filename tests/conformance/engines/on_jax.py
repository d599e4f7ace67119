"""The engines that need JAX."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import jax
import numpy as np
from numpy.typing import NDArray

from .engine import FEW, Engine, Reference


class _JaxReference(Reference):
    def array(self, values: NDArray[np.float64]) -> Any:
        return jax.numpy.asarray(values, self._dtype)


def _float64() -> AbstractContextManager[Any]:
    return (jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64)(True)


ENGINES: Final[Mapping[str, Engine]] = {
    "reference on JAX": Engine(_JaxReference, shapes=FEW, within=_float64),
    "reference on JAX, lower types": Engine(
        _JaxReference, ("bfloat16", "float16"), ("3x5",), within=_float64, widens=False
    ),
}
