"""RMSProp with Nesterov momentum."""

from ..notation import sqrt
from ..specification import Decay, NonNegative, rule


@rule(source="Goodfellow et al. 2016, Algorithm 8.6", url="https://www.deeplearningbook.org")
def rmsprop_nesterov(
    g,
    square_avg=0.0,
    velocity=0.0,
    *,
    lr: NonNegative = 1e-3,
    rho: Decay = 0.9,
    alpha: Decay = 0.9,
    eps: NonNegative = 1e-6,
):
    """Step by Nesterov momentum on the gradient over the RMS of recent gradients.

    The stored parameter is the interim point x + alpha v, as in `nesterov`. The book prints no `eps` in Algorithm 8.6; the
    rule takes one inside the root, with the default of Algorithm 8.5. No large library has this form.
    """
    square_avg = rho * square_avg + (1 - rho) * (g * g)  # Algorithm 8.6, "accumulate gradient"
    new = alpha * velocity - lr / sqrt(eps + square_avg) * g  # Algorithm 8.6, "compute velocity update"
    dx = (1 + alpha) * new - alpha * velocity  # Algorithm 8.6, "apply update", between interim points
    return dx, square_avg, new
