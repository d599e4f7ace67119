"""`torch.optim.Optimizer` classes, one for each rule, all of them this one class with a rule in it."""

from __future__ import annotations

import collections
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from .. import around
from ..specification import Rule
from .catching_up import CatchingUp
from .plan import Plan, form_and_values

__all__ = ["RuleOptimizer", "optimizer"]

_OPTIONS: Mapping[str, str] = {
    "weight_decay": "L2 penalty: `weight_decay` times the parameter is added to the gradient",
    "decoupled_weight_decay": "shrink the parameter by `lr * weight_decay` instead (Loshchilov and Hutter 2019)",
    "maximize": "climb instead of descending",
    "sparse": '"exact": a sparse gradient steps as the dense one does, or is refused; "lazy": only the rows that it names',
}


class RuleOptimizer(CatchingUp, torch.optim.Optimizer):
    """What the classes of `steprule.torch` share; make one with `optimizer(rule)`."""

    rule: ClassVar[Rule]
    __signature__: ClassVar[inspect.Signature]
    _recipe: ClassVar[tuple[Rule, str, tuple[tuple[str, Any], ...]]]
    _plan: Plan | None = None

    def __init__(self, params: Any, *values: Any, **named: Any) -> None:
        if not hasattr(type(self), "rule"):
            raise TypeError("RuleOptimizer has no rule; steprule.torch.optimizer(rule) makes a class that has one")
        signature = type(self).__signature__
        given = signature.bind_partial(params, *values, **named).arguments
        known = {
            name: entry.default for name, entry in signature.parameters.items() if entry.default is not entry.empty
        }
        given.pop("params")
        super().__init__(params, known | given)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own values of the hyperparameters; errors as in the constructor."""
        form_and_values(self.rule, self.defaults | param_group)
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; return the loss of `closure`, which is called first, if given.

        Raises `ValueError` where a hyperparameter, as a scheduler has left it, is out of range, and `TypeError` for a
        complex parameter, or for a sparse gradient that the rule cannot step by (see `SparseSteps.prepare` for all that
        may be wrong with one).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = None if self._plan is None else self._plan.fitting_grads(self)
        if self._plan is None or grads is None:
            self._plan = Plan(self)
            grads = self._plan.fitting_grads(self)
            assert grads is not None
        self._plan.step(grads)
        return loss

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
        self.catch_up()
        kept: dict[str, Any] = self.__getstate__()
        # The counts lie side by side in memory, and pickle would write all of them for each.
        kept["state"] = collections.defaultdict(dict)
        for parameter, state in self.state.items():
            shared = isinstance(state, dict) and isinstance(state.get("step"), torch.Tensor)
            kept["state"][parameter] = {**state, "step": state["step"].clone()} if shared else state
        # A class that `optimizer` made for a user's rule need not be bound to a name in any module; a subclass is.
        return (_bare_of, cls._recipe, kept) if "_recipe" in vars(cls) else (_bare, (cls,), kept)


def _bare(cls: type[RuleOptimizer]) -> RuleOptimizer:
    return cls.__new__(cls)


def _bare_of(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> RuleOptimizer:
    return _bare(optimizer(rule, name=name, **dict(defaults)))


def optimizer(rule: Rule, *, name: str | None = None, **defaults: Any) -> type[RuleOptimizer]:
    """Return the `torch.optim.Optimizer` class of `rule`; the same rule gives the same class.

    Its constructor takes `params` (tensors, named parameters or groups, as in torch), then `lr` and the rule's
    hyperparameters in their order, then `weight_decay`, `decoupled_weight_decay`, `maximize` and `sparse`. `defaults`
    replaces defaults; `name` the class's name, which is the rule's in CamelCase.

    Parameters in float32 and float64 on the CPU, dense in memory in any order of dimensions, step in one fused loop;
    every other one steps through torch's operations, with the same result and more slowly. State is kept in the
    parameter's dtype and arithmetic is done in float32 at least.

    Raises `TypeError` for a rule that takes what torch's step does not know (`h`, `g2`).
    """
    return _optimizer(rule, name or _camel(rule.name), tuple(sorted(defaults.items())))


@functools.cache
def _optimizer(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> type[RuleOptimizer]:
    unknown = [needed for needed in rule.inputs if needed not in ("g", "x", "t")]
    if unknown:
        raise TypeError(
            f"rule {rule.name} takes {', '.join(unknown)}; an optimizer of steprule.torch supplies g, x and t"
        )
    hyperparameters = around.hyperparameters(rule)
    for taken in ("params", "closure", "maximize", "decoupled_weight_decay", "sparse", "param_names"):
        if taken in hyperparameters:
            raise TypeError(f"rule {rule.name} has a hyperparameter {taken!r}, which has a meaning in every optimizer")
    values: dict[str, Any] = {each.name: each.default for each in hyperparameters.values()}
    values |= {"decoupled_weight_decay": False, "maximize": False, "sparse": "exact"}
    for each in dict(defaults):
        if each not in values:
            raise TypeError(f"{name} has no hyperparameter {each!r} to give a default; it has: {', '.join(values)}")
    values |= dict(defaults)
    return type(
        name,
        (RuleOptimizer,),
        {
            "__doc__": _docstring(rule, values),
            "__module__": "steprule.torch",
            "__signature__": _signature(values),
            "rule": rule,
            "_recipe": (rule, name, defaults),
        },
    )


def _signature(values: Mapping[str, Any]) -> inspect.Signature:
    parameters = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    optional = False
    for name, default in values.items():
        # Python allows no parameter without default behind one with default, unless it is keyword-only.
        optional = optional or default is not None
        only = (optional and default is None) or name in ("decoupled_weight_decay", "maximize", "sparse")
        kind = inspect.Parameter.KEYWORD_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        value = inspect.Parameter.empty if default is None else default
        parameters.append(inspect.Parameter(name, kind, default=value))
    return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split("_+", name))


def _docstring(rule: Rule, values: Mapping[str, Any]) -> str:
    lines = [
        inspect.cleandoc(rule.__doc__ or f"Step by the rule {rule.name}."),
        "",
        f"Source: {rule.source} {rule.url}",
        "",
    ]
    for name, hyperparameter in around.hyperparameters(rule).items():
        about = _OPTIONS.get(name, "multiplies the update" if name == "lr" and "lr" not in rule.hyperparameters else "")
        said = "required" if values[name] is None else f"default {values[name]:g}"
        lines.append(f"    {name}: in {hyperparameter.range}, {said}" + (f"; {about}" if about else ""))
    lines += [
        f"    {name}: bool, default {values[name]}; {_OPTIONS[name]}" for name in ("decoupled_weight_decay", "maximize")
    ]
    lines.append(f'    sparse: default "{values["sparse"]}"; {_OPTIONS["sparse"]}')
    return "\n".join(lines)
