"""The experiment, run: every plan of the book in every engine that is here, with several seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Protocol

from ...counts import check_count
from .. import data, machine, workers
from ..results import Run
from . import processes
from .protocol import Examples, Plan, Trace
from .results import Missing, Reproduction, Stopped, Training

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENGINES", "Progress", "expected", "reproduce"]

_PACKAGES: Final[Mapping[str, str]] = {
    "numpy": "steprule",
    "torch": "'steprule[torch]'",
    "mxnet": "'steprule[mxnet]'",
    "tensorflow": "'steprule[keras]' tensorflow-cpu",
    "jax": "'steprule[jax]'",
}

ENGINES: Final = tuple(_PACKAGES)


class Progress(Protocol):
    """What is told of a reproduction while it runs."""

    def begin(self, trainings: int) -> None: ...

    def started(self, engine: str) -> None: ...

    def trained(self, training: Training) -> None: ...

    def missed(self, missing: Missing) -> None: ...


def expected() -> tuple[Plan, ...]:
    """Return the book's plans with its figures, from `expected.toml`."""
    text = (Path(__file__).parent / "expected.toml").read_text(encoding="utf-8")
    return tuple(Plan(**plan) for plan in tomllib.loads(text)["plans"])


def reproduce(
    engines: Sequence[str] = ENGINES,
    *,
    seeds: int = 5,
    epochs: int | None = None,
    pythons: Mapping[str, str | Path] | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Train the airfoil regression as the book does, in each of `engines`, and return what was measured.

    Seeds are 0 to `seeds - 1`; `epochs` is the book's number for each plan unless given: after another the book has no
    loss. An engine runs in a process of its own, one after another, in one thread and on the CPU; `pythons` names the
    interpreter of an engine, by default `.venv-ENGINE/bin/python` where that is in the working folder, else this one. What
    is not installed, or fails, is told in `missing`; of each plan there are all seeds or none.

    Raises `ValueError` for arguments that cannot be, and `steprule.lab.data.DataError` where the data set cannot be had. A
    `KeyboardInterrupt` while engines run comes out as a `Stopped`, which has what is finished.
    """
    workers.refuse_nested()
    given = {engine: Path(python) for engine, python in (pythons or {}).items()}
    _check(engines, seeds, epochs, given)
    began, clock = datetime.now(timezone.utc), time.monotonic()
    plans = tuple(
        plan if epochs in (None, plan.epochs) else dataclasses.replace(plan, epochs=epochs, loss=None)
        for engine in engines
        for plan in expected()
        if plan.engine == engine
    )
    examples = Examples.of(data.airfoil())
    job = {"features": examples.features.tolist(), "labels": examples.labels.tolist(), "seeds": seeds}
    found = _Found(progress)

    def made() -> Reproduction:
        facts = machine.facts() | {"threads": f"{processes.THREADS}, one engine after another"}
        run = Run(machine.command(), began.isoformat(timespec="seconds"), time.monotonic() - clock, facts)
        return Reproduction(plans, seeds, found.whole(seeds), tuple(found.missing), found.versions, run)

    if progress:
        progress.begin(len(plans) * seeds)
    for number, engine in enumerate(engines):
        own = [plan for plan in plans if plan.engine == engine]
        told = [dataclasses.asdict(plan) for plan in own]
        try:
            found.run(engine, given.get(engine) or processes.interpreter(engine), own, job | {"plans": told})
        except KeyboardInterrupt:
            found.stop(engines[number:])
            raise Stopped(made()) from None
    return made()


class _Found:
    """What the engines have told so far."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.trainings: list[Training] = []
        self.missing: list[Missing] = []
        self.versions: dict[str, dict[str, str]] = {}

    def run(self, engine: str, python: Path, plans: Sequence[Plan], job: Mapping[str, Any]) -> None:
        if self._progress:
            self._progress.started(engine)
        try:
            with contextlib.closing(processes.run(engine, python, job)) as messages:
                for message in messages:
                    self._take(engine, python, plans, message)
        except RuntimeError as failure:
            self._miss(Missing(engine, str(failure), ""))

    def stop(self, engines: Sequence[str]) -> None:
        """Leave these engines as they are."""
        self.missing += [Missing(engine, "stopped before it had ended", "") for engine in engines]

    def whole(self, seeds: int) -> tuple[Training, ...]:
        """Return the trainings of each plan that has all seeds: an engine that fails or is stopped may leave fewer."""
        plans = [training.plan for training in self.trainings]
        return tuple(training for training in self.trainings if plans.count(training.plan) == seeds)

    def _take(self, engine: str, python: Path, plans: Sequence[Plan], message: Mapping[str, Any]) -> None:
        if "absent" in message:
            self._miss(Missing(engine, f"{message['absent']} is not installed", _install(engine, python)))
        elif "versions" in message:
            self.versions[engine] = message["versions"]
        else:
            told = message["trace"]
            trace = Trace(tuple((seen, loss) for seen, loss in told["losses"]), told["seconds"], told["loading"])
            self.trainings.append(Training(plans[message["plan"]], message["seed"], trace))
            if self._progress:
                self._progress.trained(self.trainings[-1])

    def _miss(self, missing: Missing) -> None:
        self.missing.append(missing)
        if self._progress:
            self._progress.missed(missing)


def _install(engine: str, python: Path) -> str:
    """Return what installs an engine for its interpreter."""
    if python != Path(sys.executable):
        return f"{shlex.quote(str(python))} -m pip install {_PACKAGES[engine]}"
    if engine == "mxnet":
        # It has an environment of its own, in this folder; a checkout makes it by `make`.
        return f"python3.11 -m venv .venv-mxnet && .venv-mxnet/bin/pip install {_PACKAGES[engine]}"
    return f"pip install {_PACKAGES[engine]}"


def _check(engines: Sequence[str], seeds: int, epochs: int | None, pythons: Mapping[str, Path]) -> None:
    if isinstance(engines, str) or not engines:
        raise ValueError(f"engines is {engines!r}; allowed is a list of {', '.join(ENGINES)}")
    for engine in (*engines, *pythons):
        if engine not in ENGINES:
            raise ValueError(f"there is no engine {engine!r}; allowed are {', '.join(ENGINES)}")
    if len(set(engines)) < len(engines):
        raise ValueError(f"engines is {', '.join(engines)}; allowed is each engine once")
    for name, value in {"seeds": seeds, "epochs": 1 if epochs is None else epochs}.items():
        check_count(name, value)
    for engine, python in pythons.items():
        if engine not in engines:
            raise ValueError(
                f"the Python of {engine} is {python}; allowed are those of the engines {', '.join(engines)}"
            )
        if not python.is_file():
            raise ValueError(f"the Python of {engine} is {python}, and there is no such file")
        if not os.access(python, os.X_OK):
            raise ValueError(
                f"the Python of {engine} is {python}, a file that cannot be executed; allowed is one that can"
            )
