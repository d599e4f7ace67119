"""Real processes that make up a process group, and do together what a test asks of them."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

import torch

__all__ = ["Ranks"]

# So long that only a fault reaches it, on the slowest machine.
PATIENCE = 120.0
# Where one rank has failed, the others wait for it; what they say is of no use.
GRACE = 2.0


class Ranks:
    """A gloo process group of `size` processes on this machine; they start at the first call."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[Any] = []
        self._pipes: list[Any] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call `function(*arguments)` on every rank, and return what each returned.

        `function` is one that a fresh process can import. Fails where a rank raises, ends, or takes too long; all of them
        end then, and the next call starts new ones.
        """
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, arguments))
        returned, failures = self._gather()
        if failures or len(returned) < self.size:
            self._tell_where()
            self.end()
            silent = sorted(set(range(self.size)) - set(returned) - set(failures))
            raise AssertionError("\n".join([*failures.values(), f"ranks without an answer: {silent}"]))
        return [returned[rank] for rank in range(self.size)]

    def _start(self) -> None:
        # A fork would inherit locks and threads of torch.
        context = multiprocessing.get_context("spawn")
        meeting = Path(tempfile.mkdtemp(prefix="ranks")) / "meeting"
        for rank in range(self.size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.size, meeting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(mine)

    def _gather(self) -> tuple[dict[int, Any], dict[int, str]]:
        returned: dict[int, Any] = {}
        failures: dict[int, str] = {}
        end = time.monotonic() + PATIENCE
        while len(returned) + len(failures) < self.size:
            waiting = {
                pipe: rank for rank, pipe in enumerate(self._pipes) if rank not in returned and rank not in failures
            }
            ready = multiprocessing.connection.wait(list(waiting), max(0.0, end - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                try:
                    good, value = pipe.recv()
                except (EOFError, ConnectionResetError):
                    good, value = False, "the process has ended"
                if good:
                    returned[waiting[pipe]] = value
                else:
                    failures[waiting[pipe]] = f"rank {waiting[pipe]}: {value}"
                    end = min(end, time.monotonic() + GRACE)
        return returned, failures

    def _tell_where(self) -> None:
        """Let the processes write to stderr, which the test's report shows, where they are."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGUSR1)
        time.sleep(GRACE)

    def end(self) -> None:
        """End the processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []


def _serve(rank: int, size: int, meeting: Path, pipe: Any) -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE)
    )
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:  # whoever asked has gone
            return
        try:
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
