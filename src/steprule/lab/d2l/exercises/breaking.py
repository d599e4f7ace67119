"""Exercise 3: is ADADELTA learning rate free? Three problems that break it, each with what helps.

eps has the unit of a squared gradient in one root and of a squared parameter in the other: a problem in other units meets
another rule. And where the gradient vanishes both roots tend to that of eps, so that the rate tends to 1 whatever the
curvature is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .... import reference
from ....rules import adadelta
from ...numerals import numeral
from .regression import EPOCHS, finals
from .series import Chart, Exercise, Point, Series, points

__all__ = ["answer", "descend"]

SCALES: Final = tuple(10.0**power for power in range(-8, 9))
SCALED_EPS: Final = (1e-2, 1e-5, 1e-8, 1e-12)
CURVATURES: Final = (1e-3, 1.0, 1e3)
STEPS: Final = 10_000
DISTANCES: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
DISTANT_EPS: Final = (1e-2, 1e-4, 1e-6)
MOST_STEPS: Final = 30_000

Array = NDArray[np.float64]


def descend(curvatures: Sequence[float], start: float, **hyperparameters: Any) -> Iterator[tuple[Array, Array]]:
    """Step down curvature/2 x squared, by its exact gradient, from `start`, in a dimension for each curvature, for ever.

    Yields |x| after each step, and the rates |dx / g|, both (dimensions,); a rate is NaN where g is 0.
    """
    a = np.array(curvatures)
    x = np.full(a.shape, start)
    state: dict[str, Any] = reference.init(adadelta, x)
    while True:
        before = x
        x, state = reference.step(adadelta, before, a * before, state, **hyperparameters)
        with np.errstate(divide="ignore", invalid="ignore"):
            yield np.abs(x), np.abs((x - before) / (a * before))


def answer(seeds: int) -> Exercise:
    """Run all three."""
    scaled, scale_finding = _scaled_losses(seeds)
    bowls, bowl_findings = _bowls()
    far, far_finding = _far_starts()
    return Exercise(
        "breaking",
        "Is Adadelta really learning rate free? Could you find optimization problems that break Adadelta?",
        (scale_finding, *bowl_findings, far_finding),
        (scaled, *bowls, far),
    )


def _scaled_losses(seeds: int) -> tuple[Chart, str]:
    losses = {eps: [finals(seeds, scale=scale, eps=eps) for scale in SCALES] for eps in SCALED_EPS}
    chart = Chart(
        "loss-scale",
        "The airfoil's loss multiplied by a number",
        f"Final loss, not multiplied, after {EPOCHS} epochs; rho 0.9; mean and range of {seeds} seeds.",
        "what the loss is multiplied by",
        "loss",
        tuple(Series(f"eps {numeral(eps)}", points(SCALES, values)) for eps, values in losses.items()),
        log_x=True,
    )
    book = dict(zip(SCALES, losses[1e-5], strict=True))
    small, one = float(np.mean(book[1e-6])), float(np.mean(book[1.0]))
    return chart, (
        f"With the loss multiplied by 1e-6 and eps 1e-5 the final loss is {small:.3f} in place of {one:.3f}: the gradients "
        "are below the root of eps, and each step is the gradient times a rate near 1."
    )


def _bowls() -> tuple[tuple[Chart, ...], tuple[str, ...]]:
    flattest, steepest = CURVATURES[0], CURVATURES[-1]
    walks = (
        descend(CURVATURES, 1.0, rho=0.95, eps=1e-6),
        descend([steepest], 1.0, rho=0.95, eps=1e-6, lr_decay=0.01),
        descend([flattest], 1.0, rho=0.95, eps=1e-6, lr=100.0),
    )
    names = [f"curvature {numeral(each)}" for each in CURVATURES]
    names += [f"curvature {numeral(steepest)}, lr decays", f"curvature {numeral(flattest)}, lr 100"]
    together = itertools.islice(zip(*walks, strict=True), STEPS)
    told = [[np.concatenate(parts) for parts in zip(*steps, strict=True)] for steps in together]
    distances, rates = map(np.array, zip(*told, strict=True))
    about = "Settings: rho 0.95, eps 1e-6, from x = 1, the exact gradient"
    charts = tuple(
        Chart(name, title, caption, "step", y, _over_time(names, values), log_x=True)
        for name, title, caption, y, values in (
            (
                "bowl-distance",
                "Distance from the minimum of a parabola",
                f"Median and range since the point before; nothing is drawn below 1e-8. {about}.",
                "|x|",
                np.where(distances < 1e-8, np.nan, distances),
            ),
            (
                "bowl-rate",
                "The rate: update over gradient",
                f"Median and range since the point before. {about}.",
                "rate",
                rates,
            ),
        )
    )
    held = np.median(rates[-100:, 2])
    flat, steep = distances[-1, 0], distances[-100:, 2].max()
    return charts, (
        (
            f"In a bowl of curvature 0.001 the rate tends to 1, and after {STEPS:,} exact steps |x| is still {flat:.1e}: "
            "it shrinks by a thousandth a step."
        ),
        (
            f"In a bowl of curvature 1000 a rate of 1 overshoots: the growing gradients hold the rate at 2/curvature "
            f"({held:.5f}), and x swings from side to side, by {steep:.3f} at the end and more and more."
        ),
        f"With lr decaying as 1/(1 + 0.01 t) the swing is {distances[-100:, 3].max():.1e}.",
        (
            f"With lr 100 the flat bowl's |x| is below 1e-4 after {_first_below(distances[:, 4])} steps, in place of "
            f"{_first_below(distances[:, 0])}."
        ),
    )


def _first_below(distances: Array) -> int:
    return int(np.argmax(distances < 1e-4)) + 1


def _over_time(names: Sequence[str], values: Array) -> tuple[Series, ...]:
    """Return about 12 points for each factor of ten in steps."""
    ends = np.unique(np.logspace(0, np.log10(len(values)), 49).astype(int))
    starts = [0, *ends[:-1]]
    found = []
    for name, own in zip(names, values.T, strict=True):
        parts = [(int(end), own[first:end]) for first, end in zip(starts, ends, strict=True)]
        kept = [(end, part[np.isfinite(part)]) for end, part in parts]
        found.append(Series(name, tuple(_point(end, part) for end, part in kept if len(part))))
    return tuple(found)


def _point(end: int, part: Array) -> Point:
    return Point(end, float(np.median(part)), float(part.min()), float(part.max()))


def _far_starts() -> tuple[Chart, str]:
    steps = {eps: [_steps_from(distance, eps) for distance in DISTANCES] for eps in DISTANT_EPS}
    series = tuple(
        Series(
            f"with eps {numeral(eps)}",
            tuple(Point.of(d, [n]) for d, n in zip(DISTANCES, own, strict=True) if n is not None),
        )
        for eps, own in steps.items()
    )
    chart = Chart(
        "far-start",
        "Steps to come near from afar",
        f"Steps until |x| < 0.5 in a bowl of curvature 1; rho 0.9; not drawn where {MOST_STEPS:,} do not do.",
        "distance at the start",
        "steps",
        series,
        log_x=True,
    )
    near, far = steps[1e-6][0], steps[1e-6][2]
    return chart, (
        f"With eps 1e-6 the way from x = 1 takes {near} steps and that from x = 10 takes {far}: the first steps are of "
        "the size of the root of eps, in whatever unit x is."
    )


def _steps_from(distance: float, eps: float) -> int | None:
    walk = itertools.islice(descend([1.0], distance, rho=0.9, eps=eps), MOST_STEPS)
    return next((step for step, (x, _) in enumerate(walk, 1) if x[0] < 0.5), None)
