"""The size of the diagonal curvature from the gradients at two points (Schaul and LeCun 2013)."""

from __future__ import annotations

from typing import ClassVar, Final

from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

import torch
from torch import Tensor

from .passes import Pass
from .recording import Call, said

__all__ = ["Differences"]


class Differences:
    """|g(x + d) - g(x)| / |d|, both gradients of one batch, all dimensions moved at once: for any model.

    `d` is the average gradient that the rule `vsgd_fd` keeps, and where that is 0 the gradient itself. A dimension that does
    not move has the curvature 0.
    """

    differentiable: ClassVar = False

    def __init__(self, *, optimizer: torch.optim.Optimizer) -> None:
        """`optimizer` keeps an average gradient of each parameter in its state, `grad_avg`."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer is of type {type(optimizer).__name__}; allowed is a torch.optim.Optimizer that keeps `grad_avg`"
            )
        self._optimizer: Final = optimizer

    def needs_recording(self) -> bool:
        return False

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        for name, module in run.model.named_modules():
            random = isinstance(module, _DropoutNd) and module.training and module.p > 0
            if random or (isinstance(module, _BatchNorm) and module.training):
                raise ValueError(
                    f"differences: {said(name, module)} is not the same function in a second pass; allowed is model.eval()"
                )
        return [], False

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        before = {name: run.parameters[name].detach() for name in run.grads}
        after = {name: (each + self._shift(run, name)).requires_grad_() for name, each in before.items()}
        # What is not moved is the model's own.
        outputs = torch.func.functional_call(run.model, dict(after), (run.inputs,))
        value = run.loss(outputs, run.targets)
        grads = torch.autograd.grad(value, list(after.values()), allow_unused=True)
        found = {}
        for (name, there), grad in zip(after.items(), grads, strict=True):
            # What the parameter's digits have made of the shift.
            moved = there.detach() - before[name]
            change = run.grads[name].detach() if grad is None else run.grads[name].detach() - grad
            found[name] = torch.where(moved != 0, (change / moved).abs(), 0.0)
        return found

    def _shift(self, run: Pass, name: str) -> Tensor:
        gradient = run.grads[name].detach()
        average = self._optimizer.state.get(run.parameters[name], {}).get("grad_avg")
        return gradient if average is None else torch.where(average != 0, average, gradient)
