"""The processes that a process has started, as the system tells of them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.requirements import require

__all__ = ["LOOPBACK", "PATIENCE", "alive", "children", "gone", "kill", "listening", "soon"]

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

# So long that only a fault reaches it, on the slowest machine.
PATIENCE = 180.0


def children(parent: int) -> list[int]:
    """Return the processes whose parent is `parent`, those that have ended and were not waited for left out."""
    require(Path("/proc/self/stat").exists(), "the system has no /proc")
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and _parent(each) == parent]


def _parent(process: Path) -> int | None:
    try:
        # The name, in brackets, may hold anything.
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)


def alive(process: int) -> bool:
    return _parent(Path(f"/proc/{process}")) is not None


def gone(processes: list[int]) -> bool:
    return not any(map(alive, processes))


def soon(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; fail if it never does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def listening(process: int) -> list[str]:
    """Return the addresses on which a process and those that it has started listen."""
    import psutil  # which Ray brings

    mine = psutil.Process(process)
    found = []
    for each in [mine, *mine.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [one.laddr.ip for one in each.net_connections("tcp") if one.status == "LISTEN"]
    return found
