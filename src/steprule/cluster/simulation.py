"""A cluster on one machine: many replicas and a parameter server on a discrete-event clock, with real gradients.

What takes time is drawn (`Conditions`); what is computed is computed, by `Client` and `Shard`, in the order of that time. A
replica's life: a message with its push, if there is one, goes to each shard, which applies it and answers at once with its
parameters, if they were asked for; when all shards have answered, a gradient begins, on the next batch of the one order that
all replicas draw from; when it is done, the next message goes. A replica that goes on by itself (`n_fetch` above 1) does not
wait for its message to arrive.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from torch import Tensor

from ..counts import check_count
from ..specification import Rule
from ..torch.devices import device_named
from .client import Client, may_begin, next_number
from .conditions import Conditions, Pace
from .gradients import Gradients, Trainable
from .messages import Fetched, Push
from .records import PUSH, Measured, Simulated
from .shard import Shard

__all__ = ["Simulation", "simulate"]


class _Replica:
    def __init__(self, number: int, pace: Pace) -> None:
        self.number: Final = number
        self.pace: Final = pace
        self.client: Client | None = None
        """What it works with in this life; None while it is dead."""
        self.awaited = 0
        """Shards that it waits for the parameters of."""
        self.ready = 0.0
        self.loss, self.examples, self.accrued = 0.0, 0, 0
        """Of its steps since the last push, the last their number."""


class _Message:
    """What a replica sends to all shards at once: pushes, or none, and whether it asks for the parameters."""

    def __init__(self, replica: _Replica, client: Client, pushes: list[Push], sent: float, shards: int) -> None:
        self.replica: Final = replica
        self.client: Final = client
        self.pushes: Final = pushes
        self.sent: Final = sent
        self.asks: Final = client.wants_fetch
        self.under_way = shards
        self.loss, self.examples = replica.loss, replica.examples
        self.buffer: NDArray[Any] | None = None
        """The gradient that the pushes are views of, which is used again when all shards have had it."""


class Simulation:
    """A simulated cluster, as `simulate` describes it; `run` trains, once, and yields each measurement as it is made."""

    def __init__(
        self,
        problem: Trainable,
        rule: Rule,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        replicas: int = 100,
        shards: int = 1,
        updates: int | None = None,
        every: int | None = None,
        seed: int = 0,
        conditions: Conditions | None = None,
        n_fetch: int = 1,
        n_push: int = 1,
        local_lr: float | None = None,
        warm_start: int = 0,
        device: str = "cpu",
    ) -> None:
        check_count("seed", seed, 0)
        device_named(device)  # for what it raises
        gradients = Gradients(problem, seed, shards, device)
        every = problem.batches_per_epoch if every is None else every
        updates = problem.batches_per_epoch * problem.epochs if updates is None else updates
        for name, value in {"replicas": replicas, "updates": updates, "every": every}.items():
            check_count(name, value)
        check_count("warm_start", warm_start, 0)
        self.replicas: Final = replicas
        self.updates: Final = updates
        self._every: Final = every
        self._warm_start: Final = warm_start
        self._gradients: Final = gradients
        partition = gradients.partition
        initial = gradients.initial()
        self.shards: Final = [
            Shard(rule, initial[part], pieces, device=device, **(hyperparameters or {}))
            for part, pieces in zip(partition.slices, partition.pieces, strict=True)
        ]
        self._new_client: Final = partial(
            Client, partition=partition, dtype=gradients.dtype, n_fetch=n_fetch, n_push=n_push, local_lr=local_lr
        )
        self._new_client(0)  # what it refuses is told before anything runs
        self._batches: Final = gradients.batches()
        paces = (conditions or Conditions()).paces(replicas, seed)
        self._replicas: Final = [_Replica(number, pace) for number, pace in enumerate(paces)]
        self._events: Final[list[tuple[float, int, Callable[[], None]]]] = []
        self._ordered = 0
        self._waiting: Final[list[tuple[_Replica, Client]]] = []
        self._free: Final[list[NDArray[Any]]] = []
        self._loss, self._examples = 0.0, 0
        self._due = False
        self._measured: Final[list[Measured]] = []
        self._started = time.perf_counter()
        self.time = 0.0
        self.completed = 0
        self.lost = self.deaths = 0
        self.records: list[tuple[Any, ...]] = []
        self.measuring = 0.0
        """Seconds of this machine, and not of the cluster, that the measurements took."""

    @property
    def alive(self) -> int:
        """The number of replicas that are."""
        return sum(replica.client is not None for replica in self._replicas)

    def run(self) -> Iterator[Measured]:
        """Train, and yield what is measured, up to the last update, or a loss that is NaN or infinite."""
        self._started = time.perf_counter()
        for replica in self._replicas:
            self._begin(replica)
        while self._events and self.completed < self.updates:
            self.time, _, happens = heapq.heappop(self._events)
            happens()
            if self._due or (self.completed < self.updates and not self._events and self._examples):
                measured = self._measure()
                self._measured.append(measured)
                yield measured
                if not math.isfinite(measured.loss):
                    return

    def result(self) -> Simulated:
        """Return what has come out so far."""
        return Simulated(
            np.array(self.records, PUSH),
            tuple(self._measured),
            self._parameters(),
            self.completed,
            self.time,
            self.lost,
            self.deaths,
            time.perf_counter() - self._started,
        )

    def _parameters(self) -> Mapping[str, NDArray[Any]]:
        return self._gradients.partition.views(np.concatenate([shard.parameters for shard in self.shards]))

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        # What is to happen at one time happens in the order in which that was decided.
        heapq.heappush(self._events, (when, self._ordered, happens))
        self._ordered += 1

    def _begin(self, replica: _Replica) -> None:
        number = next_number(shard.last_number(replica.number) for shard in self.shards)
        client = replica.client = self._new_client(replica.number, first_number=number)
        replica.loss, replica.examples, replica.accrued = 0.0, 0, 0
        life = replica.pace.life()
        if math.isfinite(life):
            self._at(self.time + life, partial(self._die, replica))
        if self._may_begin(replica):
            self._send(replica, client, [])
        else:
            self._waiting.append((replica, client))

    def _may_begin(self, replica: _Replica) -> bool:
        return may_begin(replica.number, (shard.version.updates for shard in self.shards), self._warm_start)

    def _die(self, replica: _Replica) -> None:
        self.lost += replica.accrued
        replica.client = None
        self.deaths += 1
        absence = replica.pace.absence()
        if math.isfinite(absence):
            self._at(self.time + absence, partial(self._begin, replica))

    def _send(self, replica: _Replica, client: Client, pushes: list[Push], buffer: NDArray[Any] | None = None) -> None:
        message = _Message(replica, client, pushes, self.time, len(self.shards))
        message.buffer = buffer
        if pushes:
            replica.loss, replica.examples, replica.accrued = 0.0, 0, 0
        if message.asks:
            replica.awaited, replica.ready = len(self.shards), 0.0
        for shard in range(len(self.shards)):
            self._at(self.time + replica.pace.push(self.time), partial(self._arrive, message, shard))

    def _arrive(self, message: _Message, number: int) -> None:
        shard, replica, client = self.shards[number], message.replica, message.client
        lives = replica.client is client
        message.under_way -= 1
        if message.pushes:
            push = message.pushes[number]
            receipt = shard.push(push)
            if lives:
                client.confirm(number, receipt)
            loss = message.loss / message.examples
            self.records.append(
                (replica.number, number, push.number, message.sent, self.time, receipt.staleness, receipt.outcome, loss)
            )
            if not message.under_way:
                self._complete(message)
        if message.asks and lives:
            client.take(number, Fetched(shard.version, shard.parameters))
            replica.awaited -= 1
            replica.ready = max(replica.ready, self.time + replica.pace.fetch(self.time))
            if not replica.awaited:
                self._start(replica, client, replica.ready)

    def _complete(self, message: _Message) -> None:
        if message.buffer is not None:
            self._free.append(message.buffer)
        self._loss += message.loss
        self._examples += message.examples
        self.completed += 1
        self._due = self.completed % self._every == 0 or self.completed == self.updates
        waiting = [(replica, client) for replica, client in self._waiting if replica.client is client]
        self._waiting.clear()
        for replica, client in waiting:
            if self._may_begin(replica):
                self._send(replica, client, [])
            else:
                self._waiting.append((replica, client))

    def _start(self, replica: _Replica, client: Client, when: float) -> None:
        batch = next(self._batches)
        self._at(when + replica.pace.compute(when), partial(self._done, replica, client, batch))

    def _done(self, replica: _Replica, client: Client, batch: Tensor) -> None:
        if replica.client is not client:
            self.lost += 1
            return
        buffer = self._free.pop() if self._free else np.empty(client.partition.dense_size, client.parameters.dtype)
        loss = self._gradients.at(client.tensors, batch, buffer)
        replica.accrued += 1
        replica.loss += loss * len(batch)
        replica.examples += len(batch)
        pushes = client.give(buffer)
        views = any(np.shares_memory(push.dense, buffer) for push in pushes)
        if not views:
            self._free.append(buffer)
        if pushes or client.wants_fetch:
            self._send(replica, client, pushes, buffer if views else None)
        if not client.wants_fetch:
            self._start(replica, client, self.time)

    def _measure(self) -> Measured:
        began = time.perf_counter()
        test, validation = self._gradients.measured(self._parameters())
        self.measuring += time.perf_counter() - began
        loss = self._loss / self._examples
        self._loss, self._examples, self._due = 0.0, 0, False
        return Measured(self.completed, self.time, loss, test, validation, self.alive)


def simulate(
    problem: Trainable,
    rule: Rule,
    hyperparameters: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[Measured], None] | None = None,
    **options: Any,
) -> Simulated:
    """Train the model of `problem` by a parameter server with `rule` and many replicas, in simulated time.

    `hyperparameters` are those of the rule, and what else the class of `steprule.torch` for it takes. Options:

    - `replicas` (100), `shards` (1); `n_fetch`, `n_push` (1), `local_lr`, as `Client` takes them; `warm_start` (0): updates
      of replica 0 alone before the others begin.
    - `updates`: pushes to train for, as many as the batches of the problem's epochs unless given; `every`: measure after so
      many, one epoch's unless given, and after the last.
    - `conditions`: `Conditions`, which say how long all takes; unless given, a second for each gradient and nothing else.
    - `seed` (0) decides the initial weights, the order of the data, and what `conditions` draw: the same gives the same
      result, bit for bit, in the same number of threads.
    - `device` ("cpu"): where gradients are computed and shards step; each replica's parameters stay in the machine's memory.

    Batches come to all replicas from one order, that of `steprule.lab` with this seed: one replica without delays makes the
    steps of plain training. `progress` is called with each measurement.

    A push that holds NaN or infinity is refused, and counts as one of `updates`.

    Raises `TypeError` and `ValueError` as `Shard`, `Client` and `Conditions` do, and for numbers out of range.
    """
    simulation = Simulation(problem, rule, hyperparameters, **options)
    for each in simulation.run():
        if progress is not None:
            progress(each)
    return simulation.result()
