"""What every part of the paper offers, whatever it is made of: how it is run, what it takes, and how its results are kept.

A part is a table, a figure or a sentence of the paper. A new one is an object with these attributes and methods, in
`reproduction.parts`, and a section for its results, in `steprule.report.zeiler2012.sections`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..comparison import Progress
from ..places import Place
from ..results import Setting

__all__ = ["Options", "Part", "Result", "Work"]


@dataclass(frozen=True)
class Options:
    """How parts are run; see `steprule.lab.compare` for `on` and `fresh`.

    Results are in a folder of `out` for each part. `epochs` is the paper's own number unless given. Where `train` is false,
    nothing is trained: what is finished in `out` is read, and the rest is unfinished.
    """

    seeds: int
    epochs: int | None = None
    on: str | Place = "processes"
    out: Path = Path("zeiler2012")
    fresh: bool = False
    train: bool = True


@dataclass(frozen=True)
class Work:
    """Epochs that a part has still to train: so many, on this problem, with this setting."""

    problem: str
    setting: Setting
    epochs: int


class Result(Protocol):
    """What came out of a part."""

    @property
    def part(self) -> Part: ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is there."""

    @property
    def missing(self) -> str:
        """What is not there of it, in a few words; empty where it is whole."""

    def as_json(self) -> Any:
        """Return all that the page shows of it as what JSON can hold; `Part.read` is the way back."""


class Part(Protocol):
    """A table, a figure or a sentence of the paper, by its `name` on the command line."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def work(self, options: Options) -> Iterable[Work]:
        """Return what `run` would train, without training it."""

    def run(self, options: Options, progress: Progress | None = None) -> Result:
        """Run the part again. What is finished in `options.out` is kept."""

    def read(self, told: Any) -> Result:
        """Return the result whose `as_json` is `told`."""
