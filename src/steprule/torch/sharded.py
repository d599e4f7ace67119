"""DTensor parameters: each rank steps the part that it holds, an ordinary tensor, and no rank waits for another.

A rule works element by element, so that the step of a shard is the shard of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from .identity import Addresses
from .launch import Bound
from .layout import Layout
from .memory import is_sharded

__all__ = ["Shards", "local_parts"]


def local_parts(tensors: Iterable[Any]) -> list[Tensor]:
    """Return this rank's part of each DTensor."""
    with torch.no_grad():
        parts: list[Any] = [each.to_local() for each in tensors]
    # What a collective operation has not delivered yet has a `wait`.
    return [each.wait() if hasattr(each, "wait") else each for each in parts]


def _check_spread(tensor: Tensor, parameter: Any, what: str) -> None:
    """Refuse a tensor that is not spread over the ranks as the parameter to which it belongs is."""
    found: Any = tensor
    if not is_sharded(tensor):
        spread = f"is a {type(tensor).__name__}, which is not spread"
    elif found.placements != parameter.placements or found.device_mesh != parameter.device_mesh:
        spread = f"has the placements {found.placements} on {found.device_mesh}"
    else:
        return
    raise TypeError(
        f"the {what} of a DTensor parameter of shape {tuple(parameter.shape)} {spread}; allowed is a DTensor with the "
        f"parameter's placements, {parameter.placements} on {parameter.device_mesh}"
    )


def _slots(bound: Bound) -> tuple[str, ...]:
    """Return what a parameter's state holds in its shape."""
    return bound.storing.names(bound.parameter) if bound.state else ()


class Shards:
    """The parts that this rank holds of those parameters that are DTensors, in the order of a plan.

    Raises `TypeError` for a parameter that is a partial sum, and for a slot that is not spread over the ranks as its
    parameter is.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self._sharded: Final[Mapping[int, Any]] = {
            place: bound.parameter for place, bound in enumerate(bounds) if is_sharded(bound.parameter)
        }
        self._bounds: Final = [bounds[place] for place in self._sharded]
        for bound in self._bounds:
            _refuse_partial(bound.parameter)
            for name in _slots(bound):
                _check_spread(bound.state[name], bound.parameter, f"slot {name}")
        self.bounds: Final = [
            self._localized(bound) if place in self._sharded else bound for place, bound in enumerate(bounds)
        ]
        """Each parameter with its state, or this rank's part of both."""
        self._spread: Final = [
            each for bound in self._bounds for each in (bound.parameter, *map(bound.state.__getitem__, _slots(bound)))
        ]
        parts = local_parts(self._spread)
        self._layout: Final = Layout(parts)
        self._addresses: Final = Addresses.of(parts)

    def _localized(self, bound: Bound) -> Bound:
        names = _slots(bound)
        parameter, *parts = local_parts([bound.parameter, *map(bound.state.__getitem__, names)])
        return replace(bound, parameter=parameter, state=bound.state | dict(zip(names, parts, strict=True)))

    def stay(self) -> bool:
        """Whether each part is where it was in memory, as it was."""
        if not self._sharded:
            return True
        parts = local_parts(self._spread)
        return self._layout.fits(parts) and self._addresses.hold(parts)

    def local(self, tensors: list[Tensor], what: str = "gradient") -> list[Tensor]:
        """Return the tensors with each DTensor replaced by this rank's part; `what` is what an error calls one of them.

        Raises `TypeError` where one is not spread over the ranks as its parameter is.
        """
        if not self._sharded:
            return tensors
        for place, parameter in self._sharded.items():
            _check_spread(tensors[place], parameter, what)
        found = list(tensors)
        for place, part in zip(self._sharded, local_parts(tensors[place] for place in self._sharded), strict=True):
            found[place] = part
        return found

    def count_change(self, resting: Sequence[bool]) -> None:
        """Let autograd know that the DTensors, those `resting` aside, have changed, as it knows of their parts."""
        if not self._sharded:
            return
        changed = [each for place, each in self._sharded.items() if not (resting and resting[place])]
        torch.autograd.graph.increment_version(changed)


def _refuse_partial(parameter: Any) -> None:
    if any(each.is_partial() for each in parameter.placements):
        raise TypeError(
            f"a parameter of shape {tuple(parameter.shape)} has the placements {parameter.placements}; allowed are "
            "Shard and Replicate"
        )
