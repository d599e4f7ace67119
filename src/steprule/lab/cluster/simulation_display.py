"""A simulated cluster in the terminal: how far, on which clock, how stale, who is alive."""

from __future__ import annotations

import statistics
import time
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from ...cluster import Measured, Simulation
from ..numerals import plural
from ..results import Metric

__all__ = ["SimulationDisplay"]


class SimulationDisplay:
    """Shows a simulation that runs; use it in a `with` statement.

    In a terminal it redraws itself; elsewhere it prints a line for each measurement.
    """

    def __init__(self, console: Console, simulation: Simulation, metric: Metric) -> None:
        self._console, self._simulation, self._metric = console, simulation, metric
        self._last: Measured | None = None
        self._began = time.monotonic()
        # It draws once as it is made.
        self._live: Final = Live(console=console, refresh_per_second=4, get_renderable=self._drawn)

    def __enter__(self) -> SimulationDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def measured(self, measured: Measured) -> None:
        """Take note of a measurement."""
        self._last = measured
        if not self._console.is_terminal:
            self._console.print(f"{self._told()}, {self._state()}", highlight=False, markup=False, soft_wrap=True)

    def _drawn(self) -> Group:
        done, all = self._simulation.completed, self._simulation.updates
        passed = time.monotonic() - self._began
        left = f", about {passed / done * (all - done):.0f} s left" if done else ""
        lines = [f"{done} of {all} pushes, {done / max(passed, 1e-9):.1f} a second{left}", self._state(), self._told()]
        return Group(ProgressBar(total=all, completed=done, width=40), *(Text(line) for line in lines if line))

    def _state(self) -> str:
        simulation = self._simulation
        # A copy, since it grows while this is drawn.
        recent = simulation.records[-1000:]
        stale = f"staleness {statistics.fmean(each[5] for each in recent):.1f}, " if recent else ""
        replicas = f"{simulation.alive} of {simulation.replicas} replicas alive"
        lost = f", {simulation.lost} gradients lost" if simulation.lost else ""
        return f"{simulation.time:.1f} s on the cluster's clock, {stale}{replicas}{lost}"

    def _told(self) -> str:
        if self._last is None:
            return ""
        metric = f"{self._metric.name} {self._last.test:.4g}{self._metric.unit}"
        return f"after {plural(self._last.updates, 'push', 'pushes')}: loss {self._last.loss:.4g}, {metric}"
