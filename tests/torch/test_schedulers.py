"""Every learning-rate scheduler of torch drives every rule, ADADELTA's multiplier too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from tests.requirements import require_release
from tests.torch.checks import checked_step, parameter
from torch.optim import lr_scheduler

import torch
from steprule import torch as ours

Optimizer = torch.optim.Optimizer

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, [lambda epoch: 0.5**epoch, lambda epoch: 1 / (1 + epoch)]),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda epoch: 0.9),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 2, gamma=0.5),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, [1, 3], gamma=0.5),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, factor=0.25, total_iters=2),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, total_iters=4),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, gamma=0.5),
    "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, total_iters=4, power=2.0),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=3),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=2),
    "CyclicLR": lambda opt: lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, total_steps=8, cycle_momentum=False),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.5),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.ConstantLR(opt, 0.1), lr_scheduler.ExponentialLR(opt, 0.5)], milestones=[2]
    ),
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, 0.1), lr_scheduler.ExponentialLR(opt, 0.5)]
    ),
    "SWALR": lambda opt: torch.optim.swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=3),
}

CLASSES = {
    "SGD": lambda groups, **rate: ours.SGD(groups, **rate),
    "Momentum": lambda groups, **rate: ours.Momentum(groups, **rate),
    "Adadelta": lambda groups, **rate: ours.Adadelta(groups, **rate),
    "AdamW": lambda groups, **rate: ours.AdamW(groups, **rate),
}


def groups() -> list[dict[str, Any]]:
    return [
        {"params": [parameter(3), parameter(4, dtype=torch.bfloat16)]},
        {"params": [parameter(5, dtype=torch.float32)], "lr": 0.75},
    ]


def advance(scheduler: Any) -> None:
    scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))


def test_no_scheduler_of_torch_is_left_out():
    of_torch = {
        name
        for name, each in vars(lr_scheduler).items()
        if inspect.isclass(each) and issubclass(each, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert of_torch - {"LRScheduler"} == set(SCHEDULERS) - {"SWALR"}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_drives_a_rule(name: str, cls: str):
    if name == "SequentialLR":
        require_release("torch", "2.10", "SequentialLR warns of a call of its own")
    mine = CLASSES[cls](groups(), lr=0.5)
    theirs = torch.optim.SGD(groups(), lr=0.5)
    pair = SCHEDULERS[name](mine), SCHEDULERS[name](theirs)
    rates = []
    for _ in range(6):
        rates.append([group["lr"] for group in mine.param_groups])
        assert rates[-1] == [group["lr"] for group in theirs.param_groups]
        checked_step(mine)
        theirs.step()
        for scheduler in pair:
            advance(scheduler)
    assert len({tuple(rate) for rate in rates}) > 1


@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - {"CyclicLR", "OneCycleLR"}))
def test_a_scheduler_drives_a_rate_that_is_a_tensor(name: str):
    if name in {"SequentialLR", "ReduceLROnPlateau"}:
        require_release("torch", "2.10", f"{name} warns of a call of its own, or puts a number in the tensor's place")
    opt = ours.Adadelta([parameter(3), parameter(3, dtype=torch.float32)], lr=torch.tensor(0.5, dtype=torch.float64))
    if name == "LambdaLR":
        scheduler = lr_scheduler.LambdaLR(opt, lambda epoch: 0.5**epoch)
    else:
        scheduler = SCHEDULERS[name](opt)
    rates = set()
    for _ in range(5):
        rates.add(float(opt.param_groups[0]["lr"]))
        assert isinstance(opt.param_groups[0]["lr"], torch.Tensor)
        checked_step(opt)
        advance(scheduler)
    assert len(rates) > 1


def test_a_scheduler_that_leaves_the_range_is_told_at_the_next_step():
    opt = ours.Adadelta([parameter(3)])
    scheduler = lr_scheduler.LambdaLR(opt, lambda epoch: 1.0 - 2.0 * epoch)
    checked_step(opt)
    scheduler.step()
    with pytest.raises(ValueError, match=r"^lr is -1\.0; allowed is a number in \[0, inf\)$"):
        opt.step()


def test_a_scheduler_that_would_turn_momentum_says_that_there_is_none():
    with pytest.raises(ValueError, match="optimizer must support momentum"):
        lr_scheduler.OneCycleLR(ours.Adadelta([parameter(3)]), 0.1, total_steps=8)


def test_a_scheduler_before_the_first_step_is_warned_of():
    opt = ours.Adadelta([parameter(3)])
    scheduler = lr_scheduler.ExponentialLR(opt, 0.5)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()


def test_a_schedule_goes_on_from_a_checkpoint():
    opt = ours.Adadelta([parameter(3)])
    scheduler = lr_scheduler.CosineAnnealingLR(opt, T_max=5)
    for _ in range(2):
        checked_step(opt)
        scheduler.step()
    kept = opt.state_dict(), scheduler.state_dict()
    again = ours.Adadelta([parameter(3)])
    other = lr_scheduler.CosineAnnealingLR(again, T_max=5)
    again.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    for _ in range(3):
        for each, schedule in ((opt, scheduler), (again, other)):
            each.step()
            schedule.step()
        assert opt.param_groups[0]["lr"] == again.param_groups[0]["lr"]
