"""Where the trials of a comparison run: in processes of this machine, on a Ray cluster, or as one batch on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final

from ..counts import check_count
from ..specification import Rule
from . import machine, workers
from .problem import Problem
from .workers import Event, Task

__all__ = ["Place", "Processes", "place", "whole_or_none"]


class Place(ABC):
    """What runs trials. Use it in a `with` statement, or `close` it."""

    jobs: int
    """How many processes train side by side."""

    @property
    @abstractmethod
    def deciding(self) -> str:
        """What of the place decides a trial's numbers, down to the last digit."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Return what a reader of the results wants to know of the machines."""

    @abstractmethod
    def run(self, problem: str, tasks: Sequence[Task]) -> Iterator[Event]:
        """Run `tasks` of the problem of that name, begun in their order, and yield what happens as it does.

        Of each: `Started`, a `Measured` for each epoch, `Ended`; a trial that is lost may be `Started` again. When the
        caller closes the iterator, all of them end. Raises `RuntimeError` where the problem cannot be made there.
        """

    def refuse(self, problem: Problem, rules: Sequence[Rule]) -> None:  # noqa: B027  # most have nothing to say
        """Raise `ValueError` for a problem or a rule that cannot be used there; most places take all."""

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Give back what the place holds; it can be used no more."""

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Processes(Place):
    """Processes of this machine, which share its cores: `jobs` of them, as many as there are cores unless given."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = whole_or_none("jobs", jobs) or machine.available_cores()

    @property
    def deciding(self) -> str:
        # Matrix products are summed in another order in another number of threads.
        return str(workers.share_threads(self.jobs))

    def facts(self) -> dict[str, str]:
        threads = workers.share_threads(self.jobs)
        each = f", each with {threads} threads" if threads > 1 else ""
        return machine.facts() | {"processes": f"{self.jobs}{each}"}

    def run(self, problem: str, tasks: Sequence[Task]) -> Iterator[Event]:
        return workers.run(problem, tasks, self.jobs)


_ON: Final = ("processes", "ray")


def place(on: str = "processes", *, jobs: int | None = None, device: str = "", address: str = "") -> Place:
    """Return the place that is asked for by words, as on a command line.

    `on` is "processes" or "ray"; `address` is that of a Ray cluster, and without one Ray is started on this machine.
    With a `device`, such as "cuda" or "cpu", all trials train there at once as one batched model, in this process.

    Raises `ValueError` for words that do not go together, and `ModuleNotFoundError` where Ray is not installed.
    """
    if on not in _ON:
        raise ValueError(f"on is {on!r}; allowed are {', '.join(_ON)}")
    if address and on != "ray":
        raise ValueError(f"address is {address!r} and on is {on!r}; allowed is an address with on='ray'")
    if device:
        if on != "processes" or jobs is not None:
            other = f"on is {on!r}" if on != "processes" else f"jobs is {jobs}"
            raise ValueError(
                f"device is {device!r} and {other}; allowed is one of them: a device takes all trials at once"
            )
        from .batched import Batched

        return Batched(device)
    if on == "ray":
        from .on_ray import Ray

        return Ray(jobs, address)
    return Processes(jobs)


def whole_or_none(name: str, value: int | None) -> int | None:
    """Return an argument that is a number of things, or None where it is not given; `ValueError` for what is neither."""
    if value is not None:
        check_count(name, value)
    return value
