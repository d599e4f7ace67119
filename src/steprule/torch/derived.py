"""Defaults that follow from the parameters which an optimizer is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import Tensor

from .. import rules
from ..specification import Rule

__all__ = ["DERIVED", "with_derived"]


def _a_tenth(parameters: int) -> float:
    """Return Schaul, Zhang and LeCun's C = d / 10, at least 1."""
    return max(1.0, parameters / 10)


DERIVED: Final[Mapping[Rule, Mapping[str, tuple[Callable[[int], float], str]]]] = {
    each: {"overestimate": (_a_tenth, "a tenth of the number of parameters, at least 1")}
    for each in (rules.vsgd, rules.vsgd_fd)
}
"""For a rule, the hyperparameters whose default follows from the number of all parameters, how, and in words."""


def with_derived(rule: Rule, params: Any) -> tuple[Any, dict[str, float]]:
    """Return `params`, which may be an iterator, to be read again, and the defaults that follow from them."""
    if rule not in DERIVED or isinstance(params, (Tensor, dict)):
        return params, {}
    groups = [_listed(each) if isinstance(each, dict) else each for each in params]
    held = [entry for each in groups for entry in (each.get("params", []) if isinstance(each, dict) else [each])]
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in held]
    number = sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor) and tensor.requires_grad)
    return groups, {name: of(number) for name, (of, _) in DERIVED[rule].items()}


def _listed(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group with its parameters in a list; one that has none is refused later, as by any class."""
    if "params" not in group:
        return group
    params = group["params"]
    return {**group, "params": [params] if isinstance(params, Tensor) else list(params)}
