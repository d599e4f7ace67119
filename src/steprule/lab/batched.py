"""All trials at once on one device, as one batched model: the place for a table of a small net's settings on a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import torch

from ..specification import Rule
from ..torch.devices import device_named
from . import machine
from .places import Place, whole_or_none
from .problem import Problem, find_problem, refuse_trainer
from .results import Epoch
from .stacked import Stack, bytes_per_trial, on_device
from .worker import cause_of
from .workers import Ended, Event, Measured, Started, Task

__all__ = ["Batched"]

_HOST_MEMORY: Final = 2 << 30
_SHARE: Final = 0.5
"""How much of a GPU's memory the trials may take, unless said."""


class Batched(Place):
    """A `device` such as "cuda", "cuda:1" or "cpu", on which all trials train side by side in this process.

    The models of all seeds may differ in parameters and buffers alone, and consist of what `torch.func.vmap` maps.

    As many trials as `memory` holds, in bytes (half of the GPU's; 2 GiB of the machine's), are one batch; more trials are
    batches one after the other. A trial whose loss is no number any more is frozen; it and all others of a batch end with
    the batch, so that what goes on after an interruption is batched as before. The `seconds` of an epoch are a trial's
    share of the batch's.

    Raises `ValueError` for a device that there is none, and for a `memory` that is no whole number from 1.
    """

    jobs = 1

    def __init__(self, device: str, memory: int | None = None) -> None:
        self._device: Final = device_named(device)
        self._memory: Final = whole_or_none("memory", memory) or _usual_memory(self._device)

    @property
    def deciding(self) -> str:
        return f"batched {self._name} {torch.get_num_threads() if self._device.type == 'cpu' else ''} {self._memory}"

    @property
    def _name(self) -> str:
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else str(self._device)

    def facts(self) -> dict[str, str]:
        return machine.facts() | {"device": f"{self._name}, trials batched within {self._memory / 2**30:.1f} GiB"}

    def refuse(self, problem: Problem, rules: Sequence[Rule]) -> None:
        refuse_trainer(problem, "batched training")
        for rule in rules:
            if rule.curvature:
                raise ValueError(
                    f"{rule.name} takes {rule.curvature[0]}, which no batched model supplies; allowed with a device are "
                    "rules of the gradient alone"
                )

    def run(self, problem: str, tasks: Sequence[Task]) -> Iterator[Event]:
        if not tasks:
            return
        try:
            made = find_problem(problem)()
        except Exception as error:
            raise RuntimeError(f"the problem {problem} could not be made: {cause_of(error)}") from error
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            moved = on_device(made, self._device)
            try:
                at_once = max(1, self._memory // bytes_per_trial(made, tasks))
            except Exception as error:  # of the model, the loss or the metric, as in a batch
                for task in tasks:
                    yield Started(task.number)
                    yield Ended(task.number, "failed", cause_of(error))
                return
            for _, alike in groupby(tasks, key=lambda task: task.epochs):
                some = list(alike)
                for first in range(0, len(some), at_once):
                    yield from self._batch(moved, some[first : first + at_once])

    def _batch(self, problem: Problem, tasks: Sequence[Task]) -> Iterator[Event]:
        for task in tasks:
            yield Started(task.number)
        diverged: set[int] = set()
        try:
            for trial, epoch in _epochs(problem, tasks, self._device):
                yield Measured(tasks[trial].number, epoch)
                if epoch.diverged:
                    diverged.add(trial)
        except Exception as error:
            for task in tasks:
                yield Ended(task.number, "failed", f"in a batch of {len(tasks)}: {cause_of(error)}")
            return
        for trial, task in enumerate(tasks):
            yield Ended(task.number, "diverged" if trial in diverged else "finished", "")


def _epochs(problem: Problem, tasks: Sequence[Task], device: torch.device) -> Iterator[tuple[int, Epoch]]:
    """Train `tasks` and yield the epochs of each as they end, with its place among them, up to one that diverges."""
    stack = Stack(problem, tasks, device)
    torch.manual_seed(tasks[0].seed)  # for what the models draw while they train, such as dropout
    going = set(range(len(tasks)))
    for number in range(1, tasks[0].epochs + 1):
        started = time.perf_counter()
        losses = stack.train_epoch()
        seconds = (time.perf_counter() - started) / len(tasks)
        validation = [None] * len(tasks) if problem.validation is None else stack.measured(problem.validation)
        test = stack.measured(problem.test)
        for trial in sorted(going):
            yield trial, Epoch(number, losses[trial], test[trial], validation[trial], seconds)
            if not math.isfinite(losses[trial]):
                stack.freeze(trial)
                going.remove(trial)
        if not going:
            return


def _usual_memory(device: torch.device) -> int:
    # A share of all and not of what is free, so that the batches are the same each time.
    return (
        int(_SHARE * torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else _HOST_MEMORY
    )
