"""How long things take in a simulated cluster, and what goes wrong there: stated distributions, all times in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NoReturn

import numpy as np

__all__ = ["Bursts", "Conditions", "Distribution", "Failures", "Pace", "Stragglers"]

_KNOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "constant": ("time",),
    "exponential": ("mean",),
    "gamma": ("shape", "scale"),
    "lognormal": ("mean", "sigma"),
    "pareto": ("shape",),
    "uniform": ("low", "high"),
    "weibull": ("shape",),
}
"""What the parameters of each distribution are."""


@dataclass(frozen=True)
class Distribution:
    """A distribution of a time: a method of `numpy.random.Generator` by its `name`, with its `parameters` in order.

    "constant" has one parameter, the time. `Distribution.of` reads a number, or text such as "gamma:10,0.1" (shape 10 and
    scale 0.1, of mean 1), "exponential:0.05" (mean 0.05), "lognormal:0,0.5", "uniform:1,2".

    Raises `ValueError` for a name or parameters that cannot be.
    """

    name: str
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.name not in _KNOWN:
            raise ValueError(f"there is no distribution {self.name!r}; allowed are {', '.join(_KNOWN)}")
        if len(self.parameters) != len(_KNOWN[self.name]):
            parameters = ", ".join(_KNOWN[self.name])
            raise ValueError(f"distribution {self} has {len(self.parameters)} numbers; {self.name} takes: {parameters}")
        self.draw(np.random.default_rng(0))

    @classmethod
    def of(cls, given: float | str | Distribution) -> Distribution:
        """Read a number, a text, or return the distribution that is given."""
        if isinstance(given, Distribution):
            return given
        name, colon, numbers = str(given).partition(":")
        if not colon:
            name, numbers = "constant", name
        return cls(name, _numbers(numbers, f"distribution {given!r}"))

    def __str__(self) -> str:
        values = ",".join(f"{value:g}" for value in self.parameters)
        return values if self.name == "constant" else f"{self.name}:{values}"

    def draw(self, generator: np.random.Generator) -> float:
        """Return one time. Raises `ValueError` where it is below 0 or infinite, or the parameters are not the method's."""
        method: Callable[..., float] = _constant if self.name == "constant" else getattr(generator, self.name)
        try:
            time = float(method(*self.parameters))
        except ValueError as error:
            raise ValueError(f"distribution {self}: {error}") from None
        if not 0 <= time < math.inf:
            raise ValueError(f"distribution {self} gave {time}; allowed are finite times from 0")
        return time


def _constant(time: float) -> float:
    return time


def _numbers(text: str, context: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{context} holds {text!r}; allowed are numbers with commas between them") from None


class _Read:
    """What a text of numbers with commas between them can say."""

    @classmethod
    def of(cls, given: Any) -> Any:
        """Read "a,b,..." in the order of the fields, or return what is given."""
        if not isinstance(given, str):
            return given
        numbers = _numbers(given, cls.__name__.lower())
        try:
            return cls(*numbers)
        except TypeError:
            names = ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]  # each is a dataclass
            raise ValueError(f"{cls.__name__.lower()} is {given!r}; allowed are numbers for {names}") from None

    def _above_zero(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                self._refuse(name, "a finite number above 0")

    def _refuse(self, name: str, allowed: str) -> NoReturn:
        raise ValueError(f"{type(self).__name__.lower()}: {name} is {getattr(self, name)}; allowed is {allowed}")


@dataclass(frozen=True)
class Stragglers(_Read):
    """A `share` of the replicas, rounded, computes `factor` times as long as the others; which ones, the seed decides."""

    share: float
    factor: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            self._refuse("share", "a number from 0 to 1")
        self._above_zero("factor")


@dataclass(frozen=True)
class Bursts(_Read):
    """Now and then all that a replica does takes `factor` times as long, as where others use its machine or its network.

    Between two bursts, and within one, are exponential times of means `between` and `length`, in seconds, of each replica
    by itself. What begins in a burst is as slow to its end.
    """

    between: float
    length: float
    factor: float

    def __post_init__(self) -> None:
        self._above_zero("between", "length", "factor")


@dataclass(frozen=True)
class Failures(_Read):
    """Each replica dies after an exponential time of mean `life`, and is back after one of mean `absence`, in seconds.

    With an infinite `absence` none comes back.
    """

    life: float
    absence: float = math.inf

    def __post_init__(self) -> None:
        self._above_zero("life")
        if not self.absence > 0:
            self._refuse("absence", "a number above 0, or infinity")


@dataclass(frozen=True)
class Conditions:
    """All that decides when things happen in a simulated cluster.

    `compute` is the time of one gradient, `push` that of a message from a replica to a shard, `fetch` that of the
    parameters back from it. `Conditions.of` reads all of them from numbers and text. Raises `TypeError` for what is of
    another type.
    """

    compute: Distribution = Distribution("constant", (1.0,))
    push: Distribution = Distribution("constant", (0.0,))
    fetch: Distribution = Distribution("constant", (0.0,))
    stragglers: Stragglers | None = None
    bursts: Bursts | None = None
    failures: Failures | None = None

    def __post_init__(self) -> None:
        kinds = {"compute": Distribution, "push": Distribution, "fetch": Distribution}
        more = {"stragglers": Stragglers, "bursts": Bursts, "failures": Failures}
        for name, kind in (kinds | more).items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (name in more and value is None):
                raise TypeError(
                    f"{name} is {value!r}; allowed is a {kind.__name__}: Conditions.of reads text and numbers"
                )

    @classmethod
    def of(
        cls,
        compute: float | str | Distribution = 1.0,
        push: float | str | Distribution = 0.0,
        fetch: float | str | Distribution = 0.0,
        stragglers: str | Stragglers | None = None,
        bursts: str | Bursts | None = None,
        failures: str | Failures | None = None,
    ) -> Conditions:
        """Read each: `compute`, `push` and `fetch` as `Distribution.of` does, the others from numbers with commas.

        Raises `ValueError` for what cannot be.
        """
        return cls(
            Distribution.of(compute),
            Distribution.of(push),
            Distribution.of(fetch),
            Stragglers.of(stragglers),
            Bursts.of(bursts),
            Failures.of(failures),
        )

    def __str__(self) -> str:
        said = [f"compute {self.compute}", f"push {self.push}", f"fetch {self.fetch}"]
        for name in ("stragglers", "bursts", "failures"):
            each = getattr(self, name)
            if each is not None:
                said.append(f"{name} {','.join(f'{getattr(each, field.name):g}' for field in fields(each))}")
        return ", ".join(said)

    def paces(self, replicas: int, seed: int) -> Sequence[Pace]:
        """Return the pace of each replica, from random numbers of its own that nothing else decides."""
        slow: set[int] = set()
        if self.stragglers is not None:
            number = round(self.stragglers.share * replicas)
            slow = set(np.random.default_rng((seed, replicas)).permutation(replicas)[:number].tolist())
        return [Pace(self, np.random.default_rng((seed, replica, 0)), replica in slow) for replica in range(replicas)]


class Pace:
    """Draws the times of one replica; `time` is now, which never goes back."""

    def __init__(self, conditions: Conditions, generator: np.random.Generator, slow: bool) -> None:
        self._conditions, self._generator = conditions, generator
        self.factor: Final = conditions.stragglers.factor if conditions.stragglers is not None and slow else 1.0
        self._burst = (math.inf, math.inf) if conditions.bursts is None else self._next_burst(0.0)

    def compute(self, time: float) -> float:
        """Return how long a gradient takes that begins at `time`."""
        return self.factor * self._slowed(time) * self._conditions.compute.draw(self._generator)

    def push(self, time: float) -> float:
        """Return how long a message to a shard takes."""
        return self._slowed(time) * self._conditions.push.draw(self._generator)

    def fetch(self, time: float) -> float:
        """Return how long a shard's parameters take."""
        return self._slowed(time) * self._conditions.fetch.draw(self._generator)

    def life(self) -> float:
        """Return how long the replica lives, infinity where none dies."""
        failures = self._conditions.failures
        return math.inf if failures is None else self._generator.exponential(failures.life)

    def absence(self) -> float:
        """Return how long it is dead."""
        failures = self._conditions.failures
        absent = math.inf if failures is None else failures.absence
        return absent if math.isinf(absent) else self._generator.exponential(absent)

    def _slowed(self, time: float) -> float:
        bursts = self._conditions.bursts
        if bursts is None:
            return 1.0
        while time >= self._burst[1]:
            self._burst = self._next_burst(self._burst[1])
        return bursts.factor if time >= self._burst[0] else 1.0

    def _next_burst(self, after: float) -> tuple[float, float]:
        bursts = self._conditions.bursts
        assert bursts is not None
        begin = after + self._generator.exponential(bursts.between)
        return begin, begin + self._generator.exponential(bursts.length)
