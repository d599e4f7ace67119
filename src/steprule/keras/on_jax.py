"""How the classes step on JAX: as elsewhere, but with one computation of the scalars for all variables of a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..program import Program
from .on_tensors import OnTensors

__all__ = ["OnJAX"]


class OnJAX(OnTensors):
    """What `RuleOptimizer` does on JAX."""

    _shared: Callable[[Program, str], Mapping[int, Any]] | None = None
    """The scalars of the step that is being made; none outlives it, or the branch of a condition in which it is traced."""

    def _backend_update_step(
        self: Any, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # Without a compiler, the dozen operations on scalars take longer than those on the elements of a small variable.
        self._shared = functools.cache(functools.partial(super()._folded, learning_rate))
        try:
            super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]
        finally:
            self._shared = None

    def _folded(self: Any, learning_rate: Any, program: Program, real: str) -> Mapping[int, Any]:
        if self._shared is None:
            return super()._folded(learning_rate, program, real)
        found: Mapping[int, Any] = self._shared(program, real)
        return found
