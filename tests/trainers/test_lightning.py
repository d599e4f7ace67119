"""Lightning's `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.requirements import require_installed
from tests.trainers.digits import ENOUGH, MARKS, accuracy, alike, data, net
from torch.utils.data import DataLoader, TensorDataset

import torch
from steprule.torch import Adadelta

pytestmark = MARKS
EPOCHS = 4


def _module() -> Any:
    require_installed("lightning")
    import lightning

    class Digits(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            images, targets = batch
            return torch.nn.functional.cross_entropy(self.net(images), targets)

        def configure_optimizers(self) -> Any:
            stepper = Adadelta(self.parameters(), rho=0.9, weight_decay=1e-4)
            return [stepper], [torch.optim.lr_scheduler.ExponentialLR(stepper, 0.5)]

    return Digits()


def _fit(epochs: int, folder: Path, checkpoint: Path | None = None) -> tuple[Any, Any]:
    module = _module()
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(module, DataLoader(TensorDataset(*data()), batch_size=64), ckpt_path=checkpoint)
    return trainer, module


def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    _, whole = _fit(EPOCHS, tmp_path)
    assert accuracy(whole.net) > ENOUGH > accuracy(net())

    first, _ = _fit(EPOCHS // 2, tmp_path)
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer, resumed = _fit(EPOCHS, tmp_path, tmp_path / "half.ckpt")
    assert alike(resumed.net, whole.net)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5**EPOCHS
