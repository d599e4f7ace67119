"""What the function of a rule takes: numbers, arrays that are traced, and schedules, each by its name in the rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from .. import around
from ..around import Around
from ..program import lower
from ..specification import Hyperparameter, Rule

__all__ = ["ABOUT", "Keywords", "Settings"]

ABOUT: Final[Mapping[str, str]] = {
    "weight_decay": "added to the gradient, times the parameter (L2); none unless given",
    "lr_decay": "the rate of step t, from 1, is `lr / (1 + (t - 1) * lr_decay)`; none unless given",
    "decoupled_weight_decay": "shrink the parameter by `lr * weight_decay` instead (Loshchilov and Hutter 2019)",
    "maximize": "climb instead of descending",
    "learning_rate": "another name of `lr`",
}
"""What is around every rule, as docstrings say it."""

_OPTIONS: Final = {"decoupled_weight_decay": False, "maximize": False}


@dataclass(frozen=True, eq=False)
class Settings:
    """The values that a step is made with. Each is a float, a traced or other scalar array, or a schedule of the count."""

    rule: Rule
    values: Mapping[str, Any]
    form: Around

    @cached_property
    def count(self) -> bool:
        """Whether a step depends on how many there were before it."""
        return lower(self.rule, self.form).counts or any(map(callable, self.values.values()))

    def at(self, count: Any) -> dict[str, Any]:
        """Return the values after `count` steps; as in optax, a schedule is asked with 0 before the first.

        Raises `TypeError` for a schedule that returns no real number: an array with dimensions, or another object; and
        `ValueError` where the step needs a count and there is none.
        """
        if count is None and self.count:
            raise ValueError(
                f"the state's count is None, and this step of {self.rule.name} needs the number of steps made; allowed is "
                "an int32, as in a state that was begun with this schedule, or state._replace(count=jnp.int32(...))"
            )
        return {name: _asked(name, value, count) if callable(value) else value for name, value in self.values.items()}


@dataclass(frozen=True)
class Keywords:
    """The arguments of one function: of `rule`, with `given` in the place of its defaults."""

    rule: Rule
    name: str
    given: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def numbers(self) -> Mapping[str, Hyperparameter]:
        return around.hyperparameters(self.rule)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Each argument's default; None where it must be given, and for a decay that there is not.

        A decay of 0 would be one to `optax.inject_hyperparams`, which makes an array of every number.
        """
        taken = [name for name in (*_OPTIONS, "learning_rate", "donate") if name in self.rule.hyperparameters]
        if taken:
            raise TypeError(
                f"rule {self.rule.name} has a hyperparameter {taken[0]!r}, which has a meaning for every rule here"
            )
        found: dict[str, Any] = {name: each.default for name, each in self.numbers.items()}
        found |= {name: None for name in ("weight_decay", "lr_decay") if name not in self.rule.hyperparameters}
        found |= {**_OPTIONS, "learning_rate": None}
        for name in dict(self.given):
            if name not in found:
                raise TypeError(f"{self.name} has no argument {name!r} to give a default; it has: {', '.join(found)}")
        return found | dict(self.given)

    @cached_property
    def signature(self) -> inspect.Signature:
        """`lr`, the rule's own in their order and `weight_decay` by place or name; the others by name."""
        by_name = {*_OPTIONS, "learning_rate"} | ({"lr_decay"} - set(self.rule.hyperparameters))
        parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY if name in by_name else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default,
            )
            for name, default in self.defaults.items()
        ]
        return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def settings(self, places: tuple[Any, ...], named: Mapping[str, Any]) -> Settings:
        """Return what a call with these arguments asks for.

        Raises `TypeError` for an argument that there is not or is missing, and for what is no number, scalar array or
        schedule, and `ValueError` for a number out of range or a switch that is neither True nor False.
        """
        try:
            bound = self.signature.bind(*places, **named)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; it takes: {', '.join(self.signature.parameters)}") from None
        bound.apply_defaults()
        found = dict(bound.arguments)
        decoupled, maximize = (found.pop(name) for name in _OPTIONS)
        rate = found.pop("learning_rate")
        if rate is not None:
            if not self._is_default_rate(found["lr"]):
                raise TypeError(f"lr and learning_rate are both given to {self.name}; allowed is one of them")
            found["lr"] = rate
        given = {name: value for name, value in found.items() if value is not None}
        values = {
            name: _checked(self.numbers[name], value) for name, value in around.completed(self.rule, given).items()
        }
        # What is not known yet may be another number than 0.
        known = {name: value if isinstance(value, float) else 1.0 for name, value in values.items()}
        return Settings(self.rule, values, Around.of(known, decoupled=decoupled, maximize=maximize))

    def _is_default_rate(self, lr: Any) -> bool:
        """Whether `lr` may stand there because nobody gave one: `optax.inject_hyperparams` hands on arrays of defaults."""
        default = self.defaults["lr"]
        if lr is None or isinstance(lr, jax.core.Tracer):
            return True
        if isinstance(lr, jax.Array):
            return default is not None and bool(lr == np.asarray(default, lr.dtype))
        return bool(lr is default or lr == default)


def _asked(name: str, schedule: Callable[[Any], Any], count: Any) -> Any:
    value = schedule(count)
    if isinstance(value, (int, float)):
        return value
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape == () and dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating):
        return value
    found = f"{value!r}, a {type(value).__name__}" if shape is None else f"an array of {dtype} of shape {tuple(shape)}"
    raise TypeError(
        f"the schedule of {name} returned {found}; allowed is a real number or an array of one without dimensions"
    )


def _checked(declared: Hyperparameter, value: Callable[..., Any] | Any) -> Any:
    if callable(value):
        return value
    shape = getattr(value, "shape", ())
    if shape != ():
        raise TypeError(
            f"{declared.name} is an array of shape {tuple(shape)}; allowed is a number in {declared.range}, an array "
            "without dimensions, or a schedule"
        )
    if isinstance(value, jax.Array) and jnp.iscomplexobj(value):
        raise TypeError(
            f"{declared.name} is an array of {value.dtype}; allowed is a real number in {declared.range}: "
            "optax.inject_hyperparams makes one of it with hyperparam_dtype"
        )
    if isinstance(value, jax.core.Tracer):
        return value
    if not isinstance(value, jax.Array):
        return declared.validated(value)
    if value.is_fully_addressable:
        declared.validated(float(value))
    return value
