"""Handwritten digits, a net for them, and how often the net is right: what each trainer is given."""

from __future__ import annotations

import functools

import pytest
from tests.requirements import require_installed

import torch
from torch import Tensor, nn

__all__ = ["ENOUGH", "MARKS", "accuracy", "alike", "data", "net"]

ENOUGH = 0.8
"""The share of digits that a net in training is right about; one that guesses is about a tenth of the time."""


MARKS = [
    pytest.mark.trainers,
    # What they and theirs warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:::steprule"),
]
"""The marks of every trainer's tests."""


@functools.cache
def data() -> tuple[Tensor, Tensor]:
    """Return the images, float32 (1797, 64) in [0, 1], and which digits they show."""
    require_installed("sklearn")
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(targets)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    images, targets = data()
    return float((model(images).argmax(1) == targets).float().mean())


def alike(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))
