"""Rules as gradient transformations of optax."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..program import Program, lower
from ..specification import CURVATURE, Rule, check_rule
from . import elements
from .keywords import ABOUT, Keywords, Settings
from .steps import RuleState, begin, columns, incremented, written

__all__ = ["check_state", "keywords_of", "supplied", "transformation"]


def transformation(
    rule: Rule, *, name: str | None = None, **defaults: Any
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """Return the function that makes optax's gradient transformation of `rule`; the same rule gives the same function.

    It takes `lr` (or `learning_rate`), the rule's hyperparameters in their order, and `weight_decay`; by name `lr_decay`,
    `decoupled_weight_decay` and `maximize`. Each number may be a float, an array without dimensions, also one that is
    traced (`optax.inject_hyperparams`), or a schedule, a function of the number of steps made. `defaults` replaces
    defaults; `name` the function's name, which is the rule's.

    The update is what is added to the parameters: it has the rule's sign, and `optax.apply_updates` takes it as it is. Its
    arrays have the gradients' dtypes. The state is a `RuleState`. Arrays of float32, bfloat16 and float16 are computed with
    in float32 and rounded once, float64 in float64; a complex number is a pair of real ones, stepped each for itself. The
    inputs `h` and `g2` of a rule are arguments of `update` under these names, trees like the gradients. Where a gradient is
    None, nothing steps and the update is None.

    Raises `TypeError` for what is no rule. `update` raises `ValueError` where it needs `params` and has none, or where
    arrays of one place differ in shape, and `TypeError` for a missing `h` or `g2`.
    """
    check_rule(rule)
    return _transformation(rule, name or rule.name, tuple(sorted(defaults.items())))


@functools.cache
def _transformation(rule: Rule, name: str, defaults: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    keywords = Keywords(rule, name, defaults)

    def made(*values: Any, **named: Any) -> optax.GradientTransformationExtraArgs:
        settings = keywords.settings(values, named)
        return optax.GradientTransformationExtraArgs(
            functools.partial(begin, settings), functools.partial(_update, settings)
        )

    made.__name__ = made.__qualname__ = name
    made.__module__ = "steprule.jax"
    made.__doc__ = _docstring(keywords)
    made.__signature__ = keywords.signature  # type: ignore[attr-defined]  # as inspect asks for it
    made.__steprule_keywords__ = keywords  # type: ignore[attr-defined]  # for `apply`
    return made


def keywords_of(made: Rule | Callable[..., Any]) -> Keywords:
    """Return the arguments of a rule or of a function that `transformation` made of one; `TypeError` for anything else."""
    if isinstance(made, Rule):
        made = transformation(made)
    found = getattr(made, "__steprule_keywords__", None)
    if not isinstance(found, Keywords):
        raise TypeError(
            f"apply takes a rule or a function that steprule.jax.transformation made of one, not {made!r}; other "
            "transformations of optax step by update and apply_updates"
        )
    return found


def _update(
    settings: Settings, updates: Any, state: RuleState, params: Any = None, **extra: Any
) -> tuple[Any, RuleState]:
    check_state(settings.rule, state)
    program = lower(settings.rule, settings.form, change=True)
    # An argument of another transformation in a chain may have any name.
    trees = supplied(program, {**extra, "g": updates, "x": params}) | state.slots
    # A None is a place of its own: of a module of Equinox, `params` may have anything there.
    leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda each: each is None)
    count = incremented(state.count)
    values = settings.at(state.count)
    folded: dict[str, tuple[Any, ...]] = {}
    made = []
    for g, place in zip(leaves, columns(program, treedef, trees, leaves), strict=True):
        if g is None:
            made.append({**place, "dx": None})
            continue
        kind = elements.kind_of(*place.values())
        if kind not in folded:
            folded[kind] = elements.scalars(program, values, count, kind)
        outputs = elements.run(program, place | {"g": jnp.asarray(g)}, folded[kind], kind)
        dtypes = {name: array.dtype for name, array in place.items()} | {"dx": _type_of(g, kind)}
        made.append({name: array.astype(dtypes[name]) for name, array in outputs.items()})
    slots = {
        name: written(treedef, made, name) if name in program.outputs else state.slots[name] for name in state.slots
    }
    return written(treedef, made, "dx"), RuleState(count, slots)


def check_state(rule: Rule, state: Any) -> None:
    """Raise `TypeError` for what is no `RuleState`, and `ValueError` for that of another rule."""
    if not isinstance(state, RuleState):
        raise TypeError(
            f"state is a {type(state).__name__}; allowed for {rule.name} is the RuleState that init() returns"
        )
    if set(state.slots) != set(rule.slots):
        found, own = (", ".join(sorted(each)) or "none" for each in (state.slots, rule.slots))
        raise ValueError(f"state has the slots: {found}; allowed for {rule.name} are: {own}")


def _type_of(g: Any, kind: str) -> Any:
    """Return the type of an update: its gradient's, or where that is no floating-point type the one it is computed in."""
    found = jnp.result_type(g)
    return found if jnp.issubdtype(found, jnp.inexact) else kind


def supplied(program: Program, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trees that a program reads, of `x`, `g`, `h` and `g2`.

    Raises `ValueError` for a missing `x` and `TypeError` for another one that is missing.
    """
    found: dict[str, Any] = {}
    for name in ("x", "g", *CURVATURE):
        if name not in program.inputs:
            continue
        if given.get(name) is None:
            if name == "x":
                raise ValueError(f"the step of {program.title} reads the parameters; update() needs params")
            raise TypeError(f"rule {program.title} takes {name}, and none was given; hand it in by name: {name}=...")
        found[name] = given[name]
    return found


def _docstring(keywords: Keywords) -> str:
    rule = keywords.rule
    lines = [
        rule.introduction,
        "",
        "Returns an `optax.GradientTransformationExtraArgs`; see `transformation`.",
        "",
    ]
    for name, default in keywords.defaults.items():
        parts = [f"in {keywords.numbers[name].range}"] if name in keywords.numbers else []
        own = name in rule.hyperparameters
        if not own and name == "lr":
            parts.append("multiplies the update")
        if not own and name in ABOUT:
            parts.append(ABOUT[name])
        if default is not None:
            parts.append(f"default {default}")
        elif own:
            parts.append("required")
        lines.append(f"- `{name}`: {'; '.join(parts)}")
    return "\n".join(lines)
