"""Times of contenders that take turns, so that a machine's good and bad moments fall on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Times", "interleaved"]


@dataclass(frozen=True)
class Times:
    """Seconds, one for each repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The times below which a quarter and three quarters of the repetitions lie."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int, steps: int) -> dict[str, Times]:
    """Call each contender `steps` times in each of `rounds` turns, after one call that is not timed, and time every call."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        # Another goes first each time, lest one always find the caches as the same neighbour leaves them.
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call = contenders[name]
            call()
            for _ in range(steps):
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return {name: Times(tuple(each)) for name, each in seconds.items()}
