"""What a comparison is made of, as plain data: trials, their epochs, and how the whole was run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["finished", "diverged", "failed", "unfinished"]

__all__ = ["Comparison", "Epoch", "Metric", "Outcome", "Run", "Setting", "Status", "Trial"]


@dataclass(frozen=True)
class Setting:
    """One rule with values for the hyperparameters that the grid varies, such as `adadelta` with `rho` 0.95."""

    rule: str
    hyperparameters: Mapping[str, float]

    def __hash__(self) -> int:
        return hash((self.rule, *sorted(self.hyperparameters.items())))

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value:g}" for name, value in self.hyperparameters.items())
        return f"{self.rule}({values})"


@dataclass(frozen=True)
class Trial:
    """One training run: a setting, and the seed of its initial weights and of its order of the data."""

    setting: Setting
    seed: int


@dataclass(frozen=True)
class Epoch:
    """What was measured at the end of one pass over the training data; `number` counts from 1.

    `loss` is the mean over the epoch's mini-batches; `validation` is None where the problem holds nothing out;
    `seconds` is the wall time of the training pass alone, without the evaluation.
    """

    number: int
    loss: float
    test: float
    validation: float | None
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether the loss is NaN or infinite, with which a trial ends."""
        return not math.isfinite(self.loss)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. A diverged trial's last epoch has diverged; `cause` says why one failed."""

    trial: Trial
    status: Status
    epochs: tuple[Epoch, ...]
    cause: str = ""

    @property
    def has_result(self) -> bool:
        """Whether it finished or diverged; a trial that failed is run again, as one that has not ended."""
        return self.status in ("finished", "diverged")


@dataclass(frozen=True)
class Metric:
    """What is measured on held-out data: its name, its unit ("%" or ""), and whether less of it is better."""

    name: str
    unit: str = ""
    lower_is_better: bool = True


@dataclass(frozen=True)
class Run:
    """How the numbers were made, for the reader who wants to make them again.

    `taken_over` trials had been finished by earlier commands; `seconds` is the time of the last one alone.
    """

    command: str
    started: str
    seconds: float
    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    taken_over: int = 0


@dataclass(frozen=True)
class Comparison:
    """All outcomes of one problem. `grids` lists, rule by rule, the values that were tried of each hyperparameter."""

    problem: str
    description: str
    metric: Metric
    epochs: int
    seeds: int
    grids: Mapping[str, Mapping[str, tuple[float, ...]]]
    outcomes: tuple[Outcome, ...]
    run: Run
