"""Which models, parameters and gradients nothing can be done with, said before anything moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..specification import INPUTS, Rule
from .memory import overlaps_itself

__all__ = ["check_model", "refuse_unsupported", "supplied"]


def check_model(model: Any) -> None:
    """Raise `TypeError` for what is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; allowed is a torch.nn.Module")


def refuse_unsupported(parameter: Tensor, *, differentiable: bool) -> None:
    """Raise for a parameter that cannot step by its gradient: `TypeError` for what it is, `ValueError` for where it lies."""
    shape, grad = tuple(parameter.shape), parameter.grad
    if not (parameter.is_floating_point() or parameter.is_complex()):
        raise TypeError(
            f"a parameter of shape {shape} is {parameter.dtype}; allowed are floating-point and complex types"
        )
    if parameter.layout is not torch.strided:
        raise TypeError(f"a parameter of shape {shape} has the layout {parameter.layout}; allowed is torch.strided")
    rows = torch.sparse_coo if not differentiable and not parameter.is_complex() else torch.strided
    if grad is not None and grad.layout not in (torch.strided, rows):
        raise TypeError(
            f"the gradient of a parameter of shape {shape} and {parameter.dtype} has the layout {grad.layout}; allowed is "
            "torch.strided, and torch.sparse_coo where the parameter is real and the step not differentiable"
        )
    if grad is not None and grad.is_complex() != parameter.is_complex():
        raise TypeError(
            f"the gradient of a parameter of shape {shape} and {parameter.dtype} is {grad.dtype}; allowed is the "
            "parameter's kind, real or complex"
        )
    if grad is not None and grad.device != parameter.device:
        raise ValueError(
            f"the gradient of a parameter of shape {shape} on {parameter.device} is on {grad.device}; allowed is the "
            "parameter's device"
        )
    if grad is not None and grad.shape != parameter.shape:
        raise ValueError(
            f"the gradient of a parameter of shape {shape} has the shape {tuple(grad.shape)}, as of before its data was "
            "replaced; allowed is the parameter's shape"
        )
    if overlaps_itself(parameter):
        raise ValueError(
            f"a parameter of shape {shape} and strides {parameter.stride()} has several elements in one place of memory; "
            "allowed is one element in each: clone it"
        )
    if differentiable and parameter.is_leaf and parameter.requires_grad:
        raise ValueError(
            f"a parameter of shape {shape} is a leaf of autograd's graph, which a step cannot be part of; allowed with "
            "differentiable=True is what is computed from one, such as its clone()"
        )


def supplied(rule: Rule, name: str, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the attribute `name` of each parameter, `h` or `g2`, without which `rule` has no step.

    Raises `ValueError` where there is none, or one of another shape or device, and `TypeError` where it is no dense tensor
    of real numbers.
    """
    found = []
    for parameter in parameters:
        shape, value = tuple(parameter.shape), getattr(parameter, name, None)
        said = f"the {name} ({INPUTS[name]}) of a parameter of shape {shape} on {parameter.device}"
        if value is None:
            raise ValueError(f"rule {rule.name} takes {name}, and {said} is not set; steprule.curvature sets it")
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout is not torch.strided:
            kind = (
                f"{value.dtype} in {value.layout}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
            )
            raise TypeError(f"{said} is {kind}; allowed is a dense tensor of floating-point numbers")
        if value.shape != parameter.shape or value.device != parameter.device:
            raise ValueError(
                f"{said} has the shape {tuple(value.shape)} on {value.device}; allowed are the parameter's shape and device"
            )
        if parameter.is_complex():
            raise TypeError(f"{said} and {parameter.dtype} is asked for; allowed is a real parameter")
        found.append(value)
    return found
