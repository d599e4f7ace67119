"""The first and second derivative of each activation, element by element, from its input `x` and its output `y`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Derivatives"]

Derivatives = tuple[Tensor, Tensor | None]
"""f'(x) and f''(x); None stands for a second derivative that is 0 everywhere but in the kinks, where it is taken as 0."""


def _tanh(_: Any, x: Tensor, y: Tensor) -> Derivatives:  # noqa: ARG001  # every activation has the same arguments
    slope = 1 - y * y
    return slope, -2 * y * slope


def _sigmoid(_: Any, x: Tensor, y: Tensor) -> Derivatives:  # noqa: ARG001
    slope = y * (1 - y)
    return slope, slope * (1 - 2 * y)


def _relu(_: Any, x: Tensor, y: Tensor) -> Derivatives:
    return (x > 0).to(y.dtype), None


def _leaky_relu(module: Any, x: Tensor, y: Tensor) -> Derivatives:  # noqa: ARG001
    # Two numbers in `torch.where` would be float32, whatever x is.
    return torch.full_like(x, module.negative_slope).masked_fill_(x > 0, 1), None


def _elu(module: Any, x: Tensor, y: Tensor) -> Derivatives:
    bend = torch.where(x > 0, 0.0, y + module.alpha)
    return torch.where(x > 0, 1.0, bend), bend


def _silu(_: Any, x: Tensor, y: Tensor) -> Derivatives:
    s = torch.sigmoid(x)
    slope = s + y * (1 - s)
    return slope, (1 - s) * (2 * slope - y)


def _softplus(module: Any, x: Tensor, y: Tensor) -> Derivatives:  # noqa: ARG001
    # Beyond the threshold, PyTorch's softplus is the identity.
    linear = x * module.beta > module.threshold
    s = torch.sigmoid(module.beta * x)
    return torch.where(linear, 1.0, s), torch.where(linear, 0.0, module.beta * s * (1 - s))


def _gelu(module: Any, x: Tensor, y: Tensor) -> Derivatives:  # noqa: ARG001
    if module.approximate == "none":
        density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return below + x * density, density * (2 - x * x)
    # y = x (1 + tanh u) / 2 with u = c (x + a x³).
    a, c = 0.044715, math.sqrt(2 / math.pi)
    u, u_slope, u_bend = c * (x + a * x**3), c * (1 + 3 * a * x * x), 6 * a * c * x
    t = torch.tanh(u)
    t_slope = (1 - t * t) * u_slope
    t_bend = (1 - t * t) * u_bend - 2 * t * t_slope * u_slope
    return 0.5 * (1 + t + x * t_slope), t_slope + 0.5 * x * t_bend


ACTIVATIONS: Final[Mapping[type[nn.Module], Callable[[Any, Tensor, Tensor], Derivatives]]] = {
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky_relu,
    nn.ELU: _elu,
    nn.GELU: _gelu,
    nn.SiLU: _silu,
    nn.Softplus: _softplus,
}
