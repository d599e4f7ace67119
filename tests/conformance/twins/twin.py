"""What a twin is: an optimizer of another library that makes the steps of one of our rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.cases import Arrays, hyper

__all__ = ["Twin"]


@dataclass(frozen=True)
class Twin:
    """An optimizer of `framework`, called `name` there, that makes the steps of the rule called `rule`.

    `begin(values, dtype, start)` returns what has `step(gradients)` and `state()`, as an engine does; `values` are
    hyperparameters by our names. A twin with a `difference` makes other steps in some cases: with `agreeing` in place of the
    hyperparameters of `cases.hyper` the two agree, with `differing` they do not.
    """

    framework: str
    name: str
    rule: str
    begin: Callable[[Mapping[str, float], str, Arrays], Any]
    difference: str = ""
    agreeing: Mapping[str, float] = field(default_factory=dict)
    differing: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The hyperparameters with which both make the same steps."""
        return hyper(self.rule) | dict(self.agreeing)
