"""`steprule reproduce d2l`: the airfoil experiment of Dive into Deep Learning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import TaskID

from .. import options
from ..console import bar, stoppable, terminal
from ..folders import made_folder, replace, write_json
from ..lab.d2l.results import Missing, Reproduction, Training

if TYPE_CHECKING:
    from ..lab.d2l.exercises import Exercise

__all__ = ["d2l"]


def d2l(
    engines: Annotated[
        str | None,
        typer.Option(help="Engines, with commas between: numpy, torch, mxnet, tensorflow, jax; all unless given."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each plan.")] = 5,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; the book's own number unless given.")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            help="The interpreter of an engine, mxnet=path/to/python; .venv-mxnet/bin/python is found by itself; may be "
            "repeated."
        ),
    ] = None,
    exercises: Annotated[
        bool, typer.Option("--exercises", help="Answer the section's exercises by runs, too; with NumPy.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for results.json, table.txt and the page.")] = Path("d2l"),
) -> None:
    """The airfoil experiment of Dive into Deep Learning 12.9: ADADELTA in each framework, beside the book's figures."""
    from ..lab.d2l import ENGINES, Stopped, reproduce
    from ..report.d2l.table import terminal_table

    console = terminal()
    with stoppable(console, out, "begins anew"):
        try:
            with _Shown(console, out) as shown:
                reproduction = reproduce(
                    ENGINES if engines is None else options.names(engines),
                    seeds=seeds,
                    epochs=epochs,
                    pythons=_pythons(python or []),
                    progress=shown,
                )
        except Stopped as stop:
            if not stop.reproduction.trainings:
                console.print("Stopped before any plan had all its seeds; nothing is written.")
                raise typer.Exit(130) from None
            _write(stop.reproduction, out)
            raise
        page = _write(reproduction, out)
        if exercises:
            page = _answer(console, reproduction, out)
    console.print(terminal_table(reproduction))
    console.print(f"\nThe page: {page}", soft_wrap=True)
    # A script that calls this has nothing to go on with.
    if not reproduction.trainings:
        raise typer.Exit(1)


def _answer(console: Console, reproduction: Reproduction, out: Path) -> Path:
    from ..lab.d2l.exercises import answers

    answered: list[Exercise] = []
    try:
        for each in answers(reproduction.seeds, lambda name: console.print(f"exercise {name} ...")):
            answered.append(each)
    finally:
        page = _write(reproduction, out, answered)
    return page


def _write(reproduction: Reproduction, out: Path, answered: Sequence[Exercise] = ()) -> Path:
    """Write results.json, table.txt and the page; return the page's path."""
    from ..report.d2l.page import write_reproduction
    from ..report.d2l.table import as_text

    exercises = [dataclasses.asdict(each) for each in answered]
    write_json(out / "results.json", reproduction.as_json() | {"exercises": exercises})
    replace(out / "table.txt", as_text(reproduction).encode())
    return write_reproduction(reproduction, out, answered)


def _pythons(given: list[str]) -> dict[str, str]:
    pythons = {}
    for each in given:
        engine, equals, path = each.partition("=")
        if not (engine and equals and path):
            raise ValueError(f"--python is {each!r}; allowed is engine=path/to/python")
        pythons[engine] = path
    return pythons


class _Shown:
    """Shows a reproduction that runs, as a `steprule.lab.d2l.Progress`; where nobody watches, a line for each engine."""

    def __init__(self, console: Console, out: Path) -> None:
        self._console, self._out = console, out
        self._bar = bar(console, transient=True)
        self._task = TaskID(0)

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, trainings: int) -> None:
        # The arguments have been checked, and nothing has been trained.
        made_folder(self._out)
        self._task = self._bar.add_task("", total=trainings)

    def started(self, engine: str) -> None:
        self._bar.update(self._task, description=engine)
        if not self._console.is_terminal:
            self._console.print(f"{engine} ...")

    def trained(self, training: Training) -> None:
        self._bar.update(self._task, advance=1, description=f"{training.plan.engine}, {training.plan.way}")

    def missed(self, missing: Missing) -> None:
        self._console.print(f"{missing.engine}: {missing.cause}")
