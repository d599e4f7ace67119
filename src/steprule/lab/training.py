"""One trial: a model trained by a rule, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .. import rules
from ..curvature import Curvature
from ..specification import Rule
from ..torch import RuleOptimizer, optimizer
from ..torch.losses import scalar
from .problem import Problem
from .results import Epoch

__all__ = ["train", "train_epoch", "train_epochs", "with_batch_size"]


def train(
    problem: Problem, rule: Rule, hyperparameters: Mapping[str, float], seed: int, epochs: int
) -> Iterator[Epoch]:
    """Train and yield each epoch as it ends, up to `epochs` or to the first whose loss is NaN or infinite.

    `seed` decides the initial weights and the order of the examples, which is a new permutation in each epoch. A problem
    that has a `trainer` is trained by that.
    """
    if problem.trainer is not None:
        yield from _checked(problem, problem.trainer(problem, rule, hyperparameters, seed, epochs))
        return
    model = problem.model(seed)
    hyperparameters, takes_batch_size = with_batch_size(problem, rule, hyperparameters)
    stepper = optimizer(rule)(model.parameters(), **hyperparameters)
    yield from train_epochs(
        problem, model, stepper, seed, epochs, _curvature(problem, model, stepper), takes_batch_size=takes_batch_size
    )


def _checked(problem: Problem, epochs: Iterable[Any]) -> Iterator[Epoch]:
    """Yield what a problem's own trainer does, its numbers as floats: a loss may be a tensor, which cannot be kept.

    Raises `TypeError` where that is no epoch or holds what is no number, and `ValueError` where there is none.
    """

    def number(epoch: Epoch, name: str) -> float:
        return problem.number(getattr(epoch, name), f"its trainer yielded an epoch whose {name} is")

    found = False
    for each in epochs:
        if not isinstance(each, Epoch):
            raise TypeError(
                f"problem {problem.name}: its trainer yielded {each!r:.80}; allowed is a steprule.lab.Epoch"
            )
        loss, test, seconds = (number(each, name) for name in ("loss", "test", "seconds"))
        yield Epoch(each.number, loss, test, None if each.validation is None else number(each, "validation"), seconds)
        found = True
    if not found:
        raise ValueError(f"problem {problem.name}: its trainer yielded nothing; allowed is at least one epoch")


def train_epochs(
    problem: Problem,
    model: nn.Module,
    stepper: RuleOptimizer,
    seed: int,
    epochs: int,
    curvature: Curvature | None = None,
    *,
    takes_batch_size: bool = False,
) -> Iterator[Epoch]:
    """Train `model` as `train` does, and yield each epoch as it ends; the rest is as for `train_epoch`."""
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for what the model draws while it trains, such as dropout
    for number in range(1, epochs + 1):
        started = time.perf_counter()
        loss = train_epoch(problem, model, stepper, order, curvature, takes_batch_size=takes_batch_size)
        seconds = time.perf_counter() - started
        validation = None if problem.validation is None else problem.measured(model, problem.validation)
        yield Epoch(number, loss, problem.measured(model, problem.test), validation, seconds)
        if not math.isfinite(loss):
            return


def with_batch_size(
    problem: Problem, rule: Rule, hyperparameters: Mapping[str, float]
) -> tuple[Mapping[str, float], bool]:
    """Return the hyperparameters, and whether the problem's `batch_size` was added to them.

    It is where the rule takes one and none was given.
    """
    takes_batch_size = "batch_size" in rule.hyperparameters and "batch_size" not in hyperparameters
    if takes_batch_size:
        hyperparameters = {"batch_size": problem.batch_size, **hyperparameters}
    return hyperparameters, takes_batch_size


def _curvature(problem: Problem, model: nn.Module, stepper: RuleOptimizer) -> Curvature | None:
    """Return what supplies the `h` and `g2` that the rule takes: bbprop, and finite differences for vSGD-fd."""
    taken = stepper.rule.curvature
    if not taken:
        return None
    if stepper.rule is rules.vsgd_fd:
        return Curvature(model, problem.loss, h="differences", g2=True, optimizer=stepper)
    return Curvature(model, problem.loss, h="bbprop" if "h" in taken else None, g2="g2" in taken)


def train_epoch(
    problem: Problem,
    model: nn.Module,
    stepper: RuleOptimizer,
    order: torch.Generator,
    curvature: Curvature | None = None,
    *,
    takes_batch_size: bool = False,
) -> float:
    """Pass once over the training data in a new order; return the mean loss of its examples.

    `curvature` supplies what the rule takes beside the gradient. With `takes_batch_size`, the rule's `batch_size` is that of
    each batch, of which the last may be smaller.
    """
    inputs, targets = problem.train
    examples = len(inputs)
    model.train()
    total = torch.zeros((), dtype=torch.float64)
    parameters = list(model.parameters())
    for batch in problem.batches(order):
        x, y = inputs.index_select(0, batch), targets.index_select(0, batch)
        if takes_batch_size and len(batch) != stepper.param_groups[0]["batch_size"]:
            stepper.param_groups[0]["batch_size"] = len(batch)
        if curvature is not None:
            loss = curvature(x, y)
        else:
            loss = scalar(problem.loss(model(x), y), problem.name)
            for parameter in parameters:
                parameter.grad = None  # as zero_grad() does, whose own time shows on a small net
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        stepper.step()
        total.add_(loss.detach(), alpha=len(batch))
    return total.item() / examples
