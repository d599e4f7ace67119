"""The net for the digits, trained by Lightning's `Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.requirements import require_installed
from tests.trainers.digits import data, net
from torch.utils.data import DataLoader, TensorDataset

import torch

__all__ = ["fit"]


def fit(
    configured: Callable[[Any], Any], epochs: int, folder: Path, checkpoint: Path | None = None, **more: Any
) -> tuple[Any, Any]:
    """Return the trainer and the module; `configured` makes of its parameters what `configure_optimizers` returns."""
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
            return configured(self.parameters())

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        **more,
    )
    module = Digits()
    trainer.fit(module, DataLoader(TensorDataset(*data()), batch_size=64), ckpt_path=checkpoint)
    return trainer, module
