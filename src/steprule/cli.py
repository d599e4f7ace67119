"""The command line: `steprule compare | show | data | bench | reproduce | cluster`."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Final

try:  # before the other modules of the command line, which need the same
    import typer
    from rich import box
    from rich.table import Table
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"the command line needs {missing.name}: pip install 'steprule[lab]'") from missing

from . import __version__, around, clustering, equations, options, reproducing, rules
from .benching import bench
from .console import stoppable, terminal
from .named import is_installed, place_of
from .program import lower

__all__ = ["app", "main"]

app = typer.Typer(
    help="Adaptive, per-dimension learning rates: update rules, their engines, and experiments on them. An error "
    "or a warning is one sentence; with --traceback behind the command it says where it was raised.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_RULES: Final = f"{', '.join(rules.ALL)}, or your own as package.module:name or path/to/file.py:name"

app.add_typer(reproducing.app, name="reproduce")
app.add_typer(clustering.app, name="cluster")


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"steprule {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take what stands before a command."""


@app.command()
def compare(
    problem: options.Trained = "digits",
    rule_names: Annotated[
        str | None, typer.Option("--rules", help=f"Rules, with commas between: {_RULES}; the first eight unless given.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data; the problem's own number unless given.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each setting.")] = 5,
    rates: Annotated[str | None, typer.Option(help="Rates to try with each rule that has one: 1,0.1,0.01,...")] = None,
    grid: options.Grid = None,
    jobs: options.Jobs = None,
    on: options.On = "processes",
    address: options.Address = "",
    device: options.Device = "",
    corpus: Annotated[
        Path | None, typer.Option(help="A folder of wav files and transcripts, in place of the speech problem's own.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results and the page.")] = Path("compare"),
    resume: options.Resume = True,
) -> None:
    """Train one model by several rules over grids of settings; write a page that shows which suits the problem.

    The problem mnist@100 is mnist, trained by 100 simulated replicas; likewise any other.
    """
    from .lab.comparison import RULES
    from .lab.comparison import compare as run
    from .lab.display import Display
    from .lab.grids import RATES, parse_grid, parse_numbers
    from .lab.places import place
    from .lab.problem import with_corpus
    from .report.page import write_report
    from .report.table import terminal_table

    console = terminal()
    with (
        stoppable(console, out, fresh=not resume),
        place(on, jobs=jobs, device=device, address=address) as where,
        Display(console) as display,
    ):
        comparison = run(
            problem if corpus is None else with_corpus(problem, corpus),
            rules=RULES if rule_names is None else options.names(rule_names),
            epochs=epochs,
            seeds=seeds,
            rates=RATES if rates is None else parse_numbers(rates, "--rates"),
            grid=parse_grid(grid or []),
            on=where,
            out=out,
            fresh=not resume,
            progress=display,
        )
    page = write_report(comparison, out)
    console.print(terminal_table(comparison))
    console.print(f"\nThe page: {page}", soft_wrap=True)
    # A script that calls this has nothing to go on with.
    if all(outcome.status == "failed" for outcome in comparison.outcomes):
        raise typer.Exit(1)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RULE", help=f"{_RULES}.")],
    engine: Annotated[
        str, typer.Option(help="cpu or gpu: the kernel that is made of the rule, in place of its equations.")
    ] = "",
    dtype: Annotated[
        str, typer.Option(help="float32 or float64; for the GPU's kernel bfloat16 or float16 too.")
    ] = "float32",
    weight_decay: Annotated[
        str, typer.Option(help="none, coupled or decoupled: in the kernel, and in what is counted.")
    ] = "none",
    maximize: Annotated[bool, typer.Option("--maximize", help="A step that climbs: likewise.")] = False,
) -> None:
    """Print a rule's equations as LaTeX, its words and defaults, or the kernel of an engine; and what a step costs."""
    from .kernels import gpu
    from .lab.grids import find_rule

    options.one_of("--engine", engine, ("", "cpu", "gpu"))
    options.one_of("--dtype", dtype, tuple(gpu.TYPES) if engine == "gpu" else ("float32", "float64"))
    options.one_of("--weight-decay", weight_decay, ("none", "coupled", "decoupled"))
    rule = find_rule(name)
    program = lower(rule, around.Around(weight_decay, maximize))  # type: ignore[arg-type]  # checked above
    if engine == "cpu":
        from .kernels import cpu

        print(cpu.source(program, dtype))
    elif engine == "gpu":
        print(gpu.source(program, dtype))
    else:
        print(equations.latex(rule))
        print()
        words = inspect.cleandoc(rule.__doc__) + "\n\n" if rule.__doc__ else ""
        for line in (words + "\n".join(rule.numbers)).splitlines():
            print(f"% {line}".rstrip())
    comment = "#" if engine else "%"
    print(f"{comment} {rule.name}: {rule.source} {rule.url}".rstrip())
    moved = program.bytes_per_element(gpu.TYPES[dtype])
    form = "" if weight_decay == "none" else f" with {weight_decay} weight decay"
    form += ", climbing," if maximize else ""
    print(f"{comment} a step in {dtype}{form} moves {moved} bytes and does {program.operations} operations per element")


@app.command()
def data() -> None:
    """List the data sets, where each is, and its licence."""
    from .lab.data import overview

    table = Table("name", "what", "licence", box=box.SIMPLE)
    table.add_column("where", overflow="fold")
    for each in overview():
        table.add_row(each.name, each.title, each.licence, each.place)
        table.add_section()
    terminal(folded=False).print(table)


app.command()(bench)


def main() -> None:
    """Run the command line. What goes wrong ends it with one sentence and status 2; with `--traceback`, with that.

    A warning is one sentence, too.
    """
    traced, usual = "--traceback" in sys.argv, warnings.formatwarning
    if traced:
        sys.argv.remove("--traceback")
    else:
        warnings.formatwarning = _warned
    try:
        app()
    except Exception as error:
        if traced:
            raise
        print(f"steprule: {_told(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        warnings.formatwarning = usual


def _warned(message: Warning | str, category: object, filename: str, lineno: int, line: object = None) -> str:  # noqa: ARG001
    place = "" if is_installed(Path(filename)) else f" ({filename}, line {lineno})"
    return f"steprule: warning: {' '.join(str(message).split())}{place}\n"


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"  # without the system's number
    place = place_of(error)  # most likely of a mistake there
    if not place and isinstance(error, (ValueError, TypeError, RuntimeError, OSError, ModuleNotFoundError)):
        return text
    if not place and not isinstance(error, SyntaxError):
        nearest = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({nearest.filename}, line {nearest.lineno})"
    return f"{type(error).__name__}: {text}{place}"


if __name__ == "__main__":
    main()
