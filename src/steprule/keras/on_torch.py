"""How the classes step on PyTorch: all variables in one fused loop, through a class of `steprule.torch`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

from keras.src.backend.common.stateless_scope import in_stateless_scope  # keras exports the scope, not the question

import torch

from ..around import Around
from ..specification import Rule
from ..torch import RuleOptimizer, optimizer
from ..torch.compiled import outside_compiled_code
from ..torch.state import has_state
from .on_tensors import OnTensors

__all__ = ["OnTorch"]


class OnTorch(OnTensors):
    """What `RuleOptimizer` does on PyTorch."""

    _fused: _Fused | None = None

    @outside_compiled_code
    @torch.no_grad()
    def _backend_update_step(
        self: Any, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # In a stateless scope nothing may be changed in place, and a subclass may step a variable otherwise.
        if in_stateless_scope() or type(self).update_step is not OnTensors.update_step:
            for grad, variable in zip(grads, trainable_variables, strict=True):
                self.update_step(grad, variable, learning_rate)
            return
        parameters = [variable.value for variable in self._trainable_variables]
        if self._fused is None or not self._fused.steps(parameters):
            slots = [self._slots_of(index) for index in range(len(parameters))]
            forms = [self._form(variable) for variable in self._trainable_variables]
            self._fused = _Fused(self.rule, parameters, slots, forms, {**self._values, "lr": float(learning_rate)})
        places = [self._get_variable_index(variable) for variable in trainable_variables]
        # Keras's own layers make no gradient that is sparse.
        dense = [grad.to_dense() if grad.is_sparse else grad for grad in grads]
        given = [
            {"grad": grad, **self._given(variable)} for grad, variable in zip(dense, trainable_variables, strict=True)
        ]
        self._fused.step(dict(zip(places, given, strict=True)), float(learning_rate), int(self.iterations))


class _Fused:
    """An optimizer of `steprule.torch` whose parameters and slots are the tensors of Keras's variables."""

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Any],
        slots: Sequence[dict[str, Any]],
        forms: Sequence[Around],
        values: dict[str, float],
    ) -> None:
        self._parameters: Final = list(parameters)
        self._counts: Final = [0] * len(parameters)
        self._given: Final = ("grad", *rule.curvature)
        own_decay = "weight_decay" in rule.hyperparameters
        groups = [
            {
                "params": [parameter for parameter, form in zip(parameters, forms, strict=True) if form == kind],
                "decoupled_weight_decay": kind.weight_decay == "decoupled",
                "weight_decay": values["weight_decay"] if kind.weight_decay != "none" or own_decay else 0.0,
                "maximize": kind.maximize,
            }
            for kind in dict.fromkeys(forms)
        ]
        others = {name: value for name, value in values.items() if name != "weight_decay"}
        self.optimizer: Final[RuleOptimizer] = optimizer(rule)(groups, **others)
        keeps_state = has_state(rule, counts=bool(values["lr_decay"]))
        for parameter, own in zip(parameters, slots, strict=True):
            # Keras makes no slots of a variable that it overwrites with its gradient (float8) instead of a step.
            if keeps_state and all(variable is not None for variable in own.values()):
                count = torch.zeros((), dtype=torch.float32, device="cpu")
                self.optimizer.state[parameter] = {
                    "step": count,
                    **{name: variable.value for name, variable in own.items()},
                }

    def steps(self, parameters: Sequence[Any]) -> bool:
        """Whether these are the tensors of the parameters, all of them in the same order."""
        return all(map(operator.is_, parameters, self._parameters))

    def step(self, given: dict[int, dict[str, Any]], rate: float, iterations: int) -> None:
        """Step the parameters whose place is in `given`, after `iterations` steps of the whole optimizer.

        `given` has the gradient of each, `grad`, and `h` and `g2` where the rule takes them.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Keras counts the steps of the optimizer, and PyTorch those of each parameter.
        if any(self._counts[place] != iterations for place in given):
            self._recount(iterations)
        before = [{name: getattr(parameter, name, None) for name in self._given} for parameter in self._parameters]
        try:
            for place, parameter in enumerate(self._parameters):
                own = given.get(place, {"grad": None})
                for name, value in own.items():
                    if name != "grad" or value is not before[place][name]:
                        setattr(parameter, name, None if value is None else value.to(parameter.dtype))
            self.optimizer.step()
        finally:
            for parameter, earlier in zip(self._parameters, before, strict=True):
                for name, value in earlier.items():
                    if getattr(parameter, name, None) is not value:
                        setattr(parameter, name, value)
        for place in given:
            self._counts[place] += 1

    def _recount(self, iterations: int) -> None:
        for place, parameter in enumerate(self._parameters):
            if "step" in self.optimizer.state.get(parameter, {}):
                self.optimizer.state[parameter]["step"].fill_(float(iterations))
            self._counts[place] = iterations
