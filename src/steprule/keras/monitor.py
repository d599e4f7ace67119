"""Effective learning rates in Keras: a callback that looks at the step itself, for any optimizer of Keras or of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from ..rates import Rates, Record, Sampler

__all__ = ["RateMonitorCallback"]

_BFLOAT16_EPS: Final = 2.0**-7


class RateMonitorCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Records effective learning rates, -update / gradient, of random dimensions of each variable that `fit` steps.

    `rates` holds what was recorded: `rates.table()`, `print(rates)`. Steps are numbered by the optimizer's `iterations`,
    from 1, and of them 1, 1 + `every`, ... are recorded: `sample` dimensions of each variable, chosen by `seed`. Layers have
    the variables' paths. `writer` is a `SummaryWriter` or alike, see `steprule.rates.Rates.to_tensorboard`.

    Keras has no hook for a step, so that the callback wraps the optimizer's `apply` while `fit` runs, and the training step
    is compiled anew at its begin and end. The gradient is the one that `apply` is given, without the loss scale and before
    clipping. With `gradient_accumulation_steps` a step is an update of the variables, and its gradient the mean of those of
    its batches. A step that is left out by `LossScaleOptimizer` is not recorded. Keras does not tell of a fit that ends in
    an exception: `on_train_end()`, or the next fit with the callback, ends the watch then.

    Raises `ValueError` for an `every` or a `sample` below 1, and, when the fit begins, `TypeError` where several replicas
    step, and `ValueError` on TensorFlow where one execution has more than `every` steps and where the optimizers of a
    `MultiOptimizer` accumulate gradients.
    """

    def __init__(self, every: int = 60, sample: int = 10, seed: int = 0, writer: Any = None) -> None:
        super().__init__()
        self._sampler: Final = Sampler(every, sample, seed)
        self.rates: Final = Rates(writer)
        self._watch: _Watch | None = None

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002  # Keras's signature
        backend, more = keras.config.backend(), {}
        if backend == "tensorflow":
            more = {"steps_per_execution": self.model.steps_per_execution}
            if self.model.distribute_strategy.num_replicas_in_sync > 1:
                raise TypeError("RateMonitorCallback looks at one replica, and the model has several")
        self._leave()  # a fit that was interrupted
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        kinds: dict[str, Any] = {"torch": _OnTorch, "tensorflow": _OnTensorFlow, "jax": _OnJax}
        self._watch = kinds[backend](optimizer, self.model, self._sampler, self.rates, **more)
        optimizer.apply = self._watch
        self._compile()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  # as above
        if self._watch is not None:
            self._watch.batch_ended()

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002  # as above
        if self._watch is not None:
            self._leave()
            self._compile()

    def _leave(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.remove()
            watch.end()

    def _compile(self) -> None:
        # A function that was traced before goes on to call what it called then.
        self.model.make_train_function(force=True)


class _Watch:
    """The optimizer's `apply`, with a look at the sampled elements before and after it."""

    def __init__(self, optimizer: Any, model: Any, sampler: Sampler, rates: Rates) -> None:
        self.optimizer: Final = optimizer
        self._before: Any = vars(optimizer).get("apply")
        self._apply: Callable[..., None] = optimizer.apply
        self._sampler: Final = sampler
        self._rates: Final = rates
        self._model: Final = model
        self._has_gradient: list[bool] = []
        self._accumulation: Final = optimizer.gradient_accumulation_steps or 1
        self._period: Final = sampler.every * self._accumulation

    # A model that nobody has built is built by Keras before `fit` begins, but on TensorFlow within the first step.
    @cached_property
    def _variables(self) -> list[Any]:
        return [each for each in self._model.trainable_variables if not each.overwrite_with_gradient]

    @cached_property
    def _places(self) -> list[Any]:
        sizes = [int(np.prod(each.shape)) for each in self._variables]
        return [self._sampler.dimensions(number, size) for number, size in enumerate(sizes)]

    @cached_property
    def _dtype(self) -> str:
        return "float64" if any(each.dtype == "float64" for each in self._variables) else "float32"

    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        """Be called no more, whatever has come around the optimizer's `apply` since."""
        outer = vars(self.optimizer).get("apply")
        if outer is self:
            if self._before is None:
                del self.optimizer.apply
            else:
                self.optimizer.apply = self._before
        while isinstance(outer, _Watch):
            if outer._before is self:
                outer._before, outer._apply = self._before, self._apply
            outer = outer._before

    def _aligned(self, grads: Sequence[Any], variables: Sequence[Any] | None) -> list[Any]:
        """Return the gradient of each variable, None where there is none."""
        several = isinstance(self.optimizer, getattr(keras.optimizers, "MultiOptimizer", ()))  # not in older versions
        if (self._accumulation > 1 or several) and variables is not None and not self.optimizer.built:
            # On TensorFlow, Keras builds in `apply`, and what is made there is looked at before it.
            self.optimizer.build(list(variables))
        for each in self.optimizer.optimizers if several else ():
            if each.gradient_accumulation_steps:
                raise ValueError(
                    f"gradient_accumulation_steps of {each.name} is {each.gradient_accumulation_steps}; allowed for "
                    "RateMonitorCallback is None in each optimizer of a MultiOptimizer"
                )
        given = self.optimizer._trainable_variables if variables is None else variables
        found = {id(variable): grad for variable, grad in zip(given, grads, strict=True)}
        aligned = [found.get(id(variable)) for variable in self._variables]
        self._has_gradient = [grad is not None for grad in aligned]
        return aligned

    def _is_due(self, batch: Any) -> Any:
        """Whether the batch, numbered from 0 by the optimizer's `_iterations`, makes an update that is recorded."""
        return batch % self._period == self._accumulation - 1

    def _gradient(self, grads: Sequence[Any]) -> Any:
        """Return the sampled elements of the gradient that the update is made of, from `grads`, one for each variable."""
        taken = self._taken(grads) / float(self.optimizer.loss_scale_factor or 1.0)
        if self._accumulation == 1:
            return taken
        sums, place = self.optimizer._accumulated_gradients, self.optimizer._get_variable_index
        before = [
            None if grad is None else sums[place(variable)].value
            for grad, variable in zip(grads, self._variables, strict=True)
        ]
        return (taken + self._taken(before)) / self._accumulation

    def _taken(self, tensors: Sequence[Any]) -> Any:
        """Return the sampled elements of a tensor for each variable, joined; 0 where there is None."""
        parts = [
            ops.zeros(len(places), self._dtype)
            if each is None
            else ops.cast(ops.take(ops.reshape(each, (-1,)), places), self._dtype)
            for each, places in zip(tensors, self._places, strict=True)
        ]
        return ops.concatenate(parts)

    def _values(self) -> Any:
        return self._taken([variable.value for variable in self._variables])

    def _record(self, batch: int, before: Any, gradient: Any, after: Any) -> None:
        ends = np.cumsum([len(each) for each in self._places])[:-1]
        split = (np.split(np.asarray(each, np.float64), ends) for each in (before, after, gradient))
        layers = zip(self._variables, self._places, self._has_gradient, *split, strict=True)
        self._rates.add(
            Record.of(batch // self._accumulation + 1, variable.path, places, old, new, grad, _eps(variable.dtype))
            for variable, places, there, old, new, grad in layers
            if there and len(places)
        )

    def batch_ended(self) -> None:
        """Do nothing, where a step is recorded as it is made."""

    def end(self) -> None:
        """Wait for what is not recorded yet."""


class _OnTorch(_Watch):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._batches = int(self.optimizer._iterations)
        from ..torch.compiled import outside_compiled_code

        @outside_compiled_code
        def record(batch: int, *taken: Any) -> None:
            self._record(batch, *map(ops.convert_to_numpy, taken))

        self._record_outside: Final = record

    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        # Counted here: to read `_iterations` would wait for a GPU at each step.
        batch = self._batches
        self._batches += 1
        if not self._is_due(batch):
            self._apply(grads, trainable_variables, **more)
            return
        before = self._values()
        gradient = self._gradient(self._aligned(grads, trainable_variables))
        self._apply(grads, trainable_variables, **more)
        self._record_outside(batch, before, gradient, self._values())


class _OnJax(_Watch):
    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        import jax

        batch, before = self.optimizer._iterations.value, self._values()
        gradient = self._gradient(self._aligned(grads, trainable_variables))
        self._apply(grads, trainable_variables, **more)
        # What is computed within a traced step is traced, even where the number of the step is known.
        if not isinstance(before, jax.core.Tracer):
            # To branch in JAX would compile the branches anew in each step that is not compiled.
            if self._is_due(int(batch)):
                self._told(batch, before, gradient, self._values())
            return
        # JAX keeps an order on one device only; on several, each step waits for what the one before it has made.
        ordered = keras.distribution.distribution() is None
        jax.lax.cond(
            self._is_due(batch),
            lambda *taken: jax.debug.callback(self._told, *taken, ordered=ordered),
            lambda *_: None,
            batch,
            before,
            gradient,
            self._values(),
        )

    def _told(self, batch: Any, *taken: Any) -> None:
        self._record(int(batch), *taken)

    def end(self) -> None:
        import jax

        jax.effects_barrier()


class _OnTensorFlow(_Watch):
    """A compiled step cannot call Python: it leaves what it has taken in variables, which are read between the batches."""

    def __init__(self, *given: Any, steps_per_execution: int) -> None:
        super().__init__(*given)
        import tensorflow as tf

        if steps_per_execution > self._period:
            raise ValueError(
                f"steps_per_execution is {steps_per_execution}; allowed is no more than the {self._period} batches of "
                f"every={self._sampler.every} steps"
            )
        self._batch: Final = tf.Variable(np.int64(-1), trainable=False)
        self._read = -1
        self._executions = 0
        self._between: Final = self._period // steps_per_execution

    @cached_property
    def _kept(self) -> Any:
        import tensorflow as tf

        # Outside of the function that is being traced, which makes no variables but in its first trace.
        with tf.init_scope():
            return tf.Variable(np.zeros((3, sum(map(len, self._places))), self._dtype), trainable=False)

    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        import tensorflow as tf

        # A cast to its own dtype would leave the variable, and be read again after the step.
        batch = tf.identity(tf.cast(self.optimizer._iterations.value, tf.int64))
        due = self._is_due(batch)
        before, aligned = self._values(), self._aligned(grads, trainable_variables)

        def taken() -> Any:
            # Rows that a gradient names are made dense only here.
            return self._gradient([None if each is None else tf.convert_to_tensor(each) for each in aligned])

        gradient = tf.cond(due, taken, lambda: tf.zeros_like(before))
        self._apply(grads, trainable_variables, **more)
        now = tf.stack([before, gradient, self._values()])
        self._kept.assign(tf.where(due, now, self._kept))
        self._batch.assign(tf.where(due, batch, self._batch))

    def batch_ended(self) -> None:
        # What is kept stays until the next step that is due, `every` steps later.
        self._executions += 1
        if self._executions % self._between == 0:
            self.end()

    def end(self) -> None:
        batch = int(self._batch.numpy())
        if batch != self._read:
            self._read = batch
            self._record(batch, *self._kept.numpy())


def _eps(dtype: str) -> float:
    return _BFLOAT16_EPS if dtype == "bfloat16" else float(np.finfo(dtype).eps)
