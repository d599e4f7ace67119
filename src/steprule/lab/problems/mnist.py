"""The paper's MNIST net (Zeiler 2012, 4.1)."""

from __future__ import annotations

from torch.nn.functional import cross_entropy

import torch
from torch import nn

from .. import data
from ..problem import Problem, error_rate
from ..results import Metric

__all__ = ["mnist", "paper_net"]

WEIGHT_DEVIATION = 0.05


def mnist() -> Problem:
    """Return the problem: 784-500-300-10, the hidden units rectified, all 60,000 images to train, batches of 100, 6 epochs.

    The paper states neither initialisation nor scaling. Weights from N(0, 0.05²), biases 0 and inputs in [0, 1] give its
    tables nearly cell by cell. As in its tables, nothing is held out: the best setting is chosen on the test data.
    """
    files = data.mnist()
    return Problem(
        name="mnist",
        description="MNIST, the paper's net of 784-500-300-10 units, the hidden ones rectified (Zeiler 2012, 4.1), weights "
        "from N(0, 0.05²), inputs in [0, 1], cross-entropy, mini-batches of 100",
        model=paper_net,
        train=(_inputs(files.train_images), torch.tensor(files.train_labels, dtype=torch.int64)),
        test=(_inputs(files.test_images), torch.tensor(files.test_labels, dtype=torch.int64)),
        loss=cross_entropy,
        metric=Metric("test error", "%"),
        measure=error_rate,
        batch_size=100,
        epochs=6,
    )


def _inputs(images: object) -> torch.Tensor:
    return torch.tensor(images).flatten(1).to(torch.float32) / 255


def paper_net(seed: int, hidden: type[nn.Module] = nn.ReLU, deviation: float = WEIGHT_DEVIATION) -> nn.Module:
    """Return the net of 784-500-300-10 units, the `hidden` ones between, with the initial weights of `seed`.

    Weights are from N(0, `deviation`²), biases 0.
    """
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 500), hidden(), nn.Linear(500, 300), hidden(), nn.Linear(300, 10))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)
    return net
