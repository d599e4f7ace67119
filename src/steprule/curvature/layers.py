"""How a layer passes second derivatives back, and what they and per-example squares are for its parameters.

One table holds every layer that is known. In it, `h` is an array of second derivatives of the loss, one for each element of
a layer's output `y`, as if that array were the diagonal of a matrix with nothing beside it (Becker & LeCun 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch.nn import functional
from torch.nn import grad as convolutions

import torch
from torch import Tensor, nn

from .activations import ACTIVATIONS
from .recording import Call

__all__ = ["LAYERS", "Layer"]


Arrays = Mapping[str, Tensor]
"""Arrays of an earlier pass, by the parameter's name in the module, that a result may be written into."""


def _nothing(_: Call) -> str | None:
    return None


@dataclass(frozen=True)
class Layer:
    """What is known of a type of layer."""

    back: Callable[[Call, Tensor], Tensor]
    """From the second derivatives for `y` to those for `x`."""
    refusal: Callable[[Call], str | None] = _nothing
    """What about a call is not allowed, and what is."""
    parameters: Callable[[Call, Tensor, Arrays], dict[str, Tensor]] | None = None
    """From the second derivatives for `y` to those for each parameter, the uses of a shared weight added up."""
    squares: Callable[[Call, Tensor, Arrays], dict[str, Tensor]] | None = None
    """From the gradients of the examples' own losses for `y` to the sum of their squares for each parameter."""
    needs_graph: bool = False
    """Whether `back` goes through autograd's graph once more."""


def _through_graph(call: Call, v: Tensor) -> Tensor:
    """Return `v` times the layer's Jacobian, which must not depend on anything that changes between two calls."""
    return torch.autograd.grad(call.y, call.x, v, retain_graph=True)[0]


def _refuse_unowned(call: Call) -> str | None:
    # A bias that is pruned is computed from `bias_orig`.
    if "weight" not in call.module._parameters or not call.trained.keys() <= {"weight", "bias"}:
        return "a weight that is computed from others; allowed is one that is a parameter"
    return None


def _activation(call: Call, h: Tensor) -> Tensor:
    slope, bend = ACTIVATIONS[type(call.module)](call.module, call.x, call.y)
    back = slope * slope * h
    # Without the gradient this is the Levenberg-Marquardt form: the second term is dropped.
    return back if bend is None or call.y_grad is None else back + bend * call.y_grad


def _dropout(call: Call, h: Tensor) -> Tensor:
    # The mask of this pass is in the graph: once for each of the two factors.
    return _through_graph(call, _through_graph(call, h))


def _reshaped(call: Call, h: Tensor) -> Tensor:
    return h.reshape(call.x.shape)


def _per_dimension(value: Any, call: Call) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * _POOLED[type(call.module)]


_POOLED: Final[Mapping[type[nn.Module], int]] = {
    nn.AvgPool1d: 1,
    nn.AvgPool2d: 2,
    nn.AdaptiveAvgPool1d: 1,
    nn.AdaptiveAvgPool2d: 2,
}


def _product(sizes: Any) -> int:
    return int(torch.Size(sizes).numel())


def _average_pool(call: Call, h: Tensor) -> Tensor:
    module: Any = call.module
    divisor = getattr(module, "divisor_override", None) or _product(_per_dimension(module.kernel_size, call))
    return _through_graph(call, h) / divisor


def _refuse_uneven_average(call: Call) -> str | None:
    module: Any = call.module
    if module.ceil_mode:
        return "ceil_mode=True; allowed is False"
    if any(_per_dimension(module.padding, call)) and not module.count_include_pad:
        return "padding with count_include_pad=False; allowed is True"
    return None


def _adaptive_average_pool(call: Call, h: Tensor) -> Tensor:
    dimensions = _POOLED[type(call.module)]
    return _through_graph(call, h) * (_product(call.y.shape[-dimensions:]) / _product(call.x.shape[-dimensions:]))


def _refuse_uneven_adaptive_average(call: Call) -> str | None:
    dimensions = _POOLED[type(call.module)]
    before, after = call.x.shape[-dimensions:], call.y.shape[-dimensions:]
    if any(larger % smaller for larger, smaller in zip(before, after, strict=True)):
        return f"windows of several sizes, from {tuple(before)} to {tuple(after)}; allowed is a multiple"
    return None


def _linear(call: Call, h: Tensor) -> Tensor:
    weight: Any = call.module.weight
    back: Tensor = h @ (weight * weight)
    return back


def _linear_parameters(call: Call, h: Tensor, into: Arrays) -> dict[str, Tensor]:
    rows, x_squared = (h, call.x_squared) if h.dim() == 2 else (h.flatten(0, -2), call.x_squared.flatten(0, -2))
    # A product of one column and one row is none to a matrix library, which takes half as long again for it.
    multiply = torch.mul if rows.shape[0] == 1 else torch.mm
    return _trained(
        call,
        lambda: multiply(rows.T, x_squared, out=into.get("weight")),
        lambda: torch.sum(rows, 0, out=into.get("bias")),
    )


def _linear_squares(call: Call, grads: Tensor, into: Arrays) -> dict[str, Tensor]:
    if grads.dim() == 2:  # the square of a product is the product of squares, and no gradient of an example is needed
        return _linear_parameters(call, grads * grads, into)
    rows = grads.flatten(1, -2)
    return _trained(
        call,
        lambda: (rows.mT @ call.x.flatten(1, -2)).square().sum(0),
        lambda: rows.sum(1).square().sum(0),
    )


def _refuse_linear(call: Call) -> str | None:
    if call.x.dim() < 2:
        return f"an input of shape {tuple(call.x.shape)}; allowed is one with the examples as its first dimension"
    return _refuse_unowned(call)


def _trained(call: Call, weight: Callable[[], Tensor], bias: Callable[[], Tensor]) -> dict[str, Tensor]:
    made = {"weight": weight, "bias": bias}
    return {name: made[name]() for name in call.trained}


_CONVOLUTIONS: Final[Mapping[type[nn.Module], tuple[int, Any, Any]]] = {
    nn.Conv1d: (1, convolutions.conv1d_input, convolutions.conv1d_weight),
    nn.Conv2d: (2, convolutions.conv2d_input, convolutions.conv2d_weight),
}


def _edges(module: Any) -> list[int]:
    """Return how many zeros a convolution puts before and after each dimension, the last dimension first."""
    if module.padding == "valid":
        return [0, 0] * len(module.kernel_size)
    if module.padding != "same":
        return [each for size in reversed(module.padding) for each in (size, size)]
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return [each for total in reversed(totals) for each in (total // 2, total - total // 2)]


def _settings(module: Any) -> tuple[Any, ...]:
    """Return stride, padding, dilation and groups, for an input that `_edges` has been put around."""
    return module.stride, 0, module.dilation, module.groups


def _convolution(call: Call, h: Tensor) -> Tensor:
    module: Any = call.module
    to_input = _CONVOLUTIONS[type(module)][1]
    edges = _edges(module)
    padded = functional.pad(call.x, edges)
    back: Tensor = to_input(padded.shape, module.weight * module.weight, h, *_settings(module))
    return functional.pad(back, [-each for each in edges])


def _convolution_parameters(call: Call, h: Tensor, _: Arrays) -> dict[str, Tensor]:
    module: Any = call.module
    to_weight = _CONVOLUTIONS[type(module)][2]
    padded = functional.pad(call.x_squared, _edges(module))
    return _trained(
        call,
        lambda: to_weight(padded, module.weight.shape, h, *_settings(module)),
        lambda: h.flatten(2).sum((0, 2)),
    )


def _convolution_squares(call: Call, grads: Tensor, _: Arrays) -> dict[str, Tensor]:
    module: Any = call.module
    rows = grads.flatten(2)

    def weight() -> Tensor:
        patches, groups = _patches(module, call.x), (len(rows), module.groups, -1, rows.shape[2])
        each = rows.reshape(groups) @ patches.reshape(groups).mT
        return each.square().sum(0).reshape(module.weight.shape)

    return _trained(call, weight, lambda: rows.sum(2).square().sum(0))


def _patches(module: Any, x: Tensor) -> Tensor:
    """Return what each place of the output sees, (examples, channels x kernel, places)."""
    x, kernel, dilation, stride = functional.pad(x, _edges(module)), module.kernel_size, module.dilation, module.stride
    if len(kernel) == 1:
        x, kernel, dilation, stride = x.unsqueeze(2), (1, *kernel), (1, *dilation), (1, *stride)
    return functional.unfold(x, kernel, dilation, 0, stride)


def _refuse_convolution(call: Call) -> str | None:
    module: Any = call.module
    if module.padding_mode != "zeros":
        return f"padding_mode={module.padding_mode!r}; allowed is 'zeros'"
    if call.x.dim() != _CONVOLUTIONS[type(module)][0] + 2:
        return f"an input of shape {tuple(call.x.shape)}; allowed is one with the examples as its first dimension"
    return _refuse_unowned(call)


_CONVOLUTION: Final = Layer(_convolution, _refuse_convolution, _convolution_parameters, _convolution_squares)
_AVERAGE: Final = Layer(_average_pool, _refuse_uneven_average, needs_graph=True)
_ADAPTIVE_AVERAGE: Final = Layer(_adaptive_average_pool, _refuse_uneven_adaptive_average, needs_graph=True)
_MAXIMUM: Final = Layer(_through_graph, needs_graph=True)
_DROPOUT: Final = Layer(_dropout, needs_graph=True)

LAYERS: Final[Mapping[type[nn.Module], Layer]] = {
    nn.Linear: Layer(_linear, _refuse_linear, _linear_parameters, _linear_squares),
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    **dict.fromkeys(ACTIVATIONS, Layer(_activation)),
    nn.Identity: Layer(_reshaped),
    nn.Flatten: Layer(_reshaped),
    nn.Unflatten: Layer(_reshaped),
    nn.Dropout: _DROPOUT,
    nn.Dropout1d: _DROPOUT,
    nn.Dropout2d: _DROPOUT,
    nn.AvgPool1d: _AVERAGE,
    nn.AvgPool2d: _AVERAGE,
    nn.AdaptiveAvgPool1d: _ADAPTIVE_AVERAGE,
    nn.AdaptiveAvgPool2d: _ADAPTIVE_AVERAGE,
    nn.MaxPool1d: _MAXIMUM,
    nn.MaxPool2d: _MAXIMUM,
}
"""By the exact type of the module: a subclass may compute something else."""
