"""How the classes step on TensorFlow: as elsewhere, and by gradients that name rows (`tf.IndexedSlices`) those rows alone.

The result is that of the step by the dense gradient. What that does to the slots of rows that are not named waits until they
are next looked at (`rows.Behind`); the parameter itself, which anybody may read, is scaled at once where a step scales it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from .on_tensors import OnTensors, scalars_at_once
from .rows import Behind, dense, scaled, scales_of, summed, summed_once
from .stepping import real_of, stepped

__all__ = ["OnTensorFlow"]


class OnTensorFlow(OnTensors):
    """What `RuleOptimizer` does on TensorFlow."""

    _behind: Mapping[int, Behind] = MappingProxyType({})

    def build(self: Any, variables: Sequence[Any]) -> None:
        """Make the slots, and for each variable whose rows may be behind what remembers which are."""
        if self.built:
            return
        super().build(variables)
        found = {index: self._behind_of(index, variable) for index, variable in enumerate(variables)}
        self._behind = MappingProxyType({index: behind for index, behind in found.items() if behind is not None})
        # A checkpoint of TensorFlow holds the slots as they are, and has to hold which rows of them are behind.
        for index, behind in self._behind.items():
            for name, count in behind.counts.items():
                self._track_trackable(count, name=f"_behind_{index}_{name}", overwrite=True)

    def _behind_of(self: Any, index: int, variable: Any) -> Behind | None:
        # A row of a vector is one element: to remember it would take as much as the slot.
        if self.sparse != "exact" or len(variable.shape) < 2:
            return None
        try:
            scales = {name: scale for name, scale in self._scales(variable).items() if name != "x"}
        except (TypeError, ValueError):
            return None  # raised where a gradient names rows
        slots = self._slots_of(index)
        if not scales:
            return None
        with self._distribution_strategy.extended.colocate_vars_with(_native(variable)):
            return Behind({name: slots[name] for name in scales}, scales, variable.shape[0])

    def _scales(self: Any, variable: Any) -> Mapping[str, float]:
        """Return the factors by which a step without gradient scales `variable` and its slots.

        Raises `TypeError` where it changes them otherwise, and `ValueError` where it may make NaN of them.
        """
        try:
            return scales_of(self.rule, self._form(variable), tuple(self._values.items()), real_of(variable))
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{type(self).__name__} cannot take a gradient that names rows of a variable of shape "
                f'{tuple(variable.shape)}, since {error}; give it a dense one, or choose sparse="dense"'
            ) from None

    def _clip_gradients(self: Any, grads: Sequence[Any]) -> list[Any]:
        """Clip as Keras does; a gradient that names rows as the dense one, of which each row is the sum of those named."""
        if self.clipnorm or self.clipvalue or self.global_clipnorm:
            grads = [summed_once(grad) if isinstance(grad, tf.IndexedSlices) else grad for grad in grads]
        found: list[Any] = super()._clip_gradients(grads)  # type: ignore[misc]
        return found

    def _distributed_tf_update_step(self: Any, distribution: Any, grads_and_vars: Any, learning_rate: Any) -> None:
        with scalars_at_once():
            super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)  # type: ignore[misc]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Step one variable by its gradient: a tensor, or `tf.IndexedSlices`, whose rows of one number are summed.

        Raises `TypeError` where the rule changes rows without gradient in a way that cannot be caught up, `ValueError` where
        it may make NaN of them, and `RuntimeError` as `Behind.begin` does.
        """
        behind = self._behind.get(self._get_variable_index(variable))
        names_rows = isinstance(gradient, tf.IndexedSlices)
        if names_rows and self.sparse == "exact" and len(variable.shape) > 1:
            self._step_rows(gradient, variable, learning_rate, behind)
            return
        if behind is not None:
            behind.settle()
        super().update_step(dense(gradient, variable) if names_rows else gradient, variable, learning_rate)

    def _given(self: Any, variable: Any) -> dict[str, Any]:
        """Do as elsewhere; raise `TypeError` where several replicas step, of which each has a curvature of its own."""
        replicas = self._distribution_strategy.num_replicas_in_sync
        if self.rule.curvature and replicas > 1:
            taken = " and ".join(self.rule.curvature)
            raise TypeError(f"rule {self.rule.name} takes {taken}, and there are {replicas} replicas; allowed is one")
        found: dict[str, Any] = super()._given(variable)
        return found

    def _step_rows(self: Any, gradient: Any, variable: Any, learning_rate: Any, behind: Behind | None) -> None:
        scales, real = self._scales(variable), real_of(variable)
        arrays = {"x": variable, **self._slots_of(self._get_variable_index(variable))}
        numbers, grads = summed(gradient, real)
        rows = {name: tf.gather(_native(array), numbers) for name, array in arrays.items()}
        if behind is not None:
            behind.begin()
            rows |= {name: scaled(rows[name], factors) for name, factors in behind.factors(numbers).items()}
        program, known = self._program(variable), self._folded(learning_rate, variable)
        new = stepped(program, {**rows, "g": grads}, known, real)
        if "x" in scales:
            # What the program makes of a parameter of 1 where the gradient is 0 is the factor.
            one = {name: tf.ones((), real) for name in rows}
            factor = stepped(program, {**one, "g": tf.zeros((), real)}, known, real)["x"]
            self.assign(variable, tf.cast(variable, real) * factor)
        for name, value in new.items():
            self.assign(arrays[name], tf.IndexedSlices(value, numbers))
        if behind is not None:
            behind.stepped(numbers)

    def catch_up(self: Any) -> None:
        """Bring every row of every slot to where dense gradients would have brought it.

        To be called before variables that `variables` gave at an earlier step are read or written by hand where gradients
        name rows.
        """
        for behind in self._behind.values():
            behind.settle()

    @property
    def variables(self: Any) -> list[Any]:
        """The optimizer's own variables, up to date: whoever saves or restores them asks for them, and so may anybody."""
        if not tf.inside_function():
            self.catch_up()
        found: list[Any] = super().variables  # type: ignore[misc]
        return found

    def set_weights(self: Any, weights: Sequence[Any]) -> None:
        self.catch_up()
        super().set_weights(weights)  # type: ignore[misc]

    def finalize_variable_values(self: Any, var_list: Sequence[Any]) -> None:
        """Do what Keras does at the end of `fit`, and catch up, so that who reads the state then need not."""
        self.catch_up()
        super().finalize_variable_values(var_list)  # type: ignore[misc]


def _native(variable: Any) -> Any:
    """Return TensorFlow's variable, of which a gather reads the rows alone."""
    return getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable
