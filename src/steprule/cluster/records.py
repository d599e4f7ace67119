"""What comes out of a simulated cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PUSH", "Measured", "Simulated"]

PUSH: Final = np.dtype(
    [
        ("replica", np.int32),
        ("shard", np.int32),
        ("number", np.int64),
        ("sent", np.float64),
        ("time", np.float64),
        ("staleness", np.int64),
        ("outcome", "U7"),
        ("loss", np.float64),
    ]
)
"""The record of one push to one shard: when it was sent and when it arrived, in seconds of the cluster, what `Receipt` says
of it, and the mean loss of its steps' batches."""


@dataclass(frozen=True)
class Measured:
    """What was measured after `updates` pushes, at `time` seconds of the cluster's clock.

    `loss` is the mean over the examples of the pushes since the last measurement, each at the parameters that its gradient
    was computed at; `test` and `validation` are the problem's metric at the server's parameters. `alive` is the number of
    replicas that are.
    """

    updates: int
    time: float
    loss: float
    test: float
    validation: float | None
    alive: int


@dataclass(frozen=True)
class Simulated:
    """What came out: `pushes`, a record array of `PUSH` in the order of arrival, and the measurements.

    `parameters` are the server's at the end, by name. `updates` counts the pushes that all shards have had; it is below
    what was asked for where a loss was NaN or infinite at a measurement, or no replica was left that would ever push.
    `lost` counts the gradients that died with their replica, and `deaths` the replicas' deaths.
    """

    pushes: NDArray[Any]
    measured: tuple[Measured, ...]
    parameters: Mapping[str, NDArray[Any]]
    updates: int
    time: float
    lost: int
    deaths: int
    seconds: float
