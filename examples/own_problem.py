"""A problem of your own: a file like this one and one command compare the rules on it.

    steprule compare examples/own_problem.py:tumours

The name behind the colon is a function without arguments that returns a `Problem`. It runs once in the command and once
in each process that trains; what it prints goes to the terminal or to a worker's log, and does no harm.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

import torch
from steprule.lab import Metric, Problem
from torch import nn


def tumours():
    """569 tumours with 30 measurements each, in scikit-learn: benign or malignant?"""
    measurements, benign = load_breast_cancer(return_X_y=True)

    # The split is fixed, so that the seeds of a comparison differ in initial weights and order of the data, not in data.
    order = np.random.default_rng(0).permutation(len(measurements))
    train, validation, test = order[:341], order[341:455], order[455:]

    # Scaled by what the training rows say: the others must not tell anything.
    scaled = (measurements - measurements[train].mean(axis=0)) / measurements[train].std(axis=0)
    inputs = torch.tensor(scaled, dtype=torch.float32)
    targets = torch.tensor(benign)

    return Problem(
        name="tumours",
        description="569 breast tumours (Wisconsin, scikit-learn), a net of 30-16-2 units, mini-batches of 32",
        model=net,
        train=(inputs[train], targets[train]),
        validation=(inputs[validation], targets[validation]),  # each rule's best setting is chosen on these,
        test=(inputs[test], targets[test]),  # and reported on these; without `validation` these choose as well
        loss=nn.functional.cross_entropy,  # of a mini-batch: the mean over its examples
        metric=Metric("test error", "%"),  # its name and unit; add lower_is_better=False where more is better
        measure=error,  # of a whole data set
        batch_size=32,
        epochs=10,
    )


def net(seed):
    """Equal seeds must give equal weights: every rule starts from the same net."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))


def error(outputs, targets):
    return 100 * (outputs.argmax(dim=1) != targets).double().mean().item()
