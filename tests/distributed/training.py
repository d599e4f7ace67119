"""A small net trained in each of the ways that PyTorch has for several ranks: what those ranks, or one process, do.

Each returns its parameters after the steps, whole, as arrays. All see the same batches, of which a rank has its share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from tests.conformance.cases import RULES, hyper
from tests.conformance.paths import paths

import torch
from steprule.torch import RuleOptimizer, optimizer, step_in_backward
from torch import nn

__all__ = [
    "STEPS",
    "Arrays",
    "alone",
    "distributed_data_parallel",
    "fully_sharded",
    "fully_sharded_in_backward",
    "made",
    "net",
    "sharded_net",
    "shared_out",
    "train",
    "whole",
    "zero_optimizer",
    "zero_redundancy",
]

STEPS = 6
BATCH = 8
Arrays = list[NDArray[np.float64]]


def net() -> nn.Sequential:
    """Return a net whose layers no number of ranks above 1 divides; with 4 ranks, the last one has nothing of some."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def values_of(rule: str, **changes: Any) -> dict[str, Any]:
    return hyper(rule) | {"weight_decay": 0.01} | changes


def made(rule: str, params: Any, **changes: Any) -> RuleOptimizer:
    return optimizer(RULES[rule])(params, **values_of(rule, **changes))


def _batches(rank: int, ranks: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    while True:
        inputs, targets = (torch.randn(BATCH, width, dtype=torch.float64, generator=generator) for width in (6, 3))
        yield inputs[share], targets[share]


def shared_out() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield this rank's share of each batch, of which the mean over the ranks is the mean over the batch.

    A process that is in no group has all of it.
    """
    if not dist.is_initialized():
        return _batches(0, 1)
    return _batches(dist.get_rank(), dist.get_world_size())


def train(model: nn.Module, stepper: Any, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for inputs, targets in batches:
        stepper.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        stepper.step()


def whole(tensors: Iterable[Any]) -> Arrays:
    """Return each tensor as an array, gathered from all ranks where it is a DTensor."""
    return [(each.full_tensor() if hasattr(each, "full_tensor") else each).detach().numpy().copy() for each in tensors]


def alone(rule: str, steps: int = STEPS, **changes: Any) -> Arrays:
    model = net()
    train(model, made(rule, model.parameters(), **changes), islice(shared_out(), steps))
    return whole(model.parameters())


def distributed_data_parallel(rule: str) -> Arrays:
    model = nn.parallel.DistributedDataParallel(net())
    train(model, made(rule, model.parameters()), islice(shared_out(), STEPS))
    return whole(model.parameters())


def sharded_net() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    model = net()
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(model)


def fully_sharded(rule: str) -> Arrays:
    from torch.distributed.tensor import DTensor

    model = sharded_net()
    stepper = made(rule, model.parameters())
    train(model, stepper, islice(shared_out(), STEPS))
    assert paths(stepper) == (4, 0)
    for parameter, state in stepper.state.items():
        for name in RULES[rule].slots:
            assert isinstance(state[name], DTensor) and state[name].placements == parameter.placements
    return whole(model.parameters())


def fully_sharded_in_backward(rule: str) -> Arrays:
    model = sharded_net()
    step_in_backward(model, RULES[rule], **values_of(rule))
    for inputs, targets in islice(shared_out(), STEPS):
        nn.functional.mse_loss(model(inputs), targets).backward()
        assert all(each.grad is None for each in model.parameters())
    return whole(model.parameters())


def zero_optimizer(rule: str, model: nn.Module, **changes: Any) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    cls = optimizer(RULES[rule])
    return ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cls, **values_of(rule, **changes))


def zero_redundancy(rule: str) -> Arrays:
    model = nn.parallel.DistributedDataParallel(net())
    stepper = zero_optimizer(rule, model)
    train(model, stepper, islice(shared_out(), STEPS))
    return whole(model.parameters())
