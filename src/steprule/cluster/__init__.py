"""A parameter server for asynchronous training by many replicas, whose shards apply any rule (Dean et al. 2012).

What is here is logic without transport: a `Client` asks for fetches and gives pushes, a `Shard` takes them.
"""

from .client import Client, may_begin, next_number
from .kept import KeptShard
from .messages import Fetched, Push, Receipt, Rows, Version
from .partition import Partition, Piece
from .shard import Shard

__all__ = [
    "Client",
    "Fetched",
    "KeptShard",
    "Partition",
    "Piece",
    "Push",
    "Receipt",
    "Rows",
    "Shard",
    "Version",
    "may_begin",
    "next_number",
]
