"""How the classes step where nothing else is said: each variable by the operations of its own library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from ..around import Around
from ..program import Program, lower
from ..specification import INPUTS, Rule
from .stepping import filled, folded, real_of, stepped

__all__ = ["OnTensors", "scalars_at_once"]

_known: Final[ContextVar[dict[Any, Mapping[int, Any]] | None]] = ContextVar("_known", default=None)
"""The scalars of the step that is being made: none outlives it, or the branch of a condition in which it is traced."""


@contextlib.contextmanager
def scalars_at_once() -> Iterator[None]:
    """Let all variables that step in the block, on one device, have one computation of the scalars.

    Without a compiler, the dozen operations on scalars take longer than those on the elements of a small variable.
    """
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


class OnTensors:
    """What `RuleOptimizer` does on each backend for `stateless_apply`, on JAX, and with dense gradients on TensorFlow."""

    rule: Rule
    _slots: Mapping[str, Sequence[Any]]
    _values: Mapping[str, float]
    _more: Mapping[str, Mapping[Any, Any]]

    def build(self: Any, variables: Sequence[Any]) -> None:
        """Make the slots of each of `variables`, with the number that each starts with, in the variable's dtype."""
        if self.built:
            return
        super().build(variables)  # type: ignore[misc]
        starts = {name: partial(filled, value=initial) for name, initial in self.rule.slots.items()}
        # Keras tracks what is in dicts and lists a second time.
        self._slots = MappingProxyType(
            {name: self.add_optimizer_variables(variables, name, initializer=start) for name, start in starts.items()}
        )

    def _slots_of(self, index: int) -> dict[str, Any]:
        """Return the slots of the variable `index`, by name; None each where Keras overwrites it with its gradient."""
        return {name: variables[index] for name, variables in self._slots.items()}

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Step one variable by its gradient, a dense tensor of its shape."""
        slots = self._slots_of(self._get_variable_index(variable))
        arrays = {"x": variable, "g": gradient, **self._given(variable), **slots}
        new = stepped(self._program(variable), arrays, self._folded(learning_rate, variable), real_of(variable))
        for name, value in new.items():
            self.assign(variable if name == "x" else slots[name], value)

    def _program(self: Any, variable: Any) -> Program:
        """Return the program of the step of `variable`, which weight decay may leave out."""
        return lower(self.rule, self._form(variable))

    def _form(self: Any, variable: Any) -> Around:
        decays = self._use_weight_decay(variable) and bool(self._values["weight_decay"])
        values = {**self._values, "weight_decay": float(decays)}
        return Around.of(values, decoupled=self.decoupled_weight_decay, maximize=self.maximize)

    def _folded(self: Any, learning_rate: Any, variable: Any) -> Mapping[int, Any]:
        """Return the scalars of the program of `variable` in the step that comes, in the type of its elements."""
        program, real, known = self._program(variable), real_of(variable), _known.get()
        key = program, real, getattr(variable, "device", None)
        if known is not None and key in known:
            return known[key]
        found = folded(program, {**self._values, "lr": learning_rate}, self.iterations, real)
        if known is not None:
            known[key] = found
        return found

    def _given(self: Any, variable: Any) -> dict[str, Any]:
        """Return what the rule takes of `variable` beside its gradient.

        Raises `TypeError` where it was not handed in, and `ValueError` where it has another shape.
        """
        found = {}
        for name in self.rule.curvature:
            value = self._more.get(name, {}).get(self._var_key(variable))
            shape = tuple(variable.shape)
            if value is None:
                raise TypeError(
                    f"rule {self.rule.name} takes {name} ({INPUTS[name]}), and none was given for a variable of shape "
                    f"{shape}; hand it in: optimizer.apply(grads, variables, {name}=[...])"
                )
            if tuple(value.shape) != shape:
                raise ValueError(
                    f"the {name} ({INPUTS[name]}) of a variable of shape {shape} has the shape {tuple(value.shape)}; "
                    "allowed is the variable's"
                )
            found[name] = value
        return found
