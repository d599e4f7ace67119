"""Helper threads for kernels that share out their own work.

Numba's own threading layers cannot serve: its OpenMP layer aborts in a forked child of a parent that has used it, and its
work-queue layer aborts when two Python threads enter it. These are plain Python threads which sleep on a queue and run a
kernel that lets go of the interpreter lock. A kernel claims chunks of work from a shared counter, so that a helper that
wakes late, or never, costs time and nothing else.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["run"]

_Job = tuple[Callable[..., None], tuple[Any, ...], "queue.SimpleQueue[BaseException | None]"]


class _Team:
    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.members = 0
        self.lock = threading.Lock()

    def grow(self, members: int) -> None:
        with self.lock:
            while self.members < members:
                threading.Thread(target=_help, args=(self.jobs,), name="steprule", daemon=True).start()
                self.members += 1


def _help(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        work, arguments, done = jobs.get()
        try:
            work(*arguments)
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)
        # An idle helper must not keep the last job's arrays alive.
        del work, arguments, done


_team: _Team


def _found() -> None:
    # A forked child has none of its parent's threads, and may have inherited a queue in mid-use.
    global _team
    _team = _Team()


_found()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_found)

# The caller watches the counter for about as long as one chunk takes before it sleeps on the queue.
_WATCH: Final = 20_000


def run(work: Callable[..., None], arguments: tuple[Any, ...], finished: Callable[[], bool], threads: int) -> None:
    """Call `work(*arguments, watch)` in this thread and in up to `threads - 1` helpers; return when `finished()` holds.

    `watch` is how many times `work` looks whether the others have finished before it returns; helpers get 0. Several
    threads may call this at once. Raises what a helper raised.
    """
    team = _team
    helpers = threads - 1
    if team.members < helpers:
        team.grow(helpers)
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for _ in range(helpers):
        team.jobs.put((work, (*arguments, 0), done))
    work(*arguments, _WATCH if helpers else 0)
    while not finished():
        error = done.get()
        if error is not None:
            raise error
