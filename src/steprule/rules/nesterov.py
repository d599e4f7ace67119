"""Nesterov's accelerated gradient."""

from ..specification import Decay, NonNegative, rule


@rule(source="Sutskever et al. 2013, eq. 3 and 4", url="https://proceedings.mlr.press/v28/sutskever13.html")
def nesterov(g, velocity=0.0, *, lr: NonNegative, rho: Decay = 0.9):
    """Step as momentum does, with the gradient taken where momentum is about to lead.

    The stored parameter is that interim point, x + rho v, so that `g` is an ordinary gradient at the stored parameter;
    the rate is inside the accumulator. `torch.optim.SGD(nesterov=True)` has the rate outside; with a constant rate both
    make the same steps.
    """
    new = rho * velocity - lr * g  # eq. 3, with g at x + rho v
    dx = (1 + rho) * new - rho * velocity  # eq. 4, from one interim point to the next
    return dx, new
