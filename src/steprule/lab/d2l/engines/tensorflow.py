"""TensorFlow: its loader and its tape, eagerly as the book does, and Keras's class beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .... import keras as ours
from ..protocol import BATCH, Examples, Model, Plan, start
from ..scratch import Scratch

__all__ = ["PACKAGES", "WAYS"]

PACKAGES: Final = ("tensorflow", "keras")


class _Loading(Model):
    """The examples, and TensorFlow's loader of them."""

    def hold(self, examples: Examples) -> None:
        self.examples = examples
        self.features, self.labels = tf.constant(examples.features), tf.constant(examples.labels)

    def batches(self, order: NDArray[np.int64]) -> Iterable[tuple[Any, Any]]:
        ordered = (self.examples.features[order], self.examples.labels[order])
        loader: Iterable[tuple[Any, Any]] = tf.data.Dataset.from_tensor_slices(ordered).batch(BATCH)
        return loader


class FromScratch(_Loading, Scratch):
    """The regression on TensorFlow's tensors."""

    def __init__(self, plan: Plan, examples: Examples, seed: int) -> None:
        super().__init__(plan, [tf.constant(each) for each in start(plan, seed)])
        self.hold(examples)

    def gradients(self, features: Any, labels: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(self.parameters)
            loss = self._loss(features, labels, self.plan.factor)
        gradients: list[Any] = tape.gradient(loss, self.parameters)
        return gradients

    def loss(self) -> float:
        return float(self._loss(self.features, self.labels, 0.5))

    def _loss(self, features: Any, labels: Any, factor: float) -> Any:
        weights, bias = self.parameters
        return factor * tf.reduce_mean((features @ weights + bias - labels) ** 2)


class ThroughClass(_Loading):
    """A dense layer, stepped by an optimizer of Keras."""

    def __init__(self, plan: Plan, examples: Examples, seed: int, *, cls: Any) -> None:
        weights, bias = start(plan, seed)
        self.plan = plan
        self.hold(examples)
        self.net = keras.layers.Dense(1)
        self.net.build(weights.shape[:1])
        self.net.set_weights([weights, bias])
        self.optimizer = cls(**{_KERAS_NAMES.get(name, name): value for name, value in plan.hyperparameters.items()})

    def step(self, features: Any, labels: Any) -> None:
        variables = self.net.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(features, labels, self.plan.factor)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def loss(self) -> float:
        return float(self._loss(self.features, self.labels, 0.5))

    def _loss(self, features: Any, labels: Any, factor: float) -> Any:
        return factor * tf.reduce_mean((self.net(features) - labels) ** 2)


_KERAS_NAMES: Final = {"lr": "learning_rate", "eps": "epsilon"}

WAYS: Final = {
    "scratch": FromScratch,
    "steprule": partial(ThroughClass, cls=ours.Adadelta),
    "library": partial(ThroughClass, cls=keras.optimizers.Adadelta),
}
