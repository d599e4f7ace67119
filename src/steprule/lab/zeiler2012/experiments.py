"""The paper's experiments as data, how they are run, and what came out beside the paper's figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..comparison import Progress, compare
from ..places import Place
from ..results import Comparison, Setting
from ..summary import SettingSummary, summarise

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Cell", "Part", "Reproduced", "Row", "Run", "check", "parts", "reproduce"]


@dataclass(frozen=True)
class Cell:
    """The test error, in %, that the paper reports for a setting."""

    setting: Setting
    error: float


@dataclass(frozen=True)
class Run:
    """One problem with the rules and grids that are tried on it, and the paper's figures."""

    problem: str
    epochs: int
    grids: Mapping[str, Mapping[str, tuple[float, ...]]]
    cells: tuple[Cell, ...]

    def expected(self, setting: Setting) -> float | None:
        """Return the paper's figure for `setting`, None where it has none."""
        return next((cell.error for cell in self.cells if cell.setting == setting), None)


@dataclass(frozen=True)
class Part:
    """A table, figure or sentence of the paper."""

    name: str
    title: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Row:
    """One setting beside the paper's figure; `measured` has its seeds."""

    part: str
    problem: str
    measured: SettingSummary
    expected: float | None


@dataclass(frozen=True)
class Reproduced:
    """A part that was run again: its comparisons, in the order of its runs."""

    part: Part
    comparisons: tuple[Comparison, ...]

    def rows(self) -> Iterator[Row]:
        """Yield every setting that was tried."""
        for run, comparison in zip(self.part.runs, self.comparisons, strict=True):
            for rule in summarise(comparison).rules:
                for each in rule.settings:
                    yield Row(self.part.name, comparison.problem, each, run.expected(each.setting))


@cache
def parts() -> Mapping[str, Part]:
    """Return what can be run, by name: the contents of `expected.toml`."""
    text = resources.files(__package__).joinpath("expected.toml").read_text(encoding="utf-8")
    return {name: _part(name, read) for name, read in tomllib.loads(text)["parts"].items()}


def check(chosen: Sequence[str]) -> None:
    """Raise `ValueError` for a part that there is none."""
    for name in chosen:
        if name not in parts():
            raise ValueError(f"there is no part {name!r} of the paper; allowed are {', '.join(parts())}")


def _part(name: str, read: Mapping[str, Any]) -> Part:
    return Part(name, read["title"], tuple(map(_run, read["runs"])))


def _run(read: Mapping[str, Any]) -> Run:
    cells = tuple(Cell(Setting(cell["rule"], cell["at"]), cell["error"]) for cell in read["cells"])
    grids = {rule: _grid(rule, cells) for rule in read["rules"]} | {
        rule: {name: tuple(values) for name, values in grid.items()} for rule, grid in read.get("grid", {}).items()
    }
    return Run(read["problem"], read["epochs"], grids, cells)


def _grid(rule: str, cells: Sequence[Cell]) -> dict[str, tuple[float, ...]]:
    """Return the values that the paper's cells of a rule have, each once."""
    found: dict[str, dict[float, None]] = {}
    for cell in cells:
        if cell.setting.rule == rule:
            for name, value in cell.setting.hyperparameters.items():
                found.setdefault(name, {})[value] = None
    return {name: tuple(values) for name, values in found.items()}


def reproduce(
    chosen: Sequence[str] = (),
    *,
    seeds: int = 5,
    epochs: int | None = None,
    jobs: int | None = None,
    on: str | Place = "processes",
    out: str | Path = "zeiler2012",
    fresh: bool = False,
    progress: Progress | None = None,
) -> tuple[Reproduced, ...]:
    """Run the `chosen` parts again, all unless given, and return what was measured beside the paper's figures.

    Each run is a `steprule.lab.compare` in a folder of `out`: what is finished there is kept, unless `fresh`. `epochs` is
    the paper's own number unless given; `jobs` and `on` are those of `compare`. Raises `ValueError` for a part that there is
    none, and as `compare` does.
    """
    known = parts()
    check(chosen)
    return tuple(
        Reproduced(
            part,
            tuple(
                compare(
                    run.problem,
                    rules=list(run.grids),
                    epochs=epochs or run.epochs,
                    seeds=seeds,
                    grid=run.grids,
                    jobs=jobs,
                    on=on,
                    out=Path(out) / part.name / str(number),
                    fresh=fresh,
                    progress=progress,
                )
                for number, run in enumerate(part.runs, 1)
            ),
        )
        for part in (known[name] for name in chosen or known)
    )
