"""PyTorch: its loader, its autograd, and `torch.optim` beside `steprule.torch`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

import torch
from torch import nn

from .... import torch as ours
from ..protocol import BATCH, Examples, Model, Plan, start
from ..scratch import Scratch

__all__ = ["PACKAGES", "WAYS"]

PACKAGES: Final = ("torch",)


class _Loading(Model):
    """The examples as tensors, and PyTorch's loader of them."""

    def hold(self, examples: Examples) -> None:
        self.features, self.labels = torch.tensor(examples.features), torch.tensor(examples.labels)

    def batches(self, order: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
        return iter(DataLoader(TensorDataset(self.features, self.labels), BATCH, sampler=order.tolist()))


class FromScratch(_Loading, Scratch):
    """The regression on tensors."""

    def __init__(self, plan: Plan, examples: Examples, seed: int) -> None:
        super().__init__(plan, [torch.tensor(each) for each in start(plan, seed)])
        self.hold(examples)

    def gradients(self, features: Any, labels: Any) -> tuple[Any, ...]:
        leaves = [parameter.requires_grad_() for parameter in self.parameters]
        gradients = torch.autograd.grad(self._loss(features, labels, self.plan.factor), leaves)
        self.parameters = [parameter.detach() for parameter in leaves]
        return gradients

    def loss(self) -> float:
        return float(self._loss(self.features, self.labels, 0.5))

    def _loss(self, features: Any, labels: Any, factor: float) -> Any:
        weights, bias = self.parameters
        return factor * ((features @ weights + bias - labels) ** 2).mean()


class ThroughClass(_Loading):
    """A linear layer, stepped by an optimizer's class."""

    def __init__(self, plan: Plan, examples: Examples, seed: int, *, cls: Any) -> None:
        weights, bias = start(plan, seed)
        self.plan = plan
        self.hold(examples)
        self.net = nn.Linear(*weights.shape)
        with torch.no_grad():
            self.net.weight.copy_(torch.tensor(weights.T))
            self.net.bias.copy_(torch.tensor(bias))
        self.optimizer = cls(self.net.parameters(), **plan.hyperparameters)

    def step(self, features: Any, labels: Any) -> None:
        self.optimizer.zero_grad()
        error = nn.functional.mse_loss(self.net(features), labels)
        (self.plan.factor * error).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()

    @torch.no_grad()
    def loss(self) -> float:
        return float(nn.functional.mse_loss(self.net(self.features), self.labels)) / 2


WAYS: Final = {
    "scratch": FromScratch,
    "steprule": partial(ThroughClass, cls=ours.Adadelta),
    "library": partial(ThroughClass, cls=torch.optim.Adadelta),
}
