"""Newton's method with the diagonal of the Hessian alone."""

from ..notation import abs
from ..specification import Positive, rule


@rule(source="Becker and LeCun 1988; Zeiler 2012, eq. 6", url="https://arxiv.org/abs/1212.5701")
def diagonal_newton(g, h, *, mu: Positive):
    """Step by the gradient over the size of the curvature along each dimension.

    `h` is the diagonal of the Hessian or an estimate of it, of either sign. `mu` bounds the step where the curvature is
    small; the papers leave it to the user. Zeiler's equation has no rate; the one of Becker and LeCun is the engine's `lr`.
    """
    dx = -g / (abs(h) + mu)  # eq. 6
    return dx
