"""`steprule reproduce zeiler2012`: the ADADELTA paper's experiments."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from .. import options
from ..console import stoppable, terminal
from ..folders import made_folder, replace
from .refusing import refuse_unused

if TYPE_CHECKING:
    from ..lab.places import Place
    from ..lab.zeiler2012 import Options, Part, Result
    from ..lab.zeiler2012.parts import Work

__all__ = ["zeiler2012"]


_OUT: Final = Path("zeiler2012")


def zeiler2012(
    chosen: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help="table1, table2, fig1, fig2, tanh, schaul; on speech alignment, fig3, fig4; all unless given; and search.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each setting; 5 unless given, 3 on speech, and 1 for the search.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; the paper's own number unless given. Not on speech.")
    ] = None,
    jobs: options.Jobs = None,
    on: options.On = "processes",
    address: options.Address = "",
    device: options.Device = "",
    out: Annotated[Path, typer.Option(help="Folder for results and pages.")] = _OUT,
    resume: options.Resume = True,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train what is missing, or show only what is finished there.")
    ] = True,
    published: Annotated[
        bool, typer.Option("--published", help="Show the results that came with this package, and train nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run some of those results again; status 1 if one does not come out.")
    ] = False,
    cells: Annotated[int | None, typer.Option(help="With --check: how many, chosen at random; 5 unless given.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="With --check: of the choice; another each time unless given.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="fig3, fig4: the paper's net of 4 x 2560 hidden units.")] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="alignment, fig3, fig4: a folder of wav files and transcripts in place of the spoken digits."
        ),
    ] = None,
) -> None:
    """The ADADELTA paper's experiments on MNIST and on speech, beside its figures."""
    from ..lab import zeiler2012 as paper
    from ..lab.places import place, whole_or_none
    from ..lab.zeiler2012 import published as committed
    from . import apart

    console = terminal()
    asked = chosen or [*paper.parts(), *(name for name in apart.PARTS if name != "search")]
    names = [name for name in asked if name not in apart.PARTS]
    paper.check(names, apart.PARTS)
    _refuse_alone(chosen or (), {"--check": check, "--published": published, "--no-train": not train})
    flags = {"published": published, "check": check, "full": full, "fresh": not resume, "no-train": not train}
    places = {"on": on if on != "processes" else "", "address": address, "device": device, "jobs": jobs}
    values = {"seeds": seeds, "epochs": epochs, "cells": cells, "seed": seed, "corpus": corpus}
    told: dict[str, object] = {**values, **places, "out": out if out != _OUT else "", **flags}
    refuse_unused(told, [name for name in asked if train or name in names], _takers())
    if check or published:
        results = [result for result in committed.read() if result.part.name in names]
        if check:
            _check(console, results, 5 if cells is None else cells, seed, jobs)
        else:
            _show(console, results, made_folder(out))
        return
    for name, value in {"seeds": seeds, "epochs": epochs}.items():
        whole_or_none(name, value)
    apart.check(corpus)
    planned = paper.planned_seeds() if seeds is None else seeds
    where = place(on, jobs=jobs, device=device, address=address)
    with where, stoppable(console, out, fresh=not resume):
        made_folder(out)
        if names:
            how = paper.Options(planned, epochs, where, out, fresh=not resume, train=train)
            _run_parts(console, [paper.parts()[name] for name in names], how)
        for name in (each for each in asked if train and each in apart.PARTS):
            apart.PARTS[name](console, apart.Asked(out, seeds, epochs, not resume, where, full, corpus, device))


def _refuse_alone(chosen: Sequence[str], flags: Mapping[str, bool]) -> None:
    """Raise `ValueError` for a part with which a flag that is given does nothing."""
    from ..lab.zeiler2012 import Experiment, parts

    for flag, given in flags.items():
        # What has no cells cannot be checked.
        able = [name for name, part in parts().items() if flag != "--check" or isinstance(part, Experiment)]
        alone = next((name for name in chosen if name not in able), None)
        if given and alone is not None:
            raise ValueError(f"{alone} is given with {flag}; allowed with it are {', '.join(able)}")


def _takers() -> dict[str, list[str]]:
    """Return the parts that take an option which not all take."""
    from ..lab.zeiler2012 import parts
    from .apart import TAKERS

    of_all = ("--seeds", "--epochs", "--jobs", "--device", "--on", "--address")
    return {name: [*(parts() if name in of_all else ()), *able] for name, able in TAKERS.items()}


def _run_parts(console: Console, parts: Sequence[Part], options: Options) -> None:
    """Run the parts and show what came out after each, so that an interrupted run has a page too."""
    from ..lab.display import Display
    from ..report.zeiler2012.page import write_comparisons, write_reproduction

    if options.train:
        _estimate(console, [work for part in parts for work in part.work(options)], options.on)
    done: list[Result] = []
    for part in parts:
        # A display for each, since each has trials and a best of its own.
        with Display(console) as display:
            result = part.run(options, display)
        if options.train or not result.is_empty:  # else a page that is there would be replaced by one of nothing
            done.append(result)
            write_comparisons(result, options.out)
            write_reproduction(done, options.out)
    there = [result for result in done if not result.is_empty]
    if not there:
        raise ValueError(f"nothing of these parts is finished in {options.out}")
    _show(console, there, options.out, linked=True)


def _estimate(console: Console, works: Sequence[Work], on: str | Place) -> None:
    """Say how long the work takes in processes of this machine; of another place the speed is not known."""
    from ..lab.places import Processes
    from ..lab.zeiler2012.estimate import estimate
    from ..report import words

    if works and isinstance(on, Processes):
        with console.status("measuring an epoch of each kind"):
            found = estimate(works, on.jobs)
        console.print(
            f"About {words.duration(found.seconds)} for {words.plural(found.epochs, 'epoch')} of "
            f"{words.plural(found.trials, 'trial')}, if each epoch takes as long as 20 of its batches did just now.",
        )


def _show(console: Console, results: Sequence[Result], out: Path, *, linked: bool = False) -> None:
    """Write results.json, table.txt and the page, and print the table."""
    from ..lab.zeiler2012 import published
    from ..report.zeiler2012.page import write_reproduction
    from ..report.zeiler2012.table import as_text, terminal_table

    replace(out / "results.json", published.as_text(results).encode())
    replace(out / "table.txt", as_text(results).encode())
    page = write_reproduction(results, out, linked=linked)
    console.print(terminal_table(results))
    console.print(f"\nThe page: {page}", soft_wrap=True)


def _check(console: Console, results: Sequence[Result], cells: int, seed: int | None, jobs: int | None) -> None:
    from ..lab.display import Display
    from ..lab.places import Processes
    from ..lab.zeiler2012 import checking
    from ..report.zeiler2012.table import checked_table

    choice = random.randrange(10**6) if seed is None else seed
    sampled = checking.sample(results, cells, choice)
    console.print(f"The choice is that of --seed {choice}.")
    _estimate(console, [each.work for each in sampled], Processes(jobs))
    with Display(console) as display:
        checked = list(checking.check(sampled, jobs, display))
    console.print(checked_table(checked))
    if any(each.agrees is False for each in checked):
        raise typer.Exit(1)
