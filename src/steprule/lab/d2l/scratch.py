"""The regression from scratch: two parameters, and the rule called on the framework's own arrays, as the book writes it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ... import reference
from ...rules import adadelta
from ...specification import Rule
from .protocol import Model, Plan

__all__ = ["Scratch"]


class Scratch(Model):
    """Weights and bias, in `parameters`, which `rule` steps through `steprule.reference`."""

    def __init__(self, plan: Plan, parameters: Sequence[Any], rule: Rule = adadelta) -> None:
        self.plan, self.rule = plan, rule
        self.parameters = list(parameters)
        self.states = [reference.init(rule, parameter) for parameter in parameters]

    @abstractmethod
    def gradients(self, features: Any, labels: Any) -> Sequence[Any]:
        """Return the gradients of the loss of a batch, in the order of `parameters`."""

    def step(self, features: Any, labels: Any) -> None:
        gradients = self.gradients(features, labels)
        hyperparameters: dict[str, Any] = dict(self.plan.hyperparameters)
        for place, (x, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            state = self.states[place]
            self.parameters[place], self.states[place] = reference.step(self.rule, x, g, state, **hyperparameters)
