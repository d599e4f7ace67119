"""What the constructor of a class takes: Keras's names, where Keras has the same.

A rule's hyperparameters and what is around it come from `steprule.around`, the rest from Keras's own base class.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import keras

from .. import around
from ..specification import Hyperparameter, Rule

__all__ = ["OPTIONS", "Keywords"]

_KERAS_NAMES: Final[Mapping[str, str]] = {
    "lr": "learning_rate",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
}
"""Keras's names of hyperparameters, by a rule's; all others have one name."""

OPTIONS: Final[Mapping[str, tuple[Any, str]]] = {
    "decoupled_weight_decay": (
        True,
        "as in Keras, the parameter shrinks by `learning_rate * weight_decay`; False: the decay is added to the gradient",
    ),
    "maximize": (False, "climb instead of descending"),
    "sparse": (
        "exact",
        '"exact": a gradient that names rows steps them alone, as the dense one does, or is refused; "dense": all step',
    ),
}
"""What every class takes beside numbers and what Keras's classes take: the default, and what it does."""


def _of_keras() -> Mapping[str, Any]:
    """Return what every optimizer of Keras takes beside its rate, with its defaults."""
    signatures = (inspect.signature(cls.__init__) for cls in keras.optimizers.Optimizer.__mro__)
    taken = next(each.parameters for each in signatures if "clipnorm" in each.parameters)
    return {name: each.default for name, each in taken.items() if each.default is not each.empty}


@dataclass(frozen=True)
class Keywords:
    """The arguments of one class: of `rule`, with `given` in the place of its defaults, all by Keras's names."""

    rule: Rule
    name: str
    given: tuple[tuple[str, Any], ...]

    @cached_property
    def numbers(self) -> Mapping[str, Hyperparameter]:
        """The hyperparameters of a whole step, by Keras's names."""
        declared = around.hyperparameters(self.rule)
        return {
            name: Hyperparameter(name, declared[own].range, declared[own].default) for own, name in self.names.items()
        }

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Keras's names of the hyperparameters of a whole step, by the rule's."""
        return {name: _KERAS_NAMES.get(name, name) for name in around.hyperparameters(self.rule)}

    @cached_property
    def theirs(self) -> Mapping[str, Any]:
        """What Keras's base class takes beside the rate, with its defaults."""
        return _of_keras()

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Each argument's default in the constructor's order, None for a number without one."""
        found = {name: self.numbers[name].default for name in self._leading}
        found |= {name: default for name, default in self.theirs.items() if name not in found}
        found |= {name: default for name, (default, _) in OPTIONS.items()}
        found.setdefault("lr_decay", self.numbers["lr_decay"].default)
        for name in dict(self.given):
            if name not in found:
                raise TypeError(f"{self.name} has no argument {name!r} to give a default; it has: {', '.join(found)}")
        return found | dict(self.given)

    @property
    def _leading(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("learning_rate", *(self.names[name] for name in self.rule.hyperparameters))))

    @cached_property
    def fixed(self) -> frozenset[str]:
        """What an optimizer keeps as it was made with: a step that is compiled would not see a change."""
        return frozenset({*self.numbers, *OPTIONS} - {"learning_rate"})

    def requires(self, name: str) -> bool:
        """Whether the argument `name` has no default."""
        return name in self._leading and self.defaults[name] is None

    @cached_property
    def signature(self) -> inspect.Signature:
        """The constructor's: the rate and the rule's numbers, then Keras's arguments, then what only we have, by keyword."""
        parameters, optional = [], False
        for name, default in self.defaults.items():
            required = self.requires(name)
            optional = optional or not required
            only_ours = name in OPTIONS or (name == "lr_decay" and name not in self.rule.hyperparameters)
            # Python allows no parameter without default behind one with default, unless it is keyword-only.
            positional = not only_ours and not (optional and required)
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=inspect.Parameter.empty if required else default))
        return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def bound(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every argument of a constructor call, the numbers of the rule checked.

        Raises `TypeError` for an argument that there is not or is missing, and what `Hyperparameter.validated` and
        `around.switched` raise.
        """
        for name, keras_name in self.names.items():
            if name in named and name != keras_name:
                raise TypeError(f"{self.name} has no argument {name!r}; as in Keras it is called {keras_name}")
        try:
            bound = self.signature.bind(*values, **named)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; it takes: {', '.join(self.defaults)}") from None
        bound.apply_defaults()
        return {name: self._checked(name, value) for name, value in bound.arguments.items()}

    def _checked(self, name: str, value: Any) -> Any:
        if name == "weight_decay" and value is None and name not in self.rule.hyperparameters:
            return None
        if name == "learning_rate" and callable(value) and not hasattr(value, "__float__"):
            return value  # a schedule
        if name in self.numbers:
            return self.numbers[name].validated(value)
        if name == "sparse" and value not in ("exact", "dense"):
            raise ValueError(f"sparse is {value!r}; allowed are 'exact' and 'dense'")
        return around.switched(name, value) if name in OPTIONS and name != "sparse" else value

    def values(self, taken: Mapping[str, Any]) -> dict[str, float]:
        """Return of what `bound` has returned the hyperparameters but the rate, by the rule's names."""
        found = {name: taken[keras_name] for name, keras_name in self.names.items() if name != "lr"}
        return found | ({"weight_decay": 0.0} if found["weight_decay"] is None else {})
