"""The one list: each rule with the hyperparameters that it is tested with, shapes, forms of step, and gradients."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from steprule import Rule, rules
from steprule.kernels.cpu import CHUNK
from steprule.kernels.gpu import BLOCK

from . import users_rules
from .tolerances import rounded

__all__ = [
    "EACH_PART_ONCE",
    "FORMS",
    "OF_THE_GRADIENT",
    "RULES",
    "SHAPES",
    "Form",
    "Shapes",
    "beside",
    "gradients",
    "hyper",
    "parameters",
]

Arrays = list[NDArray[np.float64]]

RULES: Final[Mapping[str, Rule]] = {**rules.ALL, "yogi": users_rules.yogi, "lion": users_rules.lion}

OF_THE_GRADIENT: Final = {name: each for name, each in RULES.items() if not each.curvature}
"""The rules that take no curvature, of which a parameter may be complex, and a gradient sparse."""

# Away from the defaults, so that a default in the place of a given value shows.
_HYPER: Final[Mapping[str, Mapping[str, float]]] = {
    "sgd": {"lr": 0.03},
    "momentum": {"lr": 0.03, "rho": 0.8},
    "nesterov": {"lr": 0.03, "rho": 0.8},
    "adagrad": {"lr": 0.05, "eps": 1e-6},
    "rmsprop": {"lr": 2e-3, "rho": 0.85, "eps": 1e-5},
    "rmsprop_nesterov": {"lr": 2e-3, "rho": 0.85, "alpha": 0.7, "eps": 1e-5},
    "adadelta": {"lr": 0.7, "rho": 0.9, "eps": 1e-5},
    "adam": {"lr": 2e-3, "beta1": 0.8, "beta2": 0.95, "eps": 1e-7},
    "delta_bar_delta": {"lr": 0.9, "initial_rate": 0.03, "kappa": 2e-3, "phi": 0.2, "theta": 0.6},
    "diagonal_newton": {"lr": 0.7, "mu": 0.3},
    # A slow start, and steps after it.
    "vsgd": {"lr": 0.9, "batch_size": 5, "slow_start": 2, "overestimate": 3},
    "vsgd_fd": {"lr": 0.9, "batch_size": 5, "slow_start": 2, "overestimate": 3, "outlier": 1.5},
    "yogi": {"lr": 2e-2, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2},
    "lion": {"lr": 2e-3, "beta1": 0.8, "beta2": 0.95},
}


def hyper(name: str) -> dict[str, float]:
    """Return the hyperparameters that the rule `name` is tested with; a rule that is not in the table has its defaults."""
    return dict(_HYPER.get(name, {}))


Shapes = tuple[tuple[int, ...], ...]

SHAPES: Final[Mapping[str, Shapes]] = {
    "0-dim": ((),),
    "empty": ((0,),),
    "one": ((1,),),
    "17": ((17,),),
    "3x5": ((3, 5),),
    "500": ((500,),),
    "a chunk": ((CHUNK,),),
    "a chunk and one": ((CHUNK + 1,),),
    "40000": ((40_000,),),
    "about a block": ((), (0,), (1,), (BLOCK - 1,), (BLOCK,), (3, 5), (BLOCK + 1,)),
    "several": ((17,), (), (3, 5), (0, 4), (CHUNK + 1,), (1,), (2, 3, 4, 5), (1, 7)),
}


@dataclass(frozen=True)
class Form:
    """What is around the rule: keywords of `reference.step` and of the classes of `steprule.torch` beside `hyper`."""

    values: Mapping[str, float] = field(default_factory=dict)
    decoupled: bool = False
    maximize: bool = False


FORMS: Final[Mapping[str, Form]] = {
    "plain": Form(),
    "coupled": Form({"weight_decay": 0.03}),
    "decoupled": Form({"weight_decay": 0.03}, decoupled=True),
    "maximize": Form(maximize=True),
    "coupled, maximize": Form({"weight_decay": 0.03}, maximize=True),
    "decoupled, maximize": Form({"weight_decay": 0.03}, decoupled=True, maximize=True),
    "decoupled, decaying rate": Form({"weight_decay": 0.03, "lr_decay": 0.5}, decoupled=True),
}

EACH_PART_ONCE: Final = ("plain", "coupled, maximize", "decoupled, decaying rate")
"""Forms that have together all that a form may have, for engines that are slow, or slow to compile, and whose
forms others test."""


@functools.cache
def parameters(shapes: Shapes, dtype: str) -> Arrays:
    """Return a start for each shape, in float64 but made of numbers that `dtype` has; not to be written to."""
    rng = np.random.default_rng(0)
    return [_kept(rounded(rng.standard_normal(shape), dtype)) for shape in shapes]


@functools.cache
def gradients(shapes: Shapes, dtype: str, steps: int, *, non_finite: bool = False) -> list[Arrays]:
    """Return the gradients of each step: zeros, tiny and large ones of both signs among ordinary ones; not to be written to.

    `non_finite` adds infinities, NaN and numbers whose square is beyond float32.
    """
    rng = np.random.default_rng(1)
    scales = [0.0, 1e-30, 1e-6, 1e3] + ([np.inf, np.nan, 1e25] if non_finite else [])
    made = []
    for _ in range(steps):
        arrays = []
        for shape in shapes:
            scale = rng.choice([*scales, *[1.0] * 8], size=shape)
            with np.errstate(invalid="ignore"):  # inf times 0
                arrays.append(_kept(rounded(rng.standard_normal(shape) * scale, dtype)))
        made.append(arrays)
    return made


def _kept(array: NDArray[np.float64]) -> NDArray[np.float64]:
    array.setflags(write=False)
    return array


def beside(rule: Rule, g: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return what `rule` takes of an element beside the gradient `g`: `h`, of either sign, and `g2`, at least its square.

    They are made of the gradient's numbers, as powers of two, which every element type has.
    """
    if not rule.curvature:
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        other = np.roll(g, 1)
        h = np.sign(other) * np.exp2(np.round(np.log2(np.abs(other)) / 4))
        g2 = np.where(g == 0, 0.0, np.clip(np.exp2(np.ceil(2 * np.log2(np.abs(g)))), 2.0**-14, 2.0**15))
    return {name: array for name, array in {"h": h, "g2": g2}.items() if name in rule.inputs}
