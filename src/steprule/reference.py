"""A step of any rule with the arrays of any library: clarity before speed. In float64 it is the oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import around
from .around import Around
from .notation import beside, namespace_of
from .program import lower
from .specification import Rule, check_rule

__all__ = ["init", "step"]


def init(rule: Rule, x: Any) -> dict[str, Any]:
    """Return the state that `rule` starts with for the parameter `x`: `step` 0, and each slot an array like `x`.

    Raises `TypeError` for what is no rule, for one that no engine takes, as it would write to its operands, and for a
    parameter that is no array, or one of integers, truths or complex numbers.
    """
    check_rule(rule)
    lower(rule, None)  # here and not in each step, which what compiles one would follow into the trace
    _check(x)
    return {"step": 0} | {slot: _filled(x, initial) for slot, initial in rule.slots.items()}


def step(
    rule: Rule,
    x: Any,
    g: Any,
    state: Mapping[str, Any],
    *,
    h: Any = None,
    g2: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    **hyperparameters: Any,
) -> tuple[Any, dict[str, Any]]:
    """Return the parameter and the state after one step; nothing is changed in place.

    `x`, `g` (the gradient at `x`), each slot of `state`, and `h` and `g2` where the rule takes them, are arrays of one shape
    and one library: NumPy, CuPy, PyTorch, JAX, TensorFlow, MXNet, or any with the array API. What is
    returned has the type of `x`, which is a floating-point type. `hyperparameters` are the rule's own, `lr`, `weight_decay`
    and `lr_decay`.

    Raises `TypeError` for a hyperparameter that is unknown or missing, an input that is missing or no array, or such a
    parameter as `init` refuses, and `ValueError` for a value out of range, a switch that is neither True nor False, an array
    of another shape, or a state of another rule.
    """
    check_rule(rule)
    _check(x)
    _check_state(rule, state)
    values = around.validated(rule, hyperparameters)
    t = _counted(state["step"]) + 1
    given = {"x": x, "g": g, "t": t} | ({} if h is None else {"h": h}) | ({} if g2 is None else {"g2": g2})
    for name in rule.inputs:
        if name not in given:
            raise TypeError(f"rule {rule.name} takes {name}, and none was given")
    arrays = {name: given[name] for name in rule.inputs if name != "t"}
    _check_shapes(x, arrays | {name: state[name] for name in rule.slots})
    form = Around.of(values, decoupled=decoupled_weight_decay, maximize=maximize)
    with beside(x):
        new_x, slots, _ = around.step(rule, form, given, state, values)
    # A slot that is set to an input is an array of its own: the caller may write his next gradient into this one.
    mine = {
        name: value * 1.0 if any(value is each for each in given.values()) else value for name, value in slots.items()
    }
    return _as(new_x, x), {"step": t} | {name: _as(value, x) for name, value in mine.items()}


def _check(x: Any) -> None:
    if not hasattr(x, "dtype") and not isinstance(x, (int, float)):
        raise TypeError(
            f"x is of type {type(x).__name__}; allowed is an array of a floating-point type, such as float32"
        )
    dtype = getattr(x, "dtype", None)
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2].strip("'>")
    if "int" in name or "bool" in name:
        raise TypeError(f"x is an array of {name}; allowed is one of a floating-point type, such as float32")
    if "complex" in name:
        raise TypeError(f"x is an array of {name}; allowed are its real and its imaginary part, each as one of floats")


def _check_state(rule: Rule, state: Mapping[str, Any]) -> None:
    own = ("step", *rule.slots)
    if set(state) != set(own):
        found = ", ".join(state) or "nothing"
        raise ValueError(f"state has {found}; allowed for {rule.name}, as init or step returns it, is {', '.join(own)}")


def _counted(step: Any) -> Any:
    """Return the step count of a state: a number, also where NumPy kept it as an array, or what a compiler traces."""
    if isinstance(step, (np.generic, np.ndarray)) and step.shape == ():
        step = step.item()
    known = isinstance(step, (int, float)) and not isinstance(step, bool)
    if not (step >= 0 and step == step // 1 if known else hasattr(step, "dtype") and tuple(step.shape) == ()):
        raise ValueError(f"state has the step {step!r}; allowed is the number of steps made, 0 before the first")
    return step


def _check_shapes(x: Any, others: Mapping[str, Any]) -> None:
    shape = tuple(getattr(x, "shape", ()))
    for name, array in others.items():
        if not hasattr(array, "shape") and not isinstance(array, (int, float)):
            raise TypeError(f"{name} is of type {type(array).__name__}; allowed is an array of the shape of x, {shape}")
        found = tuple(getattr(array, "shape", shape))
        if found != shape:
            raise ValueError(f"{name} has the shape {found}; allowed is that of x, {shape}")


def _filled(x: Any, value: float) -> Any:
    namespace = namespace_of(x)
    return value if namespace is None else _cast(namespace.zeros_like(x) + value, x)


def _as(value: Any, x: Any) -> Any:
    """Return what a rule has made as an array of the type of `x`, also where it is a plain number or has widened."""
    if namespace_of(x) is None:
        return value
    return _filled(x, value) if namespace_of(value) is None else _cast(value, x)


def _cast(value: Any, x: Any) -> Any:
    if value.dtype == x.dtype:
        return value
    if hasattr(value, "astype"):
        return value.astype(x.dtype)
    if hasattr(value, "to"):
        return value.to(x.dtype)
    namespace = namespace_of(value)
    return (namespace.cast if hasattr(namespace, "cast") else namespace.astype)(value, x.dtype)
