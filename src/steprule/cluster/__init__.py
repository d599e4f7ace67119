"""A parameter server for asynchronous training by many replicas, whose shards apply any rule (Dean et al. 2012).

`train` runs it on Ray, `simulate` on a clock of its own. The logic has no transport in it: a `Client` asks for fetches and
gives pushes, a `Shard` takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import safetensors as _  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"a parameter server needs {missing.name}: pip install 'steprule[cluster]'") from missing

from .client import Client, may_begin, next_number
from .conditions import Bursts, Conditions, Distribution, Failures, Stragglers
from .kept import KeptShard
from .messages import FIRST, Fetched, Push, Receipt, Rows, Version
from .partition import Partition, Piece
from .plan import Gradient, Plan, Work
from .records import Measured, Simulated
from .reports import Progress
from .shard import Shard
from .simulation import Simulation, simulate

if TYPE_CHECKING:
    from .training import Trained, Training, train

__all__ = [
    "FIRST",
    "Bursts",
    "Client",
    "Conditions",
    "Distribution",
    "Failures",
    "Fetched",
    "Gradient",
    "KeptShard",
    "Measured",
    "Partition",
    "Piece",
    "Plan",
    "Progress",
    "Push",
    "Receipt",
    "Rows",
    "Shard",
    "Simulated",
    "Simulation",
    "Stragglers",
    "Trained",
    "Training",
    "Version",
    "Work",
    "may_begin",
    "next_number",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    # These import ray; the logic does not need it.
    if name in ("Trained", "Training", "train"):
        from . import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
