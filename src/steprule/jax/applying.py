"""Whole steps: gradients in, new parameters and state out, in one computation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..kernels.elements import Elements
from ..program import lower
from ..specification import Rule
from . import elements, kernel
from .keywords import Settings
from .steps import RuleState, begin, columns, incremented, written
from .transformation import check_state, keywords_of, supplied

__all__ = ["Step", "apply"]


class Step:
    """A step of a rule; make one with `apply`."""

    def __init__(self, settings: Settings, *, donate: bool) -> None:
        self._settings = settings
        self._compiled = jax.jit(
            functools.partial(_step, settings), static_argnums=(0,), donate_argnums=(1, 3) if donate else ()
        )

    def __repr__(self) -> str:
        return f"<step of {self._settings.rule.name}>"

    def init(self, params: Any) -> RuleState:
        """Return the state before the first step; errors as in `transformation`."""
        return begin(self._settings, params)

    def __call__(
        self, params: Any, grads: Any, state: RuleState, *, h: Any = None, g2: Any = None
    ) -> tuple[Any, RuleState]:
        """Return the parameters and the state after one step; `params` and `state` are used up, unless told otherwise.

        `grads`, and `h` and `g2` where the rule takes them, are trees like `params`; where a gradient is None,
        nothing steps. Raises as the `update` of `transformation` does.
        """
        more = {name: tree for name, tree in (("h", h), ("g2", g2)) if tree is not None}
        fused = kernel.serves(jax.tree.leaves((params, grads)))
        made: tuple[Any, RuleState] = self._compiled(fused, params, grads, state, more)
        return made


def apply(made: Rule | Callable[..., Any], /, *values: Any, donate: bool = True, **hyperparameters: Any) -> Step:
    """Return the step of a rule, or of what `transformation` made of one, with these arguments of that function.

    ::

        step = steprule.jax.apply(steprule.rules.adadelta, rho=0.9)
        state = step.init(params)
        params, state = step(params, grads, state)

    A step is one compiled computation, which may be called in another one. `donate` lets it write the new parameters and
    state where the old ones were, which must not be used again. On the CPU the fused loop of `steprule.kernels` does the
    work for float32, float64, bfloat16 and float16; complex arrays, arrays on several devices and other machines get XLA's
    operations of the same program. Arithmetic, the state and errors are those of `transformation`; the new parameter is
    rounded once, and not twice as by an update of a low type.
    """
    return Step(keywords_of(made).settings(values, hyperparameters), donate=donate)


def _step(
    settings: Settings, fused: bool, params: Any, grads: Any, state: RuleState, more: Mapping[str, Any]
) -> tuple[Any, RuleState]:
    check_state(settings.rule, state)
    program = lower(settings.rule, settings.form)
    trees = supplied(program, {"x": params, "g": grads, **more}) | {"x": params} | state.slots
    treedef: Any = jax.tree.structure(params)
    given = treedef.flatten_up_to(grads)
    places = columns(program, treedef, trees, given)
    count, values = incremented(state.count), settings.at(state.count)
    folded = functools.cache(lambda kind: elements.scalars(program, values, count, kind))
    made: list[dict[str, Any]] = [{} for _ in places]
    groups: dict[Elements, list[int]] = {}
    for number, place in enumerate(places):
        if given[number] is None:
            made[number] = place
            continue
        kept = kernel.elements_of(place) if fused else None
        if kept is not None:
            groups.setdefault(kept, []).append(number)
            continue
        kind = elements.kind_of(*place.values())
        outputs = elements.run(program, place, folded(kind), kind)
        made[number] = {name: array.astype(place[name].dtype) for name, array in outputs.items()}
    for kept, numbers in groups.items():
        found = kernel.run(program, kept, [places[number] for number in numbers], folded(kept.real))
        for number, outputs in zip(numbers, found, strict=True):
            made[number] = outputs
    new = {
        name: written(treedef, made, name) if name in program.outputs else trees[name] for name in ("x", *state.slots)
    }
    x = new.pop("x")
    return x, RuleState(count, new)
