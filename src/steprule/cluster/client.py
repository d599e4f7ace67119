"""A replica's side of Downpour SGD (Dean et al. 2012, section 4.1 and its Algorithm 1.1): what to fetch, accrue and push.

There is no transport here: whoever runs a client carries what it asks for and what it gives::

    while training:
        if client.wants_fetch:
            for s, shard in enumerate(shards):
                client.take(s, shard.fetch())
        gradient = ...  # at client.parameters
        for s, push in enumerate(client.give(gradient)):
            client.confirm(s, shards[s].push(push))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..counts import check_count
from .messages import FIRST, Fetched, Push, Receipt, Rows, Version
from .partition import Partition

__all__ = ["Client", "check_steps", "may_begin", "next_number"]

_NUMBERS_OF_A_START: Final = 1 << 32
"""Numbers that a replica may use between two starts; what an earlier start has still under way stays below."""


def next_number(last_numbers: Iterable[int]) -> int:
    """Return the number from which a replica that starts counts its pushes; `last_numbers` are each shard's of it."""
    last = max(last_numbers, default=-1)
    return 0 if last < 0 else (last // _NUMBERS_OF_A_START + 1) * _NUMBERS_OF_A_START


def may_begin(replica: int, updates: Iterable[int], warm_start: int) -> bool:
    """Return whether a replica may train: number 0 always, others when each shard has applied `warm_start` updates."""
    return replica == 0 or min(updates) >= warm_start


def check_steps(n_fetch: int, n_push: int, local_lr: float | None) -> None:
    """Raise what `Client` raises for these arguments."""
    for name, value in {"n_fetch": n_fetch, "n_push": n_push}.items():
        check_count(name, value)
    if local_lr is None and n_fetch > 1:
        raise TypeError(
            f"local_lr is missing, and n_fetch is {n_fetch}; allowed is the rate of the steps between two fetches, a "
            "number from 0"
        )
    if local_lr is not None and not 0 <= local_lr < float("inf"):
        raise ValueError(f"local_lr is {local_lr!r}; allowed is a number from 0")


class Client:
    """One replica's copy of the parameters, its accrued gradient, and the numbers of its pushes.

    It fetches before the steps 0, `n_fetch`, 2 `n_fetch`, ... and pushes after the steps 0, `n_push`, 2 `n_push`, ...,
    what has accrued since the last push. After each step it moves its own copy by `-local_lr` times the gradient, which the
    next fetch replaces; where `n_fetch` is above 1 the user must choose that rate, and 0 leaves the copy alone.

    `parameters` is flat, of the partition's size, and `tensors` has its parts by name, over the same memory; they change in
    place. `first_number` is the number of its first push (`next_number`).

    Raises `ValueError` for what is out of range and `TypeError` for a rate that is missing.
    """

    def __init__(
        self,
        replica: int,
        partition: Partition,
        *,
        dtype: Any = np.float32,
        n_fetch: int = 1,
        n_push: int = 1,
        local_lr: float | None = None,
        first_number: int = 0,
    ) -> None:
        check_steps(n_fetch, n_push, local_lr)
        self.replica: Final = replica
        self.partition: Final = partition
        self.parameters: Final[NDArray[Any]] = np.zeros(partition.size, dtype)
        self.tensors: Final = partition.views(self.parameters)
        self.steps = 0
        self._n_fetch, self._n_push = n_fetch, n_push
        self._local_lr: Final = local_lr or 0.0
        self._accrued: Final[NDArray[Any]] = np.zeros(partition.dense_size, dtype)
        self._rows: dict[str, list[Rows]] = {name: [] for name in partition.sparse}
        self._number = first_number
        self._fetched: Final = [FIRST] * partition.shards
        self._known: Final = [FIRST] * partition.shards

    @property
    def wants_fetch(self) -> bool:
        """Whether the next step begins with a fetch from every shard."""
        return self.steps % self._n_fetch == 0

    @property
    def fetches_after(self) -> bool:
        """Whether the step after the next begins with a fetch; who fetches ahead asks before the next gradient."""
        return (self.steps + 1) % self._n_fetch == 0

    def take(self, shard: int, fetched: Fetched) -> None:
        """Take over what was fetched from a shard. Raises `ValueError` for parameters of another type or size."""
        into = self.parameters[self.partition.slices[shard]]
        if fetched.parameters.shape != into.shape or fetched.parameters.dtype != into.dtype:
            raise ValueError(
                f"shard {shard} has parameters of {fetched.parameters.dtype} and shape {fetched.parameters.shape}; allowed "
                f"is {into.dtype} and {into.shape}"
            )
        into[...] = fetched.parameters
        self._fetched[shard] = fetched.version
        self._learn(shard, fetched.version)

    def give(self, dense: NDArray[Any], rows: Mapping[str, Rows] = MappingProxyType({})) -> list[Push]:
        """Accrue a gradient at `parameters` and step; return what is to be pushed, one for each shard, or nothing.

        `dense` is flat, without the partition's sparse tensors, of which `rows` has the gradients; where one is missing,
        it is zero. What is returned keeps no memory of the client's or of the arguments, but that of a single `dense`
        gradient where every step pushes: that must then be left as it is until the pushes have arrived.

        Raises `TypeError` and `ValueError` for gradients of another type or size, or of rows that there are not.
        """
        self._check(dense, rows)
        pushes = self.steps % self._n_push == 0
        alone = self._n_push == 1
        if not alone:
            np.add(self._accrued, dense, out=self._accrued)
        for name, some in rows.items():
            # What waits for later steps must not be memory that those may write to.
            self._rows[name].append(some if alone else Rows(some.numbers.copy(), some.values.copy()))
        if self._local_lr:
            self._step_alone(dense, rows)
        self.steps += 1
        if not pushes:
            return []
        if alone:
            return self._pushes(dense)
        accrued = self._accrued.copy()
        self._accrued[...] = 0
        return self._pushes(accrued)

    def confirm(self, shard: int, receipt: Receipt) -> None:
        """Take note of what became of a push to a shard."""
        self._learn(shard, receipt.version)

    def _learn(self, shard: int, version: Version) -> None:
        known = self._known[shard]
        self._known[shard] = max(known, version, key=lambda each: (each.life, each.updates))

    def _check(self, dense: NDArray[Any], rows: Mapping[str, Rows]) -> None:
        if dense.shape != self._accrued.shape or dense.dtype != self._accrued.dtype:
            raise ValueError(
                f"the dense gradient is of {dense.dtype} and shape {dense.shape}; allowed is {self._accrued.dtype} and "
                f"{self._accrued.shape}"
            )
        for name, some in rows.items():
            if name not in self._rows:
                allowed = ", ".join(self._rows) or "none"
                raise ValueError(f"there are rows of {name!r}; sparse tensors of the partition are: {allowed}")
            some.check(name, self.partition.shapes[name], dense.dtype)

    def _step_alone(self, dense: NDArray[Any], rows: Mapping[str, Rows]) -> None:
        for name, gradient in self.partition.dense_views(dense).items():
            self.tensors[name][...] -= self._local_lr * gradient
        for name, some in rows.items():
            np.subtract.at(self.tensors[name], some.numbers, self._local_lr * some.values)

    def _pushes(self, dense: NDArray[Any]) -> list[Push]:
        number, self._number = self._number, self._number + 1
        by_shard: list[dict[int, Rows]] = [{} for _ in range(self.partition.shards)]
        for name, some in self._rows.items():
            if some:
                for shard, (piece, part) in self.partition.rows_of(name, _joined(some)).items():
                    by_shard[shard][piece] = part
            self._rows[name] = []
        return [
            Push(self.replica, number, self._fetched[shard], self._known[shard], dense[part], by_shard[shard])
            for shard, part in enumerate(self.partition.dense_slices)
        ]


def _joined(some: list[Rows]) -> Rows:
    return Rows(np.concatenate([each.numbers for each in some]), np.concatenate([each.values for each in some]))
