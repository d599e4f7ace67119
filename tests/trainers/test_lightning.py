"""Lightning's `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainers.digits import ENOUGH, MARKS, accuracy, alike, net
from tests.trainers.in_lightning import fit

import torch
from steprule.torch import Adadelta

pytestmark = MARKS
EPOCHS = 4


def _configured(parameters: Any) -> Any:
    stepper = Adadelta(parameters, rho=0.9, weight_decay=1e-4)
    return [stepper], [torch.optim.lr_scheduler.ExponentialLR(stepper, 0.5)]


def _fit(epochs: int, folder: Path, checkpoint: Path | None = None) -> tuple[Any, Any]:
    return fit(_configured, epochs, folder, checkpoint, logger=False)


def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    _, whole = _fit(EPOCHS, tmp_path)
    assert accuracy(whole.net) > ENOUGH > accuracy(net())

    first, _ = _fit(EPOCHS // 2, tmp_path)
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer, resumed = _fit(EPOCHS, tmp_path, tmp_path / "half.ckpt")
    assert alike(resumed.net, whole.net)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5**EPOCHS
