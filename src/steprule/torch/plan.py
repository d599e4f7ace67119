"""What an optimizer's step does, worked out once and checked at each step.

A step must notice everything that a training loop may do between two steps: gradients set to None or made anew, parameters
and state replaced or moved, groups changed. The checks go through C-level `map`s, since with hundreds of small tensors
looking at them takes as long as stepping them.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..around import Around
from ..specification import Rule
from .launch import Bound, Launch, element_type

if TYPE_CHECKING:
    from .optimizer import RuleOptimizer

__all__ = ["Plan", "form_and_values"]

_grad: Final = operator.attrgetter("grad")
_pointer: Final = Tensor.data_ptr
_ATTRIBUTES: Final[tuple[Callable[[Any], Any], ...]] = (
    type,
    operator.attrgetter("layout"),
    operator.attrgetter("dtype"),
)


def _same(some: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether two iterables of equal length hold the same objects."""
    return all(map(operator.is_, some, others))


class Plan:
    """The steps of one optimizer for one set of parameters, gradients and states."""

    def __init__(self, optimizer: RuleOptimizer) -> None:
        rule = self._rule = optimizer.rule
        self._state_names: Final = ("step", *rule.slots) if rule.slots or "t" in rule.inputs else ()
        self._parameters: Final = list(_parameters(optimizer))
        self._groups: Final = [_Group(group, optimizer) for group in optimizer.param_groups]
        self._grads: Final = list(map(_grad, self._parameters))
        self._without: Final = [grad is None for grad in self._grads]
        bounds = self._bounds(optimizer)
        self._layout: Final = _Layout([bound.grad for bound in bounds])
        launches: dict[tuple[Any, str], dict[int, Bound]] = {}
        self._plain: Final[dict[int, Bound]] = {}
        for place, bound in enumerate(bounds):
            real = element_type(bound, rule)
            into = self._plain if real is None else launches.setdefault((bound.around, real), {})
            into[place] = bound

        self._states: Final = [bound.state for bound in bounds] if self._state_names else []
        self._steps = _steps_side_by_side(self._states, len(bounds))
        self._steps_seen = b""
        self._passed = 0
        self._entries: Final = list(optimizer.state)
        self._entry_states: Final = list(optimizer.state.values())
        self._kept_state: Final = [state[name] for state in self._states for name in self._state_names]
        self._state_of: Final = operator.itemgetter(*self._state_names) if len(self._state_names) > 1 else None
        self._launches: Final = [Launch(rule, form, real, some) for (form, real), some in launches.items()]
        self._kept: Final = [tensor for launch in self._launches for tensor in launch.kept]
        self._pointers: Final = list(map(_pointer, self._kept))

    @torch.no_grad()
    def _bounds(self, optimizer: RuleOptimizer) -> list[Bound]:
        bounds = []
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                _refuse_unsupported(parameter)
                state = optimizer.state[parameter] if self._state_names else {}
                if self._state_names and "step" not in state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                for name, initial in self._rule.slots.items():
                    if name not in state:
                        state[name] = torch.full_like(parameter, initial, memory_format=torch.preserve_format)
                bounds.append(Bound(parameter, parameter.grad, number, self._groups[number].around, state))
        return bounds

    def holds(self, optimizer: RuleOptimizer) -> bool:
        """Whether the plan still fits: the same parameters, forms of step and state, and gradients laid out as before."""
        parameters = list(_parameters(optimizer))
        groups, state = optimizer.param_groups, optimizer.state
        return (
            len(parameters) == len(self._parameters)
            and _same(parameters, self._parameters)
            and len(groups) == len(self._groups)
            and all(own.follows(group) for own, group in zip(self._groups, groups, strict=True))
            and len(state) == len(self._entries)
            and _same(state, self._entries)
            and _same(state.values(), self._entry_states)
            and self._state_holds()
            and self._grads_hold()
            and list(map(_pointer, self._kept)) == self._pointers
        )

    def _state_holds(self) -> bool:
        if self._state_of is None:
            return _same((state["step"] for state in self._states), self._kept_state)
        return _same(itertools.chain.from_iterable(map(self._state_of, self._states)), self._kept_state)

    def _grads_hold(self) -> bool:
        grads = list(map(_grad, self._parameters))
        if _same(grads, self._grads):
            return True
        if list(map(operator.is_, grads, itertools.repeat(None))) != self._without:
            return False
        stepping = [grad for grad in grads if grad is not None]
        if not self._layout.fits(stepping):
            return False
        self._grads[:] = grads
        for launch in self._launches:
            launch.grads = [stepping[place] for place in launch.places]
        for place, bound in self._plain.items():
            bound.grad = stepping[place]
        return True

    def step(self) -> None:
        """Step every parameter of the plan once."""
        if self._steps.tobytes() != self._steps_seen:
            self._passed = 0
            for launch in self._launches:
                launch.regroup(self._steps)
        self._passed += 1
        self._steps += 1
        self._steps_seen = self._steps.tobytes()
        changed = [group.taken_over() for group in self._groups]
        values = [group.values for group in self._groups]
        for launch in self._launches:
            launch.step(values, self._passed, any(changed))
        for place, bound in self._plain.items():
            _plain_step(self._rule, bound, values[bound.group], int(self._steps[place]))


class _Group:
    """A parameter group's hyperparameters, as floats, and the form of step that they ask for."""

    def __init__(self, group: Mapping[str, Any], optimizer: RuleOptimizer) -> None:
        self._get: Final = operator.itemgetter(
            *around.hyperparameters(optimizer.rule), "decoupled_weight_decay", "maximize"
        )
        self._rule: Final = optimizer.rule
        self.around, self.values = form_and_values(self._rule, group)
        self._seen = self._floats(group)
        self._changed = True

    def _floats(self, group: Mapping[str, Any]) -> tuple[float, ...]:
        try:
            return tuple(map(float, self._get(group)))
        except (TypeError, ValueError):
            return ()  # what is no number is told of where the values are checked

    def follows(self, group: Mapping[str, Any]) -> bool:
        """Take over the group's present values; return whether the form of the step is the same as before."""
        present = self._floats(group)
        if present == self._seen:
            return True
        form, self.values = form_and_values(self._rule, group)
        self._seen, self._changed = present, True
        return form == self.around

    def taken_over(self) -> bool:
        """Return whether the values are new since this was last asked."""
        changed, self._changed = self._changed, False
        return changed


def form_and_values(rule: Rule, group: Mapping[str, Any]) -> tuple[Around, dict[str, float]]:
    """Return the form of step that a parameter group asks for, and each hyperparameter's value, checked."""
    names = around.hyperparameters(rule)
    values = around.validated(rule, {name: group[name] for name in names if name in group})
    decoupled = bool(group["decoupled_weight_decay"])
    return Around.of(values, decoupled=decoupled, maximize=bool(group["maximize"])), values


def _parameters(optimizer: RuleOptimizer) -> Iterable[Tensor]:
    return itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)


def _refuse_unsupported(parameter: Tensor) -> None:
    shape = tuple(parameter.shape)
    if not parameter.is_floating_point():
        raise TypeError(f"a parameter of shape {shape} is {parameter.dtype}; allowed are real floating-point types")
    if parameter.grad is not None and parameter.grad.layout is not torch.strided:
        raise TypeError(
            f"the gradient of a parameter of shape {shape} has the layout {parameter.grad.layout}; allowed is a "
            "dense one (torch.strided)"
        )


def _steps_side_by_side(states: Sequence[dict[str, Any]], length: int) -> NDArray[np.float32]:
    """Move the step counts next to each other in memory, where one addition counts them all; return that memory."""
    if not states:
        return np.zeros(length, np.float32)
    counts = torch.tensor([float(state["step"]) for state in states], dtype=torch.float32)
    for state, count in zip(states, counts.unbind(), strict=True):
        state["step"] = count
    return counts.numpy()


class _Layout:
    """How gradients lie in memory, to tell whether new ones lie alike; their shapes and devices are the parameters'."""

    def __init__(self, grads: Sequence[Tensor]) -> None:
        self._attributes: Final = [list(map(of, grads)) for of in _ATTRIBUTES]
        self._strides: Final = [grad.stride() for grad in grads]
        self._contiguous: Final = all(grad.is_contiguous() for grad in grads)

    def fits(self, grads: Sequence[Tensor]) -> bool:
        if any(list(map(of, grads)) != seen for of, seen in zip(_ATTRIBUTES, self._attributes, strict=True)):
            return False
        if self._contiguous and all(map(Tensor.is_contiguous, grads)):
            return True
        return [grad.stride() for grad in grads] == self._strides


@torch.no_grad()
def _plain_step(rule: Rule, bound: Bound, values: Mapping[str, float], t: int) -> None:
    """Step one parameter through torch's operations, lower types widened to float32."""
    real = torch.float64 if bound.parameter.dtype is torch.float64 else torch.float32
    inputs = {"x": bound.parameter.to(real), "g": bound.grad.to(real), "t": t}
    slots = {name: bound.state[name].to(real) for name in rule.slots}
    x, new, _ = around.step(rule, bound.around, inputs, slots, values)
    bound.parameter.copy_(x)
    for name, value in new.items():
        bound.state[name].copy_(value)
