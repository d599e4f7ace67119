"""What a user's program may say to a type checker: `make lint` reads it, and nothing runs it."""

from __future__ import annotations

import steprule.keras
import steprule.torch
import torch
from steprule import rules


class Mine(steprule.torch.Adadelta):
    """A class of ours to build on."""


def made(net: torch.nn.Module) -> steprule.torch.Adam:
    return steprule.torch.Adam(net.parameters(), lr=0.1)


def rule_of(optimizer: steprule.torch.RuleOptimizer) -> str:
    return optimizer.rule.name


def of_any(net: torch.nn.Module) -> steprule.torch.RuleOptimizer:
    cls: type[steprule.torch.RuleOptimizer] = steprule.torch.optimizer(rules.momentum)
    return cls(net.named_parameters(), lr=0.1)


def monitored(optimizer: torch.optim.Optimizer) -> steprule.torch.RateMonitor:
    return steprule.torch.RateMonitor(optimizer)


def in_keras() -> steprule.keras.Adadelta:
    return steprule.keras.Adadelta()


def used(net: torch.nn.Module) -> tuple[str, steprule.torch.RateMonitor]:
    return rule_of(made(net)) + rule_of(Mine(net.parameters())), monitored(of_any(net))
