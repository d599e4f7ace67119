"""The measurements as tables for a terminal and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.table import Table

import torch

from .. import __version__
from ..lab import machine
from .sparse import SparseBench
from .steps import LOW, StepBench
from .timing import Times

__all__ = ["as_json", "made_with", "shown", "step_as_json", "tables"]

_ORDER = ("steprule", *LOW, "torch for-loop", "torch foreach", "torch fused", "torch compiled", "limit")


def shown(times: Times | None, unit: float = 1e3) -> str:
    """Return a median and its quartiles, in the unit of which a second has so many."""
    if times is None:
        return "-"
    low, high = times.quartiles
    return f"{times.median * unit:.3g} ({low * unit:.3g}-{high * unit:.3g})"


def tables(
    steps: Sequence[StepBench],
    first: Mapping[str, Times],
    epoch: Mapping[str, Times],
    sparse: Sequence[SparseBench] = (),
) -> list[Table]:
    """Return the tables of what was measured; times are medians with quartiles."""
    found = []
    if steps:
        found += [_step_table(steps), _ratio_table(steps)]
    if sparse:
        found.append(_sparse_table(sparse))
    if first:
        table = Table("", "seconds", title="First step of a process, import torch aside", title_justify="left")
        for kind, times in first.items():
            table.add_row(kind, shown(times, 1))
        found.append(table)
    if epoch:
        title = "One epoch of the paper's MNIST net, 60,000 images, batches of 100, ADADELTA"
        table = Table("", "seconds", "over the products", "usual loop over it", title=title, title_justify="left")
        for kind, times in epoch.items():
            over = times.median / epoch["products"].median
            under = epoch["usual loop"].median / times.median
            table.add_row(kind, shown(times, 1), f"{over:.2f}", f"{under:.2f}")
        found.append(table)
    return found


def _step_table(steps: Sequence[StepBench]) -> Table:
    names = [name for name in _ORDER if any(name in bench.times for bench in steps)]
    table = Table("rule", "size", title="One step, ms: median (quartiles)", title_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    for bench in steps:
        size = f"{bench.size}: {bench.tensors} tensors, {bench.elements:,}"
        table.add_row(bench.rule, size, *(shown(bench.times.get(name)) for name in names))
    return table


def _ratio_table(steps: Sequence[StepBench]) -> Table:
    table = Table("rule", "size", title="Ratios of the medians", title_justify="left")
    for heading in (
        "best of eager torch / ours",
        "torch fused / ours",
        "compiled / ours",
        "bytes per element",
        "GB/s",
        "of limit",
    ):
        table.add_column(heading, justify="right")
    for bench in steps:
        mine = bench.times["steprule"].median

        def ratio(name: str, bench: StepBench = bench, mine: float = mine) -> str:
            return f"{bench.times[name].median / mine:.2f}" if name in bench.times else "-"

        table.add_row(
            bench.rule,
            bench.size,
            ratio(bench.best_of_eager),
            ratio("torch fused"),
            ratio("torch compiled"),
            str(bench.moved),
            f"{bench.bandwidth('steprule') / 1e9:.1f}",
            f"{bench.share_of_limit:.2f}",
        )
    return table


def _sparse_table(benches: Sequence[SparseBench]) -> Table:
    one = benches[0]
    title = (
        f"One step by a sparse gradient, {one.touched:,} of {one.rows:,} rows of {one.width}, ms: median (quartiles)"
    )
    table = Table("rule", title=title, title_justify="left")
    for heading in ("ours", "ours, dense", "torch's sparse", "dense / ours", "torch's / ours"):
        table.add_column(heading, justify="right")
    for bench in benches:
        ratios = [bench.ratio(name) for name in ("dense", "torch")]
        table.add_row(
            bench.rule,
            *(shown(bench.times.get(name)) for name in ("sparse", "dense", "torch")),
            *("-" if ratio is None else f"{ratio:.1f}" for ratio in ratios),
        )
    return table


def made_with(**more: Any) -> dict[str, Any]:
    """Return when, with what and on what something was measured, and what `more` there is to say of that."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "steprule": __version__,
        "python": platform.python_version(),
        "processor": machine.processor(),
        "cores": machine.available_cores(),
        **more,
    }


def step_as_json(bench: Any, **more: Any) -> dict[str, Any]:
    """Return the measurements of one rule at one size, and what `more` there is to say of them."""
    return {
        "rule": bench.rule,
        "size": bench.size,
        "tensors": bench.tensors,
        "elements": bench.elements,
        "bytes_per_element": bench.moved,
        **more,
        "seconds": {name: times.seconds for name, times in bench.times.items()},
    }


def as_json(
    steps: Sequence[StepBench],
    first: Mapping[str, Times],
    epoch: Mapping[str, Times],
    sparse: Sequence[SparseBench] = (),
    device: str = "cpu",
) -> dict[str, Any]:
    """Return all measurements, every repetition included, in seconds, and what they were made with."""
    card = {} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}
    return {
        "made": made_with(
            torch=str(torch.__version__),
            threads=torch.get_num_threads(),
            vectors=torch.backends.cpu.get_cpu_capability(),
            **card,
        ),
        "steps": [step_as_json(bench, compile_seconds=bench.compile_seconds) for bench in steps],
        "sparse": [
            {
                "rule": bench.rule,
                "rows": bench.rows,
                "width": bench.width,
                "touched": bench.touched,
                "seconds": {name: times.seconds for name, times in bench.times.items()},
            }
            for bench in sparse
        ],
        "first_step": {kind: times.seconds for kind, times in first.items()},
        "epoch": {kind: times.seconds for kind, times in epoch.items()},
    }
