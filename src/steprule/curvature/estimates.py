"""What feeds the inputs `h` and `g2` of rules, for PyTorch models: one interface for all estimators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..torch.elements import plain
from ..torch.refusals import check_model
from .backpropagation import BackPropagation
from .differences import Differences
from .hessian import Exact, Hutchinson
from .losses import Loss
from .passes import Estimator, estimate
from .squares import ByExample, ByLayer, ByModel

__all__ = ["Curvature", "bbprop", "exact", "hutchinson", "mean_square_gradients"]

_ESTIMATORS: Final[Mapping[str, Mapping[Any, Callable[..., Estimator]]]] = {
    "h": {"bbprop": BackPropagation, "exact": Exact, "hutchinson": Hutchinson, "differences": Differences},
    "g2": {"layers": ByLayer, "vmap": ByExample, True: ByModel},
}


class Curvature:
    """The gradient, the diagonal curvature and the mean-square gradient of each parameter, set beside each other.

    Called with a batch, it runs `model` forward once, and sets of every parameter that requires a gradient, as tensors of
    its shape, dtype and device:

    - `.grad`, the gradient of `loss(model(inputs), targets)`;
    - `.h`, where `h` is not None, the diagonal of that loss's Hessian, or an estimate of it;
    - `.g2`, where `g2` is not False, the mean over the examples of the squared gradient of each example's own loss.

    Two lines in a training loop::

        curvature = steprule.curvature.Curvature(net, torch.nn.functional.cross_entropy, h="bbprop", g2=True)
        for inputs, targets in batches:
            curvature(inputs, targets)
            optimizer.step()

    `loss` takes the model's outputs and `targets`, and is the mean over the batch (or the sum) of each example's own loss,
    which does not depend on other examples. `h` is "bbprop" (Becker & LeCun 1988; option `levenberg_marquardt`, default
    False: leave out the term with the activation's second derivative), "exact" (small nets; option `rows`, default 64: how
    many rows of the Hessian to make at a time), "hutchinson" (option `samples`, default 1, and `generator`), "differences"
    (for the rule `vsgd_fd`; option `optimizer`, whose `grad_avg` leads to the second point) or None. `g2` is
    "layers" (a chain of linear and convolution layers and what has no parameters), "vmap" (any model; option `examples`,
    default 16: how many to run at a time), False, or True: "layers" where the model's first pass allows it, else "vmap".

    Raises `ValueError` for another `h` or `g2`, `TypeError` for what is no model, and for an option that neither takes.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        *,
        h: str | None = "bbprop",
        g2: bool | str = False,
        **options: Any,
    ) -> None:
        check_model(model)
        self.model: Final = model
        self._loss: Final = Loss(loss)
        chosen = {"h": h, "g2": None if g2 is False else g2}
        self._estimators: Final = _made({each: name for each, name in chosen.items() if name is not None}, options)

    def __call__(self, inputs: Any, targets: Any) -> Tensor:
        """Set `.grad`, `.h` and `.g2` from a batch, the examples as the first dimension; return its loss, detached.

        Nothing is added to what was there; a later call may write into the same `.h` and `.g2`, so clone what is to be kept.
        A parameter that the loss does not depend on has a `.grad` of None, and neither `.h` nor `.g2`. Raises `ValueError`
        for a model or a loss that an estimator is not right for: it names the layer, what is allowed, and the estimators
        that take it. All three are cleared then.
        """
        self.clear()
        run, found = estimate(self.model, self._loss, inputs, targets, self._estimators)
        grads = _apart(run.grads)
        for name, parameter in run.parameters.items():
            parameter.grad = grads.get(name)
            for attribute, arrays in found.items():
                if name in arrays:
                    setattr(parameter, attribute, arrays[name])
        return run.value.detach()

    def clear(self) -> None:
        """Remove `.h` and `.g2` from the model's parameters, and set `.grad` to None."""
        for parameter in self.model.parameters():
            parameter.grad = None
            for attribute in _ESTIMATORS:
                if hasattr(parameter, attribute):
                    delattr(parameter, attribute)


def _apart(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return them each in memory of its own, as `backward` does: autograd gives one tensor to both summands of a sum."""
    found, taken = {}, set()
    for name, each in grads.items():
        grad = each.detach() if each.requires_grad else each
        if grad.layout is torch.strided:
            memory = plain(grad).untyped_storage().data_ptr()
            if memory in taken or 0 in grad.stride():
                grad = grad.clone(memory_format=torch.contiguous_format)
            taken.add(memory)
        found[name] = grad
    return found


def _made(chosen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Estimator]:
    """Return the chosen estimators, each with those of the `options` that its constructor takes."""
    made, taken = {}, set()
    for attribute, name in chosen.items():
        known = _ESTIMATORS[attribute]
        if name not in known:
            raise ValueError(f"{attribute} is {name!r}; allowed is one of {', '.join(map(repr, known))}")
        its = [option for option in options if option in inspect.signature(known[name]).parameters]
        made[attribute] = known[name](**{option: options[option] for option in its})
        taken.update(its)
    for option in options:
        if option not in taken:
            of = ", ".join(f"{attribute}={name!r}" for attribute, name in chosen.items()) or "h=None, g2=False"
            raise TypeError(f"{option} is no option of {of}")
    return made


def _by_name(
    model: nn.Module, loss: Callable[..., Tensor], inputs: Any, targets: Any, estimator: Estimator
) -> dict[str, Tensor]:
    check_model(model)
    _, found = estimate(model, Loss(loss), inputs, targets, {"it": estimator})
    return found["it"]


def bbprop(
    model: nn.Module, loss: Callable[..., Tensor], inputs: Tensor, targets: Any, *, levenberg_marquardt: bool = False
) -> dict[str, Tensor]:
    """Return the second derivatives that Becker & LeCun (1988) propagate back, by the parameter's name.

    They are the diagonal of the Hessian of `loss(model(inputs), targets)` where each layer's outputs have none but diagonal
    second derivatives, else an estimate. Where `levenberg_marquardt`, the term with f'' is left out, and none is negative
    if the loss is convex in the outputs. Nothing is set on the parameters. Errors as those of `Curvature`.
    """
    return _by_name(model, loss, inputs, targets, BackPropagation(levenberg_marquardt=levenberg_marquardt))


def exact(
    model: nn.Module, loss: Callable[..., Tensor], inputs: Any, targets: Any, *, rows: int = 64
) -> dict[str, Tensor]:
    """Return the diagonal of the Hessian of `loss(model(inputs), targets)`, by the parameter's name.

    It takes as many products with the Hessian as there are parameters, `rows` at a time: for small nets. Nothing is set on
    the parameters.
    """
    return _by_name(model, loss, inputs, targets, Exact(rows=rows))


def hutchinson(
    model: nn.Module,
    loss: Callable[..., Tensor],
    inputs: Any,
    targets: Any,
    *,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return an unbiased estimate of the diagonal of the Hessian of `loss(model(inputs), targets)`, by the parameter's name.

    It is the mean of z * (H z) over `samples` vectors z of random signs, from `generator` or PyTorch's own; exact where the
    Hessian is diagonal. Nothing is set on the parameters.
    """
    return _by_name(model, loss, inputs, targets, Hutchinson(samples=samples, generator=generator))


def mean_square_gradients(
    model: nn.Module,
    loss: Callable[..., Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    by: bool | str = True,
    **options: Any,
) -> dict[str, Tensor]:
    """Return the mean over the examples of the squared gradient of each one's own loss, by the parameter's name.

    An example's own loss is what `loss` would be for a batch of it alone. `by` and its options are `g2` of `Curvature`.
    Nothing is set on the parameters.
    """
    return _by_name(model, loss, inputs, targets, _made({"g2": by}, options)["g2"])
