"""What is trained on a parameter server, and how the work is shared out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from ..counts import check_count
from .client import check_steps
from .journal import check_sync
from .messages import Rows

__all__ = ["Gradient", "Plan", "Work"]


class Gradient(Protocol):
    """What a replica computes, on mini-batch after mini-batch of its own."""

    def __call__(
        self, tensors: Mapping[str, NDArray[Any]], into: Mapping[str, NDArray[Any]]
    ) -> tuple[float, Mapping[str, Rows]]:
        """Return the loss of the next mini-batch, and the gradients of the sparse tensors, by name.

        `tensors` are the parameters, by name, always the same arrays. Those of the gradient of each tensor that is not
        sparse are to be written to `into`, by name, which is zero before.
        """


@dataclass(frozen=True)
class Work:
    """What is trained: the parameters at the beginning, by name, and what makes a replica's `Gradient`.

    `parameters` are arrays of one type, float32 or float64. `gradient(replica, start)` is called in the replica's process;
    `start` counts how often that replica has started before, so that it can go on with other mini-batches. `sparse` names
    the parameters whose gradients come as `Rows`.
    """

    parameters: Mapping[str, NDArray[Any]]
    gradient: Callable[[int, int], Gradient]
    sparse: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How the work is shared out.

    `updates` is how many each shard is to apply. `replicas` compute gradients; `shards` hold the parameters. A replica
    fetches every `n_fetch` steps, pushes every `n_push` and moves its own copy by `local_lr` in between (`Client`); with
    `overlap` it asks for the next parameters, and leaves its last push under way, while it computes. Replica 0 trains alone
    until each shard has applied `warm_start` updates.

    A shard writes a snapshot after each `snapshot_every` updates, and with `journal` each push before it is acknowledged
    (`KeptShard`, `sync` as there). A push that is infinite or NaN somewhere is left out (`on_nonfinite="skip"`), or ends the
    training ("raise"). A replica or shard that has not answered for `timeout` seconds is killed and started again: a single
    step must be faster than that, and a shard's snapshot.

    `device` is where the shards step, `threads` how many threads each replica and shard computes in.

    Raises `ValueError` for what is out of range, and `TypeError` where `local_lr` is missing.
    """

    updates: int
    replicas: int = 1
    shards: int = 1
    n_fetch: int = 1
    n_push: int = 1
    local_lr: float | None = None
    overlap: bool = True
    warm_start: int = 0
    snapshot_every: int = 1000
    journal: bool = False
    sync: bool = False
    on_nonfinite: Literal["skip", "raise"] = "skip"
    timeout: float = 60.0
    device: str = "cpu"
    threads: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    """The rule's hyperparameters, and what else its class of `steprule.torch` takes."""

    def __post_init__(self) -> None:
        least = {"updates": 1, "replicas": 1, "shards": 1, "warm_start": 0, "snapshot_every": 1, "threads": 1}
        for name, low in least.items():
            check_count(name, getattr(self, name), low)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(
                f'device is {self.device!r}; allowed is "cpu", or "cuda": Ray gives each shard a GPU of its own'
            )
        check_steps(self.n_fetch, self.n_push, self.local_lr)
        check_sync(self.journal, self.sync)
        if not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout!r}; allowed is a number of seconds above 0")
