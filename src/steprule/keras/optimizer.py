"""Keras optimizers, one for each rule, all of them this one class with a rule in it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import numbers
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, MappingProxyType
from typing import Any, ClassVar

import keras
import numpy as np

from ..specification import Rule, check_rule
from .describe import docstring
from .keywords import OPTIONS, Keywords

__all__ = ["RuleOptimizer", "optimizer"]

# As in Keras, one backend serves a process.
_On: Any
if keras.config.backend() == "torch":
    from .on_torch import OnTorch as _On
elif keras.config.backend() == "tensorflow":
    from .on_tensorflow import OnTensorFlow as _On
else:
    from .on_jax import OnJAX as _On


class RuleOptimizer(_On, keras.optimizers.Optimizer):  # type: ignore[misc]
    """What the classes of `steprule.keras` share; make one with `optimizer(rule)`."""

    rule: ClassVar[Rule]
    keywords: ClassVar[Keywords]
    __signature__: ClassVar[inspect.Signature]

    def __init__(self, *values: Any, **named: Any) -> None:
        if not hasattr(type(self), "rule"):
            raise TypeError("RuleOptimizer has no rule; steprule.keras.optimizer(rule) makes a class that has one")
        taken = self.keywords.bound(values, named)
        super().__init__(taken["learning_rate"], **{name: taken[name] for name in self.keywords.theirs})
        if self.rule.curvature and self.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps is {self.gradient_accumulation_steps!r}; allowed for {self.rule.name} is "
                f"None, since it takes {' and '.join(self.rule.curvature)}, which is not accumulated"
            )
        for name in self.keywords.fixed:
            setattr(self, name, taken[name])
        self._values = MappingProxyType(self.keywords.values(taken))
        self._more: Mapping[str, Mapping[Any, Any]] = MappingProxyType({})
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.keywords.fixed and getattr(self, "_made", False):
            raise AttributeError(
                f"{name} of {type(self).__name__} stays {getattr(self, name)!r}, since a compiled step would not see a "
                "change; learning_rate may be set, and another optimizer may be made"
            )
        # Of a tensor, which may be one that is traced, the value is not known.
        if name == "learning_rate" and isinstance(value, (numbers.Real, np.ndarray)):
            value = self.keywords.numbers[name].validated(value)
        super().__setattr__(name, value)

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[Any] | None = None,
        *,
        h: Sequence[Any] | None = None,
        g2: Sequence[Any] | None = None,
    ) -> None:
        """Step the variables by `grads`, one for each, None where there is none, as every optimizer of Keras does.

        `h` and `g2`, for rules that take them, are the diagonal curvature and the mean of per-example squared gradients: a
        tensor of the variable's shape for each. Raises `TypeError` where one is missing or not taken, and `ValueError` where
        there are more or fewer of any than variables.
        """
        variables = None if trainable_variables is None else list(trainable_variables)
        # Keras takes as many as there are of both, and leaves the rest.
        if variables is not None and len(grads) not in (0, len(variables)):
            raise ValueError(_one_for_each("grads", grads, variables))
        with self._handed_in(self._trainable_variables if variables is None else variables, h=h, g2=g2):
            super().apply(grads, variables)

    @contextlib.contextmanager
    def _handed_in(self, variables: Sequence[Any], **given: Sequence[Any] | None) -> Iterator[None]:
        """Let a step find what is `given` for each of `variables`; nothing given leaves what an outer call has handed in."""
        before = self._more
        found = {name: self._by_variable(name, each, variables) for name, each in given.items() if each is not None}
        self._more = MappingProxyType({**before, **found})
        try:
            yield
        finally:
            self._more = before

    def _by_variable(self, name: str, values: Sequence[Any], variables: Sequence[Any]) -> dict[Any, Any]:
        if name not in self.rule.inputs:
            raise TypeError(
                f"rule {self.rule.name} takes no {name}, and one was given; it takes {', '.join(self.rule.inputs)}"
            )
        if len(values) != len(variables):
            raise ValueError(_one_for_each(name, values, variables))
        return {self._var_key(variable): value for variable, value in zip(variables, values, strict=True)}

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Any],
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
        *,
        h: Sequence[Any] | None = None,
        g2: Sequence[Any] | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Return the variables and the optimizer's own after a step, and change nothing; `h` and `g2` are as in `apply`."""
        with self._handed_in(self._trainable_variables, h=h, g2=g2):
            found: tuple[list[Any], list[Any]] = super().stateless_apply(
                optimizer_variables, grads, trainable_variables
            )
        return found

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Do nothing: the decay is part of the step."""

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes to make such an optimizer again, as JSON holds it."""
        return {**super().get_config(), **{name: getattr(self, name) for name in sorted(self.keywords.fixed)}}


def optimizer(rule: Rule, *, name: str | None = None, **defaults: Any) -> type[RuleOptimizer]:
    """Return the Keras optimizer class of `rule`; the same rule gives the same class.

    Its constructor takes `learning_rate` (a number, a schedule or a function), the rule's hyperparameters in their order,
    under Keras's names (`epsilon`, `beta_1`, `beta_2`), what every optimizer of Keras takes, and by keyword
    `decoupled_weight_decay`, `maximize`, `sparse` and `lr_decay`. `defaults` replaces defaults; `name` the class's name,
    which is the rule's in CamelCase.

    Slots are kept in the dtype of their variable. Arithmetic is done in float32 at least, what holds only hyperparameters,
    the rate and the step count in float64. On PyTorch all variables step in one fused loop.

    The class is registered with `keras.saving` as `steprule>` and its name, so that a saved model finds it once this was
    called. Raises `ValueError` where the name is that of another rule's class, or of this one's with other defaults, and
    `TypeError` for what is no rule, or one with a hyperparameter whose name has a meaning in every optimizer.
    """
    check_rule(rule)
    return _optimizer(rule, name or rule.class_name, tuple(sorted(defaults.items())))


@functools.cache
def _optimizer(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> type[RuleOptimizer]:
    keywords = Keywords(rule, name, defaults)
    _refuse_names(keywords)
    _refuse_taken(keywords)
    made = type(
        name,
        (RuleOptimizer,),
        {
            "__doc__": docstring(keywords),
            "__module__": "steprule.keras",
            "__signature__": keywords.signature,
            "rule": rule,
            "keywords": keywords,
        },
    )
    keras.saving.register_keras_serializable(package="steprule", name=name)(made)
    return made


def _refuse_taken(keywords: Keywords) -> None:
    """Raise `ValueError` where the name is that of a class by which other steps would be made of what was saved."""
    rule, name = keywords.rule, keywords.name
    registered = keras.saving.get_registered_object(f"steprule>{name}")
    if registered is None:
        return
    before: Keywords = registered.keywords
    if _place(before.rule) != _place(rule):
        raise ValueError(
            f"name is {name!r}, which is the class of the rule {_place(before.rule)}; allowed for the rule {_place(rule)} "
            "is another: optimizer(rule, name=...)"
        )
    if not _alike(before.rule, rule):
        raise ValueError(
            f"name is {name!r}, which is the class of another rule that was made at {_place(rule)}, with other code or "
            "numbers; allowed is another name: optimizer(rule, name=...)"
        )
    if before.given != keywords.given:
        raise ValueError(
            f"name is {name!r}, which is the class of the rule {_place(rule)} {_defaults(before)}; allowed for that "
            f"{_defaults(keywords)} is another: optimizer(rule, name=...)"
        )


def _one_for_each(name: str, values: Sequence[Any], variables: Sequence[Any]) -> str:
    return f"{name} has {len(values)} tensors; allowed is one for each of {len(variables)} variables"


def _place(rule: Rule) -> str:
    return f"{rule.function.__module__}.{rule.function.__qualname__}"


def _defaults(keywords: Keywords) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in keywords.given)
    return f"with the defaults {given}" if given else "with its own defaults"


def _alike(one: Any, other: Any) -> bool:
    """Whether one is the other made again, as a notebook's cell may do: two rules or functions, or what they hold."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Rule):
        said = [(each.inputs, each.slots, each.hyperparameters) for each in (one, other)]
        return said[0] == said[1] and _alike(one.function, other.function)
    if isinstance(one, FunctionType):
        held = [_held(each) for each in (one, other)]
        same = len(held[0]) == len(held[1]) and all(map(_alike, *held))
        return same and _bare(one.__code__) == _bare(other.__code__)
    try:
        return bool(np.all(one == other))
    except (TypeError, ValueError):
        return False


def _held(function: FunctionType) -> list[Any]:
    """Return the values that a function has beside its code."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _bare(code: CodeType) -> CodeType:
    """Return code without the lines that it stands on."""
    constants = tuple(_bare(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_consts=constants, co_filename="", co_firstlineno=1, co_linetable=b"")


def _refuse_names(keywords: Keywords) -> None:
    """Raise `TypeError` where a hyperparameter of the rule has a name that every optimizer has a use for."""
    taken = {*keywords.theirs, *OPTIONS, "learning_rate", "built", "rule", "keywords"} - {"weight_decay"}
    own = [keywords.names[name] for name in keywords.rule.hyperparameters if name != "lr"]
    for name in own:
        if name in taken or own.count(name) > 1 or hasattr(keras.optimizers.Optimizer, name):
            raise TypeError(
                f"rule {keywords.rule.name} has a hyperparameter that is called {name!r} in Keras, which has a meaning in "
                "every optimizer or is called so twice; allowed is another name"
            )
