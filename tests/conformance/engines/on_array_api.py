"""The engine that has no more than the array API says: what passes here uses nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import array_api_strict
import numpy as np
from numpy.typing import NDArray

from .engine import FEW, Engine, Reference


class _StrictReference(Reference):
    def array(self, values: NDArray[np.float64]) -> Any:
        return array_api_strict.asarray(values.astype(self._dtype))


ENGINES: Final[Mapping[str, Engine]] = {"reference on array-api-strict": Engine(_StrictReference, shapes=FEW)}
