"""How fast the shards of a training are, from one progress to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...cluster.reports import Progress, ShardReport

__all__ = ["Rate", "ShardRates"]


@dataclass(frozen=True)
class Rate:
    """Of one shard, since the last progress: pushes and bytes per second, the mean staleness of those that were applied, and
    the seconds that one took. NaN where there was no push.
    """

    pushes: float
    bytes: float
    staleness: float
    seconds: float


class ShardRates:
    """Makes rates of the reports that follow each other."""

    def __init__(self) -> None:
        self._before: list[ShardReport] = []
        self._at = 0.0

    def of(self, progress: Progress) -> list[Rate]:
        """Return the rate of each shard since the last call; the first call has since the training's beginning."""
        passed = max(progress.seconds - self._at, 1e-9)
        before: Sequence[ShardReport | None] = self._before or [None] * len(progress.shards)
        self._before, self._at = list(progress.shards), progress.seconds
        return [_rate(old, new, passed) for old, new in zip(before, progress.shards, strict=True)]


def _rate(old: ShardReport | None, new: ShardReport, passed: float) -> Rate:
    # A restored shard has forgotten some; what is below 0 the difference leaves out.
    stale = Counter(new.staleness) - Counter({} if old is None else old.staleness)
    pushes, taken, brought = new.pushes, new.seconds, new.bytes
    if old is not None and old.process == new.process:  # one that was started again counts from 0
        pushes, taken, brought = pushes - old.pushes, taken - old.seconds, brought - old.bytes
    count = stale.total()
    mean = sum(each * number for each, number in stale.items()) / count if count else float("nan")
    return Rate(pushes / passed, brought / passed, mean, taken / pushes if pushes else float("nan"))
