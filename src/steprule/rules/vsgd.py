"""vSGD: stochastic gradient descent with rates from the variance of the gradient."""

from typing import Annotated

from ..notation import abs, maximum, minimum, where
from ..specification import NonNegative, Range, rule


@rule(
    source="Schaul, Zhang and LeCun 2012, Algorithm 1 (vSGD-l); Zeiler 2012, eq. 7",
    url="https://arxiv.org/abs/1206.1106",
)
def vsgd(
    g,
    g2,
    h,
    t,
    grad_avg=0.0,
    square_avg=0.0,
    curvature_avg=0.0,
    tau=1.0,
    *,
    batch_size: Annotated[float, Range(low=1)] = 1,
    slow_start: NonNegative = 60,
    overestimate: Annotated[float, Range(low=1)] = 1,
):
    """Step by the share of the gradient that is not noise, over the curvature.

    `g` is the mean gradient of a batch of `batch_size` examples, `g2` the mean of the squared gradients of each example (not
    the square of the mean), `h` the diagonal of the Hessian. The first `slow_start` steps move nothing and average plainly;
    then the averages of `g2` and `h` are multiplied by `overestimate`, so that the first rates are small. The authors take
    0.001 of the training examples, 60 on MNIST, and a tenth of the number of parameters, which is the default in
    `steprule.torch`.

    Where there was no gradient, or no curvature, the rate is 0: a dimension about which nothing is known does not move, and
    what is known first, after the slow start, is overestimated too (else the weights of an input that was 0 until then
    take a whole Newton step, all at once). A co-author's program adds 1e-16 to `g` and `h` instead.
    """
    starting = t <= slow_start
    memory, known = where(starting, t, tau), square_avg
    grad_avg = grad_avg + (g - grad_avg) / memory
    square_avg = square_avg + (g2 - square_avg) / memory
    curvature_avg = curvature_avg + (abs(h) - curvature_avg) / memory
    # At the end of the slow start, and later where there is a gradient for the first time.
    first = where(known > 0, 1.0, where(square_avg > 0, overestimate, 1.0))
    caution = where(starting, where(t + 1 <= slow_start, 1.0, overestimate), first)
    square_avg = caution * square_avg
    curvature_avg = caution * curvature_avg
    squared = grad_avg * grad_avg
    signal = where(square_avg > 0, squared / square_avg, 0.0)  # E[g]² / E[g²]
    # Not below 1, as rounding would have it: an average would extrapolate.
    tau = maximum((1 - signal) * memory, 0.0) + 1
    # Of a batch's mean, whose variance is that of one example over `batch_size`.
    noisy = square_avg + (batch_size - 1) * squared
    share = where(noisy > 0, batch_size * squared / noisy, 0.0)
    moved = where(starting, 0.0, 1.0)
    # Bounded, since infinity times 0 is NaN: of a saturated unit's curvature, 1e-40, float32 holds no reciprocal.
    rate = where(curvature_avg > 0, minimum(share / curvature_avg, 3e38), 0.0)
    dx = -(moved * rate) * g
    return dx, grad_avg, square_avg, curvature_avg, tau
