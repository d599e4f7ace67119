"""The Ray that a training runs on: one of its own on this machine, or one that is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import ray
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"a cluster needs {missing.name}: pip install 'steprule[cluster]'") from missing

__all__ = ["running"]


@contextmanager
def running(address: str | None, processes: int, *, dashboard: bool = False) -> Iterator[None]:
    """Start a Ray that listens on the loopback interface alone, or join the one at `address`; leave it at the end.

    `processes` is how many are to run at once. `address` is "auto" for the one on this machine, or host:port. Where the
    program has joined one already, that is taken, and not left.

    Raises `ValueError` where the cluster that is joined has fewer processors, and `ConnectionError` where there is none.
    """
    if ray.is_initialized():
        _require(processes)
        yield
        return
    # Nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        ray.init(
            num_cpus=max(processes, os.cpu_count() or 1),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    else:
        ray.init(address=address, logging_level=logging.ERROR)
    try:
        _require(processes)
        yield
    finally:
        ray.shutdown()


def _require(processes: int) -> None:
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < processes:
        raise ValueError(
            f"replicas and shards are {processes} processes together; allowed on this cluster are up to {there}, one for "
            "each processor"
        )
