"""What `torch.optim` has under other names: one table of its classes, and of what they take that a rule has not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from .. import rules
from ..specification import Rule

__all__ = ["PAIRS", "RELATIVES", "Twin", "twin_of"]

PAIRS: Final[Mapping[str, tuple[str, str]]] = {"betas": ("beta1", "beta2")}
"""What a parameter group holds as one pair, for every rule with two hyperparameters of these names.

Schedulers that turn the momentum look for `betas`, and so do checkpoints.
"""


@dataclass(frozen=True)
class Twin:
    """A class of `torch.optim` that makes the same steps as a rule, and what else its constructor takes."""

    cls: type[torch.optim.Optimizer]
    starts: Mapping[str, str] = field(default_factory=dict)
    """Arguments that say what a slot starts with, and the slot."""
    idle: tuple[str, ...] = ()
    """Arguments without an effect on what both classes can do."""
    only: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """Arguments of which one value is allowed, and what to do for the others."""
    begins_at_once: bool = False
    """Whether the state is there from the beginning and not from a parameter's first step on."""


_AMSGRAD: Final = {"amsgrad": (False, "the rule keeps no maximum of its averages; torch.optim.Adam(amsgrad=True) does")}

_TWINS: Final[Mapping[tuple[Rule, bool], Twin]] = {
    (rules.sgd, False): Twin(
        torch.optim.SGD,
        idle=("dampening",),
        only={
            "momentum": (0, "Momentum(lr=..., rho=...) keeps past steps, torch.optim.SGD(momentum=...) past gradients"),
            "nesterov": (False, "Nesterov(lr=..., rho=...) looks ahead"),
        },
    ),
    (rules.adagrad, False): Twin(torch.optim.Adagrad, starts={"initial_accumulator_value": "sum"}, begins_at_once=True),
    (rules.adadelta, False): Twin(torch.optim.Adadelta),
    (rules.adam, False): Twin(torch.optim.Adam, only=_AMSGRAD),
    (rules.adam, True): Twin(torch.optim.AdamW, only=_AMSGRAD),
}
"""By the rule, and by whether its weight decay is decoupled."""

_PAST_STEPS: Final = (
    "`rho` keeps past steps, each with the rate that it was made with, and torch.optim.SGD past gradients under the "
    "present rate; use rho, or torch.optim.SGD"
)
_INSIDE_THE_ROOT: Final = (
    "`rho` is the decay and `eps` is inside the root, in torch.optim.RMSprop outside; use rho and eps, or "
    "torch.optim.RMSprop"
)

RELATIVES: Final[Mapping[Rule, Mapping[str, str]]] = {
    rules.momentum: dict.fromkeys(("momentum", "dampening", "nesterov"), _PAST_STEPS),
    rules.nesterov: dict.fromkeys(("momentum", "dampening", "nesterov"), _PAST_STEPS),
    rules.rmsprop: dict.fromkeys(("alpha", "momentum", "centered"), _INSIDE_THE_ROOT),
    rules.rmsprop_nesterov: dict.fromkeys(("momentum", "centered"), _INSIDE_THE_ROOT),
}
"""Rules that torch has with another convention: torch's arguments, which are refused, and how the two differ."""


def twin_of(rule: Rule, *, decoupled: bool) -> Twin | None:
    """Return the class of `torch.optim` that makes the same steps as `rule`, or None where there is none."""
    return _TWINS.get((rule, decoupled)) or _TWINS.get((rule, False))
