"""Gradients of a model for many replicas, each at its own parameters: one module, into which they are copied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor, nn

from ..torch.losses import scalar
from .memory import as_tensor
from .partition import Partition

__all__ = ["Gradients", "Trainable", "dtype_of", "parameters_of"]

_Data = tuple[Tensor, Tensor]


class Trainable(Protocol):
    """What is asked of a problem; `steprule.lab.Problem` is one."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Callable[[int], nn.Module]: ...
    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]: ...
    @property
    def train(self) -> _Data: ...
    @property
    def test(self) -> _Data: ...
    @property
    def validation(self) -> _Data | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batches_per_epoch(self) -> int: ...

    def batches(self, order: torch.Generator) -> Iterator[Tensor]:
        """Yield the numbers of the examples of each batch, int64, once through the training data in a new order."""

    def measured(self, model: nn.Module, data: _Data) -> float:
        """Return the metric of the model on a whole data set."""


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Gradients:
    """The model of a `problem`, with the initial weights of `seed`, and its training data, on `device`.

    `partition` says how its trainable parameters, by their names in the module, lie in `shards` slices. The module's
    buffers, such as the averages of batch normalisation, are shared by all who ask for a gradient.

    Raises `ValueError` for a model whose trainable parameters are not all float32 or all float64.
    """

    def __init__(self, problem: Trainable, seed: int, shards: int = 1, device: str = "cpu") -> None:
        self._problem: Final = problem
        self.module: Final = problem.model(seed).to(device)
        self._parameters: Final = parameters_of(self.module)
        self.dtype: Final = dtype_of(problem, self._parameters)
        self.partition: Final = Partition({name: p.shape for name, p in self._parameters.items()}, shards)
        self._train: Final = _on(problem.train, device)
        self._test: Final = _on(problem.test, device)
        self._validation: Final = None if problem.validation is None else _on(problem.validation, device)
        self._order: Final = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # for what the model draws while it trains, such as dropout

    def initial(self) -> NDArray[Any]:
        """Return a copy of the module's parameters, flat."""
        return self.partition.flat(
            {name: p.detach().numpy(force=True) for name, p in self._parameters.items()}, self.dtype
        )

    def batches(self) -> Iterator[Tensor]:
        """Yield batches without end, each pass through the training data in a new order."""
        return itertools.chain.from_iterable(self._problem.batches(self._order) for _ in itertools.count())

    def at(self, tensors: Mapping[str, NDArray[Any]], batch: Tensor, into: NDArray[Any]) -> float:
        """Write the gradient of a batch at the parameters `tensors` to the flat `into`; return the loss, a mean."""
        self._set(tensors)
        self.module.train()
        inputs, targets = (part.index_select(0, batch.to(part.device)) for part in self._train)
        for parameter in self._parameters.values():
            parameter.grad = None
        loss = scalar(self._problem.loss(self.module(inputs), targets), self._problem.name)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, view in self.partition.dense_views(into).items():
            gradient = self._parameters[name].grad
            if gradient is None:
                view[...] = 0
            else:
                torch.from_numpy(view).copy_(gradient.to_dense() if gradient.is_sparse else gradient)
        return loss.item()

    def measured(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[float, float | None]:
        """Return the metric on the test data and on the validation data, None where there are none."""
        self._set(tensors)
        test = self._problem.measured(self.module, self._test)
        validation = None if self._validation is None else self._problem.measured(self.module, self._validation)
        return test, validation

    @torch.no_grad()
    def _set(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        # Copied, not pointed at: a matrix product may sum in another order where its operands are aligned otherwise, and
        # the numbers shall be those of plain training.
        for name, parameter in self._parameters.items():
            parameter.copy_(as_tensor(tensors[name]))


def _on(data: _Data, device: str) -> _Data:
    return data[0].to(device), data[1].to(device)


def dtype_of(problem: Trainable, parameters: Mapping[str, nn.Parameter]) -> Any:
    """Return the type of NumPy's that trainable parameters have. Raises `ValueError` as `Gradients` does."""
    types = {parameter.dtype for parameter in parameters.values()}
    if types not in ({torch.float32}, {torch.float64}):
        found = ", ".join(sorted(map(str, types))) or "none"
        raise ValueError(
            f"the model of {problem.name} has trainable parameters of {found}; allowed are all float32 or all float64"
        )
    return np.float32 if types == {torch.float32} else np.float64
