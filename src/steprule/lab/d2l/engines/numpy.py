"""NumPy: the gradient is written out, and nothing else is a framework's. What the others are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....rules import adadelta
from ....specification import Rule
from ..protocol import BATCH, Examples, Plan, start
from ..scratch import Scratch

__all__ = ["PACKAGES", "WAYS", "FromScratch"]

PACKAGES: Final = ("numpy",)


class FromScratch(Scratch):
    """The regression on NumPy arrays, by any rule, in the type of the examples."""

    def __init__(self, plan: Plan, examples: Examples, seed: int, rule: Rule = adadelta) -> None:
        dtype = examples.features.dtype
        super().__init__(plan, [each.astype(dtype) for each in start(plan, seed)], rule)
        self.examples = examples

    def batches(self, order: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            yield self.examples.features[rows], self.examples.labels[rows]

    def gradients(self, features: Any, labels: Any) -> tuple[Any, Any]:
        factor = features.dtype.type(2 * self.plan.factor / len(labels))
        errors = factor * (self._outputs(features) - labels)
        return features.T @ errors, errors.sum(axis=0)

    def loss(self) -> float:
        errors = self._outputs(self.examples.features) - self.examples.labels
        return float(np.mean(errors**2, dtype=np.float64)) / 2

    def _outputs(self, features: Any) -> Any:
        weights, bias = self.parameters
        return features @ weights + bias


WAYS: Final = {"scratch": FromScratch}
