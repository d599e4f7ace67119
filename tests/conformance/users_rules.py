"""Two rules as a user would write them, in a file of their own: Yogi and Lion."""

from steprule import Decay, NonNegative, rule
from steprule.notation import sign, sqrt

__all__ = ["lion", "yogi"]


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
    """Step as Adam does, with a second moment that grows and shrinks by what the squared gradient says, not by its size."""
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = exp_avg_sq - (1 - beta2) * sign(exp_avg_sq - g * g) * (g * g)
    dx = -lr * exp_avg / (sqrt(exp_avg_sq) + eps)
    return dx, exp_avg, exp_avg_sq


@rule(source="Chen et al. 2023, Algorithm 2", url="https://arxiv.org/abs/2302.06675")
def lion(g, exp_avg=0.0, *, lr: NonNegative = 1e-4, beta1: Decay = 0.9, beta2: Decay = 0.99):
    """Step by the sign of a mean of the gradients; the paper's decay is `around`'s decoupled one."""
    dx = -lr * sign(beta1 * exp_avg + (1 - beta1) * g)
    exp_avg = beta2 * exp_avg + (1 - beta2) * g
    return dx, exp_avg
