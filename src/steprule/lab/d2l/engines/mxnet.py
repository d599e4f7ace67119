"""MXNet: Gluon's loader, its autograd, and the optimizer that its `Trainer` calls "adadelta".

MXNet has no class of ours. Its `Trainer` divides the summed gradient by the batch, which is the gradient of the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, npx
from numpy.typing import NDArray

from ..protocol import BATCH, Examples, Model, Plan, start
from ..scratch import Scratch

__all__ = ["PACKAGES", "WAYS"]

PACKAGES: Final = ("mxnet", "numpy")

npx.set_np()


class _InOrder(gluon.data.Sampler):  # type: ignore[misc]  # MXNet has no types
    """Gives the loader the rows in an order that is given."""

    def __init__(self, order: NDArray[np.int64]) -> None:
        self._order = order.tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _Loading(Model):
    """The examples as arrays, and Gluon's loader of them."""

    def hold(self, examples: Examples) -> None:
        self.features, self.labels = mx.np.array(examples.features), mx.np.array(examples.labels)

    def batches(self, order: NDArray[np.int64]) -> Iterable[tuple[Any, Any]]:
        loader: Iterable[tuple[Any, Any]] = gluon.data.DataLoader(
            gluon.data.ArrayDataset(self.features, self.labels), BATCH, sampler=_InOrder(order)
        )
        return loader


class FromScratch(_Loading, Scratch):
    """The regression on MXNet's NumPy arrays."""

    def __init__(self, plan: Plan, examples: Examples, seed: int) -> None:
        super().__init__(plan, [mx.np.array(each) for each in start(plan, seed)])
        self.hold(examples)

    def gradients(self, features: Any, labels: Any) -> list[Any]:
        for parameter in self.parameters:
            parameter.attach_grad()
        with autograd.record():
            loss = self._loss(features, labels, self.plan.factor)
        loss.backward()
        return [parameter.grad for parameter in self.parameters]

    def loss(self) -> float:
        return float(self._loss(self.features, self.labels, 0.5))

    def wait(self) -> None:
        npx.waitall()

    def _loss(self, features: Any, labels: Any, factor: float) -> Any:
        weights, bias = self.parameters
        return factor * ((mx.np.dot(features, weights) + bias - labels) ** 2).mean()


class ThroughTrainer(_Loading):
    """A dense layer, stepped by a Gluon `Trainer`."""

    def __init__(self, plan: Plan, examples: Examples, seed: int) -> None:
        weights, bias = start(plan, seed)
        self.plan = plan
        self.hold(examples)
        self.net = gluon.nn.Dense(1, in_units=len(weights))
        self.net.initialize()
        self.net.weight.set_data(mx.np.array(weights.T))
        self.net.bias.set_data(mx.np.array(bias))
        self.half_squared_error = gluon.loss.L2Loss(weight=2 * plan.factor)
        settings = {"rho": plan.hyperparameters["rho"], "epsilon": plan.hyperparameters["eps"]}
        self.trainer = gluon.Trainer(self.net.collect_params(), "adadelta", settings)

    def step(self, features: Any, labels: Any) -> None:
        with autograd.record():
            losses = self.half_squared_error(self.net(features), labels)
        losses.backward()
        self.trainer.step(len(labels))

    def loss(self) -> float:
        return float(((self.net(self.features) - self.labels) ** 2).mean()) / 2

    def wait(self) -> None:
        npx.waitall()


WAYS: Final = {"scratch": FromScratch, "library": ThroughTrainer}
