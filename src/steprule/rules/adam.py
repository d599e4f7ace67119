"""Adam."""

from ..notation import sqrt
from ..specification import Decay, NonNegative, rule


@rule(source="Kingma and Ba 2015, Algorithm 1", url="https://arxiv.org/abs/1412.6980")
def adam(
    g,
    t,
    exp_avg=0.0,
    exp_avg_sq=0.0,
    *,
    lr: NonNegative = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
):
    """Step by the mean of recent gradients over their RMS, both corrected for having started at 0.

    `eps` is outside the root of the corrected average, as in the paper's Algorithm 1, PyTorch and optax; Keras has it
    outside the root of the uncorrected one. The lecture prints it inside the root, and the corrections without their powers
    of t.
    """
    exp_avg = beta1 * exp_avg + (1 - beta1) * g  # "update biased first moment estimate"
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * (g * g)  # "update biased second raw moment estimate"
    corrected = exp_avg / (1 - beta1**t)  # "compute bias-corrected first moment estimate"
    corrected_sq = exp_avg_sq / (1 - beta2**t)  # "compute bias-corrected second raw moment estimate"
    dx = -lr * corrected / (sqrt(corrected_sq) + eps)  # "update parameters"
    return dx, exp_avg, exp_avg_sq
