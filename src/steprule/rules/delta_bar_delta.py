"""Delta-bar-delta."""

from ..notation import where
from ..specification import Decay, NonNegative, rule


@rule(
    source="Jacobs 1988; Goodfellow et al. 2016, 8.5",
    url="https://doi.org/10.1016/0893-6080(88)90003-2",
)
def delta_bar_delta(
    g,
    grad_avg=0.0,
    rate=-1.0,
    *,
    initial_rate: NonNegative,
    kappa: NonNegative,
    phi: Decay,
    theta: Decay = 0.7,
):
    """Step by a rate of each dimension that grows while the gradient keeps its sign and shrinks when it turns.

    For gradients of the full batch only: the noise of mini-batches turns signs too, and the rates shrink without cause.
    Every rate starts at `initial_rate`; it grows by `kappa`, a sum, and shrinks by the share `phi`, a product. The paper
    leaves all three to the user.
    """
    rate = where(rate < 0, initial_rate, rate)  # below 0 there is none yet
    agreement = grad_avg * g  # of this gradient with the average of those before
    rate = where(agreement > 0, rate + kappa, where(agreement < 0, (1 - phi) * rate, rate))
    grad_avg = (1 - theta) * g + theta * grad_avg
    dx = -rate * g
    return dx, grad_avg, rate
