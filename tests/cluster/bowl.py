"""Gradients of a bowl, and what can go wrong with those who compute them; replicas import this file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprule.cluster.messages import Rows
from steprule.cluster.plan import Gradient, Work

__all__ = ["CENTRE", "bowl", "broken", "hanging", "unwilling", "with_rows", "work"]

CENTRE = 3.0
ENDLESS = 600.0


def work(gradient: Callable[[int, int], Gradient] | None = None, size: int = 50_000) -> Work:
    """Return a work whose arrays are so large that Ray puts them into its store."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"weight": (size // 100, 100), "bias": ()}
    return Work({name: rng.standard_normal(shape) for name, shape in shapes.items()}, gradient or bowl)


def _distance(tensors: Mapping[str, NDArray[Any]], into: Mapping[str, NDArray[Any]]) -> tuple[float, dict[str, Rows]]:
    for name, gradient in into.items():
        gradient[...] = tensors[name] - CENTRE
    return float(np.mean((tensors["weight"] - CENTRE) ** 2)), {}


def bowl(replica: int, start: int) -> Gradient:
    def gradient(tensors: Any, into: Any) -> Any:
        time.sleep(0.005)
        return _distance(tensors, into)

    return gradient


def with_rows(replica: int, start: int) -> Gradient:
    """Every other row of the weight, as rows."""

    def gradient(tensors: Any, into: Any) -> Any:
        into["bias"][...] = tensors["bias"] - CENTRE
        numbers = np.arange(replica % 2, len(tensors["weight"]), 2)
        return 0.0, {"weight": Rows(numbers, tensors["weight"][numbers] - CENTRE)}

    return gradient


def broken(replica: int, start: int) -> Gradient:
    """Replica 1 has nothing but NaN to give."""

    def gradient(tensors: Any, into: Any) -> Any:
        loss, rows = bowl(replica, start)(tensors, into)
        if replica == 1:
            into["weight"][0] = np.nan
        return loss, rows

    return gradient


def all_broken(replica: int, start: int) -> Gradient:
    return broken(1, start)


class hanging:
    """Replica 1 hangs in its fourth step, at its first start; it leaves a note in the folder, as Ray may start it anew."""

    def __init__(self, folder: Path) -> None:
        self.note = folder / "hung"

    def __call__(self, replica: int, start: int) -> Gradient:
        steps = iter(range(1 << 30))

        def gradient(tensors: Any, into: Any) -> Any:
            if replica == 1 and next(steps) == 3 and not self.note.exists():
                self.note.write_text("")
                time.sleep(ENDLESS)
            return bowl(replica, start)(tensors, into)

        return gradient


def unwilling(replica: int, start: int) -> Gradient:
    def gradient(tensors: Any, into: Any) -> Any:
        raise LookupError("there are no data here")

    return gradient


def unstartable(replica: int, start: int) -> Gradient:
    raise LookupError("there are no data anywhere")
