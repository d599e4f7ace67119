"""Shards and gradients for the tests: a small model of a matrix, a table whose gradient comes by rows, and a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.conformance.cases import RULES, Form, hyper

from steprule.cluster import FIRST, Client, KeptShard, Partition, Push, Rows, Shard

SHAPES = {"weight": (3, 2), "table": (5, 2), "bias": ()}


def partition(shards: int = 1, *, sparse: bool = False) -> Partition:
    return Partition(SHAPES, shards, ["table"] if sparse else [])


def start(dtype: str = "float64") -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal(partition().size).astype(dtype)


def shard(
    name: str = "sgd",
    number: int = 0,
    of: Partition | None = None,
    form: Form | None = None,
    dtype: str = "float64",
    **more: Any,
) -> Shard:
    of, form = of or partition(), form or Form()
    around = {**form.values, "decoupled_weight_decay": form.decoupled, "maximize": form.maximize}
    options = {**hyper(name), **around, **more}
    return Shard(RULES[name], start(dtype)[of.slices[number]], of.pieces[number], **options)


def kept(folder: Path, name: str = "sgd", every: int = 1000, **more: Any) -> KeptShard:
    return KeptShard(shard(name), folder, "shard-0", every=every, **more)


def gradient(seed: int, of: Partition, dtype: str = "float64") -> tuple[NDArray[Any], dict[str, Rows]]:
    """Return a gradient as a client takes it: its dense part, and its rows, one of which comes twice."""
    rng = np.random.default_rng(seed)
    rows = {}
    for name in of.sparse:
        numbers = np.append(rng.permutation(of.shapes[name][0])[:2], seed % of.shapes[name][0])
        rows[name] = Rows(numbers, rng.standard_normal((3, *of.shapes[name][1:])).astype(dtype))
    return rng.standard_normal(of.dense_size).astype(dtype), rows


def whole(of: Partition, dense: NDArray[Any], rows: dict[str, Rows]) -> NDArray[Any]:
    """Return the same gradient, flat, with what is zero in it."""
    made = np.zeros(of.size, dense.dtype)
    views = of.views(made)
    for name, part in of.dense_views(dense).items():
        views[name][...] = part
    for name, some in rows.items():
        np.add.at(views[name], some.numbers, some.values)
    return made


def push(number: int = 0, replica: int = 0, dense: NDArray[Any] | None = None, **more: Any) -> Push:
    """Return a push to a shard that holds everything."""
    values = gradient(number, partition())[0] if dense is None else dense
    return Push(replica, number, more.pop("fetched", FIRST), more.pop("known", FIRST), values, **more)


def turn(client: Client, shards: list[Any], dense: NDArray[Any], rows: dict[str, Rows] | None = None) -> None:
    """Take one step of a client, as its module's documentation has it."""
    if client.wants_fetch:
        for number, each in enumerate(shards):
            client.take(number, each.fetch())
    for number, each in enumerate(client.give(dense, rows or {})):
        client.confirm(number, shards[number].push(each))
