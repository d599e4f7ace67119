"""A training on the parameter server in the terminal: how far, how fast, how stale, who is alive."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...cluster.reports import Progress, ShardReport
from ..results import Metric
from .rates import Rate, ShardRates
from .run import Measured

__all__ = ["ClusterDisplay"]

# Where nobody watches, a line now and then.
_SECONDS_BETWEEN_LINES: Final = 10.0


class ClusterDisplay:
    """Shows a training that runs, as a `steprule.lab.cluster.run.Watcher`; use it in a `with` statement.

    In a terminal it redraws itself; elsewhere it prints a line every 10 seconds, and for each measurement.
    """

    def __init__(self, console: Console, metric: Metric) -> None:
        self._console, self._metric = console, metric
        self._rates: Final = ShardRates()
        self._live: Final = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._last: Measured | None = None
        self._printed = 0.0

    def __enter__(self) -> ClusterDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def progressed(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(self._drawn(progress, self._rates.of(progress)))
        elif progress.seconds - self._printed >= _SECONDS_BETWEEN_LINES or progress.done >= progress.updates:
            self._printed = progress.seconds
            line = "; ".join([_line(progress, self._rates.of(progress)), *_troubles(progress)])
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def measured(self, measured: Measured) -> None:
        self._last = measured
        if self._live is None:
            self._console.print(self._told(measured), highlight=False, markup=False, soft_wrap=True)

    def _told(self, measured: Measured) -> str:
        return f"epoch {measured.epoch:.2f}: {self._metric.name} {measured.test:.4g}{self._metric.unit}"

    def _drawn(self, progress: Progress, rates: list[Rate]) -> Group:
        table = Table("shard", box=box.SIMPLE, pad_edge=False)
        for head in ("updates", "pushes/s", "MB/s", "ms a push", "staleness", "restarts", "lost", "not written"):
            table.add_column(head, justify="right")
        for number, (shard, rate) in enumerate(zip(progress.shards, rates, strict=True)):
            table.add_row(str(number), *_cells(shard, rate, progress.restarts.get(f"shard {number}", 0)))
        bar = Table.grid()  # which ends its line, as the bar alone does not
        bar.add_row(ProgressBar(total=progress.updates, completed=min(progress.done, progress.updates), width=40))
        known = [self._told(self._last)] if self._last is not None else []
        return Group(bar, *(Text(line) for line in (_line(progress, rates), *known, *_troubles(progress))), table)


def _troubles(progress: Progress) -> list[str]:
    """Return what is a reason to look; there is none while all is well."""
    unwritten: Counter[str] = sum((Counter(shard.failures) for shard in progress.shards), Counter())
    counts = {"started again": progress.restarts, "silent, and killed": progress.hung, "not written": unwritten}
    return [f"{what}: {_listed(each)}" for what, each in counts.items() if each]


def _cells(shard: ShardReport, rate: Rate, restarts: int) -> list[str]:
    return [
        str(shard.version.updates),
        f"{rate.pushes:.1f}",
        f"{rate.bytes / 1e6:.1f}",
        _number(1e3 * rate.seconds, ".2f"),
        _number(rate.staleness, ".1f"),
        str(restarts),
        str(shard.lost),
        _listed(shard.failures) or "0",
    ]


def _line(progress: Progress, rates: list[Rate]) -> str:
    stale = [rate.staleness for rate in rates if not math.isnan(rate.staleness)]
    speed = sum(rate.pushes for rate in rates) / len(rates)
    refused = max(shard.outcomes.get("refused", 0) for shard in progress.shards)
    parts = [
        f"{progress.done} of {progress.updates} updates",
        f"{speed:.1f} pushes/s",
        f"loss {_number(progress.loss, '.4g')}",
        f"staleness {_number(sum(stale) / len(stale) if stale else math.nan, '.1f')}",
        f"replicas {progress.alive} of {progress.replicas} alive",
        *([f"{progress.waiting} waiting for the warm start"] if progress.waiting else []),
        *([f"{refused} pushes refused, not finite"] if refused else []),
        *([f"{progress.lost} updates lost"] if progress.lost else []),
    ]
    return ", ".join(parts)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
