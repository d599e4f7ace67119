"""Processes that run trials side by side. One that dies is told of, with its trial and the cause; the others go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from . import machine
from .results import Epoch, Status

__all__ = [
    "WORKER_VARIABLE",
    "Ended",
    "Event",
    "Measured",
    "Started",
    "Task",
    "ended",
    "ending",
    "environment",
    "refuse_nested",
    "run",
    "search_path",
    "share_threads",
    "thread_variables",
]

WORKER_VARIABLE: Final = "STEPRULE_WORKER"
"""Set in a worker's environment, where nothing may start workers of its own."""


_WARNED: Final[dict[Any, Any]] = {}
"""What the workers' trials have been warned of, as `warnings` keeps it."""


@dataclass(frozen=True)
class Task:
    """One trial, in words that another process understands; `number` is the caller's.

    `data` is the problem's `data_sample`, which the process must have as well, where one is given.
    """

    number: int
    rule: str
    hyperparameters: dict[str, float]
    seed: int
    epochs: int
    data: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Started:
    """A worker has taken the trial."""

    number: int


@dataclass(frozen=True)
class Measured:
    """The trial has finished an epoch."""

    number: int
    epoch: Epoch


@dataclass(frozen=True)
class Ended:
    """The trial is over: `status` is "finished", "diverged" or "failed", and `cause` says why it failed."""

    number: int
    status: Status
    cause: str


Event = Started | Measured | Ended


def share_threads(jobs: int) -> int:
    """Return how many threads each of `jobs` workers has, when they share this process's cores."""
    return max(1, machine.available_cores() // jobs)


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that keep every library of a process to `threads` threads."""
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables of a process that trains in `threads` threads."""
    return os.environ | thread_variables(threads)


def search_path() -> list[str]:
    """Return where this process finds modules, so that a worker finds them too: a script's folder, above all."""
    return [str(Path(entry).resolve()) for entry in sys.path]


class _Worker:
    def __init__(
        self, problem: str, threads: int, messages: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self.task: Task | None = None
        self.ready = False
        self._said_before = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "steprule.lab.worker", problem, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment(threads) | {WORKER_VARIABLE: "1", "PYTHONPATH": os.pathsep.join(search_path())},
            start_new_session=True,  # Ctrl-C is for the process that keeps the results
        )
        self._reader = threading.Thread(target=self._read, args=(messages,), daemon=True)
        self._reader.start()

    def _read(self, messages: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # else its death has cut the message off
                messages.put((self, json.loads(line)))
        messages.put((self, None))

    def give(self, task: Task) -> None:
        assert self._process.stdin is not None
        self.task = task
        self._said_before = os.fstat(self._errors.fileno()).st_size
        try:
            self._process.stdin.write(json.dumps(dataclasses.asdict(task)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; its end is on its way through the reader

    def end(self) -> str:
        """Wait for the process, whose output is closed or which was killed; return what its end looked like."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)  # on a busy machine its end takes a while
        self._kill()
        code = self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        # Not by moving in the file, where the process and we share one place.
        size = os.fstat(self._errors.fileno()).st_size
        words = os.pread(self._errors.fileno(), size - self._said_before, self._said_before)
        self._errors.close()
        return ending(code, words)

    def stop(self) -> None:
        self._kill()
        self.end()

    def _kill(self) -> None:
        """Kill its session: the process, and what the user's code has started there and left."""
        if not hasattr(os, "killpg"):  # a system without sessions
            self._process.kill()
            return
        # Which a session of which nobody is left does not take, and on macOS one that has ended and was not waited for.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def ended(task: Task, message: Mapping[str, Any]) -> Ended:
    """Return the end that a worker's last message on a trial tells; warn of what it has been warned of, once for all."""
    for text, file, line in message["warnings"]:
        warnings.warn_explicit(text, UserWarning, file, line, registry=_WARNED)
    return Ended(task.number, message["end"], message["cause"])


def ending(code: int, errors: bytes) -> str:
    """Return what the end of a process looked like, from its exit status and what it wrote to its standard error."""
    said = errors.decode("utf-8", "replace").strip().splitlines()
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return f"its process ended with {how}" + (f", saying last: {said[-1].strip()}" if said else "")


def refuse_nested() -> None:
    """Raise `RuntimeError` in a worker, whose comparison would start workers without end."""
    if os.environ.get(WORKER_VARIABLE):
        raise RuntimeError(
            "a comparison was started while a worker loaded the problem: put it under `if __name__ == '__main__':`"
        )


def run(problem: str, tasks: Sequence[Task], jobs: int) -> Iterator[Event]:
    """Run `tasks` in `jobs` processes, in order, and yield what happens as it does.

    When the caller closes the iterator, the processes end. Raises `RuntimeError` where a process dies before it has
    taken a trial, since none would get further.
    """
    refuse_nested()
    waiting = deque(tasks)
    messages: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
    threads = share_threads(jobs)
    workers = {_Worker(problem, threads, messages) for _ in range(min(jobs, len(tasks)))}
    try:
        while workers:
            worker, message = messages.get()
            if worker not in workers:
                continue  # the end of the output of one that was stopped
            task = worker.task
            if message is None:
                workers.discard(worker)
                cause = worker.end()
                if not worker.ready:
                    raise RuntimeError(f"the problem {problem} could not be made: {cause}")
                if task is not None:
                    yield Ended(task.number, "failed", cause)
                if waiting:
                    workers.add(_Worker(problem, threads, messages))
                continue
            if "epoch" in message and task is not None:
                yield Measured(task.number, Epoch(**message["epoch"]))
                continue
            worker.ready = True
            if "end" in message and task is not None:
                worker.task = None
                yield ended(task, message)
            if waiting:
                worker.give(waiting.popleft())
                assert worker.task is not None
                yield Started(worker.task.number)
            else:
                workers.discard(worker)
                worker.stop()
    finally:
        for worker in workers:
            worker.stop()
