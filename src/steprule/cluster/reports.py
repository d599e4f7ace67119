"""What replicas and shards tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .messages import Version

__all__ = ["Progress", "ReplicaReport", "ShardReport"]


@dataclass(frozen=True)
class ReplicaReport:
    """What a replica did since its last report: steps, and the sum of their losses."""

    steps: int
    loss: float


@dataclass(frozen=True)
class ShardReport:
    """A shard as it is: `outcomes` and `staleness` count pushes, `failures` files that could not be written,
    and `refused_in_a_row` the pushes that were refused since one was applied.

    `process` is its process on Ray's node `node`. `lost` are updates that were lost by restarts. Since its process began,
    `pushes` took `seconds` and brought `bytes`.
    """

    process: int
    node: str
    version: Version
    lost: int
    outcomes: Mapping[str, int]
    staleness: Mapping[int, int]
    failures: Mapping[str, int]
    refused_in_a_row: int
    pushes: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Progress:
    """A training as it is, `seconds` after it began, on its way to so many `updates` of each shard.

    `shards` are the newest reports. Of the `replicas`, so many are `alive`, and so many `waiting` for the warm start to
    end. `loss` is the mean over the newest mini-batches, NaN before the first. `restarts` counts how often each was started
    again ("replica 3", "shard 0"), `hung` how often that was for its silence.
    """

    updates: int
    replicas: int
    alive: int
    waiting: int
    loss: float
    seconds: float
    shards: Sequence[ShardReport]
    restarts: Mapping[str, int]
    hung: Mapping[str, int]

    @property
    def done(self) -> int:
        """The updates that every shard has applied."""
        return min(shard.version.updates for shard in self.shards)

    @property
    def lost(self) -> int:
        """The updates that were lost by restarts, over all shards."""
        return sum(shard.lost for shard in self.shards)
