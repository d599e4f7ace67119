"""The protocol and the paper's figures, read from `protocol.toml` and `expected.toml`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..results import Setting
from .experiments import Aims, Cell, Experiment, Printed, Run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Claim", "claims", "experiments", "read"]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, in our words, and what decides it.

    `section` is where the paper says it, `needs` names the parts whose runs decide it, and `limit` is the number that stands
    for a word of the paper's, None where there is none.
    """

    name: str
    section: str
    says: str
    needs: tuple[str, ...]
    limit: float | None = None


@cache
def read(name: str) -> Mapping[str, Any]:
    """Return the contents of `name`, a TOML file of this folder."""
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def experiments() -> dict[str, Experiment]:
    """Return the parts that are made of comparisons, by name."""
    printed = read("expected.toml")["parts"]
    return {
        name: Experiment(
            name,
            told["title"],
            told["shown"],
            tuple(Run(run["problem"], run["epochs"], _grids(run["grids"])) for run in told["runs"]),
            _printed(printed.get(name, {})),
        )
        for name, told in read("protocol.toml")["parts"].items()
    }


def claims() -> tuple[Claim, ...]:
    """Return what the paper says, in its order."""
    return tuple(Claim(**told | {"needs": tuple(told["needs"])}) for told in read("expected.toml")["claims"])


def _grids(told: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, tuple[float, ...]]]:
    return {rule: {name: tuple(values) for name, values in grid.items()} for rule, grid in told.items()}


def _printed(told: Mapping[str, Any]) -> Printed:
    ((down, values),) = told.get("down", {"": (None,)}).items()
    return Printed(tuple(_cells(told, down, values)), down, Aims(**told.get("aims", {})))


def _cells(told: Mapping[str, Any], down: str, values: list[float]) -> Iterator[Cell]:
    for column in told.get("columns", ()):
        for value, error in zip(values, column["errors"], strict=True):
            at = column.get("at", {}) | ({down: value} if down else {})
            yield Cell(Setting(column["rule"], at), error, column.get("run", 1))
