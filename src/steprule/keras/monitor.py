"""Effective learning rates in Keras: a callback that looks at the step itself, for any optimizer of Keras or of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from ..rates import Rates, Record, Sampler

__all__ = ["RateMonitorCallback"]

_BFLOAT16_EPS: Final = 2.0**-7


class RateMonitorCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Records effective learning rates, -update / gradient, of random dimensions of each trainable variable in `fit`.

    `rates` holds what was recorded: `rates.table()`, `print(rates)`. Steps are numbered by the optimizer's `iterations`,
    from 1, and of them 1, 1 + `every`, ... are recorded: `sample` dimensions of each variable, chosen by `seed`. Layers have
    the variables' paths. `writer` is a `SummaryWriter` or alike, see `steprule.rates.Rates.to_tensorboard`.

    Keras has no hook for a step, so that the callback wraps the optimizer's `apply` while `fit` runs, and the training step
    is compiled anew at its begin and end. The gradient is the one that `apply` is given, without the loss scale: before
    clipping, and with `gradient_accumulation_steps` that of one batch, whose update may be 0. A step that is left out by
    `LossScaleOptimizer` is not recorded. Keras does not tell of a fit that ends in an exception: `on_train_end()`, or the
    next fit with the callback, ends the watch then.

    Raises `ValueError` for an `every` or a `sample` below 1, and, when the fit begins, `TypeError` where several replicas
    step and `ValueError` on TensorFlow where one execution has more than `every` steps.
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
            if self.model.steps_per_execution > self._sampler.every:
                raise ValueError(
                    f"steps_per_execution is {self.model.steps_per_execution}; allowed with every={self._sampler.every} "
                    "is no more than that"
                )
        self._leave()  # a fit that was interrupted
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        kinds: dict[str, Any] = {"torch": _OnTorch, "tensorflow": _OnTensorFlow, "jax": _OnJax}
        self._watch = kinds[backend](optimizer, self.model.trainable_variables, self._sampler, self.rates, **more)
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

    def __init__(self, optimizer: Any, variables: Sequence[Any], sampler: Sampler, rates: Rates) -> None:
        self.optimizer: Final = optimizer
        self._before: Any = vars(optimizer).get("apply")
        self._apply: Callable[..., None] = optimizer.apply
        self._sampler: Final = sampler
        self._rates: Final = rates
        self._variables: Final = list(variables)
        self._places: Final = [
            sampler.dimensions(number, int(np.prod(each.shape))) for number, each in enumerate(self._variables)
        ]
        self._dtype: Final = "float64" if any(each.dtype == "float64" for each in self._variables) else "float32"
        self._has_gradient: list[bool] = []
        self._first: Final = int(optimizer.iterations)

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

    def _gradients(self, grads: Sequence[Any], variables: Sequence[Any] | None) -> list[Any]:
        """Return the gradient of each variable, None where there is none."""
        given = self.optimizer._trainable_variables if variables is None else variables
        found = {id(variable): grad for variable, grad in zip(given, grads, strict=True)}
        aligned = [found.get(id(variable)) for variable in self._variables]
        self._has_gradient = [grad is not None for grad in aligned]
        return aligned

    def _scale(self) -> float:
        return float(self.optimizer.loss_scale_factor or 1.0)

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

    def _record(self, step: int, before: Any, gradient: Any, after: Any) -> None:
        ends = np.cumsum([len(each) for each in self._places])[:-1]
        split = (np.split(np.asarray(each, np.float64), ends) for each in (before, after, gradient))
        layers = zip(self._variables, self._places, self._has_gradient, *split, strict=True)
        self._rates.add(
            Record.of(step, variable.path, places, old, new, grad, _eps(variable.dtype))
            for variable, places, there, old, new, grad in layers
            if there and len(places)
        )

    def batch_ended(self) -> None:
        """Do nothing, where a step is recorded as it is made."""

    def end(self) -> None:
        """Wait for what is not recorded yet."""


class _OnTorch(_Watch):
    _steps = 0

    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        # Counted here: to read `iterations` would wait for a GPU at each step.
        step = self._first + self._steps
        self._steps += 1
        if step % self._sampler.every:
            self._apply(grads, trainable_variables, **more)
            return
        before = self._values()
        gradient = self._taken(self._gradients(grads, trainable_variables)) / self._scale()
        self._apply(grads, trainable_variables, **more)
        self._record(step + 1, *map(ops.convert_to_numpy, (before, gradient, self._values())))


class _OnJax(_Watch):
    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        import jax

        step, before = self.optimizer.iterations.value, self._values()
        gradient = self._taken(self._gradients(grads, trainable_variables)) / self._scale()
        self._apply(grads, trainable_variables, **more)
        # What is computed within a traced step is traced, even where the number of the step is known.
        if not isinstance(before, jax.core.Tracer):
            # To branch in JAX would compile the branches anew in each step that is not compiled.
            if int(step) % self._sampler.every == 0:
                self._told(step, before, gradient, self._values())
            return
        jax.lax.cond(
            step % self._sampler.every == 0,
            lambda *taken: jax.debug.callback(self._told, *taken, ordered=True),
            lambda *_: None,
            step,
            before,
            gradient,
            self._values(),
        )

    def _told(self, step: Any, *taken: Any) -> None:
        self._record(int(step) + 1, *taken)

    def end(self) -> None:
        import jax

        jax.effects_barrier()


class _OnTensorFlow(_Watch):
    """A compiled step cannot call Python: it leaves what it has taken in variables, which are read between the batches."""

    def __init__(self, *given: Any, steps_per_execution: int) -> None:
        super().__init__(*given)
        import tensorflow as tf

        size = sum(map(len, self._places))
        self._kept: Final = tf.Variable(np.zeros((3, size), self._dtype), trainable=False)
        self._step: Final = tf.Variable(np.int64(-1), trainable=False)
        self._read = -1
        self._batches = 0
        self._between: Final = max(self._sampler.every // steps_per_execution, 1)

    def __call__(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None, **more: Any) -> None:
        import tensorflow as tf

        # A cast to its own dtype would leave the variable, and be read again after the step.
        step = tf.identity(tf.cast(self.optimizer.iterations.value, tf.int64))
        due = tf.equal(step % self._sampler.every, 0)
        before, aligned = self._values(), self._gradients(grads, trainable_variables)

        def taken() -> Any:
            # Rows that a gradient names are made dense only here.
            return (
                self._taken([None if each is None else tf.convert_to_tensor(each) for each in aligned]) / self._scale()
            )

        gradient = tf.cond(due, taken, lambda: tf.zeros_like(before))
        self._apply(grads, trainable_variables, **more)
        now = tf.stack([before, gradient, self._values()])
        self._kept.assign(tf.where(due, now, self._kept))
        self._step.assign(tf.where(due, step, self._step))

    def batch_ended(self) -> None:
        # What is kept stays until the next step that is due, `every` steps later.
        self._batches += 1
        if self._batches % self._between == 0:
            self.end()

    def end(self) -> None:
        step = int(self._step.numpy())
        if step != self._read:
            self._read = step
            self._record(step + 1, *self._kept.numpy())


def _eps(dtype: str) -> float:
    return _BFLOAT16_EPS if dtype == "bfloat16" else float(np.finfo(dtype).eps)
