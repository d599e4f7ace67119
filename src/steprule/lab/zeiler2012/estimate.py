"""How long parts of the paper will take on this machine, measured before anything starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .. import workers
from ..grids import find_rule
from ..problem import Problem, find_problem
from ..training import train
from .parts import Work

__all__ = ["Estimate", "estimate"]

_BATCHES = 20
_LEAST_EXAMPLES = 200  # twenty batches of one example are over too soon to be timed


@dataclass(frozen=True)
class Estimate:
    """`epochs` to train in `trials`, and the seconds that they will take."""

    trials: int
    epochs: int
    seconds: float


def estimate(works: Sequence[Work], jobs: int) -> Estimate:
    """Estimate how long `works` take in `jobs` processes.

    An epoch of each rule on each problem is taken to last as long as 20 of its mini-batches and their share of the
    evaluation do here, measured once, in as many threads as a process will have.
    """
    problems = {name: find_problem(name)() for name in dict.fromkeys(work.problem for work in works)}
    seconds: dict[tuple[str, str], float] = {}
    for work in works:
        kind = work.problem, work.setting.rule
        if kind not in seconds:
            seconds[kind] = _epoch(problems[work.problem], work, workers.share_threads(jobs))
    total = sum(work.epochs * seconds[work.problem, work.setting.rule] for work in works)
    # Fewer trials than processes leave some of these idle.
    return Estimate(len(works), sum(work.epochs for work in works), total / max(1, min(jobs, len(works))))


def _epoch(problem: Problem, work: Work, threads: int) -> float:
    """Return the seconds of an epoch: those of the second pass over a part of the data, times what the whole has more."""
    examples = min(max(_BATCHES * problem.batch_size, _LEAST_EXAMPLES), len(problem.train[0]))
    share = examples / len(problem.train[0])
    tested = max(1, round(share * len(problem.test[0])))
    part = replace(
        problem,
        train=(problem.train[0][:examples], problem.train[1][:examples]),
        test=(problem.test[0][:tested], problem.test[1][:tested]),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        passes = train(part, find_rule(work.setting.rule), work.setting.hyperparameters, seed=0, epochs=2)
        next(passes)  # compiles, and touches memory for the first time
        began = time.perf_counter()
        for _ in passes:
            pass
        return (time.perf_counter() - began) / share
    finally:
        torch.set_num_threads(before)
