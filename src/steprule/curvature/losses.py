"""The second derivatives of a loss with respect to the model's outputs, where the backward pass of `bbprop` begins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch.nn import functional

import torch
from torch import Tensor, nn

__all__ = ["Loss", "half_squared_error"]


_ROWS: Final = 64
"""How many second derivatives of each example are made at a time: all at once take memory by the square of its outputs."""


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the batch of half the squared distance between an example's outputs and its targets.

    `outputs` and `targets` have one shape, with the examples as its first dimension. This is E of Becker & LeCun 1988, whose
    second derivative with respect to an example's output is 1. Raises `ValueError` for two shapes.
    """
    _refuse_other_shape(outputs, targets)
    return 0.5 * (outputs - targets).square().sum() / len(outputs)


def _refuse_other_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets has the shape {tuple(targets.shape)}; allowed is the outputs' shape, {tuple(outputs.shape)}"
        )


def _refuse_other_targets(outputs: Tensor, targets: Any) -> None:
    """Refuse targets that have no entry for each example: a loss is tried on some of them alone."""
    named = isinstance(targets, (Mapping, tuple)) or not hasattr(targets, "__len__") or getattr(targets, "ndim", 1) == 0
    if named or len(targets) != len(outputs):
        found = f"a {type(targets).__name__}" if named else f"a {type(targets).__name__} of {len(targets)} entries"
        raise ValueError(
            f"targets is {found}; allowed is a tensor, an array or a list of {len(outputs)}, one for each example, and any "
            "with exact and hutchinson"
        )


def _of_half_squared_error(outputs: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(outputs, 1 / len(outputs))


def _of_squared_error(outputs: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(outputs, 2 / outputs.numel())


def _of_summed_squared_error(outputs: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(outputs, 2.0)


def _refusing_ignored(ignored: int) -> Callable[[Tensor, Tensor], None]:
    """Return what refuses the class `ignored`: the mean is over the other examples then, and no longer over all."""

    def refuse(outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() < 2:
            raise ValueError(f"outputs has the shape {tuple(outputs.shape)}; allowed is (examples, classes, ...)")
        if not targets.is_floating_point() and bool((targets == ignored).any()):
            raise ValueError(
                f"targets has the class {ignored}, whose example is ignored; allowed is a class for each example"
            )

    return refuse


def _of_cross_entropy(smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the second derivative of the mean over examples and their places, the labels smoothed by `smoothing`."""

    def diagonal(outputs: Tensor, targets: Tensor) -> Tensor:
        p = torch.softmax(outputs, 1)
        found = p * (1 - p) / (outputs.numel() // outputs.shape[1])
        if targets.shape != outputs.shape:
            return found  # whichever the classes are: they, and smoothing, move the gradient alone
        # Probabilities may add up to something else than 1.
        return found * ((1 - smoothing) * targets.sum(1, keepdim=True) + smoothing)

    return diagonal


def _summed_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs, targets, reduction="sum")


@dataclass(frozen=True)
class _Known:
    diagonal: Callable[[Tensor, Tensor], Tensor]
    refuse: Callable[[Tensor, Tensor], None]
    mean: bool = True
    """Whether the loss is the mean over the examples, or else their sum."""


_KNOWN: Final[Mapping[Any, _Known]] = {
    functional.cross_entropy: _Known(_of_cross_entropy(0.0), _refusing_ignored(-100)),
    functional.mse_loss: _Known(_of_squared_error, _refuse_other_shape),
    _summed_squared_error: _Known(_of_summed_squared_error, _refuse_other_shape, mean=False),
    half_squared_error: _Known(_of_half_squared_error, _refuse_other_shape),
}


def _known(loss: Any) -> _Known | None:
    """Return what is known of `loss`, a function or a module."""
    if type(loss) is nn.MSELoss and loss.reduction in ("mean", "sum"):
        return _KNOWN[functional.mse_loss if loss.reduction == "mean" else _summed_squared_error]
    if type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean":
        return _Known(_of_cross_entropy(loss.label_smoothing), _refusing_ignored(loss.ignore_index))
    # By what it is: an object that may be called need not have a hash.
    return next((known for each, known in _KNOWN.items() if each is loss), None)


def _is_weighted_mean(loss: Any) -> bool:
    """Whether `loss` divides by the weights of the targets' classes, as a batch of one class does not show."""
    if type(loss) is not nn.CrossEntropyLoss or loss.weight is None or loss.reduction != "mean":
        return False
    return bool((loss.weight != loss.weight.flatten()[0]).any())


class Loss:
    """A loss of outputs and targets that is the mean over the examples of each one's own loss, or their sum."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        """Raises `TypeError` for what cannot be called, and for a class, such as `MSELoss` without its brackets."""
        if not callable(loss) or isinstance(loss, type):
            said = f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss)
            raise TypeError(f"loss is {said}; allowed is a function of outputs and targets, or a module")
        self._loss: Final = loss
        self._known: Final = _known(loss)
        self._weighted: Final = _is_weighted_mean(loss)
        self._reads_outputs_alone = self._known is not None
        self._maps = True
        """Whether `vmap` takes the loss, as far as is known."""

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        value = self._loss(outputs, targets)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            shape = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise ValueError(f"loss returns {shape}; allowed is one real number, the mean over the batch")
        return value

    def diagonal(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the second derivative of the batch's loss with respect to each output, of the outputs' shape.

        Errors as those of `scale`.
        """
        outputs = outputs.detach()
        self.scale(outputs, targets)
        if self._known:
            with torch.no_grad():
                return self._known.diagonal(outputs, targets)
        return _second_derivatives(self._loss, outputs, targets)

    def scale(self, outputs: Tensor, targets: Any) -> int:
        """Return the factor from an example's share of the batch's gradient to the gradient of its own loss.

        For a mean that is the number of examples, for a sum 1. An unknown loss is tried on each example by itself, in
        every batch: what it is in one, such as one of a single class, it need not be in the next.
        Raises `ValueError` where it is neither, where it depends on what requires a gradient beside the outputs, and for
        targets of another shape than squared loss takes, or with examples that cross-entropy ignores.
        """
        examples = outputs.shape[0]
        if self._known:
            self._known.refuse(outputs, targets)
        if not self._reads_outputs_alone:
            self._refuse_more(outputs.detach(), targets)
        if examples < 2:
            return examples
        mean = self._known.mean if self._known else self._tried(outputs.detach(), targets)
        return examples if mean else 1

    def _refuse_more(self, outputs: Tensor, targets: Any) -> None:
        if self._loss(outputs, targets).requires_grad:
            raise ValueError(
                "loss depends on more that requires a gradient than the outputs; allowed is the outputs alone"
            )
        self._reads_outputs_alone = True

    def _tried(self, outputs: Tensor, targets: Any) -> bool:
        """Whether the loss of this batch is the mean, else it is the sum; either where each gradient is 0 or NaN."""
        _refuse_other_targets(outputs, targets)
        together = _gradient(self._loss, outputs, targets)
        if not together.isfinite().all():
            return True
        apart = self._apart(outputs, targets)
        # In numbers below the smallest normal one, the mean's have lost digits.
        near = torch.finfo(apart.dtype).eps ** 0.5 * apart.abs().max() + len(outputs) * torch.finfo(apart.dtype).tiny
        mean = bool(((together * len(outputs) - apart).abs() <= near).all())
        sum = mean or bool(((together - apart).abs() <= near).all())
        if self._weighted or not sum or not apart.isfinite().all():
            raise ValueError(
                "loss is neither the mean nor the sum of what it is for each example alone; allowed are those, and any with "
                "exact, hutchinson and vmap"
            )
        return mean

    def _apart(self, outputs: Tensor, targets: Any) -> Tensor:
        """Return the gradient of each example's own loss for its outputs, all at once where the loss can be mapped."""
        if self._maps and isinstance(targets, Tensor) and targets.dim() > 0 and len(targets) == len(outputs):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of operations that are mapped one by one
                    mapped: Tensor = torch.func.vmap(torch.func.grad(self._of_one))(outputs, targets)
                return mapped
            except RuntimeError:  # such as from a choice by value; the loop does without
                self._maps = False
        pieces = [_gradient(self._loss, outputs[n : n + 1], targets[n : n + 1]) for n in range(len(outputs))]
        return torch.cat(pieces)

    def _of_one(self, output: Tensor, target: Tensor) -> Tensor:
        return self._loss(output.unsqueeze(0), target.unsqueeze(0)).reshape(())


def _gradient(loss: Callable[..., Tensor], outputs: Tensor, targets: Any) -> Tensor:
    outputs = outputs.detach().requires_grad_()
    return torch.autograd.grad(loss(outputs, targets), outputs, materialize_grads=True)[0]


def _second_derivatives(loss: Callable[..., Tensor], outputs: Tensor, targets: Any) -> Tensor:
    """Return the diagonal of the loss's Hessian, of a loss in which examples do not meet: as many products as outputs."""
    with torch.enable_grad():
        outputs = outputs.detach().requires_grad_()
        (first,) = torch.autograd.grad(loss(outputs, targets), outputs, create_graph=True, materialize_grads=True)
        found = torch.zeros_like(outputs).flatten(1) if outputs.dim() > 1 else torch.zeros_like(outputs)[:, None]
        for begin in range(0, found.shape[1] if first.requires_grad else 0, _ROWS):
            count = min(_ROWS, found.shape[1] - begin)
            # A one for the same output of every example: no two of them have a second derivative together.
            ones = found.new_zeros(count, *found.shape)
            ones[:, :, begin : begin + count].diagonal(dim1=0, dim2=2).fill_(1)
            (seconds,) = torch.autograd.grad(
                first, outputs, ones.reshape(-1, *outputs.shape), is_grads_batched=True, retain_graph=True
            )
            seconds = seconds.reshape(-1, *found.shape)[:, :, begin : begin + count]
            found[:, begin : begin + count] = seconds.diagonal(dim1=0, dim2=2)
    return found.reshape(outputs.shape).detach()
