"""AdaGrad."""

from ..notation import sqrt
from ..specification import NonNegative, rule


@rule(
    source="Duchi et al. 2011; Goodfellow et al. 2016, Algorithm 8.4", url="https://jmlr.org/papers/v12/duchi11a.html"
)
def adagrad(g, sum=0.0, *, lr: NonNegative = 0.01, eps: NonNegative = 1e-7):
    """Step by the rate over the root of the sum of all squared gradients.

    `eps` is outside the root, as in Goodfellow's Algorithm 8.4 and in PyTorch (there 1e-10). Zeiler's eq. 5 prints none;
    the lecture, optax and Keras have theirs inside the root, and the sums of the last two begin at 0.1.
    """
    sum = sum + g * g  # Algorithm 8.4, "accumulate squared gradient"
    dx = -lr / (eps + sqrt(sum)) * g  # Algorithm 8.4, "compute update"; Zeiler eq. 5
    return dx, sum
