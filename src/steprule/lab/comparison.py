"""The comparison of rules on one problem: every setting of every rule, with several seeds."""

from __future__ import annotations

import contextlib
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import __version__, named
from .. import rules as builtin
from ..counts import check_count
from ..folders import held, made_folder
from ..program import lower
from ..specification import Rule
from ..torch import optimizer
from . import machine, places, workers
from .grids import RATES, find_rule, grids, settings
from .places import Place, whole_or_none
from .problem import Problem, find_problem
from .results import Comparison, Epoch, Outcome, Run, Trial
from .store import Key, NoStoreError, Store

__all__ = ["RULES", "Progress", "compare", "versions"]

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop_nesterov", "adadelta", "adam")
"""The rules that are compared unless others are asked for."""

_PACKAGES = ("numpy", "numba", "torch", "scikit-learn")


class Progress(Protocol):
    """What is told of a comparison while it runs; each method is called in the caller's thread."""

    def begin(self, problem: Problem, trials: int, epochs: int, kept: int, jobs: int) -> None:
        """`trials` of `epochs` each will be run in `jobs` processes; `kept` more were found finished."""

    def started(self, trial: Trial) -> None: ...

    def measured(self, trial: Trial, epoch: Epoch) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


def compare(
    problem: str | Callable[[], Problem] = "digits",
    *,
    rules: Sequence[str | Rule] = RULES,
    epochs: int | None = None,
    seeds: int = 5,
    rates: Sequence[float] = RATES,
    grid: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    jobs: int | None = None,
    on: str | Place = "processes",
    out: str | Path = "compare",
    fresh: bool = False,
    train: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Train the model of `problem` by each of `rules` with every setting and seed, and return what was measured.

    `problem` is a built-in one (`steprule.lab.problem.BUILT_IN`) or a function that returns a `Problem`, itself or its
    name; `rules` likewise. `rates` are tried with each rule that has a rate of its own, and `grid[rule][hyperparameter]`
    replaces a rule's grid. `epochs` is the problem's own number unless given; seeds are 0 to `seeds - 1`. Trials run in
    `jobs` processes, which share the cores; as many as there are cores unless given. `on` is "processes" of this machine,
    "ray", or a `steprule.lab.places.Place`, which knows its own number of jobs and is left open.

    Each finished epoch is kept in `out/results.sqlite`. What is there from an earlier call is not run again, unless
    `fresh`; an interrupted trial starts anew; the numbers are those of an uninterrupted call. Trials that failed are
    tried again. Where `train` is false, nothing is trained or dropped: what is there is returned, and the rest is
    unfinished.

    Raises `ValueError` or `TypeError` for arguments that cannot be, `steprule.lab.data.DataError` for missing data, and
    `RuntimeError` where the problem cannot be made in a worker.
    """
    workers.refuse_nested()
    started, clock = datetime.now(timezone.utc), time.monotonic()
    if (
        not isinstance(rules, Sequence)
        or isinstance(rules, str)
        or not all(isinstance(rule, (str, Rule)) for rule in rules)
    ):
        raise TypeError(f"rules is {rules!r}; allowed is a list of rules and names of rules")
    if not isinstance(problem, str) and not callable(problem):
        # By its type, since a Problem's own words would be its data.
        raise TypeError(
            f"problem is of type {type(problem).__name__}; allowed is a name, or a function that returns a Problem, uncalled"
        )
    make = find_problem(problem) if isinstance(problem, str) else problem
    made = make()
    if not isinstance(made, Problem):
        raise TypeError(f"{problem} returned a {type(made).__name__}; allowed is a steprule.lab.Problem")
    chosen = [find_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    epochs = made.epochs if epochs is None else epochs
    for name, value in {"rules": len(chosen), "epochs": epochs, "seeds": seeds}.items():
        check_count(name, value)
    whole_or_none("jobs", jobs)
    for rule in chosen:
        optimizer(rule), lower(rule)  # what no trial can use is told before any starts
    if builtin.delta_bar_delta in chosen and made.batch_size < len(made.train[0]):
        warnings.warn(
            f"delta_bar_delta needs the gradient of the full batch, and {made.name} has mini-batches of {made.batch_size}, "
            "whose noise makes its rates shrink",
            UserWarning,
            stacklevel=2,
        )
    tried = grids(chosen, rates, grid)
    with _place(on, jobs) as place:
        place.refuse(made, chosen)
        deciding = f"{place.deciding} {made.data_digest()}"
        name = named.from_here(problem if isinstance(problem, str) else named.name_of(make))
        keys = _keys(name, make, chosen, tried, seeds, epochs, deciding)
        if train:
            with contextlib.closing(_store(Path(out), fresh=fresh)) as store:
                taken_over = _run(keys, store, made, epochs, place, progress)
                outcomes = tuple(store.outcome(key) for key in keys)
        else:
            outcomes = _kept(keys, Path(out))
            taken_over = sum(outcome.has_result for outcome in outcomes)
        facts = place.facts()
    began, seconds = started.isoformat(timespec="seconds"), time.monotonic() - clock
    run = Run(machine.command(), began, seconds, facts, versions(), taken_over)
    return Comparison(made.name, made.description, made.metric, epochs, seeds, tried, outcomes, run)


def _place(on: str | Place, jobs: int | None) -> contextlib.AbstractContextManager[Place]:
    if not isinstance(on, Place):
        return places.place(on, jobs=jobs)
    if jobs is not None:
        raise ValueError(f"jobs is {jobs} and on is a {type(on).__name__}, which has its own; allowed is one of them")
    return contextlib.nullcontext(on)


def _keys(
    problem: str,
    make: Callable[[], Problem],
    chosen: Sequence[Rule],
    tried: Mapping[str, Mapping[str, tuple[float, ...]]],
    seeds: int,
    epochs: int,
    deciding: str,
) -> list[Key]:
    """Return the trials, the first seed of every setting before the second of any."""
    rule_names, codes = {}, {}
    for rule in chosen:
        built_in = rule.function.__module__.startswith("steprule.rules.")
        rule_names[rule.name] = rule.name if built_in else named.from_here(named.name_of(rule))
        codes[rule.name] = named.digest(rule.function, rule_names[rule.name])
    # Matrix products are summed in another order by another version, and in another place.
    own = f"{__version__} {torch.__version__} {deciding} {named.digest(make, problem)}"
    return [
        Key(
            problem,
            rule_names[setting.rule],
            Trial(setting, seed),
            epochs,
            f"{own} {codes[setting.rule]}",
        )
        for seed in range(seeds)
        for setting in settings(tried)
    ]


def _store(out: Path, *, fresh: bool) -> Store:
    path = made_folder(out) / "results.sqlite"
    with held(out):  # else two that begin anew at once would each drop the file that the other writes to
        if fresh:
            with contextlib.suppress(NoStoreError):
                Store(path).close()  # raises where another process has it open, or where a new one could not be written
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        return Store(path)


def _kept(keys: Sequence[Key], out: Path) -> tuple[Outcome, ...]:
    path = out / "results.sqlite"
    if not path.is_file():
        return tuple(Outcome(key.trial, "unfinished", ()) for key in keys)
    with contextlib.closing(Store(path)) as store:
        return tuple(store.outcome(key) for key in keys)


def _run(
    keys: Sequence[Key], store: Store, problem: Problem, epochs: int, place: Place, progress: Progress | None
) -> int:
    """Run the trials that are not over; return how many were."""
    left = [key for key in keys if not store.outcome(key).has_result]
    taken_over = len(keys) - len(left)
    if progress:
        progress.begin(problem, len(left), epochs, taken_over, place.jobs)
    data = problem.data_sample()
    tasks = [
        workers.Task(number, key.rule, dict(key.trial.setting.hyperparameters), key.trial.seed, key.epochs, data)
        for number, key in enumerate(left)
    ]
    if not tasks:
        return taken_over
    for event in place.run(keys[0].problem, tasks):
        key = left[event.number]
        if isinstance(event, workers.Started):
            store.begin(key)
            if progress:
                progress.started(key.trial)
        elif isinstance(event, workers.Measured):
            store.add(key, event.epoch)
            if progress:
                progress.measured(key.trial, event.epoch)
        else:
            store.end(key, event.status, event.cause)
            if progress:
                progress.ended(store.outcome(key))
    return taken_over


def versions() -> dict[str, str]:
    """Return the versions of all that may decide a number."""
    found: dict[str, Any] = {"steprule": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"torch": str(torch.__version__)}
