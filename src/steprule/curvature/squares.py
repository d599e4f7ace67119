"""The mean over examples of the squared gradient of each example's own loss, which a batch's gradient does not tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

import torch
from torch import Tensor

from ..counts import check_count
from .layers import LAYERS
from .passes import Pass, first_line, fitting
from .recording import Call, said

__all__ = ["ByExample", "ByLayer", "ByModel"]


_Gradients = tuple[dict[str, Tensor], Tensor]
"""Gradients by the parameter's name, and the losses that they are of."""


class ByLayer:
    """From each layer's inputs and the gradients of its outputs: for a linear layer one product of their squares."""

    differentiable: ClassVar = False
    repeats: ClassVar = False

    def __init__(self) -> None:
        self._arrays: dict[int, Tensor] = {}

    def needs_recording(self) -> bool:
        return True

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        try:
            return [call for call in run.chain if LAYERS[type(call.module)].squares and call.trained], False
        except ValueError as error:
            raise ValueError(f"layers: {error}; vmap takes any model") from None

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        found: dict[int, Tensor] = {}
        examples = len(run.outputs)
        factor = run.loss.scale(run.outputs, run.targets) / examples**0.5
        with torch.no_grad():
            for call in run.chain:
                squares = LAYERS[type(call.module)].squares
                if squares and call.y_grad is not None:
                    grads = call.y_grad if factor == 1 else call.y_grad * factor
                    arrays = squares(call, grads, fitting(call, self._arrays))
                    found |= {id(each): arrays[name] for name, each in call.trained.items()}
        self._arrays = found
        return run.by_name(found)


class ByExample:
    """From a forward and a backward pass for each example, `torch.func.vmap` over several: for any model."""

    differentiable: ClassVar = False
    repeats: ClassVar = False

    def __init__(self, *, examples: int = 16) -> None:
        """`examples` are run at a time, which takes the memory of as many gradients; 1 does without `vmap`."""
        check_count("examples", examples)
        self._examples: Final = examples

    def needs_recording(self) -> bool:
        return False

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        for name, module in run.model.named_modules():
            if isinstance(module, _InstanceNorm) and module.training and module.running_mean is not None:
                raise ValueError(f"vmap: {said(name, module)} keeps averages of whole batches; allowed is model.eval()")
            if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
                raise ValueError(
                    f"vmap: {said(name, module)} makes an example's loss depend on the others; allowed is model.eval()"
                )
        # What a model returns several of, the loss knows how to take.
        outputs = [run.outputs] if isinstance(run.outputs, Tensor) else []
        for each in (run.inputs, run.targets, *outputs):
            if not isinstance(each, Tensor) or each.dim() == 0 or len(each) != len(run.inputs):
                raise ValueError(
                    "vmap: inputs or targets is no tensor with the outputs' examples as its first dimension"
                )
        return [], False

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        run.refuse_sparse("vmap")
        parameters: dict[str, Tensor] = {name: each.detach() for name, each in run.parameters.items()}
        still = {name: each.detach() for name, each in run.model.named_parameters() if name not in parameters}
        kept = dict(run.model.named_buffers())

        def own_loss(trained: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
            # A forward pass may change buffers, such as running averages: one of a batch is enough.
            buffers = {name: each.clone() for name, each in kept.items()}
            outputs = run.outputs_with({**trained, **still, **buffers}, x.unsqueeze(0))
            return run.loss(outputs, target.unsqueeze(0)).squeeze()

        gradients = self._gradients(torch.func.grad_and_value(own_loss))
        sums: dict[str, Any] = {}
        for inputs, targets in zip(run.inputs.split(self._examples), run.targets.split(self._examples), strict=True):
            found, losses = gradients(parameters, inputs, targets)
            if losses.requires_grad:
                own = list(run.parameters.values())
                run.refuse_read("vmap", torch.autograd.grad(losses.sum(), own, allow_unused=True))
            for name, each in found.items():
                sums[name] = sums.get(name, 0) + each.square().sum(0)
        return {name: sums[name] / len(run.inputs) for name in run.grads}

    def _gradients(self, of_one: Callable[..., _Gradients]) -> Callable[..., _Gradients]:
        """Return the function that makes the gradients of up to `examples` examples from that which makes one's."""
        if self._examples == 1:

            def of_first(trained: dict[str, Tensor], x: Tensor, target: Tensor) -> _Gradients:
                grads, loss = of_one(trained, x[0], target[0])
                return {name: each.unsqueeze(0) for name, each in grads.items()}, loss

            return of_first
        mapped = torch.func.vmap(of_one, (None, 0, 0), randomness="different")

        def of_several(trained: dict[str, Tensor], x: Tensor, target: Tensor) -> _Gradients:
            try:
                return mapped(trained, x, target)
            except RuntimeError as error:
                raise RuntimeError(
                    f"vmap: PyTorch cannot map this model over its examples ({first_line(error)}); allowed is examples=1, "
                    "which takes one after the other"
                ) from error

        return of_several


class ByModel:
    """`ByLayer` for a model that is a chain of layers, `ByExample` for another, as its first pass shows."""

    differentiable: ClassVar = False
    repeats: ClassVar = False

    def __init__(self, *, examples: int = 16) -> None:
        self._chosen: ByLayer | ByExample | None = None
        self._other: Final = ByExample(examples=examples)

    def needs_recording(self) -> bool:
        return self._chosen is None or self._chosen.needs_recording()

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        if self._chosen is None:
            try:
                self._chosen = ByLayer() if run.chain else self._other
            except ValueError:
                self._chosen = self._other
        return self._chosen.prepare(run)

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        assert self._chosen is not None
        return self._chosen(run)
