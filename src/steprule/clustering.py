"""The command line's `steprule cluster ...`: a problem trained by many replicas on a parameter server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options, simulating
from .console import stoppable, terminal
from .folders import made_folder
from .lab.numerals import plural

__all__ = ["app"]

app = typer.Typer(
    help="Train a problem by many replicas on a parameter server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


app.command()(simulating.simulate)
app.command()(simulating.study)


@app.command()
def run(
    problem: options.Trained = "mnist",
    replicas: Annotated[int, typer.Option(help="Processes that compute gradients.")] = 2,
    shards: Annotated[int, typer.Option(help="Processes that hold the parameters.")] = 1,
    rule: options.OnServer = "adadelta",
    values: options.Values = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="As many mini-batches, of all replicas together, as so many passes; the problem's own number."
        ),
    ] = None,
    updates: Annotated[int | None, typer.Option(help="Updates of each shard, in place of --epochs.")] = None,
    n_fetch: options.NFetch = 1,
    n_push: options.NPush = 1,
    local_lr: options.LocalLr = None,
    overlap: Annotated[bool, typer.Option(help="Fetch and push while the next gradient is computed.")] = True,
    warm_start: options.WarmStart = 0,
    snapshot_every: Annotated[int, typer.Option(help="Updates of a shard from one snapshot to the next.")] = 1000,
    journal: Annotated[bool, typer.Option("--journal", help="Write each push before it is acknowledged.")] = False,
    sync: Annotated[bool, typer.Option("--sync", help="Sync each entry of the journal to the disk.")] = False,
    on_nonfinite: Annotated[str, typer.Option(help="skip or raise: what a push that is not finite does.")] = "skip",
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which a process is started again.")] = 60.0,
    threads: Annotated[int, typer.Option(help="Threads of each process.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda: where the shards step.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Decides the initial weights and the order of the examples.")] = 0,
    address: options.Address = "",
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Start Ray's dashboard, on this machine.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the snapshots in the folder; begin where there are none.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for results, the model, snapshots and events.")] = Path("cluster"),
) -> None:
    """Train a problem asynchronously, as Downpour SGD does, by any rule on the server."""
    from .cluster.plan import Plan
    from .lab.cluster.display import ClusterDisplay
    from .lab.cluster.run import Run, updates_of
    from .lab.grids import find_rule, parse_values
    from .lab.problem import find_problem

    if updates is not None and epochs is not None:
        raise ValueError(f"--updates is {updates} and --epochs is {epochs:g}; allowed is one of them")
    used, hyperparameters = find_rule(rule), parse_values(values or [])
    found = find_problem(problem)()
    plan = Plan(
        updates=updates
        if updates is not None
        else updates_of(found, found.epochs if epochs is None else epochs, n_push),
        replicas=replicas,
        shards=shards,
        n_fetch=n_fetch,
        n_push=n_push,
        local_lr=local_lr,
        overlap=overlap,
        warm_start=warm_start,
        snapshot_every=snapshot_every,
        journal=journal,
        sync=sync,
        on_nonfinite=on_nonfinite,  # type: ignore[arg-type]  # checked there
        timeout=timeout,
        device=device,
        threads=threads,
        options=hyperparameters,
    )
    ready = Run(problem, found, used, plan, out, seed=seed, resume=resume, address=address or None, dashboard=dashboard)
    made_folder(out)
    # After the checks: TensorBoard is slow to load, and noisy beside TensorFlow.
    from .lab.cluster.board import Board

    console = terminal()
    if resume and ready.is_new:
        console.print(f"{out} has no snapshots, so that there is nothing to resume: training begins.", soft_wrap=True)
    with (
        stoppable(console, out, "with --resume goes on"),
        ClusterDisplay(console, found.metric) as display,
        Board(out / "events", found.metric) as board,
    ):
        measured = ready.train((display, board))
    last = measured[-1]
    console.print(
        f"\n{plural(last.updates, 'update')}: {found.metric.name} {last.test:.4g}{found.metric.unit}",
    )
    console.print(
        f"In {out}: results.json, model.safetensors, snapshots, and events for TensorBoard.",
        soft_wrap=True,
    )
