"""Comparisons as JSON, small enough to be committed: what each seed ended on, or its whole course, and how it was run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import Comparison, Epoch, Metric, Outcome, Run, Setting, Trial

__all__ = ["as_json", "comparison", "epoch", "epoch_as_json", "machine", "nested", "rounded", "text"]


def as_json(made: Comparison, *, whole: bool) -> dict[str, Any]:
    """Return a comparison as what JSON can hold: of each trial every epoch where `whole`, else the last.

    An epoch is its number, loss, test metric and seconds; a number that is not finite is None. Trials that have not ended
    are left out, and of failed ones the cause, which may name files of the machine.
    """
    return {
        "problem": made.problem,
        "description": made.description,
        "metric": asdict(made.metric),
        "epochs": made.epochs,
        "seeds": made.seeds,
        "grids": {rule: {name: list(values) for name, values in grid.items()} for rule, grid in made.grids.items()},
        "machine": machine(made.run.machine),
        "versions": dict(made.run.versions),
        "started": made.run.started,
        "trials": [_trial(each, whole=whole) for each in made.outcomes if each.status != "unfinished"],
    }


def _trial(outcome: Outcome, *, whole: bool) -> dict[str, Any]:
    setting = outcome.trial.setting
    epochs = outcome.epochs if whole else outcome.epochs[-1:]
    return {
        "rule": setting.rule,
        "at": dict(setting.hyperparameters),
        "seed": outcome.trial.seed,
        "status": outcome.status,
        "epochs": list(map(epoch_as_json, epochs)),
    }


def machine(facts: Mapping[str, str]) -> dict[str, str]:
    """Return what is committed of the machine: not its system's name, which has the build of a kernel in it."""
    return {name: value for name, value in facts.items() if name != "system"}


def epoch_as_json(epoch: Epoch) -> list[Any]:
    """Return what `epoch` takes."""
    return [epoch.number, _finite(epoch.loss), _finite(epoch.test), round(epoch.seconds, 2)]


def _finite(value: float) -> float | None:
    return rounded(value) if math.isfinite(value) else None


def rounded(value: float) -> float:
    """Return a number to the six significant digits that the file keeps."""
    return float(f"{value:.6g}")


def nested(values: NDArray[np.float64]) -> Any:
    """Return an array as lists of lists, each number as `rounded` has it."""
    return np.vectorize(rounded, otypes=[float])(values).tolist()


def comparison(told: Mapping[str, Any]) -> Comparison:
    """Return the comparison that `as_json` has told; trials that it leaves out are unfinished, and its duration is 0."""
    outcomes = tuple(
        Outcome(
            Trial(Setting(each["rule"], each["at"]), each["seed"]), each["status"], tuple(map(epoch, each["epochs"]))
        )
        for each in told["trials"]
    )
    run = Run(told["command"], told["started"], 0.0, told["machine"], told["versions"])
    grids = {rule: {name: tuple(values) for name, values in grid.items()} for rule, grid in told["grids"].items()}
    return Comparison(
        told["problem"],
        told["description"],
        Metric(**told["metric"]),
        told["epochs"],
        told["seeds"],
        grids,
        outcomes,
        run,
    )


def epoch(told: Sequence[Any]) -> Epoch:
    """Return the epoch that `epoch_as_json` has told; without a number that is finite, it is NaN."""
    number, loss, test, seconds = told
    loss, test = (math.nan if value is None else value for value in (loss, test))
    return Epoch(number, loss, test, None, seconds)


def text(value: Any, levels: int, indent: str = "") -> str:
    """Return JSON in which only the outer `levels` of lists and objects have a line for each item."""
    if levels == 0 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{deeper}{json.dumps(key)}: {text(each, levels - 1, deeper)}" for key, each in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    items = [f"{deeper}{text(each, levels - 1, deeper)}" for each in value]
    return "[\n" + ",\n".join(items) + f"\n{indent}]"
