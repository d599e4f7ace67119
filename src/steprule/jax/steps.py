"""A step over trees: what is kept between steps, and which arrays belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..program import Program
from ..specification import Rule

__all__ = ["RuleState", "begin", "columns", "incremented", "written"]


class RuleState(NamedTuple):
    """What a rule keeps: `count`, an int32 of the steps made, and `slots`, by their names in the rule a tree each.

    A slot's tree has the structure of the parameters, and its arrays have their shapes and dtypes.
    """

    count: Any
    slots: dict[str, Any]


def begin(rule: Rule, params: Any) -> RuleState:
    """Return the state before the first step. Raises `TypeError` for an array of neither real nor complex numbers."""

    def started(initial: float) -> Any:
        return lambda x: jnp.full_like(x, complex(initial, initial) if jnp.iscomplexobj(x) else initial)

    for x in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            raise TypeError(
                f"a parameter is an array of {jnp.result_type(x)}; allowed are floating-point and complex numbers"
            )
    slots = {name: jax.tree.map(started(initial), params) for name, initial in rule.slots.items()}
    return RuleState(jnp.zeros((), jnp.int32), slots)


def incremented(count: Any) -> Any:
    """Return the count of one step more; it stays at the largest number of its type."""
    return jnp.where(count < np.iinfo(count.dtype).max, count + 1, count)


def columns(program: Program, treedef: Any, trees: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, for each place of the tree, the arrays that `program` reads and the slots that it writes, by name.

    Raises `TypeError` where arrays of one place are real and complex, and `ValueError` where their shapes differ.
    """
    names = [name for name in program.arrays if name in trees]
    by_name = {name: treedef.flatten_up_to(trees[name]) for name in names}
    places = [dict(zip(names, map(jnp.asarray, place), strict=True)) for place in zip(*by_name.values(), strict=True)]
    for place in places:
        first, *others = place.items()
        for name, array in others:
            if array.shape != first[1].shape:
                raise ValueError(
                    f"{name} has an array of shape {array.shape} where {first[0]} has one of shape {first[1].shape}; "
                    "allowed is the same shape"
                )
            if jnp.iscomplexobj(array) != jnp.iscomplexobj(first[1]):
                raise TypeError(
                    f"{name} has an array of {array.dtype} where {first[0]} has one of {first[1].dtype}; allowed are "
                    "two real or two complex ones"
                )
    return places


def written(treedef: Any, made: list[dict[str, Any]], name: str) -> Any:
    """Return the tree of what was made under `name` at each place."""
    return treedef.unflatten([place[name] for place in made])
