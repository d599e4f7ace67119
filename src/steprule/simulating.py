"""The command line's `steprule cluster simulate` and `steprule cluster study`: a cluster on one machine's clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .console import stoppable, terminal
from .folders import made_folder, replace, write_json
from .lab.numerals import plural

if TYPE_CHECKING:
    from .cluster import Simulated, Simulation

__all__ = ["simulate", "study"]

_SECONDS_BETWEEN_FILES = 10.0
"""A file of all pushes after each measurement would take longer than the simulation, where it is measured often."""

_TIMES = "a number, or a distribution of numpy's: gamma:10,0.1, exponential:0.05, lognormal:0,0.5"


def simulate(
    problem: options.Trained = "mnist",
    replicas: Annotated[int, typer.Option(help="Simulated replicas.")] = 100,
    shards: Annotated[int, typer.Option(help="Shards of the parameters.")] = 1,
    rule: options.OnServer = "adadelta",
    values: options.Values = None,
    updates: Annotated[
        int | None, typer.Option(help="Pushes to train for; as many as the batches of the problem's epochs.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="Measure after so many pushes; one epoch's unless given.")] = None,
    compute: Annotated[str, typer.Option(help=f"Seconds of one gradient: {_TIMES}.")] = "gamma:10,0.1",
    push: Annotated[str, typer.Option(help="Seconds of a message to a shard, likewise.")] = "exponential:0.05",
    fetch: Annotated[str, typer.Option(help="Seconds of the parameters back, likewise.")] = "exponential:0.05",
    stragglers: Annotated[
        str | None, typer.Option(help="SHARE,FACTOR: a share of the replicas computes so many times as long.")
    ] = None,
    bursts: Annotated[
        str | None,
        typer.Option(
            help="BETWEEN,LENGTH,FACTOR: mean seconds from one burst to the next and of one, in which all is slower."
        ),
    ] = None,
    failures: Annotated[
        str | None, typer.Option(help="LIFE[,ABSENCE]: mean seconds until a replica dies, and until it is back.")
    ] = None,
    n_fetch: options.NFetch = 1,
    n_push: options.NPush = 1,
    local_lr: options.LocalLr = None,
    warm_start: options.WarmStart = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda: where gradients are computed and shards step.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Decides the weights, the order of the data, and what is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for simulation.json and pushes.npy, written on the way.")] = Path(
        "simulation"
    ),
) -> None:
    """Train a problem by many simulated replicas: real gradients, on a clock that delays and failures are drawn for."""
    from .cluster import Conditions, Simulation
    from .lab.cluster.simulation_display import SimulationDisplay
    from .lab.grids import find_rule, parse_values
    from .lab.machine import command
    from .lab.problem import find_problem, refuse_trainer

    conditions = Conditions.of(compute, push, fetch, stragglers, bursts, failures)
    used, hyperparameters = find_rule(rule), parse_values(values or [])
    made = find_problem(problem)()
    refuse_trainer(made, "this cluster")
    simulation = Simulation(
        made,
        used,
        hyperparameters,
        replicas=replicas,
        shards=shards,
        updates=updates,
        every=every,
        seed=seed,
        conditions=conditions,
        n_fetch=n_fetch,
        n_push=n_push,
        local_lr=local_lr,
        warm_start=warm_start,
        device=device,
    )
    made_folder(out)
    what = {
        "command": command(),
        "problem": problem,
        "rule": rule,
        "hyperparameters": hyperparameters,
        "conditions": str(conditions),
    }
    console, stopped, written = terminal(), False, time.monotonic()
    with SimulationDisplay(console, simulation, made.metric) as display:
        try:
            for measured in simulation.run():
                display.measured(measured)
                if time.monotonic() - written >= _SECONDS_BETWEEN_FILES:
                    _write(out, what, simulation.result())
                    written = time.monotonic()
        except KeyboardInterrupt:
            stopped = True
    found = simulation.result()
    _write(out, what, found)
    last = ""
    if found.measured:
        measured = found.measured[-1]
        last = f", {made.metric.name} {measured.test:.4g}{made.metric.unit}"
        last += "" if measured.updates == found.updates else f" after {measured.updates}"
    console.print(
        f"{_ending(simulation, stopped)} {plural(found.updates, 'push', 'pushes')} in {found.seconds:.1f} s, "
        f"{found.time:.1f} s on the cluster's clock{last}. "
        f"In {out}: simulation.json, and pushes.npy with a record of each push.",
        soft_wrap=True,
    )
    if stopped or not found.updates:
        raise typer.Exit(130 if stopped else 1)


def _ending(simulation: Simulation, stopped: bool) -> str:
    """Return the words that stand before the number of pushes."""
    if stopped:
        return "Stopped after"
    if simulation.completed >= simulation.updates:
        return "Done:"
    why = "the loss is infinite or NaN" if simulation.alive else "every replica has died, and none comes back"
    return f"Ended before {plural(simulation.updates, 'push', 'pushes')}, since {why}:"


def _write(out: Path, what: Mapping[str, Any], found: Simulated) -> None:
    counts = {name: getattr(found, name) for name in ("updates", "time", "lost", "deaths", "seconds")}
    write_json(out / "simulation.json", {**what, "measured": [asdict(each) for each in found.measured], **counts})
    replace(out / "pushes.npy", _npy(found.pushes))


def _npy(array: Any) -> bytes:
    import numpy as np

    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--replicas is {text!r}; allowed are whole numbers with commas between them") from None


def study(
    problem: Annotated[
        str, typer.Argument(help="The paper's MNIST net with 5,000 images held out; or another, as for `simulate`.")
    ] = "steprule.lab.staleness.problems:mnist",
    rules: Annotated[
        str | None, typer.Option(help="Rules, with commas between; all of the study's unless given.")
    ] = None,
    grid: options.Grid = None,
    replicas: Annotated[str, typer.Option(help="Numbers of replicas, from 1.")] = "1,10,100,200",
    epochs: Annotated[int, typer.Option(help="Pushes in all, in passes over the training data.")] = 3,
    seeds: Annotated[int, typer.Option(help="Trainings of each chosen setting.")] = 3,
    jobs: options.Jobs = None,
    out: Annotated[Path, typer.Option(help="Folder for results and the page.")] = Path("staleness"),
    resume: options.Resume = True,
) -> None:
    """How much staleness each rule stands: test error by 1, 10, 100 and 200 simulated replicas; writes a page."""
    from .lab.display import Display
    from .lab.grids import find_rule, parse_grid
    from .lab.staleness import GRIDS
    from .lab.staleness import study as run
    from .report.staleness.page import write_study
    from .report.staleness.table import as_text, terminal_table

    asked = parse_grid(grid or [])
    known = {**GRIDS, **asked}
    chosen = {name: find_rule(name).name for name in (known if rules is None else options.names(rules))}
    for name in asked.keys() - set(chosen.values()):
        raise ValueError(f"--grid names the rule {name!r}; --rules has {', '.join(chosen.values())}")
    for name in chosen.values():
        if name not in known:
            raise ValueError(
                f"--rules names {name!r}, which has no grid; allowed are {', '.join(known)}, or --grid {name}.lr=..."
            )
    console = terminal()
    with stoppable(console, out, fresh=not resume):
        found = run(
            problem,
            rules=list(chosen),
            grids={name: known[name] for name in chosen.values()},
            replicas=_whole_numbers(replicas),
            epochs=epochs,
            seeds=seeds,
            jobs=jobs,
            out=out,
            fresh=not resume,
            displays=lambda: Display(console),
        )
    page = write_study(found, out)
    replace(out / "table.txt", as_text(found).encode())
    console.print(terminal_table(found))
    console.print(f"\nThe page: {page}", soft_wrap=True)
