"""All parts of the paper that there are, and how they are run one after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from ..comparison import Progress
from ..places import Place
from . import protocol
from .figure2 import Figure2
from .parts import Options, Part, Result

__all__ = ["check", "parts", "planned_seeds", "reproduce"]


@cache
def parts() -> Mapping[str, Part]:
    """Return what can be run, by name. A part that is not made of comparisons is added here."""
    return {**protocol.experiments(), Figure2.name: Figure2()}


def planned_seeds() -> int:
    """Return how many seeds the protocol has."""
    return int(protocol.read("protocol.toml")["seeds"])


def check(chosen: Sequence[str], apart: Iterable[str] = ()) -> None:
    """Raise `ValueError` for a part that there is none; those `apart` are allowed too."""
    for name in chosen:
        if name not in parts():
            raise ValueError(f"there is no part {name!r} of the paper; allowed are {', '.join([*parts(), *apart])}")


def reproduce(
    chosen: Sequence[str] = (),
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    on: str | Place = "processes",
    out: str | Path = "zeiler2012",
    fresh: bool = False,
    train: bool = True,
    progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Run the `chosen` parts again, all unless given, and return what was measured, in their order.

    Each comparison is a `steprule.lab.compare` in a folder of `out`, and its trials run `on` what that function takes; what
    is finished there is kept, unless `fresh`. `seeds` and `epochs` are the protocol's unless given. Where `train` is false,
    nothing is trained, and what `out` has is returned.

    Raises `ValueError` for a part that there is none, and as `compare` does.
    """
    check(chosen)
    options = Options(planned_seeds() if seeds is None else seeds, epochs, on, Path(out), fresh, train)
    return tuple(parts()[name].run(options, progress) for name in chosen or parts())
