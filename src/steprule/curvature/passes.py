"""One forward pass and one backward pass of a model, with what the estimators need of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, Protocol

import torch
from torch import Tensor, nn

from .layers import LAYERS
from .losses import Loss
from .recording import Call, Recording

__all__ = ["Estimator", "Pass", "estimate", "first_line", "fitting", "refuse_hooked"]


def first_line(error: Exception) -> str:
    """Return the first sentence of what PyTorch says, without its end."""
    return str(error).strip().split("\n")[0].rstrip(".")


def fitting(call: Call, earlier: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Return those of `earlier` arrays that the layer's results fit into, by the parameter's name in the module."""
    return {
        name: array
        for name, each in call.trained.items()
        if (array := earlier.get(id(each))) is not None
        and array.shape == each.shape
        and array.dtype == each.dtype
        and array.device == each.device
    }


def refuse_hooked(parameters: Iterable[Tensor]) -> None:
    """Raise `ValueError` for a parameter with a hook of the user's, through which some of its gradients go and others not.

    Of a second derivative, both passes back go through it.
    """
    for each in parameters:
        if each._backward_hooks:
            raise ValueError(
                f"a parameter of shape {tuple(each.shape)} has a hook that may change its gradient (register_hook); allowed "
                "is none where gradients are differentiated or compared"
            )


class RandomState:
    """The state of PyTorch's random numbers as it is now, on the CPU and on the GPUs where `tensors` are."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._cpu: Final = torch.get_rng_state()
        devices = {each.device for each in tensors if each.device.type == "cuda"}
        self._gpus: Final = {each: torch.cuda.get_rng_state(each) for each in devices}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, the same random numbers are drawn again; after it, the state is what it was before."""
        with torch.random.fork_rng(list(self._gpus), device_type="cuda"):
            torch.set_rng_state(self._cpu)
            for device, state in self._gpus.items():
                torch.cuda.set_rng_state(state, device)
            yield


@dataclass
class Pass:
    """What a forward pass has left, and then the gradients of its backward pass."""

    model: nn.Module
    loss: Loss
    inputs: Any
    targets: Any
    parameters: Mapping[str, nn.Parameter]
    """Those that require a gradient."""
    recording: Recording
    outputs: Any = None
    value: Tensor = field(init=False)
    grads: Mapping[str, Tensor] = field(init=False)
    """By the parameter's name; a parameter that the loss does not depend on has none."""
    random_state: RandomState | None = None
    """PyTorch's random state from before the forward pass, where an estimator runs the model again."""
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    """The model's buffers from before the forward pass, where an estimator runs the model again: a pass may change them."""

    @cached_property
    def chain(self) -> list[Call]:
        """The layers from the last back to the first that is needed; `ValueError` for what no estimate is right for."""
        if not isinstance(self.outputs, Tensor) or self.outputs.dim() == 0:
            raise ValueError(
                f"the model returns a {type(self.outputs).__name__}; allowed is a tensor, the examples first"
            )
        if isinstance(self.targets, Tensor) and self.targets.requires_grad:
            raise ValueError("targets requires a gradient; allowed are targets that do not depend on the model")
        chain = self.recording.chain(self.inputs, self.outputs)
        for call in chain:
            refusal = LAYERS[type(call.module)].refusal(call)
            if call.x.shape[0] != self.outputs.shape[0]:
                shapes = f"{tuple(call.x.shape)} for outputs of shape {tuple(self.outputs.shape)}"
                refusal = f"an input of shape {shapes}; allowed is one with the same examples as its first dimension"
            if refusal:
                raise ValueError(f"{call} has {refusal}")
        return chain

    def outputs_with(self, arrays: Mapping[str, Tensor], inputs: Any) -> Any:
        """Return the model's outputs with `arrays`, by name, in the place of parameters and buffers.

        Each place in a module is filled once, for what is in several: where a module has several names itself, PyTorch fills
        its places as often, and then puts back what it has put there first.
        """
        names = {id(each): name for name, each in (*self.model.named_parameters(), *self.model.named_buffers())}
        placed = {
            f"{prefix}.{own}".lstrip("."): arrays[name]
            for prefix, module in self.model.named_modules()
            for own, each in (*module._parameters.items(), *module._buffers.items())
            if (name := names.get(id(each), "")) in arrays
        }
        return torch.func.functional_call(self.model, placed, (inputs,), tie_weights=False)

    def refuse_read(self, way: str, grads: Sequence[Tensor | None]) -> None:
        """Raise `ValueError` where a loss by `outputs_with` has `grads` of the model's own parameters all the same.

        A penalty of the loss's has, and a module that keeps parameters in a list of Python's.
        """
        for name, grad in zip(self.parameters, grads, strict=True):
            if grad is not None:
                raise ValueError(
                    f"{way}: loss depends on {name} in another way than by what its module makes of it, such as a penalty; "
                    "allowed is none (weight decay is the optimizer's), and any with exact and hutchinson"
                )

    def refuse_sparse(self, way: str) -> None:
        """Raise `ValueError` for a gradient of some rows, which the `way` of estimating cannot take."""
        for name, grad in self.grads.items():
            if grad.layout is not torch.strided:
                raise ValueError(
                    f"{way}: {name} has a sparse gradient; allowed are dense ones (Embedding(sparse=False))"
                )

    def by_name(self, found: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Return what was found for each parameter, by its `id`, which is faster to look up, as arrays by name."""
        return {name: found[id(each)] for name, each in self.parameters.items() if id(each) in found}


class Estimator(Protocol):
    """What makes an array for each parameter of a pass; its options are the keywords of its constructor."""

    differentiable: ClassVar[bool]
    """Whether it needs gradients that can be differentiated again."""
    repeats: ClassVar[bool]
    """Whether it needs the random state that the pass has begun with, to run the same function again."""

    def needs_recording(self) -> bool:
        """Whether the pass must record the calls of layers."""

    def prepare(self, run: Pass) -> tuple[list[Call], bool]:
        """Look at a forward pass; return the calls whose `y_grad` is needed, and whether the graph is after the backward."""

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        """Return the arrays, after the backward pass, by the parameter's name."""


def estimate(
    model: nn.Module, loss: Loss, inputs: Any, targets: Any, estimators: Mapping[str, Estimator]
) -> tuple[Pass, dict[str, dict[str, Tensor]]]:
    """Run the model forward and back once; return the pass and what each estimator makes of it."""
    if torch.is_inference_mode_enabled():
        raise ValueError("model runs under torch.inference_mode, which has no gradients; allowed is torch.no_grad")
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    _refuse_parameters(parameters)
    run = Pass(model, loss, inputs, targets, parameters, Recording(model, LAYERS))
    if any(each.repeats for each in estimators.values()):
        run.random_state = RandomState(model.parameters())
        run.buffers = {name: each.clone() for name, each in model.named_buffers()}
    with torch.enable_grad():
        if any(each.needs_recording() for each in estimators.values()):
            with run.recording:
                run.outputs = model(inputs)
        else:
            run.outputs = model(inputs)
        if estimators and isinstance(run.outputs, Tensor) and 0 in run.outputs.shape[:1]:
            raise ValueError("inputs has no example; allowed is a batch of at least one")
        run.value = loss(run.outputs, targets)
        _backward(run, estimators)
        return run, {name: each(run) for name, each in estimators.items()}


def _backward(run: Pass, estimators: Mapping[str, Estimator]) -> None:
    calls: list[Call] = []
    kept = differentiable = False
    for each in estimators.values():
        its_calls, graph = each.prepare(run)
        calls += [call for call in its_calls if not any(call is other for other in calls)]
        kept, differentiable = kept or graph, differentiable or each.differentiable
    grads: Sequence[Tensor | None] = ()
    if run.value.requires_grad:
        grads = torch.autograd.grad(
            run.value,
            [*run.parameters.values(), *(call.y for call in calls)],
            retain_graph=kept or differentiable,
            create_graph=differentiable,
            allow_unused=True,
        )
    run.grads = {name: grad for name, grad in zip(run.parameters, grads, strict=False) if grad is not None}
    if not run.grads:
        raise ValueError(
            "loss does not depend on a parameter of the model that requires a gradient; allowed is one that does"
        )
    for call, grad in zip(calls, grads[len(run.parameters) :], strict=True):
        call.y_grad = grad


def _refuse_parameters(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, each in parameters.items():
        if not each.is_floating_point():
            raise TypeError(f"model has the parameter {name} of {each.dtype}; allowed are floating-point types")
        if torch.is_autocast_enabled(each.device.type):
            raise ValueError(
                f"model runs under torch.autocast on {each.device.type}; allowed is each layer's own dtype"
            )
