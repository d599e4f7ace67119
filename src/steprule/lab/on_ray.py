"""Trials spread over a Ray cluster: each is a task that takes as many CPUs as it has threads."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from . import machine
from .numerals import plural
from .places import Place, whole_or_none
from .results import Epoch
from .sources import Sources
from .worker import cause_of, messages, use_threads
from .workers import WORKER_VARIABLE, Ended, Event, Measured, Started, Task, ended, refuse_nested, thread_variables

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["Ray"]

_ATTEMPTS: Final = 3
"""A trial whose node or process is lost is tried again, so often in all: machines of a cluster come and go."""

_CANCELLATIONS: Final = 20
"""How often a task is cancelled, a second apart, before it is left alone: the cluster may have gone."""

_DATA: Final = "STEPRULE_DATA"


class Ray(Place):
    """A Ray cluster: the one that this process is connected to, else the one at `address`, else one of this machine alone.

    `jobs` trials run side by side, as many as the cluster has CPUs unless given, and share its CPUs. The machines need
    steprule and PyTorch in the versions of this one. The user's own files are brought to them; data sets are looked for on
    each machine, first in the folder that `$STEPRULE_DATA` names here.

    Raises `ModuleNotFoundError` where Ray is not installed, `ConnectionError` where there is no cluster at `address`, and
    `ValueError` where the cluster has no CPU.
    """

    def __init__(self, jobs: int | None = None, address: str = "") -> None:
        whole_or_none("jobs", jobs)
        refuse_nested()
        try:
            import ray
        except ModuleNotFoundError:
            raise ModuleNotFoundError("trials on a Ray cluster need ray: pip install 'steprule[cluster]'") from None
        self._ray: Final[Any] = ray
        self._begun: Final = not ray.is_initialized()
        if self._begun:
            from ..cluster import engine

            if address:
                engine.join(address, log_to_driver=False)
            else:
                engine.start(machine.available_cores(), log_to_driver=False)
        nodes = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        if not any(nodes):
            self.close()
            raise ValueError("the Ray cluster has no CPU; allowed is one with at least 1")
        self._nodes: Final = len(nodes)
        self.jobs = min(jobs or sum(nodes), sum(nodes))
        # A task runs on one machine, and its threads with it.
        self._threads: Final = max(1, min(sum(nodes) // self.jobs, max(nodes)))

    @property
    def deciding(self) -> str:
        return str(self._threads)  # as of local processes: the same numbers

    def facts(self) -> dict[str, str]:
        each = f", each with {self._threads} threads" if self._threads > 1 else ""
        return machine.facts() | {"processes": f"{self.jobs}{each}, on a Ray cluster of {plural(self._nodes, 'node')}"}

    def close(self) -> None:
        if self._begun:
            self._ray.shutdown()

    def run(self, problem: str, tasks: Sequence[Task]) -> Iterator[Event]:
        waiting = deque((task, 1) for task in tasks)
        going: dict[Any, tuple[Task, int]] = {}
        try:
            while waiting or going:
                while waiting and len(going) < self.jobs:
                    task, attempt = waiting.popleft()
                    going[self._begun_task(problem, task)] = task, attempt
                (stream, *_), _ = self._ray.wait(list(going), num_returns=1)
                task, attempt = going[stream]
                event = self._next(problem, stream, task, attempt)
                if event is None or isinstance(event, Ended):
                    del going[stream]
                if event is None:
                    waiting.appendleft((task, attempt + 1))
                else:
                    yield event
        finally:
            self._end(list(going))

    def _end(self, streams: Sequence[Any]) -> None:
        """Cancel tasks until they have ended: Ray loses a cancellation that meets a task as it begins."""
        left = {stream.completed(): stream for stream in streams}
        for _ in range(_CANCELLATIONS):
            if not left:
                return
            for stream in left.values():
                self._ray.cancel(stream, force=True)
            ended, _ = self._ray.wait(list(left), num_returns=len(left), timeout=1.0)
            left = {end: stream for end, stream in left.items() if end not in ended}

    def _begun_task(self, problem: str, task: Task) -> Any:
        # One thread for each CPU that Ray sets aside.
        variables = thread_variables(self._threads) | {WORKER_VARIABLE: "1"}
        remote = self._ray.remote(_trial).options(
            num_cpus=self._threads, num_returns="streaming", max_retries=0, runtime_env={"env_vars": variables}
        )
        data = str(Path(os.environ[_DATA]).resolve()) if os.environ.get(_DATA) else ""
        sources = _sources(problem), _sources(task.rule)
        return remote.remote(*sources, dataclasses.asdict(task), self._threads, data, _versions())

    def _next(self, problem: str, stream: Any, task: Task, attempt: int) -> Event | None:
        """Return what a task tells next, None where it is lost and is to be tried again."""
        errors = self._ray.exceptions
        try:
            message: dict[str, Any] = self._ray.get(next(stream))
        except StopIteration:
            return Ended(task.number, "failed", "its task ended without a word")
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            if attempt < _ATTEMPTS:
                return None
            return Ended(task.number, "failed", f"its process was lost {attempt} times: {cause_of(error)}")
        except errors.RayError as error:
            return Ended(task.number, "failed", cause_of(error))
        if "unmade" in message:
            raise RuntimeError(f"the problem {problem} could not be made: {message['unmade']}")
        if "epoch" in message:
            return Measured(task.number, Epoch(**message["epoch"]))
        return Started(task.number) if "started" in message else ended(task, message)


@functools.lru_cache(maxsize=64)
def _sources(name: str) -> Sources:
    return Sources.of(name)


def _versions() -> dict[str, str]:
    import torch

    return {"steprule": __version__, "torch": str(torch.__version__)}


def _trial(
    problem: Sources, rule: Sources, task: dict[str, Any], threads: int, data: str, versions: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Run one trial on a machine of the cluster, and yield the messages of a worker."""
    for name, version in _versions().items():
        if version != versions[name]:
            yield {"unmade": f"a machine of the cluster has {name} {version}; allowed is {versions[name]}, as here"}
            return
    use_threads(threads)
    if data and Path(data).is_dir():
        os.environ[_DATA] = data
    else:
        os.environ.pop(_DATA, None)
    try:
        made = _made(problem.unpacked())
        task = task | {"rule": rule.unpacked()}
    except Exception as error:
        yield {"unmade": cause_of(error)}
        return
    yield {"started": True}
    yield from messages(made, task)


@functools.lru_cache(maxsize=1)
def _made(name: str) -> Problem:
    from .problem import find_problem

    return find_problem(name)()
