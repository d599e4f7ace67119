"""What a forward pass calls: each layer with its input and output, and how these follow one another.

Nothing is guessed. A layer's input is another layer's output, unchanged but for its shape, or the walk back through the
net ends in an error that says where.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["Call", "Recording", "said"]

# What changes the shape of a tensor and neither its values nor their order, by the name of autograd's node.
_RESHAPING: Final = {
    "AliasBackward0",
    "CloneBackward0",
    "ReshapeAliasBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "UnsafeViewBackward0",
    "UnsqueezeBackward0",
    "ViewBackward0",
}


def said(name: str, module: nn.Module) -> str:
    """Return how an error calls a module: its qualified name and its type."""
    return f"{name or 'the model itself'} ({type(module).__name__})"


@dataclass
class Call:
    """One call of a module: `y = module(x)`."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    version: int = field(init=False)
    y_grad: Tensor | None = None
    """The gradient of the loss with respect to `y`, once the backward pass has been."""

    def __post_init__(self) -> None:
        self.version = self.y._version

    def __str__(self) -> str:
        return said(self.name, self.module)

    @cached_property
    def x_squared(self) -> Tensor:
        return self.x * self.x

    @property
    def unchanged(self) -> bool:
        """Whether `y` still holds what the module has put in it."""
        return self.y._version == self.version

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        """The module's own parameters that require a gradient, by their name in the module."""
        return {name: each for name, each in self.module._parameters.items() if each is not None and each.requires_grad}


class Recording:
    """Within, the calls of a model's modules are recorded; each module's own hooks run as ever."""

    def __init__(self, model: nn.Module, layers: Mapping[type[nn.Module], Any]) -> None:
        self._model: Final = model
        self._layers: Final = layers
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.calls: list[Call] = []
        """Calls of the `layers`, in order."""
        self._others: list[Call] = []

    def __enter__(self) -> Recording:
        for name, module in self._model.named_modules():
            if type(module) is nn.Sequential:
                continue  # which returns what its last module does
            # Before hooks of the user's, which may return another tensor: that one is then no layer's output.
            self._handles.append(module.register_forward_hook(self._hook(name), prepend=True))
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._handles:
            each.remove()

    def _hook(self, name: str) -> Any:
        def record(module: nn.Module, arguments: tuple[Any, ...], y: Any) -> None:
            x = arguments[0] if arguments else None
            known = type(module) in self._layers and "forward" not in vars(module)
            if known and y is x and not getattr(module, "inplace", False):
                return  # such as dropout that drops nothing
            if isinstance(x, Tensor) and isinstance(y, Tensor):
                (self.calls if known else self._others).append(Call(name, module, x, y))

        return record

    def chain(self, inputs: Any, outputs: Tensor) -> list[Call]:
        """Return the calls that lead from the last layer back to the first one with trained parameters before it.

        Raises `ValueError` where something other than a layer, or than a change of shape, is on the way.
        """
        made_by = {id(call.y): call for call in self.calls}
        by_edge = {(call.y.grad_fn, call.y.output_nr): call for call in self.calls if call.y.grad_fn is not None}
        # What `torch.compile` has made of several layers goes back as one: no gradient passes what is between them.
        nodes: collections.Counter[Any] = collections.Counter(node for node, _ in by_edge)
        found: list[Call] = []
        tensor, reader = outputs, "the model's output"
        while tensor.requires_grad and tensor is not inputs:
            # A layer's own last node may be one of those that change the shape: the first that is a layer's will do.
            known = (by_edge[edge] for edge in _edges(tensor) if edge in by_edge)
            call = made_by.get(id(tensor)) or next(known, None)
            if call is None or not call.unchanged or nodes[call.y.grad_fn] > 1:
                raise ValueError(self._break(tensor, reader))
            if call.x is call.y:
                raise ValueError(f"{call} overwrites its input; allowed is inplace=False")
            found.append(call)
            tensor, reader = call.x, f"the input of {call}"
        _refuse_second_use(found)
        return found

    def _break(self, tensor: Tensor, reader: str) -> str:
        culprit = next((call for call in self._others if call.y is tensor and call.unchanged and call.name), None)
        *_, (node, _) = _edges(tensor)
        made = f"made by {culprit}" if culprit else f"made outside a layer, by {node.name() if node else 'the model'}"
        allowed = ", ".join(each.__name__ for each in self._layers)
        return f"{reader} is {made}; allowed are layers one after another, with at most a new shape between: {allowed}"


def _refuse_second_use(chain: list[Call]) -> None:
    users: dict[int, Call] = {}
    for call in reversed(chain):
        for name, parameter in call.trained.items():
            user = users.setdefault(id(parameter), call)
            if user is not call:
                raise ValueError(f"the parameter {name} of {call} is used by {user} too; allowed is one use in a pass")


def _edges(tensor: Tensor) -> Iterator[tuple[Any, int]]:
    """Give the nodes of autograd's graph that have made `tensor`, back to the first that is no change of shape.

    With each comes the number of its result. The last node is None where there is none.
    """
    node, number = tensor.grad_fn, tensor.output_nr
    yield node, number
    while node is not None and node.name() in _RESHAPING:
        node, number = node.next_functions[0]
        yield node, number
