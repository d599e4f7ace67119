"""What a reproduction is made of, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..results import Run
from .protocol import Plan, Trace

__all__ = ["Missing", "Reproduction", "Stopped", "Training"]


@dataclass(frozen=True)
class Training:
    """One plan with one seed."""

    plan: Plan
    seed: int
    trace: Trace


@dataclass(frozen=True)
class Missing:
    """An engine that is absent, failed or was stopped, why, and the command that installs what is absent; else empty."""

    engine: str
    cause: str
    command: str


@dataclass(frozen=True)
class Reproduction:
    """All trainings, plan by plan and in the order of the seeds. `versions` are by engine, then by package."""

    plans: tuple[Plan, ...]
    seeds: int
    trainings: tuple[Training, ...]
    missing: tuple[Missing, ...]
    versions: Mapping[str, Mapping[str, str]]
    run: Run

    def of(self, plan: Plan) -> tuple[Trace, ...]:
        """Return the traces of a plan, seed after seed."""
        return tuple(training.trace for training in self.trainings if training.plan == plan)

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold; each plan has its traces."""
        plans = [
            dataclasses.asdict(plan) | {"traces": [dataclasses.asdict(trace) for trace in self.of(plan)]}
            for plan in self.plans
        ]
        return {
            "experiment": "Dive into Deep Learning, 12.9",
            "seeds": self.seeds,
            "plans": plans,
            "missing": [dataclasses.asdict(each) for each in self.missing],
            "versions": {engine: dict(packages) for engine, packages in self.versions.items()},
            "run": dataclasses.asdict(self.run),
        }


class Stopped(KeyboardInterrupt):
    """A reproduction was interrupted: `reproduction` has what was finished, of each plan all seeds or none."""

    def __init__(self, reproduction: Reproduction) -> None:
        super().__init__()
        self.reproduction = reproduction
