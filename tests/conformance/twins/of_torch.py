"""The twins in `torch.optim`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tests.conformance.cases import Arrays

import torch

from .twin import Twin

__all__ = ["TWINS"]


class _Torch:
    def __init__(
        self, make: Callable[..., torch.optim.Optimizer], values: Mapping[str, float], dtype: str, start: Arrays
    ) -> None:
        self._dtype = getattr(torch, dtype)
        self._parameters = [torch.nn.Parameter(torch.tensor(x, dtype=self._dtype)) for x in start]
        self._optimizer = make(self._parameters, **values)

    def step(self, gradients: Arrays) -> None:
        for parameter, g in zip(self._parameters, gradients, strict=True):
            parameter.grad = torch.tensor(g, dtype=self._dtype)
        self._optimizer.step()

    def state(self) -> list[dict[str, Any]]:
        return [{"x": parameter.detach().double().numpy().copy()} for parameter in self._parameters]


def _twin(name: str, rule: str, make: Callable[..., torch.optim.Optimizer], **more: Any) -> Twin:
    return Twin("PyTorch", name, rule, partial(_Torch, make), **more)


_PRESENT_RATE: Final = (
    "torch multiplies the sum of past gradients by the present lr, we keep past steps with the lr of each: they agree "
    "while lr stays"
)

TWINS: Final = [
    _twin("torch.optim.SGD", "sgd", torch.optim.SGD),
    _twin(
        "torch.optim.SGD(momentum=...)",
        "momentum",
        lambda params, lr, rho: torch.optim.SGD(params, lr, momentum=rho),
        difference=_PRESENT_RATE,
    ),
    _twin(
        "torch.optim.SGD(nesterov=True)",
        "nesterov",
        lambda params, lr, rho: torch.optim.SGD(params, lr, momentum=rho, nesterov=True),
        difference=_PRESENT_RATE,
    ),
    _twin("torch.optim.Adagrad", "adagrad", torch.optim.Adagrad),
    _twin("torch.optim.Adadelta", "adadelta", torch.optim.Adadelta),
    _twin(
        "torch.optim.RMSprop",
        "rmsprop",
        lambda params, lr, rho, eps: torch.optim.RMSprop(params, lr, alpha=rho, eps=eps),
        difference="torch adds eps to the root, we and the book to what is under it: they agree where eps is negligible",
        agreeing={"eps": 1e-40},
        differing={"eps": 1e-3},
    ),
    _twin(
        "torch.optim.Adam",
        "adam",
        lambda params, lr, beta1, beta2, eps: torch.optim.Adam(params, lr, (beta1, beta2), eps),
    ),
]
