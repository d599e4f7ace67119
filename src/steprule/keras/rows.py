"""Rows of a variable, and which of them are behind: a gradient has not named them, and a dense step would have scaled them.

As in `steprule.torch.lag`, what a row has missed is made up for as one power when it is next touched, or when all of the
state is asked for. Here the counts are variables, so that a traced step finds them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import keras
import tensorflow as tf

from ..around import Around
from ..program import lower
from ..sparsity import scales_without_gradient
from ..specification import Rule

__all__ = ["Behind", "dense", "scaled", "scales_of", "summed", "summed_once"]

# The rate may change while rows are behind, so that a slot's factor must be the same with each.
_SOME_RATES: Final = (0.5, 0.25)


@functools.cache
def scales_of(rule: Rule, form: Around, values: tuple[tuple[str, float], ...], real: str) -> Mapping[str, float]:
    """Return the factors by which a step without gradient scales `x` and the slots, 1 left out; that of `x` at some rate.

    Raises `TypeError` and `ValueError` as `scales_without_gradient` does, and where the factor of a slot has the rate in it.
    """
    if rule.curvature:
        raise TypeError(f"it takes {', '.join(rule.inputs)}")
    program = lower(rule, form)
    found = [
        scales_without_gradient(program, {**dict(values), "lr": rate}, rule.slots, t=1, real=real)
        for rate in _SOME_RATES
    ]
    for slot in rule.slots:
        if len({each.get(slot, 1.0) for each in found}) > 1:
            raise TypeError(
                f"the factor by which it scales its slot {slot} where the gradient is 0 depends on the rate"
            )
    return found[0]


def dense(gradient: tf.IndexedSlices, variable: Any) -> Any:
    """Return the gradient as a tensor of the shape of `variable`; rows that are named several times are summed."""
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])


def summed(gradient: tf.IndexedSlices, real: str) -> tuple[Any, Any]:
    """Return the numbers of the rows that a gradient names, sorted, and the gradient of each, of type `real`.

    A number that comes several times stays so, each time with the sum: a compiler that must know all sizes takes it.
    """
    numbers, _, places, sums = _grouped(gradient.indices, tf.cast(gradient.values, real))
    return numbers, tf.gather(sums, places)


def summed_once(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """Return the same gradient with the sum of each row where its number first comes, and 0 where it comes again.

    Norms and single elements are then those of the dense gradient, and the number of rows stays what it was.
    """
    numbers, first, places, sums = _grouped(gradient.indices, gradient.values)
    firsts = tf.reshape(first, [-1, *[1] * (len(sums.shape) - 1)])
    values = tf.where(firsts, tf.gather(sums, places), tf.zeros_like(sums))
    return tf.IndexedSlices(values, numbers, gradient.dense_shape)


def _grouped(indices: Any, values: Any) -> tuple[Any, Any, Any, Any]:
    """Return the numbers of the rows, sorted; which come for the first time; the place of each one's sum; and the sums.

    There are as many sums as rows, those beyond the last place 0.
    """
    order = tf.argsort(indices, stable=True)
    numbers = tf.gather(indices, order)
    first = tf.concat([tf.ones_like(numbers[:1], tf.bool), numbers[1:] != numbers[:-1]], 0)
    places = tf.cumsum(tf.cast(first, tf.int32)) - 1
    sums = tf.math.unsorted_segment_sum(tf.gather(values, order), places, tf.shape(places)[0])
    return numbers, first, places, sums


class Behind:
    """Of one variable's `slots`, each scaled by its factor in `scales` in a step without gradient, which rows are behind."""

    def __init__(self, slots: Mapping[str, Any], scales: Mapping[str, float], rows: int) -> None:
        self._slots: Final = slots
        self._scales: Final = scales
        # Steps by named rows since all rows were last up to date, and how many of them each row has made.
        self._steps: Final = _count(())
        self._steps_of_row: Final = _count((rows,))
        self._used = False
        self._dense_step_is_traced = False

    @property
    def counts(self) -> Mapping[str, Any]:
        """The variables that remember which rows are behind: whoever saves the slots as they are saves these too."""
        return {"steps": self._steps.value, "steps_of_row": self._steps_of_row.value}

    def factors(self, numbers: Any) -> dict[str, Any]:
        """Return for each slot what makes up for what the rows `numbers` have missed, in float64."""
        missed = tf.cast(self._steps.value - tf.gather(self._steps_of_row.value, numbers), tf.float64)
        made = {scale: tf.pow(tf.constant(scale, tf.float64), missed) for scale in set(self._scales.values())}
        return {name: made[scale] for name, scale in self._scales.items()}

    def stepped(self, numbers: Any) -> None:
        """Count a step, and that the rows `numbers` have made it and all before it."""
        steps = self._steps.value.assign_add(1)
        counts = tf.fill(tf.shape(numbers), tf.convert_to_tensor(steps))
        self._steps_of_row.value.scatter_update(tf.IndexedSlices(counts, numbers))

    def begin(self) -> None:
        """Say that a step by named rows comes.

        Raises `RuntimeError` where a step with a dense gradient is compiled already: it would not see rows that are behind.
        """
        if self._dense_step_is_traced and not self._used:
            raise RuntimeError(
                f"a variable whose first slot has the shape {tuple(next(iter(self._slots.values())).shape)} gets a gradient "
                "that names rows, after a step with a dense one was compiled, which would not see that rows are behind; "
                'choose sparse="dense"'
            )
        self._used = True

    def settle(self) -> None:
        """Bring every row up to date."""
        self._used = self._used or self._is_behind()
        if not self._used:
            self._dense_step_is_traced |= tf.inside_function()
        elif tf.inside_function():
            tf.cond(self._steps.value > 0, self._settle, lambda: None)
        elif int(self._steps.numpy()):
            self._settle()

    def _is_behind(self) -> bool:
        """Whether rows are behind now, as they may be without any step by named rows where a checkpoint was restored."""
        steps = self._steps.value
        with tf.init_scope():
            # What is made while a function is traced has no value yet, unless a checkpoint has waited for it.
            return tf.executing_eagerly() and bool(steps.is_initialized()) and int(steps.numpy()) > 0

    def _settle(self) -> None:
        factors = self.factors(tf.range(self._steps_of_row.shape[0]))
        for name, slot in self._slots.items():
            slot.assign(scaled(slot, factors[name]))
        self._steps_of_row.assign(tf.zeros_like(self._steps_of_row.value))
        self._steps.assign(0)


def scaled(rows: Any, factors: Any) -> Any:
    """Return `rows` multiplied by a factor of float64 each, in their own type: a small factor keeps its digits."""
    shape = tf.concat([tf.shape(factors), tf.ones([len(rows.shape) - 1], tf.int32)], 0)
    return keras.ops.cast(keras.ops.cast(rows, "float64") * tf.reshape(factors, shape), rows.dtype)


def _count(shape: tuple[int, ...]) -> Any:
    return keras.Variable("zeros", shape=shape, dtype="int64", trainable=False, aggregation="only_first_replica")
