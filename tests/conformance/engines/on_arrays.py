"""`steprule.reference` on the arrays of each library, a pure Python loop over tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
from tests.conformance.cases import EACH_PART_ONCE, FORMS, Arrays, Form, beside
from tests.libraries import ABSENT, LIBRARIES, Library

from steprule import Rule, reference

from .engine import Engine, State


class _Reference:
    """`steprule.reference` on the arrays of one library."""

    def __init__(
        self, library: Library, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays
    ) -> None:
        self._library = library
        self._rule, self._form, self._values = rule, form, {**values, **form.values}
        self._dtype = dtype
        self._xs = [library.array(x, dtype) for x in start]
        self._states = [reference.init(rule, x) for x in self._xs]

    def step(self, grads: Arrays) -> None:
        with np.errstate(all="ignore"):
            made = [
                reference.step(
                    self._rule,
                    x,
                    self._library.array(g, self._dtype),
                    state,
                    **{name: self._library.array(each, self._dtype) for name, each in beside(self._rule, g).items()},
                    decoupled_weight_decay=self._form.decoupled,
                    maximize=self._form.maximize,
                    **self._values,
                )
                for x, g, state in zip(self._xs, grads, self._states, strict=True)
            ]
        self._xs, self._states = [x for x, _ in made], [state for _, state in made]

    def state(self) -> State:
        states = []
        for x, state in zip(self._xs, self._states, strict=True):
            arrays = {"x": x, **{name: state[name] for name in self._rule.slots}}
            for name, array in arrays.items():
                kind = str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2].strip("'>")
                assert kind == self._dtype, f"{name} is {array.dtype}"
                assert tuple(array.shape) == tuple(x.shape), f"{name} is {array.shape}"
            states.append({name: self._library.numbers(array) for name, array in arrays.items()})
        return states


def _engines() -> Iterator[tuple[str, Engine]]:
    for name, library in LIBRARIES.items():
        begin = partial(_Reference, library)
        # The loops of an array library are not ours to test at every length.
        shapes = ("3x5",) if library.older_shapes else ("0-dim", "empty", "3x5")
        forms = tuple(FORMS) if name == "NumPy" else EACH_PART_ONCE
        yield f"reference on {name}", Engine(begin, shapes=shapes, forms=forms, within=library.within)
        if library.lower:
            lower = Engine(begin, library.lower, ("3x5",), forms, library.within, widens=False)
            yield f"reference on {name}, lower types", lower
    for name, reason in ABSENT.items():
        yield f"reference on {name}", Engine(absent=reason)


ENGINES: Final[Mapping[str, Engine]] = dict(_engines())
