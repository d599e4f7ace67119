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
from . import storing
from .plan import Plan, form_and_values

__all__ = ["RuleOptimizer", "optimizer"]

_OPTIONS: Mapping[str, str] = {
    "weight_decay": "L2 penalty: `weight_decay` times the parameter is added to the gradient",
    "decoupled_weight_decay": "shrink the parameter by `lr * weight_decay` instead (Loshchilov and Hutter 2019)",
    "maximize": "climb instead of descending",
    "state_dtype": "how slots are kept: None (as the parameter, or its master copy), torch.float32, torch.bfloat16 "
    '(rounded at random), "int8" (codes of 8 bits, see `steprule.kernels.codecs`), or a mapping of slots to these',
    "master_copies": "keep a float32 copy of each bfloat16 or float16 parameter, and step that",
    "seed": "of the random rounding",
    "on_nonfinite": 'what an infinite or NaN element of a gradient does: "propagate", as in torch; "skip", its parameter '
    'and state stay as they are; "raise", the same, and then a `FloatingPointError` that names the parameter',
}


class RuleOptimizer(torch.optim.Optimizer):
    """What the classes of `steprule.torch` share; make one with `optimizer(rule)`."""

    rule: ClassVar[Rule]
    __signature__: ClassVar[inspect.Signature]
    _recipe: ClassVar[tuple[Rule, str, tuple[tuple[str, Any], ...]]]
    _plan: Plan | None = None
    # `torch.amp.GradScaler` then sets `grad_scale` and `found_inf` for the time of a step.
    _step_supports_amp_scaling = True

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
        storing.Storing.of(self.rule, self.defaults | param_group)
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; return the loss of `closure`, which is called first, if given.

        Raises `ValueError` where a hyperparameter, as a scheduler has left it, is out of range, and `TypeError` for a
        sparse gradient or a complex parameter, and `FloatingPointError` as the option `on_nonfinite` says.

        Under `torch.amp.GradScaler` the gradients are unscaled within the step, and are left as they are.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if float(getattr(self, "found_inf", 0.0)):
            return loss
        grads = None if self._plan is None else self._plan.fitting_grads(self)
        if self._plan is None or grads is None:
            self._plan = Plan(self)
            grads = self._plan.fitting_grads(self)
            assert grads is not None
        self._plan.step(grads)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this optimizer or of its twin in `torch.optim`; low-precision slots come back as they were."""
        super().load_state_dict(state_dict)
        storing.restore(self, state_dict)

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
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
    hyperparameters in their order, then `weight_decay`, `decoupled_weight_decay` and `maximize`. `defaults` replaces
    defaults; `name` the class's name, which is the rule's in CamelCase.

    Parameters in float32 and float64 on the CPU, and in bfloat16 and float16 too on a GPU, dense in memory in any order of
    dimensions, step in one fused loop; every other one steps through torch's operations, with the same result and more
    slowly. State is kept in the parameter's dtype and arithmetic is done in float32 at least.

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
    for taken in ("params", "closure", "maximize", "decoupled_weight_decay", "param_names", *storing.OPTIONS):
        if taken in hyperparameters:
            raise TypeError(f"rule {rule.name} has a hyperparameter {taken!r}, which has a meaning in every optimizer")
    values: dict[str, Any] = {each.name: each.default for each in hyperparameters.values()}
    values |= {"decoupled_weight_decay": False, "maximize": False, **storing.OPTIONS}
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
        option = name in ("decoupled_weight_decay", "maximize", *storing.OPTIONS)
        only = (optional and default is None) or option
        kind = inspect.Parameter.KEYWORD_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        value = inspect.Parameter.empty if default is None and not option else default
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
        f"    {name}: default {values[name]}; {_OPTIONS[name]}"
        for name in ("decoupled_weight_decay", "maximize", *storing.OPTIONS)
    ]
    return "\n".join(lines)
