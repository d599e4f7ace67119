"""A training on the parameter server in TensorBoard: what the terminal shows, over the updates."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from ...cluster.reports import Progress
from ..results import Metric
from .rates import ShardRates
from .run import Measured

__all__ = ["Board"]


class Board:
    """Writes event files to `folder`, as a `steprule.lab.cluster.run.Watcher`; use it in a `with` statement."""

    def __init__(self, folder: Path, metric: Metric) -> None:
        self._folder, self._metric, self._rates = folder, metric, ShardRates()
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:  # where TensorFlow writes the files, a full disk is no OSError
            warnings.warn(f"the last events cannot be written: {error}", RuntimeWarning, stacklevel=2)

    def progressed(self, progress: Progress) -> None:
        step = progress.done
        if self._writer is None:
            # What a training that died has shown beyond its snapshot is trained, and shown, once more.
            self._writer = SummaryWriter(self._folder, purge_step=step + 1)
        self._write("loss", progress.loss, step)
        self._write("replicas/alive", progress.alive, step)
        self._write("replicas/started again", sum(progress.restarts.values()), step)
        for number, (shard, rate) in enumerate(zip(progress.shards, self._rates.of(progress), strict=True)):
            shown = {
                "updates": shard.version.updates,
                "pushes per second": rate.pushes,
                "bytes per second": rate.bytes,
                "seconds per push": rate.seconds,
                "staleness": rate.staleness,
                "lost": shard.lost,
                "refused": shard.outcomes.get("refused", 0),
                "not written": sum(shard.failures.values()),
            }
            for name, value in shown.items():
                self._write(f"shard {number}/{name}", value, step)

    def measured(self, measured: Measured) -> None:
        self._write(self._metric.name, measured.test, measured.updates)

    def _write(self, name: str, value: float, step: int) -> None:
        if self._writer is not None and not math.isnan(value):
            self._writer.add_scalar(name.replace(" ", "_"), value, step)
