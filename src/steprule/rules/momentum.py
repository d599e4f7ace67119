"""The momentum method."""

from ..specification import Decay, NonNegative, rule


@rule(source="Zeiler 2012, eq. 4", url="https://arxiv.org/abs/1212.5701")
def momentum(g, velocity=0.0, *, lr: NonNegative, rho: Decay = 0.9):
    """Step by a decaying sum of past steps, each against its gradient.

    The rate is inside the accumulator, as in the paper: after a change of `lr` the past steps keep the rate that they were
    made with. `torch.optim.SGD` and `optax.sgd` keep the sum of gradients and multiply it by the present rate; with a
    constant rate all agree.
    """
    velocity = rho * velocity - lr * g  # eq. 4
    return velocity, velocity
