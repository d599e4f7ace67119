"""Gradient descent."""

from ..specification import NonNegative, rule


@rule(source="Zeiler 2012, eq. 2", url="https://arxiv.org/abs/1212.5701")
def sgd(g, *, lr: NonNegative):
    """Step against the gradient.

    The paper leaves the rate `lr` to the user.
    """
    dx = -lr * g  # eq. 2
    return dx
