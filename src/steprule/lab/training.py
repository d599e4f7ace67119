"""One trial: a model trained by a rule, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ..specification import Rule
from ..torch import RuleOptimizer, optimizer
from .problem import Data, Problem
from .results import Epoch

__all__ = ["train", "train_epoch"]

# Examples per forward pass of an evaluation.
_EVALUATED_AT_ONCE = 2000


def train(
    problem: Problem, rule: Rule, hyperparameters: Mapping[str, float], seed: int, epochs: int
) -> Iterator[Epoch]:
    """Train and yield each epoch as it ends, up to `epochs` or to the first whose loss is NaN or infinite.

    `seed` decides the initial weights and the order of the examples, which is a new permutation in each epoch.
    """
    model = problem.model(seed)
    stepper = optimizer(rule)(model.parameters(), **hyperparameters)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for what the model draws while it trains, such as dropout
    for number in range(1, epochs + 1):
        started = time.perf_counter()
        loss = train_epoch(problem, model, stepper, order)
        seconds = time.perf_counter() - started
        validation = None if problem.validation is None else _measured(problem, model, problem.validation)
        yield Epoch(number, loss, _measured(problem, model, problem.test), validation, seconds)
        if not math.isfinite(loss):
            return


def train_epoch(problem: Problem, model: nn.Module, stepper: RuleOptimizer, order: torch.Generator) -> float:
    """Pass once over the training data in a new order; return the mean loss of its examples."""
    inputs, targets = problem.train
    examples = len(inputs)
    model.train()
    total = torch.zeros((), dtype=torch.float64)
    permutation = torch.randperm(examples, generator=order)
    parameters = list(model.parameters())
    for batch in torch.split(permutation, problem.batch_size):
        loss = problem.loss(model(inputs.index_select(0, batch)), targets.index_select(0, batch))
        for parameter in parameters:
            parameter.grad = None  # as zero_grad() does, whose own time shows on a small net
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        stepper.step()
        total.add_(loss.detach(), alpha=len(batch))
    return total.item() / examples


@torch.no_grad()
def _measured(problem: Problem, model: nn.Module, data: Data) -> float:
    model.eval()
    outputs = torch.cat([model(part) for part in torch.split(data[0], _EVALUATED_AT_ONCE)])
    return float(problem.measure(outputs, data[1]))
