"""Threads for kernels that share out their own work.

A kernel claims chunks of work from a shared counter, so that a thread that comes late, or never, costs time and nothing
else. Where an OpenMP runtime is in the process, which PyTorch brings, its threads are taken: they are awake, since
PyTorch's own operations have just used them, and ours would only fight with them for the cores. Otherwise, and in a forked
child, where that runtime hangs, they are plain Python threads which sleep on a queue.

Numba's own threading layers cannot serve: its OpenMP layer aborts in a forked child of a parent that has used it, its
work-queue layer aborts when two Python threads enter it.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Work", "run"]

Work: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""A kernel: a C function of the address of its launch. A call lets go of the interpreter lock."""


@dataclass(frozen=True)
class _Job:
    work: Any
    launch: int
    tickets: queue.SimpleQueue[None]
    """One for each helper that may take part; whoever asked for help takes back those that are left when no work is."""
    done: queue.SimpleQueue[BaseException | None]


class _Helpers:
    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.members = 0
        self.lock = threading.Lock()

    def grow(self, members: int) -> None:
        with self.lock:
            while self.members < members:
                threading.Thread(target=_help, args=(self.jobs,), name="steprule", daemon=True).start()
                self.members += 1


def _taken(tickets: queue.SimpleQueue[None]) -> bool:
    try:
        tickets.get_nowait()
    except queue.Empty:
        return False
    return True


def _help(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        job = jobs.get()
        if not _taken(job.tickets):
            continue
        try:
            job.work(job.launch)
        except BaseException as error:
            job.done.put(error)
        else:
            job.done.put(None)


_helpers = _Helpers()
_openmp: Any = None
_forked = False


def _after_fork() -> None:
    # A child has none of its parent's threads, and may have inherited a queue in mid-use.
    global _helpers, _openmp, _forked
    _helpers, _openmp, _forked = _Helpers(), None, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _find_openmp() -> Any:
    """Return the `GOMP_parallel` that the process has loaded for all to see, or None."""
    global _openmp
    if _openmp is None and not _forked:
        try:
            found = ctypes.CDLL(None).GOMP_parallel
        except (AttributeError, OSError, TypeError):
            return None
        found.argtypes = (Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        found.restype = None
        _openmp = found
    return _openmp


def run(work: Any, launch: int, threads: int) -> None:
    """Call `work(launch)` in this and in up to `threads - 1` other threads; return when all calls have returned.

    `work` is a `Work`. Several Python threads may call this at once. Raises what `work` raised in a helper.
    """
    if threads <= 1:
        work(launch)
        return
    openmp = _find_openmp()
    if openmp is not None:
        openmp(work, launch, threads, 0)
        return
    helpers = _helpers
    if helpers.members < threads - 1:
        helpers.grow(threads - 1)
    job = _Job(work, launch, queue.SimpleQueue(), queue.SimpleQueue())
    for _ in range(threads - 1):
        job.tickets.put(None)
        helpers.jobs.put(job)
    try:
        work(launch)
    finally:
        taken = threads - 1
        while _taken(job.tickets):
            taken -= 1
        errors = [job.done.get() for _ in range(taken)]
    for error in errors:
        if error is not None:
            raise error
