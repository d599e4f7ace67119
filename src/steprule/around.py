"""What is around a rule and not the rule: the rate's multiplier and decay, weight decay, `maximize`, unscaling, a guard.

Written once, in the same notation as a rule, and composed with it before it is lowered: an engine's loop does both in one
pass over memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .notation import where
from .specification import Hyperparameter, Range, Rule

__all__ = [
    "FORMING",
    "PLAIN",
    "Around",
    "change",
    "completed",
    "hyperparameters",
    "is_finite",
    "step",
    "switched",
    "update",
    "validated",
]


@dataclass(frozen=True)
class Around:
    """Which of the things around a rule a step has.

    `weight_decay` is "coupled" where the decay is added to the gradient (L2), "decoupled" where it shrinks the parameter
    (Loshchilov and Hutter 2019). `maximize` climbs instead of descending. `lr_decay` divides the rate of step t by
    1 + (t - 1) lr_decay, as in `torch.optim.Adagrad`. `unscale` divides the gradient by `grad_scale`, which the loss was
    multiplied by (Micikevicius et al. 2018). `guard` leaves an element whose gradient is infinite or NaN as it is, with its
    slots.
    """

    weight_decay: Literal["none", "coupled", "decoupled"] = "none"
    maximize: bool = False
    lr_decay: bool = False
    unscale: bool = False
    guard: bool = False

    def __post_init__(self) -> None:
        if self.weight_decay not in ("none", "coupled", "decoupled"):
            raise ValueError(f"weight_decay is {self.weight_decay!r}; allowed are 'none', 'coupled' and 'decoupled'")

    @classmethod
    def of(cls, values: Mapping[str, float], *, decoupled: bool, maximize: bool) -> Around:
        """Return the form of step that the hyperparameters' `values` ask for: no decay where its rate is 0.

        Raises `ValueError` where `decoupled` or `maximize` is neither True nor False.
        """
        decoupled, maximize = switched("decoupled_weight_decay", decoupled), switched("maximize", maximize)
        lr_decay = bool(values.get("lr_decay"))
        if not values.get("weight_decay"):
            return cls("none", maximize, lr_decay)
        return cls("decoupled" if decoupled else "coupled", maximize, lr_decay)


PLAIN = Around()
FORMING: Final = frozenset({"weight_decay", "lr_decay"})
"""The hyperparameters whose value decides the form of a step, since at 0 it has no such part."""

_LR = Hyperparameter("lr", Range(low=0), 1.0)
_WEIGHT_DECAY = Hyperparameter("weight_decay", Range(low=0), 0.0)
_LR_DECAY = Hyperparameter("lr_decay", Range(low=0), 0.0)


def switched(name: str, value: Any) -> bool:
    """Return a switch as a truth: 1, 0 and None count as such, as in `torch.optim`.

    Raises `ValueError` for what else Python takes for true, such as a rate or a word.
    """
    # NumPy's truths are some too, and by either of their class's names.
    known = isinstance(value, (int, type(None))) or type(value).__name__.startswith("bool")
    if not known or value not in (None, 0, 1):
        raise ValueError(f"{name} is {value!r}; allowed is False or True")
    return bool(value)


def hyperparameters(rule: Rule) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of a whole step, by name: `lr`, the rule's own, `weight_decay`, `lr_decay`.

    Where the rule has one of these names in its equations, it is that one.
    """
    own = dict(rule.hyperparameters)
    outer = {each.name: each for each in (_WEIGHT_DECAY, _LR_DECAY) if each.name not in own}
    return {"lr": _LR} | own | outer


def completed(rule: Rule, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each of `hyperparameters(rule)`, from `values` or its default, as it was given.

    Raises `TypeError` for a name that is none of them, or a missing value without default.
    """
    declared = hyperparameters(rule)
    for name in values:
        if name not in declared:
            raise TypeError(f"{rule.name} has no hyperparameter {name!r}; it has: {', '.join(declared)}")
    complete = {}
    for name, hyperparameter in declared.items():
        complete[name] = values.get(name, hyperparameter.default)
        if complete[name] is None:
            why = "it has no default" if hyperparameter.default is None else "None was given"
            raise TypeError(f"{rule.name} needs {name}, a number in {hyperparameter.range}; {why}")
    return complete


def validated(rule: Rule, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the value of each of `hyperparameters(rule)`, from `values` or its default, as floats.

    Raises `TypeError` as `completed` does and for what is no number, and `ValueError` for a value out of range; the message
    names the hyperparameter, the value and what is allowed.
    """
    declared = hyperparameters(rule)
    return {name: declared[name].validated(value) for name, value in completed(rule, values).items()}


def _decays(rule: Rule) -> bool:
    return "weight_decay" not in rule.hyperparameters


def step(
    rule: Rule, around: Around, inputs: Mapping[str, Any], slots: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], Any]:
    """Return the parameter and the slots after one step of `rule` with what is `around` it, and the rule's own update.

    `inputs` has `x`, `g` and what else the rule takes (`t` too); `values` every name of `hyperparameters(rule)`, and
    `grad_scale` where the step unscales. Operands are arrays of any one library, or symbols.
    """
    before = inputs["x"]
    values = _at_count(rule, around, inputs, values)
    shrunk, moved, new, dx, finite = _parts(rule, around, inputs, slots, values)
    x = shrunk + moved
    return x if finite is None else where(finite, x, before), new, dx


def change(
    rule: Rule, around: Around, inputs: Mapping[str, Any], slots: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], Any]:
    """As `step`, but return the change of the parameter in place of the new one, for engines that add up several changes.

    A decoupled decay is a summand of it: no parameter is rounded on the way.
    """
    values = _at_count(rule, around, inputs, values)
    _, moved, new, dx, finite = _parts(rule, around, inputs, slots, values)
    if around.weight_decay == "decoupled" and _decays(rule):
        moved = moved - values["lr"] * values["weight_decay"] * inputs["x"]
    return moved if finite is None else where(finite, moved, 0.0), new, dx


def _at_count(rule: Rule, around: Around, inputs: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `values` with the rate of this step."""
    if not around.lr_decay or "lr_decay" in rule.hyperparameters:
        return values
    return {**values, "lr": values["lr"] / (1 + (inputs["t"] - 1) * values["lr_decay"])}


def _parts(
    rule: Rule, around: Around, inputs: Mapping[str, Any], slots: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any], Any, Any]:
    """Return the shrunk parameter, what it is moved by, the new slots, the rule's update, and the guard's condition."""
    g, x = inputs["g"], inputs["x"]
    if around.unscale:
        g = g / values["grad_scale"]
    finite = is_finite(g) if around.guard else None
    if around.maximize:
        g = -g
    if around.weight_decay == "coupled" and _decays(rule):
        g = g + values["weight_decay"] * x
    if around.weight_decay == "decoupled" and _decays(rule):
        x = (1 - values["lr"] * values["weight_decay"]) * x
    dx, new = update(rule, {**inputs, "x": x, "g": g}, slots, values)
    moved = dx if "lr" in rule.hyperparameters else values["lr"] * dx
    if finite is not None:
        new = {name: where(finite, value, slots[name]) for name, value in new.items()}
    return x, moved, new, dx, finite


def is_finite(g: Any) -> Any:
    """Return the condition that a gradient's element is a number and not infinite."""
    return g - g == 0.0


def update(
    rule: Rule, inputs: Mapping[str, Any], slots: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Call the rule alone; return its update and its new slots by name. Raises `TypeError` for a wrong number of them."""
    # Of an integer some powers are too long for an array.
    taken = {**inputs, "t": float(inputs["t"])} if isinstance(inputs.get("t"), int) else inputs
    returned = rule(
        *(taken[name] for name in rule.inputs),
        *(slots[name] for name in rule.slots),
        **{name: values[name] for name in rule.hyperparameters},
    )
    results = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    if any(each is None for each in results):
        raise TypeError(f"rule {rule.name} returned None; allowed is what its equations make: `return dx, ...`")
    if len(results) != 1 + len(rule.slots):
        raise TypeError(
            f"rule {rule.name} returned {len(results)} values; it has {len(rule.slots)} slots, so that it returns the "
            f"update and then {', '.join(rule.slots) or 'nothing else'}"
        )
    return results[0], dict(zip(rule.slots, results[1:], strict=True))
