"""How the classes step on JAX: as elsewhere, but with one computation of the scalars for all variables of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .on_tensors import OnTensors, scalars_at_once

__all__ = ["OnJAX"]


class OnJAX(OnTensors):
    """What `RuleOptimizer` does on JAX."""

    def _backend_update_step(
        self: Any, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        with scalars_at_once():
            super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]
