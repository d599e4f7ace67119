"""A shard and a replica as Ray runs them, each in a process of its own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from numpy.typing import NDArray

import torch

from ..specification import Rule
from .client import Client, next_number
from .kept import KeptShard, has_snapshots
from .messages import Fetched, Push, Receipt
from .partition import Partition, Piece
from .plan import Gradient, Plan
from .reports import ReplicaReport, ShardReport
from .shard import Shard

__all__ = ["ReplicaActor", "ShardActor", "kept_shard"]


def name_of(number: int) -> str:
    """Return the name with which the files of a shard begin."""
    return f"shard-{number}"


def kept_shard(
    rule: Rule, parameters: NDArray[Any], pieces: Sequence[Piece], folder: Path, number: int, plan: Plan
) -> KeptShard:
    """Return the shard of that number as the plan has it: from its files, or with these `parameters` where it has none."""
    shard = Shard(rule, parameters, pieces, on_nonfinite=plan.on_nonfinite, device=plan.device, **dict(plan.options))
    return KeptShard(shard, folder, name_of(number), every=plan.snapshot_every, journal=plan.journal, sync=plan.sync)


class ShardActor:
    """A `KeptShard`, restored from its files where it has some.

    Ray calls its methods one after the other, and again where the process died before they had returned, so that a push
    may come twice. Whoever makes it has written its first files; the actor has no initial parameters of its own.
    """

    def __init__(self, rule: Rule, dtype: Any, pieces: Sequence[Piece], folder: Path, number: int, plan: Plan) -> None:
        torch.set_num_threads(plan.threads)
        if not has_snapshots(folder, name_of(number)):
            raise FileNotFoundError(
                f"{folder} on {socket.gethostname()} has no snapshot of shard {number}; allowed is a folder that all "
                "machines of the cluster see"
            )
        parameters = np.zeros(sum(piece.size for piece in pieces), dtype)
        self._kept: Final = kept_shard(rule, parameters, pieces, folder, number, plan)
        self._pushes, self._seconds, self._bytes = 0, 0.0, 0

    def fetch(self) -> Fetched:
        # Ray writes what is returned to its store before it calls the next method: no copy of ours is needed.
        return Fetched(self._kept.shard.version, self._kept.shard.parameters)

    def last_number(self, replica: int) -> int:
        return self._kept.last_number(replica)

    def push(self, push: Push) -> Receipt:
        began = time.perf_counter()
        receipt = self._kept.push(push)
        self._seconds += time.perf_counter() - began
        self._pushes += 1
        self._bytes += push.dense.nbytes + sum(each.numbers.nbytes + each.values.nbytes for each in push.rows.values())
        return receipt

    def snapshot(self) -> bool:
        return self._kept.snapshot()

    def report(self) -> ShardReport:
        shard = self._kept.shard
        return ShardReport(
            os.getpid(),
            ray.get_runtime_context().get_node_id(),
            shard.version,
            shard.lost,
            dict(shard.outcomes),
            dict(shard.staleness),
            dict(self._kept.failures),
            shard.refused_in_a_row,
            self._pushes,
            self._seconds,
            self._bytes,
        )


class ReplicaActor:
    """A `Client` of `shards`, which are handles of `ShardActor`s, and the gradients that it computes.

    `placed` is a list of one reference to `Work.gradient`.
    """

    def __init__(
        self,
        number: int,
        placed: Sequence[Any],
        partition: Partition,
        dtype: Any,
        shards: Sequence[Any],
        plan: Plan,
    ) -> None:
        torch.set_num_threads(plan.threads)
        self._shards: Final = shards
        first = next_number(ray.get([shard.last_number.remote(number) for shard in shards]))
        self._client: Final = Client(
            number,
            partition,
            dtype=dtype,
            n_fetch=plan.n_fetch,
            n_push=plan.n_push,
            local_lr=plan.local_lr,
            first_number=first,
        )
        self._overlap: Final = plan.overlap
        (gradient,) = ray.get(list(placed))
        self._gradient: Final[Gradient] = gradient(number, first >> 32)
        self._dense: Final[NDArray[Any]] = np.zeros(partition.dense_size, dtype)
        self._into: Final = partition.dense_views(self._dense)
        self._fetches: list[Any] = []
        self._pushes: list[Any] = []

    def place(self) -> tuple[int, str]:
        """Return this process and the node that it is on."""
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def run(self, steps: int) -> ReplicaReport:
        """Take so many steps; the last push may still be under way at the end."""
        return ReplicaReport(steps, sum(self._step() for _ in range(steps)))

    def finish(self) -> None:
        """Wait until every push has arrived."""
        self._confirm()

    def _step(self) -> float:
        if self._client.wants_fetch:
            for shard, fetched in enumerate(ray.get(self._fetches or self._ask())):
                self._client.take(shard, fetched)
            self._fetches = []
        if self._overlap and self._client.fetches_after:
            # What is asked for now lacks this step's gradient, and comes while it is computed.
            self._fetches = self._ask()
        self._dense[...] = 0
        loss, rows = self._gradient(self._client.tensors, self._into)
        pushes = self._client.give(self._dense, rows)
        if pushes:
            self._confirm()
            # Ray has copied the arrays to its store when these calls return.
            self._pushes = [shard.push.remote(push) for shard, push in zip(self._shards, pushes, strict=True)]
            if not self._overlap:
                self._confirm()
        return loss

    def _ask(self) -> list[Any]:
        return [shard.fetch.remote() for shard in self._shards]

    def _confirm(self) -> None:
        for shard, receipt in enumerate(ray.get(self._pushes)):
            self._client.confirm(shard, receipt)
        self._pushes = []
