"""What an optimizer keeps for each parameter: how it starts, and whether a state that is to be loaded fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..specification import Rule
from .codecs import blocks
from .keywords import Keywords
from .storing import MASTER, Storing, with_slots_named

__all__ = ["begin", "check_groups", "checked_states", "complete_groups", "has_state", "names_of"]


def names_of(rule: Rule, *, counts: bool) -> tuple[str, ...]:
    """Return the names of a parameter's state; `counts` if what is around the rule asks for the step count."""
    return ("step", *rule.slots) if rule.slots or "t" in rule.inputs or counts else ()


def has_state(rule: Rule, *, counts: bool, masters: bool = False) -> bool:
    """Whether a parameter has a state: of names as for `names_of`, or, with `masters`, of a master copy."""
    return masters or bool(names_of(rule, counts=counts))


@torch.no_grad()
def begin(state: dict[str, Any], parameter: Tensor, number: int, group: Mapping[str, Any], keywords: Keywords) -> None:
    """Give a parameter of `group` what its state has not yet; `number` is its place in the optimizer.

    Raises `ValueError` where a slot is of another shape, as after the parameter's `data` was replaced.
    """
    for name in (*keywords.rule.slots, MASTER):
        value = state.get(name)
        if isinstance(value, Tensor) and value.shape != parameter.shape:
            raise ValueError(
                f"the slot {name} of parameter {number}, of shape {tuple(parameter.shape)}, has the shape "
                f"{tuple(value.shape)}; allowed is the parameter's shape: replace the slot, or delete "
                "optimizer.state[parameter] to begin anew"
            )
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
    starts = {name: keywords.start(name, group) for name in keywords.rule.slots}
    Storing.of(keywords.rule, group).prepare(parameter, state, number, starts)


def complete_groups(
    groups: Sequence[dict[str, Any]], keywords: Keywords, present: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Give parameter groups what they lack, as files of `torch.optim` and of older versions do.

    It is what the optimizer that loads them has in the groups that are `present`, and without these the class's defaults.
    """
    for group, own in zip(groups, present or [{}] * len(groups), strict=True):
        keywords.fold(group, keywords.defaults)
        for name, default in keywords.known.items():
            if name not in keywords.essential:
                group.setdefault(name, own.get(name, default))


def check_groups(groups: Sequence[Mapping[str, Any]], keywords: Keywords) -> None:
    """Refuse loaded parameter groups that are not of this rule.

    Raises `ValueError` where they lack what the rule itself needs, or have a value out of range, and `TypeError` where a
    value is no number.
    """
    for number, group in enumerate(groups):
        for name in keywords.essential:
            if name not in group:
                raise ValueError(
                    f"parameter group {number} of the state to load has no {name}; allowed is a group of "
                    f"{keywords.name}, which has: {', '.join(keywords.essential)}"
                )
        try:
            keywords.form_and_values(group)
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter group {number} of the state to load: {error}") from None


def checked_states(
    states: Mapping[Any, Any], groups: Sequence[Mapping[str, Any]], keywords: Keywords
) -> dict[Any, Any]:
    """Return loaded `states` with each step count a float32 tensor, as `torch.optim` keeps it.

    Raises `ValueError` where the state of a parameter is not of this rule or of another shape, and `TypeError` where it
    holds what is no tensor. What is no parameter's is left as it is.
    """
    found = dict(states)
    for number, parameter in enumerate(parameter for group in groups for parameter in group["params"]):
        if parameter in states:
            said = f"the state to load, of parameter {number}, of shape {tuple(parameter.shape)},"
            found[parameter] = _checked(states[parameter], parameter, keywords, said)
    return found


def _checked(state: Any, parameter: Tensor, keywords: Keywords, said: str) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise TypeError(f"{said} is {state!r}; allowed is a dict")
    # As torch's SGD writes it without momentum.
    kept = {name: value for name, value in with_slots_named(state, keywords.rule).items() if value is not None}
    slots = keywords.rule.slots
    low = {MASTER, *(f"{slot}_scale" for slot in slots)} & kept.keys()
    # A rate that has decayed for a while leaves a count, and so does a master copy.
    allowed = [names_of(keywords.rule, counts=counts) for counts in (False, True)]
    if kept and kept.keys() - low not in [set(names) for names in allowed]:
        raise ValueError(
            f"{said} has {', '.join(map(str, kept))}; allowed for {keywords.name} is {', '.join(allowed[0]) or 'nothing'}"
        )
    for name, value in kept.items():
        if name == "step":
            kept[name] = _count(value, said)
        else:
            scales = (blocks(parameter.numel()),) if name in low and name != MASTER else None
            kept[name] = _slot(value, parameter, f"{said} has the slot {name}", scales or tuple(parameter.shape))
    return kept


def _count(value: Any, said: str) -> Tensor:
    try:
        count = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{said} has the step {value!r}; allowed is a whole number from 0") from None
    if not math.isfinite(count) or count < 0 or count != int(count):
        raise ValueError(f"{said} has the step {count!r}; allowed is a whole number from 0")
    return torch.tensor(count, dtype=torch.float32, device="cpu")


def _slot(value: Any, parameter: Tensor, said: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{said}, a {type(value).__name__}; allowed is a tensor of the parameter's shape")
    if value.shape != shape:
        allowed = "the parameter's shape" if shape == tuple(parameter.shape) else f"one scale for each block, {shape}"
        raise ValueError(f"{said} of shape {tuple(value.shape)}; allowed is {allowed}")
    if value.is_complex() != parameter.is_complex():
        raise ValueError(f"{said} in {value.dtype}; allowed for a parameter in {parameter.dtype} is the same type")
    return value
