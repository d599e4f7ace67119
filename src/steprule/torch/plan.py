"""What an optimizer's step does, worked out once and checked at each step.

A step must notice everything that a training loop may do between two steps: gradients set to None or made anew, parameters
and state replaced or moved, groups changed. With hundreds of small tensors, to look at each in Python takes as long as to
step it: the checks are a few calls for all of them (`identity`, `layout`).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import torch
from torch import Tensor

from . import gpu
from .groups import Group
from .identity import Addresses, Held, same
from .launch import Bound, Given
from .layout import Layout
from .memory import dense
from .refusals import refuse_unsupported, supplied
from .sharded import Shards
from .sparse import SparseSteps
from .state import begin, has_state
from .steppers import steppers

if TYPE_CHECKING:
    from .optimizer import RuleOptimizer

__all__ = ["Plan"]

_grad: Final = operator.attrgetter("grad")
_version: Final = operator.attrgetter("_version")
"""How often a tensor was written to in place, but for what went through `.data`."""

_FIRST_IN_CAPTURE: Final = (
    "a graph captures a step that is the first, or before which parameters, state or groups have changed; take one such "
    "step before the capture"
)
_NOT_CAPTURABLE: Final = "a graph captures a step whose capturable is False; allowed is True, in every parameter group"


class Plan:
    """The steps of one optimizer for one set of parameters, gradients and states.

    It has the parameters that have a gradient, and those `carried` (by `id`) from the plan before: in some steps they have
    none, and rest.
    """

    def __init__(self, optimizer: RuleOptimizer, carried: frozenset[int] = frozenset()) -> None:
        rule = self._rule = optimizer.rule
        self._parameters: Final = list(_parameters(optimizer))
        scale = _grad_scale(optimizer)
        # As in torch, one answer for all groups, which a checkpoint does not change.
        self._differentiable: Final = bool(optimizer.defaults["differentiable"])
        self._groups: Final = [
            Group(group, optimizer.keywords, scale, self._differentiable) for group in optimizer.param_groups
        ]
        self._sizes: Final = [len(group["params"]) for group in optimizer.param_groups]
        masters = any(group.storing.master_copies for group in self._groups)
        counts = any(group.around.lr_decay for group in self._groups)
        stateful = has_state(rule, counts=counts, masters=masters)
        devices = {parameter.device for parameter in self._parameters if parameter.device.type in gpu.DEVICES}
        gpu.refuse_capture(devices, _FIRST_IN_CAPTURE)
        self._stand_ins: Final[dict[Tensor, Tensor]] = {}
        all_grads = [
            self._stand_in(each) if each.grad is None and id(each) in carried else each.grad
            for each in self._parameters
        ]
        self._left_out: Final = _missing(all_grads)
        self._present: Final = self._left_out.count(False)
        self._own: Final = self._bound(self._parameters)
        bounds = self._bounds(optimizer, stateful)
        self._not_capturable: Final = {bound.parameter.device for bound in bounds if not bound.capturable} & devices
        self._shards: Final = Shards(bounds)
        grads = self._shards.local([grad for grad in all_grads if grad is not None])
        given = self._given(grads)
        self._given_layout: Final = Layout(_more(given))
        self._sparse: Final = [place for place, grad in enumerate(grads) if grad.layout is torch.sparse_coo]
        self._layout: Final = Layout(_without(grads, self._sparse))
        self._copies: Final = [
            each.parameter
            for each in bounds
            if each.storing.has_master(each.parameter) and not each.parameter.is_inference()  # these count no writing
        ]
        self._versions = list(map(_version, self._copies))

        with_state = bounds if stateful else []
        self._counts: Final = _counts_side_by_side(with_state)
        self._steps = self._counts.numpy() if with_state else np.zeros(len(bounds), np.float32)
        self._steps_seen = b""
        self._passed = 0
        self._objects: Final = _objects(self._parameters, optimizer)
        self._held: Final = Held(
            [(bound.state, name) for bound in with_state for name in ("step", *bound.storing.names(bound.parameter))]
        )
        self._steppers: Final = steppers(
            rule, self._shards.bounds, given, optimizer.lags, differentiable=self._differentiable
        )
        self._kept: Final = [*(tensor for stepper in self._steppers for tensor in stepper.kept), self._counts]
        self._addresses: Final = Addresses.of(self._kept)
        known = set(map(id, self._parameters))
        self._others: Final = [tensor for tensor in self._kept if id(tensor) not in known]
        # Of a parameter without gradient nothing is asked: one of a lazy module has no sizes yet.
        self._kept_layout: Final = Layout([*self._own, *self._others])
        may_rest = itertools.chain.from_iterable(each.may_rest for each in self._steppers)
        # What a rule takes beside the gradient is not there without it.
        self._may_rest: Final = frozenset(() if rule.curvature else may_rest)
        self._resting: list[bool] = []
        """Which parameters of the plan have no gradient in the coming step; empty where all have one."""
        self._rested: list[bool] = []
        """The same of the step before."""
        self._undisturbed = False

    @classmethod
    def after(cls, optimizer: RuleOptimizer, before: Plan | None) -> Plan:
        """Return the plan for the present; `before` is one that does not fit any more."""
        carried = frozenset() if before is None else before._to_carry()
        made = cls(optimizer, carried)
        # A parameter that lies otherwise than others, or in their memory, cannot be passed over.
        return made if made._allows([each.grad is None for each in made._own]) else cls(optimizer)

    def _to_carry(self) -> frozenset[int]:
        """Return the parameters that may rest, if gradients have come and gone and nothing else has changed."""
        return frozenset(id(self._own[place]) for place in self._may_rest) if self._undisturbed else frozenset()

    def _allows(self, resting: Iterable[bool]) -> bool:
        return self._may_rest.issuperset(itertools.compress(itertools.count(), resting))

    def _bound(self, each: Sequence[Any]) -> list[Any]:
        """Return what there is in `each`, which has one of something for every parameter, of those of the plan."""
        return list(itertools.compress(each, map(operator.not_, self._left_out)))

    @torch.no_grad()
    def _bounds(self, optimizer: RuleOptimizer, stateful: bool) -> list[Bound]:
        bounds = []
        number = optimizer.first_number - 1
        left_out = iter(self._left_out)
        for place, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                number += 1
                if next(left_out):
                    continue
                refuse_unsupported(parameter, differentiable=self._differentiable)
                own = self._groups[place]
                state = optimizer.state[parameter] if stateful else {}
                capturable = own.capturable and parameter.device.type in gpu.DEVICES
                own.storing.check(parameter)
                if capturable:
                    gpu.check_capturable(own.storing, own.raises, parameter)
                if stateful:
                    begin(state, parameter, number, group, optimizer.keywords)
                if stateful and capturable:
                    state["step"] = gpu.count_there(state["step"], parameter.device)
                names = group.get("param_names")
                shape = tuple(parameter.shape)
                name = f"parameter {number}, of shape {shape}," if names is None else f"{names[index]}"
                bounds.append(
                    Bound(
                        parameter, place, own.around, state, own.storing, number, name, own.raises, capturable, own.lazy
                    )
                )
        return bounds

    def fitting(self, optimizer: RuleOptimizer) -> Given | None:
        """Return what to step by, or None where the plan does not fit any more.

        It fits while parameters, forms of step and state are the same, all lie in memory as before, and nobody has written
        to a master's copy.
        """
        parameters = list(_parameters(optimizer))
        groups = optimizer.param_groups
        scale = _grad_scale(optimizer)
        fits = (
            [len(group["params"]) for group in groups] == self._sizes
            and same(_objects(parameters, optimizer), self._objects)
            and all(own.follows(group, scale) for own, group in zip(self._groups, groups, strict=True))
            and self._held.still()
            and self._shards.stay()
            and self._kept_layout.fits([*self._own, *self._others])
            and self._addresses.hold(self._kept)
            and list(map(_version, self._copies)) == self._versions
        )
        self._undisturbed = fits
        return self._given_of(parameters) if fits else None

    def _given_of(self, parameters: Sequence[Tensor]) -> Given | None:
        grads = list(map(_grad, parameters))
        stepping = [grad for grad in grads if grad is not None]
        resting: list[bool] = []
        if len(stepping) != self._present or (len(stepping) < len(grads) and _missing(grads) != self._left_out):
            resting = self._bound(_missing(grads))
            if len(stepping) + sum(resting) > self._present:
                return None  # a gradient has come of which the plan does not know
            if not self._allows(resting):
                return None
            own = zip(self._own, self._bound(grads), strict=True)
            stepping = [self._stand_in(each) if grad is None else grad for each, grad in own]
        self._resting = resting
        stepping = self._shards.local(stepping)
        sparse = [place for place in self._sparse if not (resting and resting[place])]
        if any(stepping[place].layout is not torch.sparse_coo for place in sparse):
            return None
        if not self._layout.fits(_without(stepping, self._sparse)):
            return None
        if not self._rule.curvature:
            return {"g": stepping}
        given = self._given(stepping)
        return given if self._given_layout.fits(_more(given)) else None

    def _stand_in(self, parameter: Tensor) -> Tensor:
        """Return what stands in the place of a gradient that is not there: as it will be, as a rule, and never read."""
        if parameter not in self._stand_ins:
            # Autograd makes the gradient of a parameter with gaps without any.
            made = (
                parameter.detach()
                if dense(parameter)
                else torch.empty_like(parameter, memory_format=torch.contiguous_format)
            )
            self._stand_ins[parameter] = made
        return self._stand_ins[parameter]

    def _given(self, grads: list[Tensor]) -> Given:
        """Return the gradients, and what else the rule takes of each parameter."""
        more = {name: self._shards.local(supplied(self._rule, name, self._own), name) for name in self._rule.curvature}
        return {"g": grads, **more}

    def step(self, given: Given) -> None:
        """Step every parameter of the plan once, by what is `given`."""
        gpu.refuse_capture(self._not_capturable, _NOT_CAPTURABLE)
        if self._resting != self._rested:
            for stepper in self._steppers:
                stepper.rest(self._resting or [False] * self._present)
            self._rested, self._steps_seen = self._resting, b""
        for stepper in self._steppers:
            if isinstance(stepper, SparseSteps):
                stepper.prepare(given, [group.values for group in self._groups], self._steps)
        if self._steps.tobytes() != self._steps_seen:
            self._passed = 0
            for stepper in self._steppers:
                stepper.regroup(self._steps)
        self._passed += 1
        self._steps += np.logical_not(self._resting) if self._resting else 1
        self._steps_seen = self._steps.tobytes()
        changed = [group.taken_over() for group in self._groups]
        values = [group.values for group in self._groups]
        flagged: list[Bound] = []
        for stepper in self._steppers:
            flagged += stepper.step(given, values, self._passed, any(changed))
        self._shards.count_change(self._resting)
        self._versions = list(map(_version, self._copies))
        for bound in sorted(flagged, key=operator.attrgetter("number")):
            if self._groups[bound.group].raises:
                raise FloatingPointError(
                    f"the gradient of {bound.name} is infinite or NaN in some elements; these have not stepped "
                    '(on_nonfinite="raise")'
                )


def _grad_scale(optimizer: RuleOptimizer) -> float | None:
    """Return what `torch.amp.GradScaler` asks this step to divide the gradients by."""
    scale = getattr(optimizer, "grad_scale", None)
    return None if scale is None else float(scale)


def _objects(parameters: Iterable[Tensor], optimizer: RuleOptimizer) -> list[Any]:
    """Return what must be the same objects from step to step: parameters, those that have a state, and their states."""
    return [*parameters, *optimizer.state, *optimizer.state.values()]


def _missing(grads: Sequence[Tensor | None]) -> list[bool]:
    return [grad is None for grad in grads]


def _parameters(optimizer: RuleOptimizer) -> Iterable[Tensor]:
    return itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)


def _without(grads: list[Tensor], places: Sequence[int]) -> list[Tensor]:
    return [grad for place, grad in enumerate(grads) if place not in places] if places else grads


def _more(given: Given) -> list[Tensor]:
    return [tensor for name, tensors in given.items() if name != "g" for tensor in tensors]


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
