"""The shards and replicas of a training: started, asked, and killed where they hang; Ray starts again what has died."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from ..specification import Rule
from .actors import ReplicaActor, ShardActor, kept_shard
from .messages import Fetched
from .partition import Partition
from .plan import Plan, Work
from .reports import ReplicaReport, ShardReport

__all__ = ["Replicas", "Shards", "told"]

_SECONDS_BETWEEN_QUESTIONS: Final = 0.5
_SECONDS_BETWEEN_LOOKS: Final = 0.1


def told(error: Exception) -> Exception:
    """Return what a process has raised, without what Ray puts around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(error, RayTaskError) and isinstance(cause, Exception) else error


class _Silence:
    """When an actor is to be taken for hung: after `timeout` seconds, and twice as long after each time that it was."""

    def __init__(self, timeout: float) -> None:
        self._patience = timeout
        self._long: Final = timeout / 4
        self._heard = self._since = time.monotonic()

    def begin_anew(self) -> None:
        """Take it that the actor has just been heard."""
        self._heard = self._since = time.monotonic()

    @property
    def long(self) -> bool:
        """Whether it lasts so long that whoever waits for the actor is not to blame for being silent, too."""
        return time.monotonic() - self._heard > self._long

    def broken(self) -> bool:
        """Whether it is time to kill; then it begins anew."""
        if time.monotonic() - self._since < self._patience:
            return False
        self._since, self._patience = time.monotonic(), 2 * self._patience
        return True


class Shards:
    """The actors that hold the parameters, and their newest reports.

    What they were called for when they died is called again by Ray: a push that comes twice, a shard knows.
    """

    def __init__(self, rule: Rule, flat: NDArray[Any], partition: Partition, folder: Path, plan: Plan) -> None:
        made: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD")(
            ShardActor
        )
        made = made.options(num_gpus=0 if plan.device == "cpu" else 1)
        here = dataclasses.replace(plan, device="cpu")
        for number, (part, pieces) in enumerate(zip(partition.slices, partition.pieces, strict=True)):
            # A plan that cannot be is refused here, and the first snapshots are what the actors begin with.
            kept_shard(rule, flat[part], pieces, folder, number, here).close()
        self.handles: Final[list[Any]] = [
            made.remote(rule, flat.dtype, pieces, folder, number, plan)
            for number, pieces in enumerate(partition.pieces)
        ]
        self._timeout = plan.timeout
        self._questions: dict[Any, tuple[int, _Silence]] = {}
        self._asked = 0.0
        self.hung: Final[collections.Counter[int]] = collections.Counter()
        # They take as long to start as they take.
        self.reports: list[ShardReport] = _got([each.report.remote() for each in self.handles])
        self._lives: Final = [report.version.life for report in self.reports]

    @property
    def restarts(self) -> Mapping[int, int]:
        """How often each was restored since the training began; none is left out."""
        lives = [report.version.life for report in self.reports]
        return {number: life - first for number, (life, first) in enumerate(zip(lives, self._lives, strict=True))}

    @property
    def one_is_silent(self) -> bool:
        """Whether one has not answered for some time, so that who waits for it is not to blame."""
        return any(silence.long for _, silence in self._questions.values())

    def ask(self) -> None:
        """Wait for a report of each."""
        self.reports = self._answers([each.report.remote() for each in self.handles])

    def watch(self) -> None:
        """Take the reports that have come, and kill a shard that has been silent for too long."""
        for question in _ready(self._questions, 0):
            number, _ = self._questions.pop(question)
            self.reports[number] = _got([question])[0]
        _kill_the_hung(self.handles, self._questions.values(), self.hung)
        if time.monotonic() - self._asked > _SECONDS_BETWEEN_QUESTIONS:
            self._asked = time.monotonic()
            silent = [number for number, _ in self._questions.values()]
            for number, each in enumerate(self.handles):
                if number not in silent:
                    self._questions[each.report.remote()] = (number, _Silence(self._timeout))

    def fetch(self) -> list[Fetched]:
        """Return each slice as it is now, with its version."""
        return self._answers([each.fetch.remote() for each in self.handles])

    def snapshot(self) -> None:
        """Have each write a snapshot; what cannot be written, its report tells."""
        hung = self.hung.total()
        self._answers([each.snapshot.remote() for each in self.handles])
        if self.hung.total() > hung:
            self._timeout *= 2  # it may be that a snapshot takes so long

    def end(self) -> None:
        """End the actors, after a snapshot of each that answers in time."""
        ray.wait(
            [each.snapshot.remote() for each in self.handles], num_returns=len(self.handles), timeout=self._timeout
        )
        _end(self.handles)

    def _answers(self, questions: Sequence[Any]) -> list[Any]:
        """Wait for the answer of each shard; one that hangs is killed, and when it is restored Ray asks it again."""
        waiting = {question: (number, _Silence(self._timeout)) for number, question in enumerate(questions)}
        while waiting:
            for question in _ready(waiting, _SECONDS_BETWEEN_LOOKS):
                del waiting[question]
            _kill_the_hung(self.handles, waiting.values(), self.hung)
        self._questions.clear()  # nobody has looked at their answers meanwhile
        return _got(questions)


class Replicas:
    """The actors that compute gradients: each is starting, free, or at work."""

    def __init__(self, work: Work, partition: Partition, shards: Sequence[Any], plan: Plan) -> None:
        made: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD")(
            ReplicaActor
        )
        dtype = next(iter(work.parameters.values())).dtype
        self._gradient: Final = ray.put(work.gradient)
        self.handles: Final[list[Any]] = [
            made.remote(number, [self._gradient], partition, dtype, shards, plan) for number in range(plan.replicas)
        ]
        self._timeout: Final = plan.timeout
        self.places: Final[dict[int, tuple[int, str]]] = {}
        """The process, and Ray's node, of each that has started."""
        self._starting: Final[dict[Any, int]] = {}
        self._turns: Final[dict[Any, tuple[int, int, float, _Silence]]] = {}
        self.restarts: Final[collections.Counter[int]] = collections.Counter()
        self.hung: Final[collections.Counter[int]] = collections.Counter()
        self._looked = time.monotonic()
        for number in range(plan.replicas):
            self._await(number)

    @property
    def at_work(self) -> list[int]:
        return [number for number, *_ in self._turns.values()]

    @property
    def free(self) -> list[int]:
        """Those that have started and are not at work."""
        busy = {*self._starting.values(), *self.at_work}
        return [number for number in range(len(self.handles)) if number not in busy]

    def send(self, number: int, steps: int) -> None:
        """Have a free replica take so many steps."""
        turn = self.handles[number].run.remote(steps)
        self._turns[turn] = (number, steps, time.monotonic(), _Silence(self._timeout))

    def wait(self, shards: Shards) -> list[tuple[int, int, float, ReplicaReport | None]]:
        """Return what has ended soon: the replica, its steps, how long they took, and its report. `shards` are watched.

        There is no report where the replica died; it is started again. Raises what a replica's gradient has raised, and
        `RuntimeError` where a replica cannot be started.
        """
        ended = []
        for each in _ready([*self._starting, *self._turns], _SECONDS_BETWEEN_LOOKS):
            if each in self._starting:
                self._started(each)
                continue
            number, steps, since, _ = self._turns.pop(each)
            ended.append((number, steps, time.monotonic() - since, self._answer(each, number)))
        self._watch([(number, silence) for number, *_, silence in self._turns.values()], shards)
        return ended

    def finish(self, shards: Shards) -> None:
        """Wait until the pushes of all free replicas have arrived. `shards` are watched."""
        waiting = {self.handles[number].finish.remote(): (number, _Silence(self._timeout)) for number in self.free}
        while waiting:
            for question in _ready(waiting, _SECONDS_BETWEEN_LOOKS):
                number, _ = waiting.pop(question)
                self._answer(question, number)
            self._watch(list(waiting.values()), shards)

    def end(self) -> None:
        """End the actors."""
        _end(self.handles)

    def _await(self, number: int) -> None:
        self.places.pop(number, None)
        self._starting[self.handles[number].place.remote()] = number

    def _started(self, question: Any) -> None:
        number = self._starting.pop(question)
        try:
            self.places[number] = ray.get(question)
        except ActorDiedError as error:
            raise _cannot_start(f"replica {number}", error) from None
        except RayActorError:
            self._await(number)

    def _answer(self, question: Any, number: int) -> Any:
        """Return what a replica answers; None where it died, which is then awaited."""
        try:
            return ray.get(question)
        except RayActorError:
            self.restarts[number] += 1
            self._await(number)
            return None
        except RayTaskError as error:
            raise told(error) from None

    def _watch(self, waiting: Sequence[tuple[int, _Silence]], shards: Shards) -> None:
        """Kill what hangs, a shard before the replicas that wait for it."""
        shards.watch()
        late = time.monotonic() - self._looked > self._timeout / 4  # who did not look cannot tell who was silent
        self._looked = time.monotonic()
        if late or shards.one_is_silent:
            for _, silence in waiting:
                silence.begin_anew()
        _kill_the_hung(self.handles, waiting, self.hung)


def _kill_the_hung(
    handles: Sequence[Any], waiting: Iterable[tuple[int, _Silence]], hung: collections.Counter[int]
) -> None:
    for number, silence in waiting:
        if silence.broken():
            hung[number] += 1
            ray.kill(handles[number], no_restart=False)


def _cannot_start(what: str, error: Exception) -> Exception:
    # The last line says what was raised; those before it, where, and Ray prints them.
    return RuntimeError(f"{what} cannot be started: {str(error).strip().splitlines()[-1]}")


def _end(actors: Iterable[Any]) -> None:
    for each in actors:
        ray.kill(each)


def _ready(references: Iterable[Any], seconds: float) -> list[Any]:
    """Wait until one has come, and no longer than `seconds`; return those that have."""
    some = list(references)
    if not some:
        return []
    ray.wait(some, num_returns=1, timeout=seconds)
    return list(ray.wait(some, num_returns=len(some), timeout=0)[0])


def _got(references: Sequence[Any]) -> list[Any]:
    try:
        found: list[Any] = ray.get(list(references))
    except RayTaskError as error:
        raise told(error) from None
    except ActorDiedError as error:
        raise _cannot_start("a shard", error) from None
    return found
