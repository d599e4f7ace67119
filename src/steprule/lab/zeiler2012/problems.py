"""The paper's nets on MNIST (4.1): 784-500-300-10 units, rectified or tanh, in batches of 100 and, for vSGD, of one."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..problem import Problem
from ..problems.mnist import mnist, paper_net

__all__ = ["tanh", "tanh_in_float64", "tanh_one_by_one"]

TANH_DEVIATION = 0.1
"""Of the initial weights, which the paper does not state; 0.1 comes nearest to its 2.00 % (0.05 for rectified units)."""


def tanh() -> Problem:
    """Return the problem: tanh units, weights from N(0, 0.1²), biases 0, inputs in [0, 1], batches of 100, 6 epochs."""
    return replace(
        mnist(),
        name="mnist, tanh",
        description="MNIST, the paper's net of 784-500-300-10 units, the hidden ones tanh (Zeiler 2012, 4.1), weights from "
        "N(0, 0.1²), inputs in [0, 1], cross-entropy, mini-batches of 100",
        model=tanh_net,
    )


def tanh_one_by_one() -> Problem:
    """Return the problem `tanh` with one example at a time, as vSGD's paper trains."""
    problem = tanh()
    return replace(
        problem,
        name="mnist, tanh, one by one",
        description=problem.description.replace("mini-batches of 100", "one example at a time"),
        batch_size=1,
    )


def tanh_in_float64() -> Problem:
    """Return the problem `tanh` with data and net in float64, in which small updates are not rounded away."""
    problem = tanh()
    (inputs, targets), (test_inputs, test_targets) = problem.train, problem.test
    return replace(
        problem,
        name="mnist, tanh, float64",
        description=f"{problem.description}, in float64",
        model=lambda seed: problem.model(seed).double(),
        train=(inputs.double(), targets),
        test=(test_inputs.double(), test_targets),
        validation=None,
    )


def tanh_net(seed: int) -> nn.Module:
    """Return the net with the initial weights of `seed`."""
    return paper_net(seed, nn.Tanh, TANH_DEVIATION)
