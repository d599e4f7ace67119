"""A problem that is trained by the replicas of a simulated cluster, wherever a problem is trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from ...cluster import Conditions, Simulation
from ...counts import check_count
from ...specification import Rule
from ..problem import Problem, refuse_trainer
from ..results import Epoch

__all__ = ["CONDITIONS", "on_replicas"]

CONDITIONS: Final = Conditions.of(compute="gamma:10,0.1", push="exponential:0.05", fetch="exponential:0.05")
"""A gradient takes a second, give or take a third; a message takes a twentieth of one, sometimes much longer."""


def on_replicas(make: Callable[[], Problem], replicas: int) -> Callable[[], Problem]:
    """Return a function that makes the same problem, with `replicas` simulated ones to train it under `CONDITIONS`.

    An epoch has as many pushes as plain training has batches. Raises `ValueError` for fewer than 1.
    """
    check_count("replicas", replicas)

    @functools.wraps(make)
    def made() -> Problem:
        problem = make()
        refuse_trainer(problem, "a simulated cluster")
        return replace(
            problem,
            name=f"{problem.name}@{replicas}",
            description=f"{problem.description}; trained by {replicas} simulated replica{'s' * (replicas > 1)} "
            f"({CONDITIONS}; seconds)",
            trainer=functools.partial(_train, replicas),
        )

    return made


def _train(
    replicas: int, problem: Problem, rule: Rule, hyperparameters: Mapping[str, float], seed: int, epochs: int
) -> Iterator[Epoch]:
    simulation = Simulation(
        replace(problem, epochs=epochs), rule, hyperparameters, replicas=replicas, seed=seed, conditions=CONDITIONS
    )
    started = time.perf_counter()
    for number, each in enumerate(simulation.run(), 1):
        seconds = time.perf_counter() - simulation.measuring - started
        yield Epoch(number, each.loss, each.test, each.validation, seconds)
        started = time.perf_counter() - simulation.measuring
