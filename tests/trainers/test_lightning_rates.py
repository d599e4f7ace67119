"""`RateMonitor` as a callback of Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.requirements import require_installed
from tests.trainers.digits import MARKS
from tests.trainers.in_lightning import fit

from steprule.torch import Adadelta

pytestmark = MARKS


def _fitted(folder: Path, callback: Any, epochs: int, checkpoint: Path | None = None) -> Any:
    require_installed("lightning")
    from lightning.pytorch.loggers import CSVLogger

    trainer, _ = fit(Adadelta, epochs, folder, checkpoint, logger=CSVLogger(folder), callbacks=[callback])
    return trainer


def test_rates_are_recorded_logged_and_kept_in_checkpoints(tmp_path: Path) -> None:
    require_installed("lightning")
    from steprule.torch.lightning import RateMonitorCallback

    callback = RateMonitorCallback(every=10, sample=4)
    trainer = _fitted(tmp_path / "whole", callback, 2)
    (monitor,) = callback.monitors
    table = monitor.table()
    # 29 batches an epoch; Lightning hands the optimizer a closure.
    assert sorted(set(table["step"])) == [1, 11, 21, 31, 41, 51]
    assert sorted(set(table["layer"])) == ["net.0.bias", "net.0.weight", "net.2.bias", "net.2.weight"]
    assert (table["rate"][np.isfinite(table["rate"])] > 0).all()
    (log,) = (tmp_path / "whole").rglob("metrics.csv")
    assert "rate/net.0.weight/median" in log.read_text().splitlines()[0]

    trainer.optimizers[0].step()
    assert len(monitor.table()["step"]) == len(table["step"]), "monitored after the end of the fit"

    _fitted(tmp_path / "first", first := RateMonitorCallback(every=10, sample=4), 1).save_checkpoint(
        tmp_path / "half.ckpt"
    )
    assert sorted(set(first.monitors[0].table()["step"])) == [1, 11, 21]
    _fitted(tmp_path / "second", resumed := RateMonitorCallback(every=10, sample=4), 2, tmp_path / "half.ckpt")
    for name, column in table.items():
        np.testing.assert_array_equal(resumed.monitors[0].table()[name], column)


def test_wrong_values_are_refused_before_a_fit() -> None:
    require_installed("lightning")
    from steprule.torch.lightning import RateMonitorCallback

    with pytest.raises(ValueError, match="every is 0; allowed is a whole number from 1"):
        RateMonitorCallback(every=0)
