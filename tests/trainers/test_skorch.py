"""skorch's `NeuralNetClassifier`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.requirements import require_installed
from tests.trainers.digits import ENOUGH, MARKS, accuracy, alike, data, net

import torch
from steprule.torch import Adadelta

pytestmark = MARKS
EPOCHS = 4


def _classifier() -> Any:
    require_installed("skorch")
    import skorch

    return skorch.NeuralNetClassifier(
        net,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=Adadelta,
        optimizer__rho=0.9,
        optimizer__weight_decay=1e-4,
        lr=1.0,
        max_epochs=EPOCHS,
        batch_size=64,
        train_split=None,
        verbose=0,
    )


def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    images, targets = (each.numpy() for each in data())
    whole = _classifier().fit(images, targets)
    assert whole.score(images, targets) > ENOUGH > accuracy(net())

    first = _classifier().set_params(max_epochs=EPOCHS // 2).fit(images, targets)
    files = {"f_params": tmp_path / "parameters.pt", "f_optimizer": tmp_path / "optimizer.pt"}
    first.save_params(**files)
    resumed = _classifier().initialize()
    resumed.load_params(**files)
    resumed.partial_fit(images, targets, epochs=EPOCHS // 2)
    assert alike(resumed.module_, whole.module_)
    assert resumed.optimizer_.param_groups[0]["rho"] == 0.9


def test_hyperparameters_can_be_set_as_scikit_learn_does() -> None:
    classifier = _classifier().initialize()
    classifier.set_params(optimizer__rho=0.5)
    assert classifier.optimizer_.param_groups[0]["rho"] == 0.5
