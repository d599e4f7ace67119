"""What an optimizer's step does, worked out once and checked at each step.

A step must notice everything that a training loop may do between two steps: gradients set to None or made anew, parameters
and state replaced or moved, groups changed. The checks go through C-level `map`s, since with hundreds of small tensors
looking at them takes as long as stepping them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor

from .. import around
from ..around import Around
from ..kernels.cpu import Elements
from ..specification import Rule
from . import gpu
from .launch import Bound, Launch, elements_of
from .layout import Layout
from .plain import PlainSteps
from .storing import OPTIONS, Storing

if TYPE_CHECKING:
    from .optimizer import RuleOptimizer

__all__ = ["Plan", "form_and_values"]

_grad: Final = operator.attrgetter("grad")
_pointer: Final = Tensor.data_ptr


_FIRST_IN_CAPTURE: Final = (
    "a graph captures a step that is the first, or before which parameters, state or groups have changed; take one such "
    "step before the capture"
)
_NOT_CAPTURABLE: Final = "a graph captures a step whose capturable is False; allowed is True, in every parameter group"


def _same(some: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether two iterables of equal length hold the same objects."""
    return all(map(operator.is_, some, others))


class Plan:
    """The steps of one optimizer for one set of parameters, gradients and states."""

    def __init__(self, optimizer: RuleOptimizer) -> None:
        rule = self._rule = optimizer.rule
        self._parameters: Final = list(_parameters(optimizer))
        scale = _grad_scale(optimizer)
        self._groups: Final = [_Group(group, optimizer.rule, scale) for group in optimizer.param_groups]
        self._sizes: Final = [len(group["params"]) for group in optimizer.param_groups]
        self._parameters_layout: Final = Layout(self._parameters)
        masters = any(group.storing.master_copies for group in self._groups)
        has_state = bool(rule.slots) or "t" in rule.inputs or masters
        devices = {parameter.device for parameter in self._parameters if parameter.device.type in gpu.DEVICES}
        gpu.refuse_capture(devices, _FIRST_IN_CAPTURE)
        bounds = self._bounds(optimizer, has_state)
        self._not_capturable: Final = {bound.parameter.device for bound in bounds if not bound.capturable} & devices
        all_grads = list(map(_grad, self._parameters))
        grads = [grad for grad in all_grads if grad is not None]
        self._without: Final = [grad is None for grad in all_grads]
        self._layout: Final = Layout(grads)

        self._states: Final = [bound.state for bound in bounds] if has_state else []
        self._counts: Final = _counts_side_by_side(bounds if has_state else [])
        self._counts_pointer: Final = self._counts.data_ptr()
        self._steps = self._counts.numpy() if self._states else np.zeros(len(bounds), np.float32)
        self._steps_seen = b""
        self._passed = 0
        self._entries: Final = list(optimizer.state)
        self._entry_states: Final = list(optimizer.state.values())
        # Twice "step", since of one name itemgetter makes no tuple.
        kept = [("step", *bound.storing.names(bound.parameter), "step") for bound in bounds] if has_state else []
        self._state_of: Final = list(map(_getter, kept))
        self._kept_state: Final = [
            state[name] for names, state in zip(kept, self._states, strict=True) for name in names
        ]
        self._steppers: Final = _steppers(rule, bounds, grads)
        self._kept: Final = [tensor for stepper in self._steppers for tensor in stepper.kept]
        self._pointers: Final = list(map(_pointer, self._kept))

    @torch.no_grad()
    def _bounds(self, optimizer: RuleOptimizer, has_state: bool) -> list[Bound]:
        bounds = []
        number = -1
        for place, group in enumerate(optimizer.param_groups):
            form, storing = self._groups[place].around, self._groups[place].storing
            for index, parameter in enumerate(group["params"]):
                number += 1
                if parameter.grad is None:
                    continue
                _refuse_unsupported(parameter)
                state = optimizer.state[parameter] if has_state else {}
                capturable = self._groups[place].capturable and parameter.device.type in gpu.DEVICES
                if has_state and "step" not in state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                raises = self._groups[place].raises
                if capturable:
                    gpu.check_capturable(storing, raises, parameter)
                if has_state and capturable:
                    state["step"] = gpu.count_there(state["step"], parameter.device)
                storing.prepare(parameter, state, number)
                names = group.get("param_names")
                shape = tuple(parameter.shape)
                name = f"parameter {number}, of shape {shape}," if names is None else f"{names[index]}"
                bounds.append(Bound(parameter, place, form, state, storing, number, name, raises, capturable))
        return bounds

    def fitting_grads(self, optimizer: RuleOptimizer) -> list[Tensor] | None:
        """Return the gradients to step by, or None where the plan does not fit any more.

        It fits while parameters, forms of step and state are the same, and all lie in memory as before.
        """
        parameters = list(_parameters(optimizer))
        groups, state = optimizer.param_groups, optimizer.state
        scale = _grad_scale(optimizer)
        fits = (
            [len(group["params"]) for group in groups] == self._sizes
            and _same(parameters, self._parameters)
            and all(own.follows(group, scale) for own, group in zip(self._groups, groups, strict=True))
            and len(state) == len(self._entries)
            and _same(state, self._entries)
            and _same(state.values(), self._entry_states)
            and self._state_holds()
            and list(map(_pointer, self._kept)) == self._pointers
            and self._parameters_layout.fits(parameters)
            and self._counts.data_ptr() == self._counts_pointer
        )
        return self._grads_of(parameters) if fits else None

    def _state_holds(self) -> bool:
        try:
            present = (
                map(self._state_of[0], self._states)
                if len(set(self._state_of)) == 1
                else (get(state) for get, state in zip(self._state_of, self._states, strict=True))
            )
            return _same(itertools.chain.from_iterable(present), self._kept_state)
        except KeyError:
            return False

    def _grads_of(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        grads = list(map(_grad, parameters))
        if list(map(operator.is_, grads, itertools.repeat(None))) != self._without:
            return None
        stepping = [grad for grad in grads if grad is not None]
        return stepping if self._layout.fits(stepping) else None

    def step(self, grads: Sequence[Tensor]) -> None:
        """Step every parameter of the plan once, by its gradient in `grads`."""
        gpu.refuse_capture(self._not_capturable, _NOT_CAPTURABLE)
        if self._steps.tobytes() != self._steps_seen:
            self._passed = 0
            for stepper in self._steppers:
                stepper.regroup(self._steps)
        self._passed += 1
        self._steps += 1
        self._steps_seen = self._steps.tobytes()
        changed = [group.taken_over() for group in self._groups]
        values = [group.values for group in self._groups]
        flagged: list[Bound] = []
        for stepper in self._steppers:
            flagged += stepper.step(grads, values, self._passed, any(changed))
        for bound in sorted(flagged, key=operator.attrgetter("number")):
            if self._groups[bound.group].raises:
                raise FloatingPointError(
                    f"the gradient of {bound.name} is infinite or NaN in some elements; these have not stepped "
                    '(on_nonfinite="raise")'
                )


class _Stepper(Protocol):
    """What steps some parameters of a plan. `kept` are the tensors that must stay where they are in memory.

    Of a guarded step, `step` returns the parameters whose gradient is not finite.
    """

    @property
    def kept(self) -> Sequence[Tensor]: ...
    def regroup(self, steps: NDArray[np.float32]) -> None: ...
    def step(
        self, grads: Sequence[Tensor], values: Sequence[Mapping[str, float]], passed: int, changed: bool
    ) -> list[Bound]: ...


def _steppers(rule: Rule, bounds: Sequence[Bound], grads: Sequence[Tensor]) -> list[_Stepper]:
    launches: dict[tuple[Around, Elements | gpu.Kind], dict[int, Bound]] = {}
    plain: dict[int, Bound] = {}
    for place, (bound, grad) in enumerate(zip(bounds, grads, strict=True)):
        kind = gpu.kind_of(bound, grad) or elements_of(bound, grad)
        into = plain if kind is None else launches.setdefault((bound.around, kind), {})
        into[place] = bound
    steppers: list[_Stepper] = [
        Launch(rule, form, kind, some) if isinstance(kind, Elements) else gpu.DeviceLaunch(rule, form, kind, some)
        for (form, kind), some in launches.items()
    ]
    return [*steppers, PlainSteps(rule, plain)] if plain else steppers


class _Group:
    """A parameter group's hyperparameters, as floats, and the form of step that they ask for."""

    def __init__(self, group: Mapping[str, Any], rule: Rule, scale: float | None) -> None:
        names = (*around.hyperparameters(rule), "decoupled_weight_decay", "maximize")
        self._get: Final = operator.itemgetter(*names)
        self._rule: Final = rule
        self.capturable: Final = bool(group.get("capturable", False))
        self.around, self.values = form_and_values(rule, group, scale)
        self.storing = Storing.of(rule, group)
        self.raises: Final = group.get("on_nonfinite") == "raise"
        self._options: Final = tuple(map(group.get, OPTIONS))
        self._seen = self._floats(group, scale)
        self._changed = True

    def _floats(self, group: Mapping[str, Any], scale: float | None) -> tuple[float | None, ...]:
        found = self._get(group)
        if self.capturable:
            # To read a tensor on a device would be to wait for it.
            found = tuple(id(each) if gpu.is_live(each) else each for each in found)
        try:
            return (*map(float, found), scale)
        except (TypeError, ValueError):
            # An option may be None; what else is no number is told of where the values are checked.
            return (*(float(each) if hasattr(each, "__float__") else hash(repr(each)) for each in found), scale)

    def follows(self, group: Mapping[str, Any], scale: float | None) -> bool:
        """Take over the group's present values; return whether the form of the step is the same as before."""
        if tuple(map(group.get, OPTIONS)) != self._options or bool(group.get("capturable", False)) != self.capturable:
            return False
        present = self._floats(group, scale)
        if present == self._seen:
            return True
        form, self.values = form_and_values(self._rule, group, scale)
        self._seen, self._changed = present, True
        return form == self.around

    def taken_over(self) -> bool:
        """Return whether the values are new since this was last asked."""
        changed, self._changed = self._changed, False
        return changed


def form_and_values(
    rule: Rule, group: Mapping[str, Any], scale: float | None = None
) -> tuple[Around, dict[str, float]]:
    """Return the form of step that a parameter group asks for, and each hyperparameter's value, checked.

    `scale` is what the gradients are to be divided by, if anything.
    """
    names = around.hyperparameters(rule)
    values = gpu.validated(rule, {name: group[name] for name in names if name in group}, group)
    decoupled, on_nonfinite = bool(group["decoupled_weight_decay"]), group.get("on_nonfinite", "propagate")
    if on_nonfinite not in ("propagate", "skip", "raise"):
        raise ValueError(f'on_nonfinite is {on_nonfinite!r}; allowed is "propagate", "skip" or "raise"')
    form = Around.of(values, decoupled=decoupled, maximize=bool(group["maximize"]))
    form = dataclasses.replace(form, unscale=scale is not None, guard=on_nonfinite != "propagate")
    return form, values if scale is None else values | {"grad_scale": scale}


def _grad_scale(optimizer: RuleOptimizer) -> float | None:
    """Return what `torch.amp.GradScaler` asks this step to divide the gradients by."""
    scale = getattr(optimizer, "grad_scale", None)
    return None if scale is None else float(scale)


@functools.cache
def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return operator.itemgetter(*names)


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


def _counts_side_by_side(bounds: Sequence[Bound]) -> Tensor:
    """Move the step counts next to each other in memory, where one addition counts them all; return that memory.

    Where a count is on its parameter's device, one stands here that nobody reads.
    """
    steps = [0.0 if bound.capturable else float(bound.state["step"]) for bound in bounds]
    counts = torch.tensor(steps, dtype=torch.float32, device="cpu")
    for bound, count in zip(bounds, counts.unbind(), strict=True):
        if not bound.capturable:
            bound.state["step"] = count
    return counts


def _nothing() -> None:
    """Stand for a gradient that there is not."""
