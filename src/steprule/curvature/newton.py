"""Newton's method: the step to the minimum of the loss's quadratic approximation, with the whole Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ..counts import check_count
from ..specification import Hyperparameter, Range
from ..torch.compiled import Optimizer
from .hessian import hessian_rows

__all__ = ["Newton"]

_ROWS: Final = 64
_NUMBERS: Final = (Hyperparameter("lr", Range(low=0), 1.0), Hyperparameter("damping", Range(low=0), 0.0))


class Newton(Optimizer):
    """Newton's method: dx = -lr (H + damping I)⁻¹ g, with g and H over all parameters as one vector.

    Zeiler 2012 eq. 3 and 12, which print no minus sign; Goodfellow, Bengio & Courville 2016, 8.6.1, where `damping` is
    alpha. A quadratic with a positive definite Hessian is solved in one step.

    For small problems: n parameters take n² numbers of memory and some n³ operations a step. `step` needs a closure that
    returns the loss, of the whole batch, and calls no `backward`::

        optimizer = steprule.curvature.Newton(net.parameters())
        optimizer.step(lambda: loss(net(inputs), targets))

    `params` are float32 or float64 tensors on one device, in one group. `rows` of the Hessian are made at a time; some
    layers (group normalisation) need 1. Raises `ValueError` for several groups, for `lr` or `damping` below 0 and for `rows`
    that are no whole number from 1, `TypeError` for another dtype.
    """

    def __init__(self, params: Any, *, lr: float = 1.0, damping: float = 0.0, rows: int = _ROWS) -> None:
        check_count("rows", rows)
        super().__init__(params, {"lr": lr, "damping": damping, "rows": rows})
        self._numbers()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the one group that there may be; raises `ValueError` for a second, `TypeError` for another dtype."""
        if self.param_groups:
            raise ValueError("params has several groups; allowed is one, whose parameters step as one vector")
        super().add_param_group(param_group)
        for each in self.param_groups[0]["params"]:
            if each.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"params has a parameter of {each.dtype}; allowed are torch.float32 and torch.float64")

    def _numbers(self) -> list[float]:
        return [each.validated(self.param_groups[0][each.name]) for each in _NUMBERS]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that the loss of `closure` depends on; return that loss, as it was before the step.

        Raises `TypeError` without a closure, `ValueError` for a loss that does not depend on the parameters, is not one
        number, has been differentiated by the closure or has derivatives that are not finite, and
        `torch.linalg.LinAlgError` for a Hessian with `damping` added that is not positive definite, or singular within
        rounding. Nothing moves then.
        """
        if closure is None:
            raise TypeError(
                "closure is None; allowed is a function that returns the loss, which is differentiated twice"
            )
        lr, damping = self._numbers()
        with torch.enable_grad():
            loss = closure()
            parameters, grads = _gradients(loss, self.param_groups[0]["params"])
            # A file of an older version has none.
            rows = self.param_groups[0].get("rows", _ROWS)
            hessian = torch.cat([each.detach() for each in hessian_rows(grads, parameters, rows)])
        gradient = torch.cat([each.detach().flatten() for each in grads])
        dx = -lr * _solve(hessian, gradient, damping)
        with torch.no_grad():
            for each, piece in zip(parameters, torch.split(dx, [each.numel() for each in parameters]), strict=True):
                each.add_(piece.reshape(each.shape))
        return loss.detach()


def _gradients(loss: Any, parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters that `loss` depends on and their gradients, which can be differentiated again."""
    trained = [each for each in parameters if each.requires_grad]
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(f"closure returns {loss!r}; allowed is a loss of one number that depends on the parameters")
    try:
        grads = torch.autograd.grad(loss, trained, create_graph=True, allow_unused=True) if trained else ()
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise ValueError("closure has called backward; allowed is one that only returns the loss") from None
    found = [(each, grad) for each, grad in zip(trained, grads, strict=True) if grad is not None]
    if not found:
        raise ValueError("closure returns a loss that depends on none of params; allowed is one that depends on some")
    return [each for each, _ in found], [grad for _, grad in found]


def _solve(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Return x with (hessian + damping I) x = gradient."""
    if not (hessian.isfinite().all() and gradient.isfinite().all()):
        raise ValueError("the gradient or the Hessian is not finite; allowed is a loss with finite derivatives")
    values, vectors = torch.linalg.eigh(hessian)
    least, greatest = float(values[0]) + damping, float(values[-1]) + damping
    # Below this the smallest eigenvalue is rounding of the largest.
    slack = len(values) * torch.finfo(hessian.dtype).eps * max(abs(least), abs(greatest))
    if least <= slack:
        kind = "singular, or nearly so" if least >= -slack else "indefinite" if greatest > 0 else "negative definite"
        raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
            f"the Hessian with damping={damping:g} is {kind}: its eigenvalues are from {least:.3g} to "
            f"{greatest:.3g}; allowed is a positive definite one, as by a damping above {max(0.0, -float(values[0])):.3g}"
        )
    solution: Tensor = vectors @ ((vectors.T @ gradient) / (values + damping))
    return solution
