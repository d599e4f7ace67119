"""`bbprop`: the diagonal of the Hessian propagated back, what is beside it dropped at each layer (Becker & LeCun 1988)."""

from __future__ import annotations

from typing import ClassVar, Final

import torch
from torch import Tensor

from .activations import ACTIVATIONS
from .layers import LAYERS
from .passes import Pass, fitting
from .recording import Call

__all__ = ["BackPropagation"]


class BackPropagation:
    """From a = W x and y = f(a): E'' for a is f'(a)² E'' for y + f''(a) E' for y; for W x², for x W²."""

    differentiable: ClassVar = False
    repeats: ClassVar = False

    def __init__(self, *, levenberg_marquardt: bool = False) -> None:
        """Without the term with f'' where `levenberg_marquardt`: no result of a convex loss is negative then."""
        self._levenberg_marquardt: Final = levenberg_marquardt
        self._arrays: dict[int, Tensor] = {}

    def needs_recording(self) -> bool:
        return True

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        try:
            chain = run.chain
        except ValueError as error:
            raise ValueError(f"bbprop: {error}; exact and hutchinson take any model") from None
        curved = [] if self._levenberg_marquardt else [call for call in chain if type(call.module) in ACTIVATIONS]
        return curved, any(LAYERS[type(call.module)].needs_graph for call in chain)

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        found: dict[int, Tensor] = {}
        h = run.loss.diagonal(run.outputs, run.targets)
        with torch.no_grad():
            for number, call in enumerate(run.chain):
                layer = LAYERS[type(call.module)]
                h = h if h.shape == call.y.shape else h.reshape(call.y.shape)
                if layer.parameters:
                    arrays = layer.parameters(call, h, fitting(call, self._arrays))
                    found |= {id(each): arrays[name] for name, each in call.trained.items()}
                if number < len(run.chain) - 1:
                    h = layer.back(call, h)
        self._arrays = found
        return run.by_name(found)
