"""A parameter server for asynchronous training by many replicas, whose shards apply any rule (Dean et al. 2012).

What is here is logic without transport: a `Client` asks for fetches and gives pushes, a `Shard` takes them.
"""

from .client import Client, may_begin, next_number
from .conditions import Bursts, Conditions, Distribution, Failures, Stragglers
from .messages import Fetched, Push, Receipt, Rows, Version
from .partition import Partition, Piece
from .shard import Shard
from .simulation import Measured, Simulated, Simulation, simulate

__all__ = [
    "Bursts",
    "Client",
    "Conditions",
    "Distribution",
    "Failures",
    "Fetched",
    "Measured",
    "Partition",
    "Piece",
    "Push",
    "Receipt",
    "Rows",
    "Shard",
    "Simulated",
    "Simulation",
    "Stragglers",
    "Version",
    "may_begin",
    "next_number",
    "simulate",
]
