"""Rules of your own: one function each, which every engine takes as it stands.

    steprule show examples/own_rule.py:yogi
    steprule compare --rules adadelta,examples/own_rule.py:yogi,examples/own_rule.py:lion

In Python, `steprule.torch.optimizer(yogi)` is its `torch.optim.Optimizer` class.

The signature says what is what. `g` is the gradient, which the engine supplies; a parameter with a number is what the rule
remembers from step to step, and the number is where it starts; behind the `*` stand the hyperparameters, each with the
range of its values. The function returns the update of the parameter, then what is remembered, in the same order.
"""

from steprule import Decay, NonNegative, rule
from steprule.notation import sign, sqrt


@rule(
    source="Zaheer et al. 2018, Algorithm 2",
    url="https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization",
)
def yogi(
    g,
    exp_avg=0.0,
    exp_avg_sq=1e-6,
    *,
    lr: NonNegative = 1e-2,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-3,
):
    """Step as Adam does, with an average of squares that moves by the size of a square, not by its distance to one."""
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = exp_avg_sq - (1 - beta2) * sign(exp_avg_sq - g * g) * (g * g)
    dx = -lr * exp_avg / (sqrt(exp_avg_sq) + eps)
    return dx, exp_avg, exp_avg_sq


@rule(source="Chen et al. 2023, Algorithm 2", url="https://arxiv.org/abs/2302.06675")
def lion(g, exp_avg=0.0, *, lr: NonNegative = 1e-4, beta1: Decay = 0.9, beta2: Decay = 0.99):
    """Step by the sign of an average of the gradients. The paper's weight decay is the decoupled one of every engine."""
    dx = -lr * sign(beta1 * exp_avg + (1 - beta1) * g)
    exp_avg = beta2 * exp_avg + (1 - beta2) * g
    return dx, exp_avg


@rule(source="Goodfellow et al. 2016, 8.5.3", url="https://www.deeplearningbook.org")
def rmsprop_momentum(
    g,
    square_avg=0.0,
    velocity=0.0,
    *,
    lr: NonNegative = 1e-3,
    rho: Decay = 0.9,
    alpha: Decay = 0.9,
    eps: NonNegative = 1e-6,
):
    """Step by momentum on the gradient over the RMS of recent gradients, as Keras's RMSprop does with its `momentum`."""
    square_avg = rho * square_avg + (1 - rho) * (g * g)
    velocity = alpha * velocity - lr / sqrt(eps + square_avg) * g
    return velocity, square_avg, velocity
