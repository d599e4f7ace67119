"""The command line's `steprule reproduce ...`: published experiments, run again beside their published figures."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"the command line needs {missing.name}: pip install 'steprule[lab]'") from missing

from . import options
from .folders import replace
from .lab.d2l.results import Missing, Training

if TYPE_CHECKING:
    from .apart import Asked
    from .lab.places import Place
    from .lab.zeiler2012 import Options, Part, Result
    from .lab.zeiler2012.parts import Work

__all__ = ["app"]

app = typer.Typer(
    help="Run a published experiment again, and set what is measured beside its figures.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Run some of the committed results again, as zeiler2012 --check does.")
    ] = False,
) -> None:
    """Run a published experiment again, and set what is measured beside its figures; all of them unless one is named."""
    if context.invoked_subcommand is not None:
        if check:
            raise ValueError("--check stands after the experiment's name: steprule reproduce zeiler2012 --check")
        return
    if not check:
        d2l()
    zeiler2012(check=check)


@app.command()
def d2l(
    engines: Annotated[
        str, typer.Option(help="Engines, with commas between: numpy, torch, mxnet, tensorflow, jax; all unless given.")
    ] = "",
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
    from .lab.d2l import ENGINES, reproduce
    from .lab.d2l.exercises import answers
    from .report.d2l.page import write_reproduction
    from .report.d2l.table import as_text, terminal_table

    console = Console()
    with _Shown(console) as shown:
        reproduction = reproduce(
            engines.split(",") if engines else ENGINES,
            seeds=seeds,
            epochs=epochs,
            pythons=_pythons(python or []),
            progress=shown,
        )
    out.mkdir(parents=True, exist_ok=True)
    results = reproduction.as_json()
    replace(out / "results.json", json.dumps(results | {"exercises": []}, indent=1).encode())
    answered = answers(seeds, lambda name: console.print(f"exercise {name} ...", highlight=False)) if exercises else ()
    if answered:
        results["exercises"] = [dataclasses.asdict(each) for each in answered]
        replace(out / "results.json", json.dumps(results, indent=1).encode())
    replace(out / "table.txt", as_text(reproduction).encode())
    page = write_reproduction(reproduction, out, answered)
    console.print(terminal_table(reproduction))
    console.print(f"\nThe page: {page}", highlight=False, soft_wrap=True)


@app.command()
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
        int | None, typer.Option(help="Passes over the data; the paper's own number unless given.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; as many as there are cores unless given.")] = None,
    on: options.On = "processes",
    address: options.Address = "",
    device: options.Device = "",
    out: Annotated[Path, typer.Option(help="Folder for results and pages.")] = Path("zeiler2012"),
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Keep what is finished there, or begin anew.")
    ] = True,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train what is missing, or show only what is finished there.")
    ] = True,
    published: Annotated[
        bool, typer.Option("--published", help="Show the results that came with this package, and train nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run some of those results again; status 1 if one does not come out.")
    ] = False,
    cells: Annotated[int, typer.Option(help="With --check: how many, chosen at random.")] = 5,
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
    from . import apart
    from .lab import zeiler2012 as paper
    from .lab.places import place
    from .lab.zeiler2012 import published as committed

    console = Console()
    asked = chosen or [*paper.parts(), *(name for name in apart.PARTS if name != "search")]
    names = [name for name in asked if name not in apart.PARTS]
    paper.check(names, apart.PARTS)
    if check or published:
        results = [result for result in committed.read() if result.part.name in names]
        if check:
            _check(console, results, cells, seed, jobs)
        else:
            _show(console, results, out)
        return
    planned = paper.planned_seeds() if seeds is None else seeds
    with place(on, jobs=jobs, device=device, address=address) as where:
        if names:
            how = paper.Options(planned, epochs, where, out, fresh=not resume, train=train)
            _run_parts(console, [paper.parts()[name] for name in names], how)
        if train:
            others = apart.Asked(out, seeds, epochs, not resume, where, full, corpus, device)
            _run_apart(console, [name for name in asked if name in apart.PARTS], others)


def _run_apart(console: Console, names: Sequence[str], asked: Asked) -> None:
    from .apart import PARTS

    try:
        for name in names:
            PARTS[name](console, asked)
    except KeyboardInterrupt:
        _stopped(console, asked.out)


def _stopped(console: Console, out: Path) -> NoReturn:
    console.print(f"Stopped. What is finished is kept in {out}; the same command goes on from there.", highlight=False)
    raise typer.Exit(130) from None


def _run_parts(console: Console, parts: Sequence[Part], options: Options) -> None:
    """Run the parts and show what came out after each, so that an interrupted run has a page too."""
    from .lab.display import Display
    from .report.zeiler2012.page import write_comparisons, write_reproduction

    try:
        if options.train:
            _estimate(console, [work for part in parts for work in part.work(options)], options.on)
        done: list[Result] = []
        for part in parts:
            # A display for each, since each has trials and a best of its own.
            with Display(console) as display:
                done.append(part.run(options, display))
            options.out.mkdir(parents=True, exist_ok=True)
            write_comparisons(done[-1], options.out)
            write_reproduction(done, options.out)
    except KeyboardInterrupt:
        _stopped(console, options.out)
    there = [result for result in done if not result.is_empty]
    if not there:
        raise ValueError(f"nothing of these parts is finished in {options.out}")
    _show(console, there, options.out, linked=True)


def _estimate(console: Console, works: Sequence[Work], on: str | Place) -> None:
    """Say how long the work takes in processes of this machine; how fast another place is, is not known."""
    from .lab.places import Processes
    from .lab.zeiler2012.estimate import estimate
    from .report import words

    if works and isinstance(on, Processes):
        with console.status("measuring an epoch of each kind"):
            found = estimate(works, on.jobs)
        console.print(
            f"About {words.duration(found.seconds)} for {words.plural(found.epochs, 'epoch')} of "
            f"{words.plural(found.trials, 'trial')}, if each epoch takes as long as 20 of its batches did just now.",
            highlight=False,
        )


def _show(console: Console, results: Sequence[Result], out: Path, *, linked: bool = False) -> None:
    """Write results.json, table.txt and the page, and print the table."""
    from .lab.zeiler2012 import published
    from .report.zeiler2012.page import write_reproduction
    from .report.zeiler2012.table import as_text, terminal_table

    out.mkdir(parents=True, exist_ok=True)
    replace(out / "results.json", published.as_text(results).encode())
    replace(out / "table.txt", as_text(results).encode())
    page = write_reproduction(results, out, linked=linked)
    console.print(terminal_table(results))
    console.print(f"\nThe page: {page}", highlight=False, soft_wrap=True)


def _check(console: Console, results: Sequence[Result], cells: int, seed: int | None, jobs: int | None) -> None:
    from .lab.display import Display
    from .lab.places import Processes
    from .lab.zeiler2012 import checking
    from .report.zeiler2012.table import checked_table

    choice = random.randrange(10**6) if seed is None else seed
    sampled = checking.sample(results, cells, choice)
    console.print(f"The choice is that of --seed {choice}.", highlight=False)
    _estimate(console, [each.work for each in sampled], Processes(jobs))
    with Display(console) as display:
        checked = list(checking.check(sampled, jobs, display))
    console.print(checked_table(checked))
    if any(each.agrees is False for each in checked):
        raise typer.Exit(1)


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

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = TaskID(0)

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, trainings: int) -> None:
        self._task = self._bar.add_task("", total=trainings)

    def started(self, engine: str) -> None:
        self._bar.update(self._task, description=engine)
        if not self._console.is_terminal:
            self._console.print(f"{engine} ...", highlight=False)

    def trained(self, training: Training) -> None:
        self._bar.update(self._task, advance=1, description=f"{training.plan.engine}, {training.plan.way}")

    def missed(self, missing: Missing) -> None:
        self._console.print(f"{missing.engine}: {missing.cause}", markup=False, highlight=False)
