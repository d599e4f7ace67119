"""What an optimizer's step does, worked out once and checked at each step.

A step must notice everything that a training loop may do between two steps: gradients set to None or made anew, parameters
and state replaced or moved, groups changed. The checks go through C-level `map`s, since with hundreds of small tensors
looking at them takes as long as stepping them.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..around import Around
from ..specification import Rule
from .launch import Bound, Launch, element_type
from .layout import Layout
from .plain import PlainSteps
from .sharded import Shards

if TYPE_CHECKING:
    from .optimizer import RuleOptimizer

__all__ = ["Plan", "form_and_values"]

_grad: Final = operator.attrgetter("grad")
_pointer: Final = Tensor.data_ptr


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
        self._sizes: Final = [len(group["params"]) for group in optimizer.param_groups]
        self._parameters_layout: Final = Layout(self._parameters)
        bounds = self._bounds(optimizer)
        all_grads = list(map(_grad, self._parameters))
        self._shards: Final = Shards(bounds, tuple(rule.slots))
        grads = self._shards.local_grads([grad for grad in all_grads if grad is not None])
        self._without: Final = [grad is None for grad in all_grads]
        self._layout: Final = Layout(grads)

        self._states: Final = [bound.state for bound in bounds] if self._state_names else []
        self._counts: Final = _counts_side_by_side(self._states)
        self._counts_pointer: Final = self._counts.data_ptr()
        self._steps = self._counts.numpy() if self._states else np.zeros(len(bounds), np.float32)
        self._steps_seen = b""
        self._passed = 0
        self._entries: Final = list(optimizer.state)
        self._entry_states: Final = list(optimizer.state.values())
        self._kept_state: Final = [state[name] for state in self._states for name in self._state_names]
        self._state_of: Final = operator.itemgetter(*self._state_names) if len(self._state_names) > 1 else None
        self._steppers: Final = _steppers(rule, self._shards.bounds, grads)
        self._kept: Final = [tensor for stepper in self._steppers for tensor in stepper.kept]
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
                    state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                for name, initial in self._rule.slots.items():
                    if name not in state:
                        state[name] = torch.full_like(parameter, initial, memory_format=torch.preserve_format)
                bounds.append(Bound(parameter, number, self._groups[number].around, state))
        return bounds

    def fitting_grads(self, optimizer: RuleOptimizer) -> list[Tensor] | None:
        """Return the gradients to step by, or None where the plan does not fit any more.

        It fits while parameters, forms of step and state are the same, and all lie in memory as before.
        """
        parameters = list(_parameters(optimizer))
        groups, state = optimizer.param_groups, optimizer.state
        fits = (
            [len(group["params"]) for group in groups] == self._sizes
            and _same(parameters, self._parameters)
            and all(own.follows(group) for own, group in zip(self._groups, groups, strict=True))
            and len(state) == len(self._entries)
            and _same(state, self._entries)
            and _same(state.values(), self._entry_states)
            and self._state_holds()
            and self._shards.stay()
            and list(map(_pointer, self._kept)) == self._pointers
            and self._parameters_layout.fits(parameters)
            and self._counts.data_ptr() == self._counts_pointer
        )
        return self._grads_of(parameters) if fits else None

    def _state_holds(self) -> bool:
        if self._state_of is None:
            return _same((state.get("step") for state in self._states), self._kept_state)
        try:
            return _same(itertools.chain.from_iterable(map(self._state_of, self._states)), self._kept_state)
        except KeyError:
            return False

    def _grads_of(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        grads = list(map(_grad, parameters))
        if list(map(operator.is_, grads, itertools.repeat(None))) != self._without:
            return None
        stepping = self._shards.local_grads([grad for grad in grads if grad is not None])
        return stepping if self._layout.fits(stepping) else None

    def step(self, grads: Sequence[Tensor]) -> None:
        """Step every parameter of the plan once, by its gradient in `grads`."""
        if self._steps.tobytes() != self._steps_seen:
            self._passed = 0
            for stepper in self._steppers:
                stepper.regroup(self._steps)
        self._passed += 1
        self._steps += 1
        self._steps_seen = self._steps.tobytes()
        changed = [group.taken_over() for group in self._groups]
        values = [group.values for group in self._groups]
        for stepper in self._steppers:
            stepper.step(grads, values, self._passed, any(changed))
        self._shards.count_change()


class _Stepper(Protocol):
    """What steps some parameters of a plan. `kept` are the tensors that must stay where they are in memory."""

    @property
    def kept(self) -> Sequence[Tensor]: ...
    def regroup(self, steps: NDArray[np.float32]) -> None: ...
    def step(
        self, grads: Sequence[Tensor], values: Sequence[Mapping[str, float]], passed: int, changed: bool
    ) -> None: ...


def _steppers(rule: Rule, bounds: Sequence[Bound], grads: Sequence[Tensor]) -> list[_Stepper]:
    launches: dict[tuple[Around, str], dict[int, Bound]] = {}
    plain: dict[int, Bound] = {}
    for place, (bound, grad) in enumerate(zip(bounds, grads, strict=True)):
        real = element_type(bound, grad, rule)
        into = plain if real is None else launches.setdefault((bound.around, real), {})
        into[place] = bound
    steppers: list[_Stepper] = [Launch(rule, form, real, some) for (form, real), some in launches.items()]
    return [*steppers, PlainSteps(rule, plain)] if plain else steppers


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
        found = self._get(group)
        try:
            return tuple(map(float, found))
        except (TypeError, ValueError):
            # An option may be None; what else is no number is told of where the values are checked.
            return tuple(float(each) if hasattr(each, "__float__") else hash(repr(each)) for each in found)

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


def _counts_side_by_side(states: Sequence[dict[str, Any]]) -> Tensor:
    """Move the step counts next to each other in memory, where one addition counts them all; return that memory."""
    counts = torch.tensor([float(state["step"]) for state in states], dtype=torch.float32, device="cpu")
    for state, count in zip(states, counts.unbind(), strict=True):
        state["step"] = count
    return counts


def _nothing() -> None:
    """Stand for a gradient that there is not."""
