"""What the constructor of a class takes and its parameter groups hold: torch's names, where torch has the same.

A rule's hyperparameters and what is around it come from `steprule.around`, what `torch.optim` takes beside them from the
table of twins; the order is the twin's.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from torch import Tensor

from .. import around
from ..around import Around
from ..specification import Hyperparameter, Range, Rule
from . import gpu, storing
from .twins import PAIRS, RELATIVES, Twin, twin_of

__all__ = ["OPTIONS", "Keywords"]

OPTIONS: Final[Mapping[str, tuple[Any, str]]] = {
    "decoupled_weight_decay": (
        False,
        "the parameter shrinks by `lr * weight_decay` of itself (Loshchilov and Hutter 2019); False: by an L2 penalty",
    ),
    "maximize": (False, "climb instead of descending"),
    "foreach": (None, "chooses nothing: one loop steps all parameters"),
    "fused": (None, "chooses nothing: one loop steps all parameters"),
    "capturable": (False, "on a GPU, whether a graph may capture the step; chooses nothing on the CPU"),
    "differentiable": (False, "whether autograd goes through the step"),
    **storing.OPTIONS,
    "sparse": (
        "exact",
        '"exact": a sparse gradient steps as the dense one does, or is refused; "lazy": only the rows that it names',
    ),
}
"""What every class takes beside numbers: the default, and what it does."""

_SWITCHES: Final = (
    "decoupled_weight_decay",
    "maximize",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "master_copies",
)
_CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    **dict.fromkeys(_SWITCHES, (None, False, True)),
    "on_nonfinite": ("propagate", "skip", "raise"),
    "sparse": ("exact", "lazy"),
}
"""The options of a few values each, and which these are."""


@dataclass(frozen=True)
class Keywords:
    """The arguments of one class: of `rule`, with `given` in the place of its defaults."""

    rule: Rule
    name: str
    given: tuple[tuple[str, Any], ...]

    @cached_property
    def twin(self) -> Twin | None:
        return twin_of(self.rule, decoupled=bool(dict(self.given).get("decoupled_weight_decay")))

    @cached_property
    def pairs(self) -> Mapping[str, tuple[str, str]]:
        """The pairs that groups hold in the place of two of the rule's hyperparameters."""
        own = self.rule.hyperparameters
        return {pair: parts for pair, parts in PAIRS.items() if all(part in own for part in parts)}

    @cached_property
    def _whole(self) -> Mapping[str, str]:
        """The pair of each hyperparameter that is a part of one."""
        return {part: pair for pair, parts in self.pairs.items() for part in parts}

    @cached_property
    def numbers(self) -> Mapping[str, Hyperparameter]:
        """What stands in a group as one number, by its name there."""
        starts = self.twin.starts if self.twin else {}
        declared = {name: each for name, each in around.hyperparameters(self.rule).items() if name not in self._whole}
        return declared | {
            name: Hyperparameter(name, Range(low=0), self.rule.slots[slot]) for name, slot in starts.items()
        }

    @cached_property
    def adjustable(self) -> Mapping[str, tuple[Hyperparameter, ...]]:
        """What a group may change, by its name there, without the step taking another form; a pair has two."""
        declared = around.hyperparameters(self.rule)
        parts = {name: (name,) for name in declared if name not in self._whole} | dict(self.pairs)
        return {
            name: tuple(map(declared.__getitem__, each))
            for name, each in parts.items()
            if around.FORMING.isdisjoint(each)
        }

    @cached_property
    def theirs(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of the twin, by name."""
        if self.twin is None:
            return {}
        parameters = dict(inspect.signature(self.twin.cls).parameters)
        del parameters["params"]
        return parameters

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Each argument's default, None for a number without one: `given`, else the rule's, else the twin's."""
        found: dict[str, Any] = {}
        for name, each in around.hyperparameters(self.rule).items():
            if name in self._whole:
                pair = self._whole[name]
                found[pair] = (*found.get(pair, ()), each.default)
            else:
                found[name] = each.default
        extra = [*self.twin.starts, *self.twin.idle, *self.twin.only] if self.twin else []
        of_twin = {
            name: each.default for name, each in self.theirs.items() if name in extra or found.get(name, 0) is None
        }
        found |= of_twin | {name: default for name, (default, _) in OPTIONS.items()}
        given = self.folded(dict(self.given), found)
        for name in given:
            if name not in found:
                listed = ", ".join([*found, *self._whole])
                raise TypeError(f"{self.name} has no hyperparameter {name!r} to give a default; it has: {listed}")
        return found | given

    @cached_property
    def essential(self) -> tuple[str, ...]:
        """What a group of the rule has held in every version: the rate and what is in the rule's equations."""
        own = {"lr": None} | {self._whole.get(name, name): None for name in self.rule.hyperparameters}
        return tuple(own)

    @property
    def begins_at_once(self) -> bool:
        """Whether the state is there from the beginning, as the twin has it."""
        return self.twin is not None and self.twin.begins_at_once

    def requires(self, name: str) -> bool:
        """Whether the argument `name` has no default."""
        default = self.defaults[name]
        return (default is None and name in self.numbers) or (isinstance(default, tuple) and None in default)

    @cached_property
    def known(self) -> dict[str, Any]:
        """The defaults of the arguments that have one."""
        return {name: default for name, default in self.defaults.items() if not self.requires(name)}

    @cached_property
    def signature(self) -> inspect.Signature:
        """The constructor's: the twin's arguments in their order, then what only we have, by keyword."""
        if self.twin:
            in_place = {name for name, each in self.theirs.items() if each.kind is not each.KEYWORD_ONLY}
        else:
            in_place = {*self.numbers, *self.pairs} - ({"lr_decay"} - set(self.rule.hyperparameters))
        parameters = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        optional = False
        for name in dict.fromkeys([*self.theirs, *self.defaults]):
            if name not in self.defaults:  # a later torch's, of which nothing is known here
                continue
            required = self.requires(name)
            optional = optional or not required
            # Python allows no parameter without default behind one with default, unless it is keyword-only.
            positional = name in in_place and not (optional and required)
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
            default = inspect.Parameter.empty if required else self.defaults[name]
            parameters.append(inspect.Parameter(name, kind, default=default))
        return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def folded(self, given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """Return `given` with a pair in the place of its parts; a part that is not given is that of the pair in `base`."""
        found = dict(given)
        for pair, parts in self.pairs.items():
            if found.keys().isdisjoint(parts):
                continue
            if pair in found:
                # What wraps an optimizer may have written back to its groups what the constructor was given.
                both = next(part for part in parts if part in found)
                if any(
                    found.get(part, held) != held for part, held in zip(parts, self._pair(found, pair), strict=True)
                ):
                    raise TypeError(
                        f"{pair} and {both} are both given; allowed is one of them, since {pair} holds {both}"
                    )
                found = {name: value for name, value in found.items() if name not in parts}
                continue
            found[pair] = tuple(found.pop(part, other) for part, other in zip(parts, base[pair], strict=True))
        return found

    def fold(self, group: dict[str, Any], base: Mapping[str, Any]) -> None:
        """Put a pair in the place of its parts in `group` itself, which its owner may hold."""
        folded = self.folded(group, base)
        for part in group.keys() - folded.keys():
            del group[part]
        group.update(folded)

    def bound(
        self, params: Any, values: tuple[Any, ...], named: Mapping[str, Any], derived: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the value of every argument of a constructor call, but `params`; `derived` are defaults before others.

        Raises `TypeError` for an argument that there is not.
        """
        self._refuse_relatives(named)
        folded = self.folded(named, self.defaults)
        try:
            bound = self.signature.bind_partial(params, *values, **folded)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; it takes: {', '.join(self.signature.parameters)}") from None
        given = {name: value for name, value in bound.arguments.items() if name != "params"}
        return {**self.known, **derived, **given}

    def watched(self, group: Mapping[str, Any]) -> Iterator[Any]:
        """Return what of a group decides its step."""
        scalars = map(group.__getitem__, self._watched)
        return itertools.chain(scalars, *(self._pair(group, pair) for pair in self.pairs))

    @cached_property
    def foreign(self) -> frozenset[str]:
        """Names that no group may have: parts of a pair, and what a relative of torch takes."""
        relatives = RELATIVES.get(self.rule, {}).keys() - self.rule.hyperparameters.keys()
        return frozenset({*self._whole, *relatives})

    @cached_property
    def _watched(self) -> tuple[str, ...]:
        hyperparameters = (name for name in around.hyperparameters(self.rule) if name not in self._whole)
        return (*hyperparameters, "decoupled_weight_decay", "maximize", *(self.twin.only if self.twin else ()))

    def form_and_values(self, group: Mapping[str, Any], scale: float | None = None) -> tuple[Around, dict[str, Any]]:
        """Return the form of step that a parameter group asks for, and each hyperparameter's value, checked.

        `scale` is what the gradients are to be divided by, if anything.

        Raises `TypeError` and `ValueError` as `around.validated` does, and for what only a class of `torch.optim` can do.
        """
        self._refuse_relatives(group)
        held = self.hyperparameters(group).items()
        detached = {name: value.detach() if isinstance(value, Tensor) else value for name, value in held}
        values = gpu.validated(self.rule, detached, group)
        for name, each in self.numbers.items():
            if name not in values and name in group:
                each.validated(group[name])
        for name, (allowed, instead) in (self.twin.only if self.twin else {}).items():
            if group.get(name, allowed) != allowed:
                raise ValueError(f"{name} is {group[name]!r}; allowed for {self.name} is {allowed!r}: {instead}")
        storing.Storing.of(self.rule, group)  # for what it raises
        for name, choices in _CHOICES.items():
            # Neither a tensor nor an array is one of them, whatever it compares equal to.
            if not isinstance(group[name], (bool, np.bool_, int, str, type(None))) or group[name] not in choices:
                allowed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
                raise ValueError(f"{name} is {group[name]!r}; allowed is {allowed}")
        form = Around.of(values, decoupled=group["decoupled_weight_decay"], maximize=group["maximize"])
        form = dataclasses.replace(form, unscale=scale is not None, guard=group["on_nonfinite"] != "propagate")
        return form, values if scale is None else values | {"grad_scale": scale}

    def with_tensors(
        self, group: Mapping[str, Any], form: Around, values: Mapping[str, float]
    ) -> tuple[Around, dict[str, Any]]:
        """Return the form of step and the values for a step in autograd's graph, with the tensors that are part of it."""
        held = self.hyperparameters(group).items()
        tensors = {name: value.reshape(()) for name, value in held if isinstance(value, Tensor) and value.requires_grad}
        # A decay of 0 has a gradient too.
        decays = Around.of(
            {**values, **dict.fromkeys(tensors, 1.0)},
            decoupled=bool(group["decoupled_weight_decay"]),
            maximize=form.maximize,
        )
        decays = dataclasses.replace(decays, unscale=form.unscale, guard=form.guard)
        return decays, {**values, **tensors}

    def hyperparameters(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters that a group holds, by the rule's names."""
        for part, pair in self._whole.items():
            # What wraps an optimizer may write back to its groups what the constructor was given.
            if part in group and group[part] != dict(zip(self.pairs[pair], self._pair(group, pair), strict=True))[part]:
                raise TypeError(f"a parameter group has {part}; it holds {pair}, of which {part} is a part: set {pair}")
        names = around.hyperparameters(self.rule)
        found = {name: group[name] for name in names if name not in self._whole and name in group}
        for pair, parts in self.pairs.items():
            if pair in group:
                found |= zip(parts, self._pair(group, pair), strict=True)
        return found

    def start(self, slot: str, group: Mapping[str, Any]) -> float:
        """Return the number that `slot` starts with for the parameters of `group`."""
        for name, started in (self.twin.starts if self.twin else {}).items():
            if started == slot:
                return float(group[name])
        return self.rule.slots[slot]

    def _pair(self, group: Mapping[str, Any], pair: str) -> tuple[Any, Any]:
        value, parts = group[pair], self.pairs[pair]
        if not isinstance(value, (tuple, list)) or len(value) != len(parts):
            raise TypeError(f"{pair} is {value!r}; allowed is a pair of numbers: {', '.join(parts)}")
        return value[0], value[1]

    def _refuse_relatives(self, given: Mapping[str, Any]) -> None:
        for name, difference in RELATIVES.get(self.rule, {}).items():
            if name in given and name in self.foreign:
                raise TypeError(f"{self.name} has no {name}: here {difference}")
