"""Handwritten digits of 8 x 8 pixels, embedded in scikit-learn: a first comparison that needs no file."""

from __future__ import annotations

import numpy as np
from torch.nn.functional import cross_entropy

import torch
from torch import nn

from .. import data
from ..problem import Problem, error_rate
from ..results import Metric

__all__ = ["digits"]


def digits() -> Problem:
    """Return the problem: 64-64-10, the hidden units rectified; 900 images to train, 297 to choose by, 600 to test."""
    images, labels = data.digits()
    order = np.random.default_rng(0).permutation(len(images))  # the split is the same for every seed
    inputs = torch.tensor(images[order] / 16, dtype=torch.float32)
    targets = torch.tensor(labels[order])
    return Problem(
        name="digits",
        description="1,797 handwritten digits of 8 x 8 pixels (scikit-learn), a net of 64-64-10 units, the hidden ones "
        "rectified, cross-entropy, mini-batches of 32",
        model=_net,
        train=(inputs[:900], targets[:900]),
        validation=(inputs[900:1197], targets[900:1197]),
        test=(inputs[1197:], targets[1197:]),
        loss=cross_entropy,
        metric=Metric("test error", "%"),
        measure=error_rate,
        batch_size=32,
        epochs=20,
    )


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
