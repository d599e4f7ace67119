"""The engines that need MXNet: its NumPy-like arrays, and those that were before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mxnet
import numpy as np
from numpy.typing import NDArray

from .engine import FEW, Engine, Reference


class _MXNetReference(Reference):
    library = mxnet.np

    def array(self, values: NDArray[np.float64]) -> Any:
        return self.library.array(values, dtype=self._dtype)

    def numbers(self, array: Any) -> NDArray[np.float64]:
        return array.astype("float64").asnumpy()


class _OlderMXNetReference(_MXNetReference):
    library = mxnet.nd


def _shapes_as_in_numpy() -> Any:
    # MXNet takes no shape without dimensions or elements before it is told to, as `npx.set_np()` does too.
    return mxnet.util.np_shape(True)


ENGINES: Final[Mapping[str, Engine]] = {
    "reference on MXNet": Engine(_MXNetReference, shapes=FEW, within=_shapes_as_in_numpy),
    "reference on MXNet, lower types": Engine(
        _MXNetReference, ("float16",), ("3x5",), within=_shapes_as_in_numpy, widens=False
    ),
    "reference on MXNet's older arrays": Engine(_OlderMXNetReference, shapes=("3x5",)),
    "reference on MXNet's older arrays, lower types": Engine(
        _OlderMXNetReference, ("float16",), ("3x5",), widens=False
    ),
}
