"""What each part shows, whatever it is made of: the terminal prints it and the page lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...lab.spread import Spread
from ...lab.zeiler2012 import Reproduced, Result
from ...lab.zeiler2012.figure2 import Trainings
from .. import words as numbers
from ..drawing import Figure
from . import figure2, figures, grid, words
from .grid import Grid

__all__ = ["Section", "place", "section"]


@dataclass(frozen=True)
class Section:
    """A part as a reader sees it.

    `sentences` say what came out, `missing` what is not there. `grid` is printed in the terminal; on the page its figure
    stands for it where `draws_grid`. `links` are texts and addresses beside the page, `facts` terms with lines of text.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    missing: str = ""
    grid: Grid | None = None
    draws_grid: bool = False
    figures: tuple[Figure, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, list[str]], ...] = ()


def section(result: Result) -> Section:
    """Return what a part shows."""
    if isinstance(result, Reproduced):
        return _experiment(result)
    assert isinstance(result, Trainings)
    return _figure2(result)


def place(reproduced: Reproduced, number: int) -> Path:
    """Return where the results and the page of a comparison are, in the folder of the whole; numbers count from 1."""
    return Path(reproduced.part.name) / str(number)


def _experiment(result: Reproduced) -> Section:
    part, first, drawn = result.part, result.comparisons[0], None
    if part.shown == "curves":
        told, drawn = grid.curves(first), figures.curves(result)
    elif part.shown == "table":
        told = grid.table(result)
        drawn = figures.table(result, told)
    else:
        told = grid.lines(result)
    return Section(
        name=part.name,
        title=part.title,
        sentences=tuple(words.agreements(result)),
        missing=result.missing,
        grid=told,
        draws_grid=part.shown == "table",
        figures=(drawn,) if drawn else (),
        links=tuple(
            (comparison.description, (place(result, number) / "index.html").as_posix())
            for number, comparison in enumerate(result.comparisons, 1)
        ),
        facts=_told(first.seeds, first.epochs, first.run.command, first.run.versions, first.run.machine),
    )


def _figure2(result: Trainings) -> Section:
    part, settings, drawn = result.part, result.settings, figure2.courses(result)
    sentences: list[str] = []
    facts: tuple[tuple[str, list[str]], ...] = ()
    if result.courses:
        errors = [course.measured[-1].test for course in result.courses if not course.diverged]
        if errors:
            sentences.append(
                f"Test error after {numbers.plural(settings.epochs, 'epoch')} in float64: {Spread.of(errors):.2f} %; "
                f"{settings.setting}."
            )
        sentences += [
            f"Seed {course.seed} diverged in epoch {len(course.measured)}."
            for course in result.courses
            if course.diverged
        ]
        first = result.courses[0]
        given = "" if settings.epochs == part.settings.epochs else f" --epochs {settings.epochs}"
        command = f"steprule reproduce zeiler2012 {part.name} --seeds {result.seeds}{given}"
        facts = _told(result.seeds, settings.epochs, command, first.versions, first.machine)
    return Section(
        name=part.name,
        title=part.title,
        sentences=tuple(sentences),
        missing=result.missing,
        figures=(drawn,) if drawn else (),
        facts=facts,
    )


def _told(
    seeds: int, epochs: int, command: str, versions: Mapping[str, str], machine: Mapping[str, str]
) -> tuple[tuple[str, list[str]], ...]:
    return (
        ("Seeds", [f"0 to {seeds - 1}" if seeds > 1 else "0"]),
        ("Epochs", [str(epochs)]),
        ("Command", [command]),
        ("Versions", [", ".join(f"{name} {version}" for name, version in versions.items())]),
        ("Machine", [", ".join(f"{name} {value}" for name, value in machine.items())]),
    )
