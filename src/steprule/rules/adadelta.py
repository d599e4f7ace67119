"""ADADELTA."""

from ..notation import sqrt
from ..specification import Decay, NonNegative, rule


@rule(source="Zeiler 2012, Algorithm 1", url="https://arxiv.org/abs/1212.5701")
def adadelta(g, square_avg=0.0, acc_delta=0.0, *, rho: Decay = 0.95, eps: NonNegative = 1e-6):
    """Step by the RMS of past updates over the RMS of past gradients.

    `eps` is inside both roots, as in the paper, PyTorch, optax and Keras. There is no rate; engines offer `lr`, which
    multiplies the update outside the accumulators (1 unless said otherwise; Keras's default of 0.001 does not converge).
    """
    square_avg = rho * square_avg + (1 - rho) * (g * g)  # line 4, eq. 8
    dx = -sqrt(acc_delta + eps) / sqrt(square_avg + eps) * g  # line 5, eq. 14
    acc_delta = rho * acc_delta + (1 - rho) * (dx * dx)  # line 6
    return dx, square_avg, acc_delta
