"""What ranks write with `torch.distributed.checkpoint`, and how training goes on from it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.distributed.training import STEPS, Arrays, made, net, sharded_net, shared_out, train, whole, zero_optimizer
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

import torch
from torch import nn

__all__ = ["go_on", "go_on_from_gathered", "go_on_with_zero", "save", "save_gathered", "save_with_zero"]

FIRST = 3
_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
_SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def _first_steps(rule: str, model: nn.Module) -> Any:
    stepper = made(rule, model.parameters())
    train(model, stepper, islice(shared_out(), FIRST))
    return stepper


def _otherwise(rule: str, model: nn.Module) -> Any:
    """Return an optimizer of a net, both of which begin otherwise than those of the first steps."""
    for each in model.parameters():
        nn.init.zeros_(each)
    return made(rule, model.parameters(), lr=0.5)


def _other_steps(model: nn.Module, stepper: Any) -> Arrays:
    train(model, stepper, islice(shared_out(), FIRST, STEPS))
    return whole(model.parameters())


def save(rule: str, path: str, sharded: bool) -> None:
    """Take the first steps, then write model and optimizer."""
    model = sharded_net() if sharded else net()
    parameters, state = get_state_dict(model, _first_steps(rule, model))
    dcp.save({"model": parameters, "optimizer": state}, checkpoint_id=path)


def go_on(rule: str, path: str, sharded: bool) -> Arrays:
    """Take the other steps from what was written."""
    model = sharded_net() if sharded else net()
    stepper = _otherwise(rule, model)
    parameters, state = get_state_dict(model, stepper)
    read = {"model": parameters, "optimizer": state}
    dcp.load(read, checkpoint_id=path)
    set_state_dict(model, stepper, model_state_dict=read["model"], optim_state_dict=read["optimizer"])
    return _other_steps(model, stepper)


def save_gathered(rule: str, path: str) -> None:
    """Take the first steps, then let the first rank write all of model and optimizer in one file."""
    model = sharded_net()
    gathered = get_state_dict(model, _first_steps(rule, model), options=_GATHERED)
    if dist.get_rank() == 0:
        torch.save(gathered, path)


def go_on_from_gathered(rule: str, path: str) -> Arrays:
    """Take the other steps from what the first rank reads and hands to the others."""
    model = sharded_net()
    stepper = _otherwise(rule, model)
    parameters, state = torch.load(path, weights_only=True) if dist.get_rank() == 0 else ({}, {})
    # `set_state_dict` would take the ranks that bring nothing for ones that want nothing.
    set_model_state_dict(model, parameters, options=_SPREAD)
    set_optimizer_state_dict(model, stepper, state, options=_SPREAD)
    return _other_steps(model, stepper)


def save_with_zero(rule: str, path: str) -> None:
    """Take the first steps with `ZeroRedundancyOptimizer`, then let the first rank write all of its state."""
    model = nn.parallel.DistributedDataParallel(net())
    stepper = zero_optimizer(rule, model)
    train(model, stepper, islice(shared_out(), FIRST))
    stepper.consolidate_state_dict(to=0)
    if dist.get_rank() == 0:
        torch.save((model.module.state_dict(), stepper.state_dict()), path)


def go_on_with_zero(rule: str, path: str) -> Arrays:
    """Take the other steps with `ZeroRedundancyOptimizer`, or with the bare optimizer where this is a single process."""
    model = net()
    parameters, state = torch.load(path, weights_only=True)
    model.load_state_dict(parameters)
    if dist.is_initialized():
        model = nn.parallel.DistributedDataParallel(model)
        stepper = zero_optimizer(rule, model, lr=0.5)
    else:
        stepper = made(rule, model.parameters(), lr=0.5)
    stepper.load_state_dict(state)
    return _other_steps(model, stepper)
