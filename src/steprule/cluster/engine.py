"""The Ray that a training runs on: one of its own on this machine, or one that is there."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

try:
    import ray
    from ray._private import ray_constants
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"a cluster needs {missing.name}: pip install 'steprule[cluster]'") from missing

__all__ = ["join", "running", "start", "tell_nobody"]

_SECONDS_TO_ANSWER: Final = 20


@contextmanager
def running(address: str | None, processes: int, *, gpus: int = 0, dashboard: bool = False) -> Iterator[None]:
    """Start a Ray that listens on the loopback interface alone, or join the one at `address`; leave it at the end.

    `processes` is how many are to run at once, and `gpus` how many of them have one. `address` is "auto" for the one on this
    machine, or host:port. Where the program has joined one already, that is taken, and not left.

    Raises `ValueError` where the cluster has fewer processors or GPUs, or where a `dashboard` is asked of a Ray that is
    there, and `ConnectionError` where there is none.
    """
    if ray.is_initialized():
        if dashboard:
            raise ValueError(
                "dashboard is True, and this program has joined a Ray already; allowed is False: a Ray that is there has "
                "its own"
            )
        _require(processes, gpus)
        yield
        return
    if address is None:
        start(max(processes, os.cpu_count() or 1), dashboard=dashboard)
    else:
        join(address)
    try:
        _require(processes, gpus)
        yield
    finally:
        ray.shutdown()


def tell_nobody() -> None:
    """Keep the Ray that this process starts or joins from telling its makers that it is used."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def join(address: str, *, log_to_driver: bool = True) -> None:
    """Join the Ray at `address`. Raises `ConnectionError` where nothing answers, of which Ray says so after minutes."""
    tell_nobody()
    host, _, port = address.rpartition(":")
    if host and port.isdigit():  # else "auto", of which Ray knows what it is
        try:
            socket.create_connection((host.rpartition("//")[2], int(port)), timeout=_SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise ConnectionError(f"address is {address!r}, where no Ray cluster answers: {error}") from None
    _init(address=address, log_to_driver=log_to_driver)


def start(cpus: int, *, dashboard: bool = False, log_to_driver: bool = True) -> None:
    """Start a Ray of this machine with so many processors, which listens on the loopback interface alone.

    Raises `RuntimeError` where it would listen elsewhere too.
    """
    tell_nobody()
    with _alone():
        _init(
            address="local",
            num_cpus=cpus,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=log_to_driver,
        )
    address = ray.util.get_node_ip_address()
    if address != "127.0.0.1":
        ray.shutdown()
        raise RuntimeError(f"this Ray listens on {address}; allowed without an address is 127.0.0.1 alone")


def _init(**options: Any) -> None:
    """Start or join a Ray, and leave it to the program what it does on SIGTERM, where that is something of its own."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(logging_level=logging.ERROR, **options)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _alone() -> Iterator[None]:
    """Have Ray take this machine for one that is in no cluster, as it does on Windows and macOS: all is on loopback.

    Otherwise it takes the machine's address, in the place of a loopback address that it is given too, and listens on all.
    """
    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, known = os.environ.get(variable), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[variable], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _require(processes: int, gpus: int) -> None:
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < processes:
        raise ValueError(
            f"replicas and shards are {processes} processes together; allowed on this cluster are up to {there}, one for "
            "each processor"
        )
    there = int(ray.cluster_resources().get("GPU", 0))
    if there < gpus:
        raise ValueError(f"{gpus} shards are to have a GPU each; allowed on this cluster are up to {there}")
