"""A problem as work for a parameter server: its parameters, and the gradients that a replica computes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor, nn

from ...cluster.gradients import dtype_of, parameters_of
from ...cluster.messages import Rows
from ...cluster.plan import Work
from ...torch.losses import scalar
from ..problem import Problem, find_problem

__all__ = ["ProblemGradient", "work_of"]


def work_of(problem_name: str, problem: Problem, seed: int) -> Work:
    """Return the work of a problem, which replicas find by its name, from the initial weights of `seed`.

    The gradients of embeddings that are sparse travel as rows.

    Raises `ValueError` where the model has buffers that training would change, since replicas share parameters alone, and
    for parameters of another type than float32 or float64.
    """
    model = problem.model(seed)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            raise ValueError(
                f"the model of {problem.name} has the buffer {name}; allowed are models without, since the server holds "
                "parameters alone"
            )
    trained = parameters_of(model)
    dtype_of(problem, trained)  # for what it raises
    by_rows = [
        f"{name}.weight".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
    ]
    sparse = tuple(name for name in by_rows if name in trained)  # not one that is frozen
    return Work(
        {name: parameter.detach().numpy() for name, parameter in trained.items()},
        functools.partial(_gradient, problem_name, problem.data_sample(), seed),
        sparse,
    )


def _gradient(
    problem_name: str, data: Sequence[Sequence[float]], seed: int, replica: int, start: int
) -> ProblemGradient:
    problem = find_problem(problem_name)()
    problem.check_data(data)
    return ProblemGradient(problem, seed, replica, start)


class ProblemGradient:
    """The gradients of one replica, as a `steprule.cluster` `Gradient`: of mini-batches in an order of its own.

    Each replica goes through all of the training data, in a new permutation each time. Replica 0 at its first start takes
    the mini-batches that plain training takes (`steprule.lab.training.train`); each other start draws from another seed.
    """

    def __init__(self, problem: Problem, seed: int, replica: int, start: int) -> None:
        self._problem: Final = problem
        self._model: Final = problem.model(seed)
        self._model.train()
        self._parameters: Final = parameters_of(self._model)
        own = seed if replica == start == 0 else _drawn(seed, replica, start)
        self._batches: Final = self._drawn_batches(torch.Generator().manual_seed(own))
        self._bound: Any = None
        torch.manual_seed(own)  # for what the model draws while it trains, such as dropout

    def __call__(
        self, tensors: Mapping[str, NDArray[Any]], into: Mapping[str, NDArray[Any]]
    ) -> tuple[float, dict[str, Rows]]:
        """As `Gradient.__call__`."""
        if self._bound is not tensors:
            self._bind(tensors)
        for parameter in self._parameters.values():
            parameter.grad = None
        inputs, targets = next(self._batches)
        loss = scalar(self._problem.loss(self._model(inputs), targets), self._problem.name)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        rows = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            if name in into:
                into[name][...] = parameter.grad.numpy()
            else:
                numbers, values = parameter.grad._indices()[0], parameter.grad._values()
                rows[name] = Rows(numbers.numpy(), values.numpy())
        return float(loss.detach()), rows

    def _bind(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = torch.from_numpy(tensors[name])
        self._bound = tensors

    def _drawn_batches(self, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = self._problem.train
        while True:
            for batch in self._problem.batches(order):
                yield inputs.index_select(0, batch), targets.index_select(0, batch)


def _drawn(seed: int, replica: int, start: int) -> int:
    return int(np.random.SeedSequence((seed, replica, start)).generate_state(1, np.uint64)[0]) >> 1
