"""Exercise 2: the rule without the rescaled gradient g'."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....notation import sqrt
from ....program import lower
from ....rules import adadelta
from ....specification import Decay, NonNegative, rule
from ..engines.numpy import FromScratch
from ..protocol import BATCH, EVALUATED_EVERY, ROWS, Examples, Plan
from .regression import BOOK, EPOCHS, examples
from .series import Chart, Exercise, Series, points

__all__ = ["answer", "without_rescaled"]


@rule(source="Dive into Deep Learning 12.9, exercise 2", url="https://d2l.ai/chapter_optimization/adadelta.html")
def without_rescaled(
    g: Any, square_avg: Any = 0.0, acc_delta: Any = 0.0, *, rho: Decay = 0.95, eps: NonNegative = 1e-6
) -> Any:
    """ADADELTA whose average of squared updates is fed by the squared rate, so that no update is kept or squared."""
    square_avg = rho * square_avg + (1 - rho) * (g * g)  # eq. 12.9.1
    squared_rate = (acc_delta + eps) / (square_avg + eps)
    acc_delta = rho * acc_delta + (1 - rho) * (squared_rate * (g * g))  # eq. 12.9.4, with g' squared
    return -sqrt(squared_rate) * g, square_avg, acc_delta


def answer(seeds: int) -> Exercise:
    """Train by both forms side by side, in float32 and in float64."""
    apart = {dtype: [_apart(dtype, seed) for seed in range(seeds)] for dtype in ("float32", "float64")}
    seen = range(EVALUATED_EVERY, EPOCHS * ROWS + 1, EVALUATED_EVERY)
    series = tuple(Series(dtype, points(seen, zip(*own, strict=True))) for dtype, own in apart.items())
    ours, theirs = lower(without_rescaled), lower(adadelta)
    most = {dtype: max(max(own) for own in values) for dtype, values in apart.items()}
    return Exercise(
        "rescaled",
        "Show how to implement the algorithm without the use of g'. Why might this be a good idea?",
        (
            (
                f"The two forms are never further apart, in any parameter, than {most['float32']:.1e} in float32 and "
                f"{most['float64']:.1e} in float64: they are equal but for rounding."
            ),
            (
                f"As one fused loop, a step without g' does {ours.operations} operations per element and moves "
                f"{ours.bytes_per_element(4)} bytes; with g' it does {theirs.operations} and moves "
                f"{theirs.bytes_per_element(4)}. Where each operation is a pass over arrays, the form without g' has one "
                "root less, and no array of the parameter's size to keep after the parameter is stepped."
            ),
        ),
        (
            Chart(
                "rescaled",
                "How far the form without g' is from the book's",
                f"The largest difference of a parameter between the two forms; mean and range of {seeds} seeds.",
                "examples",
                "difference",
                series,
            ),
        ),
    )


def _apart(dtype: str, seed: int) -> list[float]:
    """Return the largest difference of a parameter since the last evaluation, for each evaluation."""
    rows = examples()
    given = Examples(rows.features.astype(dtype), rows.labels.astype(dtype))
    plan = Plan("numpy", "scratch", EPOCHS, BOOK)
    models = [FromScratch(plan, given, seed, each) for each in (adadelta, without_rescaled)]
    orders = np.random.default_rng([seed, 1])
    found, since, seen = [], 0.0, 0
    for _ in range(EPOCHS):
        for batch in models[0].batches(orders.permutation(ROWS)):
            for model in models:
                model.step(*batch)
            pairs = zip(*(model.parameters for model in models), strict=True)
            since = max(since, *(float(np.abs(one - other).max()) for one, other in pairs))
            seen += BATCH
            if seen % EVALUATED_EVERY == 0:
                found.append(since)
                since = 0.0
    return found
