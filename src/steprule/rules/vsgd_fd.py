"""vSGD with the curvature from finite differences."""

from typing import Annotated

from ..notation import abs, maximum, where
from ..specification import NonNegative, Range, rule


@rule(source="Schaul and LeCun 2013, Algorithm 1 (vSGD-fd)", url="https://arxiv.org/abs/1301.3764")
def vsgd_fd(
    g,
    g2,
    h,
    t,
    grad_avg=0.0,
    square_avg=0.0,
    curvature_avg=0.0,
    curvature_square_avg=0.0,
    tau=1.0,
    *,
    batch_size: Annotated[float, Range(low=1)] = 1,
    slow_start: NonNegative = 60,
    overestimate: Annotated[float, Range(low=1)] = 1,
    outlier: NonNegative = 2,
):
    """Step as vSGD does, with a curvature that may be noisy, and a longer memory where an outlier comes.

    `h` is `|g(x) - g(x + grad_avg)| / |grad_avg|`, both gradients of the same batch. Its noise counts as that of `g` does:
    the rate is multiplied by E[h]² / E[h²]. A gradient or curvature that is `outlier` standard deviations from its average
    lengthens the memory by 1. `g`, `g2`, the slow start, and dimensions of which nothing is known are as in `vsgd`.
    """
    starting = t <= slow_start
    g_apart, h_apart = g - grad_avg, abs(h) - curvature_avg
    # Of a batch's mean gradient the variance is that of one example over `batch_size`; of `h` there is one for a batch.
    far = where(
        g_apart * g_apart > outlier * outlier / batch_size * (square_avg - grad_avg * grad_avg),
        1.0,
        where(h_apart * h_apart > outlier * outlier * (curvature_square_avg - curvature_avg * curvature_avg), 1.0, 0.0),
    )
    memory, known = where(starting, t, tau + far), square_avg
    grad_avg = grad_avg + g_apart / memory
    square_avg = square_avg + (g2 - square_avg) / memory
    curvature_avg = curvature_avg + h_apart / memory
    curvature_square_avg = curvature_square_avg + (h * h - curvature_square_avg) / memory
    # At the end of the slow start, and later where there is a gradient for the first time.
    first = where(known > 0, 1.0, where(square_avg > 0, overestimate, 1.0))
    caution = where(starting, where(t + 1 <= slow_start, 1.0, overestimate), first)
    square_avg = caution * square_avg
    curvature_avg = caution * curvature_avg
    curvature_square_avg = caution * caution * curvature_square_avg
    squared = grad_avg * grad_avg
    signal = where(square_avg > 0, squared / square_avg, 0.0)  # E[g]² / E[g²]
    # Not below 1, as rounding would have it: an average would extrapolate.
    tau = maximum((1 - signal) * memory, 0.0) + 1
    noisy = square_avg + (batch_size - 1) * squared
    share = where(noisy > 0, batch_size * squared / noisy, 0.0)
    inverse = where(curvature_square_avg > 0, curvature_avg / curvature_square_avg, 0.0)  # E[h] / E[h²]
    moved = where(starting, 0.0, 1.0)
    rate = share * inverse
    dx = -(moved * rate) * g
    return dx, grad_avg, square_avg, curvature_avg, curvature_square_avg, tau
