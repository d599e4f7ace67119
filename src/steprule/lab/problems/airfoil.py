"""Linear regression on NASA's airfoil self-noise, as in *Dive into Deep Learning*, 12.9 and 12.11."""

from __future__ import annotations

import torch
from torch import nn

from ...curvature import half_squared_error
from .. import data
from ..d2l.protocol import BATCH, Examples
from ..problem import Problem
from ..results import Metric

__all__ = ["airfoil"]


def airfoil() -> Problem:
    """Return the problem: 5 features, columns standardised, the first 1,500 rows, half the squared error, batches of 10.

    The book's loss is that of the rows which it trains on, so that the test data here are the training data.
    """
    examples = Examples.of(data.airfoil())
    inputs, targets = torch.tensor(examples.features), torch.tensor(examples.labels)
    return Problem(
        name="airfoil",
        description="NASA airfoil self-noise, linear regression on 5 standardised features as in Dive into Deep Learning "
        "12.9, half the squared error, mini-batches of 10; measured on the training rows, as the book does",
        model=_line,
        train=(inputs, targets),
        test=(inputs, targets),
        loss=half_squared_error,
        metric=Metric("loss"),
        measure=lambda outputs, targets: half_squared_error(outputs, targets).item(),
        batch_size=BATCH,
        epochs=2,
    )


def _line(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    line = nn.Linear(5, 1)
    nn.init.normal_(line.weight, std=0.01)
    nn.init.zeros_(line.bias)
    return line
