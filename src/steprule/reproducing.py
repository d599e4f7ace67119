"""The command line's `steprule reproduce ...`: published experiments, run again beside their published figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Final

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"the command line needs {missing.name}: pip install 'steprule[lab]'") from missing

from .folders import replace
from .lab.d2l.results import Missing, Training
from .lab.results import Setting

__all__ = ["app"]

SPEECH: Final = ("alignment", "fig3", "fig4")
"""The parts of the paper that are on speech."""

app = typer.Typer(
    help="Run a published experiment again, and set what is measured beside its figures.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Run a published experiment again, and set what is measured beside its figures."""


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
            metavar="[PART]...", help="tanh, schaul, table1, table2, alignment, fig3, fig4; all unless given."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each setting; 5 unless given, and 3 on speech.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; the paper's own number unless given.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; as many as there are cores unless given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results and pages.")] = Path("zeiler2012"),
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Keep what is finished there, or begin anew.")
    ] = True,
    full: Annotated[bool, typer.Option("--full", help="fig3, fig4: the paper's net of 4 x 2560 hidden units.")] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(help="fig3, fig4: a folder of wav files and transcripts in place of the spoken digits."),
    ] = None,
    device: Annotated[str, typer.Option(help="fig3, fig4: where gradients are computed, cpu or cuda.")] = "cpu",
) -> None:
    """The ADADELTA paper's experiments on MNIST and speech, beside its figures."""
    from .lab.display import Display
    from .lab.zeiler2012 import Reproduced, check, parts, reproduce
    from .report.zeiler2012.page import write_comparisons, write_reproduction
    from .report.zeiler2012.table import terminal_table

    console = Console()
    names = list(chosen or [*parts(), *SPEECH])
    check([name for name in names if name not in SPEECH])
    on_speech = [name for name in names if name in SPEECH]
    if on_speech:
        if "alignment" in on_speech:
            _alignment(console, out / "alignment", corpus)
            on_speech.remove("alignment")
        options = {"full": full, "corpus": corpus, "device": device, "fresh": not resume}
        if on_speech:
            _speech(console, on_speech, out, seeds, options)
    names = [name for name in names if name not in SPEECH]
    if not names:
        return
    try:
        done: list[Reproduced] = []
        for name in names:
            # A display for each, since each has trials and a best of its own.
            with Display(console) as display:
                done += reproduce(
                    [name],
                    seeds=5 if seeds is None else seeds,
                    epochs=epochs,
                    jobs=jobs,
                    out=out,
                    fresh=not resume,
                    progress=display,
                )
            write_comparisons(done[-1], out)
            page = write_reproduction(done, out)
    except KeyboardInterrupt:
        console.print(
            f"Stopped. What is finished is kept in {out}; the same command goes on from there.", highlight=False
        )
        raise typer.Exit(130) from None
    console.print(terminal_table(done))
    console.print(f"\nThe page: {page}", highlight=False, soft_wrap=True)


def _alignment(console: Console, out: Path, corpus: Path | None) -> None:
    """Align the corpus, measure what its GMM-HMM recognises, and write the page to check both by."""
    from .lab.data.progress import counted
    from .lab.problems.speech import corpus_data
    from .lab.speech import facts
    from .report.speech.page import described, recognition, write_alignment

    prepared = corpus_data(None if corpus is None else str(corpus.resolve()))
    with counted("recognisers", facts.trainings(prepared)) as advance:
        speakers = facts.speakers_held_out(prepared, advance)
        recordings = facts.recordings_held_out(prepared, advance)
    page = write_alignment(prepared, facts.durations(prepared), facts.by_speaker(prepared), speakers, recordings, out)
    console.print(f"{described(prepared)}\n\n{recognition(speakers, recordings)}", highlight=False)
    console.print(f"\nThe page: {page}", highlight=False, soft_wrap=True)


def _speech(console: Console, names: list[str], out: Path, seeds: int | None, options: dict[str, Any]) -> None:
    """Run Fig. 3 and 4, draw them, and print what their claims come to."""
    from .lab.zeiler2012.speech import plans, run
    from .report.zeiler2012.speech import terminal_table, write_page

    found = []
    for name in names:
        plan = plans()[name] if seeds is None else dataclasses.replace(plans()[name], seeds=seeds)
        with _Trainings(console, name, plan.runs, plan.updates) as shown:
            found.append(run(plan, out / name, progress=shown.told, **options))
        page = write_page(found, out / "speech")
    for each in found:
        console.print(terminal_table(each))
    console.print(f"\nThe page: {page}", highlight=False, soft_wrap=True)


class _Trainings:
    """Shows trainings one after another, each of so many updates; where nobody watches, a line for each measurement."""

    def __init__(self, console: Console, name: str, trainings: int, updates: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._console, self._name, self._updates = console, name, updates
        self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(name, total=trainings)
        self._seen: dict[tuple[Setting, int], None] = {}

    def __enter__(self) -> _Trainings:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, setting: Setting, seed: int, updates: int) -> None:
        """Take note of a measurement."""
        self._seen[setting, seed] = None
        said = f"{self._name}: {setting}, seed {seed}, {updates:,} of {self._updates:,} updates"
        self._bar.update(self._task, completed=len(self._seen) - (updates < self._updates), description=said)
        if not self._console.is_terminal:
            self._console.print(said, highlight=False)


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
