"""The size of the diagonal curvature from the gradients at two points (Schaul and LeCun 2013)."""

from __future__ import annotations

from typing import ClassVar, Final

from torch.nn.modules.batchnorm import _BatchNorm

import torch
from torch import Tensor, nn

from ..torch import RuleOptimizer, storing
from .passes import Pass, refuse_hooked
from .recording import Call, said

__all__ = ["Differences"]


class Differences:
    """|g(x + d) - g(x)| / |d|, both gradients of one batch, all dimensions moved at once: for any model.

    `d` is the average gradient that the rule `vsgd_fd` keeps, and where that is 0 the gradient itself. A dimension that does
    not move has the curvature 0. PyTorch's random numbers, such as those of dropout, are the same at both points, and so are
    the model's buffers.
    """

    differentiable: ClassVar = False
    repeats: ClassVar = True

    def __init__(self, *, optimizer: torch.optim.Optimizer | None = None) -> None:
        """`optimizer` keeps an average gradient of each parameter in its state, `grad_avg`."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer is of type {type(optimizer).__name__}; allowed is a torch.optim.Optimizer that keeps `grad_avg`"
            )
        self._optimizer: Final = optimizer

    def needs_recording(self) -> bool:
        return False

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        refuse_hooked(run.parameters.values())
        for name, module in run.model.named_modules():
            if module.training and (isinstance(module, _BatchNorm) or _draws_of_its_own(module)):
                raise ValueError(
                    f"differences: {said(name, module)} is not the same function in a second pass; allowed is model.eval()"
                )
        return [], False

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        run.refuse_sparse("differences")
        before = {name: run.parameters[name].detach() for name in run.grads}
        after = {name: (each + self._shift(run, name)).requires_grad_() for name, each in before.items()}
        # What is not moved is the model's own.
        assert run.random_state is not None
        with run.random_state.again():
            value = run.loss(run.outputs_with({**run.buffers, **after}, run.inputs), run.targets)
            grads = torch.autograd.grad(value, [*after.values(), *run.parameters.values()], allow_unused=True)
        run.refuse_read("differences", grads[len(after) :])
        found = {}
        for (name, there), grad in zip(after.items(), grads, strict=False):
            # What the parameter's digits have made of the shift.
            moved = there.detach() - before[name]
            change = run.grads[name].detach() if grad is None else run.grads[name].detach() - grad
            found[name] = torch.where(moved != 0, (change / moved).abs(), 0.0)
        return found

    def _shift(self, run: Pass, name: str) -> Tensor:
        gradient, parameter = run.grads[name].detach(), run.parameters[name]
        average = self._average(name, parameter)
        if average is None:
            return gradient
        average = average.to(gradient.dtype)
        return torch.where(average != 0, average, gradient)

    def _average(self, name: str, parameter: Tensor) -> Tensor | None:
        """Return the average gradient as numbers, in whatever form the optimizer keeps it."""
        state = self._optimizer.state.get(parameter, {})
        average = state.get("grad_avg")
        if average is None:
            return None
        if isinstance(self._optimizer, RuleOptimizer):
            return storing.load(state, "grad_avg", self._optimizer.rule)
        if not isinstance(average, Tensor) or not average.is_floating_point():
            kept = average.dtype if isinstance(average, Tensor) else f"a {type(average).__name__}"
            raise ValueError(
                f"differences: optimizer keeps grad_avg of {name} as {kept}; allowed is a floating-point tensor"
            )
        return average


def _draws_of_its_own(module: nn.Module) -> bool:
    """Whether a layer draws random numbers that PyTorch's random state does not set: cuDNN's dropout between layers."""
    return (
        isinstance(module, nn.RNNBase)
        and module.dropout > 0
        and module.num_layers > 1
        and any(each.is_cuda for each in module.parameters())
    )
