"""RMSProp."""

from ..notation import sqrt
from ..specification import Decay, NonNegative, rule


@rule(source="Goodfellow et al. 2016, Algorithm 8.5; Zeiler 2012, eq. 8 to 10", url="https://www.deeplearningbook.org")
def rmsprop(g, square_avg=0.0, *, lr: NonNegative = 1e-3, rho: Decay = 0.9, eps: NonNegative = 1e-6):
    """Step by the rate over the RMS of recent gradients.

    `eps` is inside the root, as in the book, the lecture and Zeiler's eq. 9. PyTorch has it outside (1e-8); optax and
    Keras have it inside. The rule is from a lecture by Hinton (Tieleman and Hinton 2012). Its average begins at 0 and is not
    corrected for that, as Adam's is: a first step is the rate over the root of 1 - rho, 3.2 times the rate.
    """
    square_avg = rho * square_avg + (1 - rho) * (g * g)  # Zeiler eq. 8
    dx = -lr / sqrt(eps + square_avg) * g  # Zeiler eq. 10
    return dx, square_avg
