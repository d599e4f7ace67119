"""The command line's `steprule bench`: steps measured beside those of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from . import options
from .console import stoppable, terminal
from .folders import replace

if TYPE_CHECKING:
    from .bench.sparse import SparseBench
    from .bench.steps import StepBench
    from .bench.timing import Times

__all__ = ["bench"]


def bench(
    sizes: Annotated[
        str | None,
        typer.Option(help="Sizes, with commas between: mnist, small, large, transformer; on a GPU huge, too."),
    ] = None,
    rule_names: Annotated[
        str, typer.Option("--rules", help="Rules: sgd, adagrad, adadelta, adam; in JAX rmsprop, too.")
    ] = "adadelta,adam",
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile of torch's step too.")
    ] = True,
    first_step: Annotated[bool, typer.Option(help="Measure the first step of a process, on the CPU.")] = True,
    epoch: Annotated[bool, typer.Option(help="Measure a whole epoch, on the CPU.")] = True,
    sparse: Annotated[bool, typer.Option(help="Measure steps by sparse gradients, on the CPU; takes 2 GB.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda: where the steps are.")] = "cpu",
    framework: Annotated[str, typer.Option(help="torch, or jax for steps beside optax's and nothing else.")] = "torch",
    file: Annotated[
        Path | None, typer.Option("--json", help="Write every repetition to this file, as soon as a part is measured.")
    ] = None,
) -> None:
    """Measure our steps against PyTorch's and the memory's limit, those by sparse gradients, the first, and an epoch."""
    from . import bench as measure
    from .bench.sparse import RULES
    from .bench.steps import TWINS

    options.one_of("--device", device, ("cpu", "cuda"))
    options.one_of("--framework", framework, ("torch", "jax"))
    if framework == "jax":
        options.one_of("--device with --framework jax", device, ("cpu",))
        _bench_jax(sizes, rule_names, file)
        return
    on_gpu = device == "cuda"
    known = measure.GPU_SIZES if on_gpu else measure.SIZES
    chosen_sizes = list(known) if sizes is None else options.names(sizes)
    chosen_rules = options.names(rule_names)
    for each in chosen_sizes:
        options.one_of("--sizes", each, tuple(known))
    for each in chosen_rules:
        options.one_of("--rules", each, tuple(TWINS))
    _require_place(file)
    if on_gpu:
        measure.require_gpu()
    measure_steps = measure.measure_steps_on_gpu if on_gpu else measure.measure_steps
    console, progress = terminal(folded=False), Console(stderr=True)
    steps: list[StepBench] = []
    by_rows: list[SparseBench] = []
    first: Mapping[str, Times] = {}
    whole: Mapping[str, Times] = {}

    @contextmanager
    def kept(what: str) -> Iterator[None]:
        with progress.status(what):
            yield
        _write_json(file, measure.as_json(steps, first, whole, by_rows, device))

    with _stoppable(console, file):
        for size in chosen_sizes:
            for rule_name in chosen_rules:
                with kept(f"{rule_name}, {size}"):
                    steps.append(measure_steps(size, rule_name, compiled=compiled))
        if first_step and not on_gpu:
            with kept("first step"):
                first = measure.measure_first_step()
        if epoch and not on_gpu:
            with kept("one epoch"):
                whole = measure.measure_epoch()
        for rule_name in RULES if sparse and not on_gpu else ():
            with kept(f"{rule_name}, sparse"):
                by_rows.append(measure.measure_sparse(rule_name))
    for table in measure.tables(steps, first, whole, by_rows):
        console.print(table)


def _bench_jax(sizes: str | None, rule_names: str, file: Path | None) -> None:
    from . import jax as _  # noqa: F401  # first, for it says what to install where JAX is missing
    from .bench.in_jax import JAX_SIZES, OPTAX, jax_as_json, jax_tables, measure_jax

    chosen_sizes = JAX_SIZES if sizes is None else options.names(sizes)
    chosen = [(size, name) for size in chosen_sizes for name in options.names(rule_names)]
    for size, name in chosen:
        options.one_of("--sizes", size, tuple(JAX_SIZES))
        options.one_of("--rules", name, tuple(OPTAX))
    _require_place(file)
    benches, console, progress = [], terminal(folded=False), Console(stderr=True)
    with _stoppable(console, file):
        for size, name in chosen:
            with progress.status(f"{name}, {size}"):
                benches.append(measure_jax(size, name))
            _write_json(file, jax_as_json(benches))
    for table in jax_tables(benches):
        console.print(table)


def _stoppable(console: Console, file: Path | None) -> AbstractContextManager[None]:
    return nullcontext() if file is None else stoppable(console, file, "measures all anew")


def _require_place(file: Path | None) -> None:
    """Raise `ValueError` where no file can be written: what is measured takes minutes, and would be lost."""
    if file is None:
        return
    if not file.parent.is_dir():
        raise ValueError(f"--json is {file}, and there is no folder {file.parent}")
    if file.exists() and not file.is_file():  # a file would take the place of a pipe or a device
        raise ValueError(f"--json is {file}, which is there and no file; allowed is a path for a file")
    if not os.access(file.parent, os.W_OK):
        raise ValueError(f"--json is {file}, and the folder {file.parent} cannot be written to")


def _write_json(file: Path | None, made: Any) -> None:
    if file is not None:
        replace(file, json.dumps(made).encode())
