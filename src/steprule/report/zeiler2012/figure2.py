"""The paper's Fig. 2 as a figure: step sizes left, updates right, a row for each weight matrix."""

from __future__ import annotations

from ...lab.zeiler2012.figure2 import LAYERS, Trainings
from .. import words
from ..drawing import Figure
from ..rates import Layer, figure

__all__ = ["courses"]

_TITLES = dict(
    zip(LAYERS, ("lowest weights, 784 x 500", "middle weights, 500 x 300", "top weights, 300 x 10"), strict=True)
)


def courses(found: Trainings) -> Figure | None:
    """Return the figure of the first seed; None where no training has ended."""
    if found.is_empty:
        return None
    settings, course = found.settings, found.courses[0]
    *shares, last = (f"{100 * course.without_gradient[name]:.0f} %" for name in LAYERS)
    layers = [Layer(_TITLES[name], course.batches, course.sizes[name], course.updates[name]) for name in LAYERS]
    chart = figure(layers, "batch", "step size")
    return Figure(
        name=found.part.name,
        part=found.part.name,
        title=found.part.title,
        caption=f"Seed {course.seed}. Every {settings.every} batches, {settings.sample} random dimensions of each weight "
        "matrix. A step size is -update / gradient, that is all of eq. 14 but the gradient; where the gradient is 0 "
        f"({', '.join(shares)} and {last} of the points, the lowest layer first), its limit for a vanishing gradient.",
        description=f"Step sizes and updates of {settings.sample} dimensions of each of the three weight matrices over "
        f"{words.plural(settings.epochs, 'epoch')}.",
        chart=chart,
        least_width=790,
        most_width=790,
    )
