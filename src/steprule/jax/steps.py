"""A step over trees: what is kept between steps, and which arrays belong together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..program import Program
from .keywords import Settings

__all__ = ["RuleState", "begin", "columns", "incremented", "written"]


class RuleState(NamedTuple):
    """What a step keeps: `count`, an int32 of the steps made, and `slots`, by their names in the rule a tree each.

    A slot's tree has the structure of the parameters, and its arrays have their shapes and dtypes. `count` is None where no
    step depends on it: the rule does not take `t`, there is no `lr_decay`, and no hyperparameter is a schedule.
    """

    count: Any
    slots: dict[str, Any]


_KEYS: Final = tuple(map(jax.tree_util.GetAttrKey, RuleState._fields))


# JAX lends the buffers of donated arrays to results of their shape in the order of both: the update gets the first slot's,
# each slot the next one's, and where one is written that is still to be read, XLA makes a copy. In the reverse of the
# alphabet no built-in rule takes more memory than in the alphabet's order, which a dict has, and Adam takes none.
def _children(state: RuleState) -> tuple[Any, Any]:
    count, slots = state
    if type(slots) is dict and len(slots) > 1:
        return count, OrderedDict(sorted(slots.items(), reverse=True))
    return count, slots


def _remade(_: None, children: Iterable[Any]) -> RuleState:
    count, slots = children
    return RuleState(count, dict(slots) if type(slots) is OrderedDict else slots)


jax.tree_util.register_pytree_with_keys(
    RuleState,
    lambda state: (tuple(zip(_KEYS, _children(state), strict=True)), None),
    _remade,
    lambda state: (_children(state), None),
)


def begin(settings: Settings, params: Any) -> RuleState:
    """Return the state before the first step. Raises `TypeError` for what is no array of real or complex numbers."""

    def started(initial: float) -> Any:
        return lambda x: jnp.full_like(x, complex(initial, initial) if jnp.iscomplexobj(x) else initial)

    for x in jax.tree.leaves(params):
        if not hasattr(x, "dtype") and not isinstance(x, (int, float, complex)):
            raise TypeError(
                f"a parameter is {x!r}, a {type(x).__name__}; allowed are arrays: of a module of Equinox, "
                "eqx.filter(module, eqx.is_inexact_array)"
            )
        if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            raise TypeError(
                f"a parameter is an array of {jnp.result_type(x)}; allowed are floating-point and complex numbers"
            )
    slots = {name: jax.tree.map(started(initial), params) for name, initial in settings.rule.slots.items()}
    return RuleState(jnp.zeros((), jnp.int32) if settings.count else None, slots)


def incremented(count: Any) -> Any:
    """Return the count of one step more, if there is one; it stays at the largest number of its type."""
    if count is None:
        return None
    count = jnp.asarray(count)
    return jnp.where(count < np.iinfo(count.dtype).max, count + 1, count)


def columns(program: Program, treedef: Any, trees: Mapping[str, Any], grads: Sequence[Any]) -> list[dict[str, Any]]:
    """Return, for each place of the tree, the arrays that `program` reads and the slots that it writes, by name.

    Where the gradient is None, no step is made: what the trees have there is handed on as it is. Raises `TypeError`
    where arrays of one place are real and complex, and `ValueError` where their shapes differ.
    """
    names = [name for name in program.arrays if name in trees]
    by_name = {name: treedef.flatten_up_to(trees[name]) for name in names}
    places = [dict(zip(names, place, strict=True)) for place in zip(*by_name.values(), strict=True)]
    for place, g in zip(places, grads, strict=True):
        if g is None:
            continue
        place.update((name, jnp.asarray(array)) for name, array in place.items())
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
