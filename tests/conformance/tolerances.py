"""How far results may be from what they are compared with: the only tolerances of the tests, with the reason of each.

The unit is the ulp, the unit in the last place, as `ulps` defines it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FORMATS",
    "LOSSES",
    "ROUNDINGS",
    "ROUNDINGS_OF_RULE",
    "SHARES",
    "STANDARD_ERRORS",
    "ULPS",
    "WITHOUT_BOUND",
    "Allowed",
    "Format",
    "over_steps",
    "rounded",
    "ulps",
]


@dataclass(frozen=True)
class Format:
    """A binary floating-point type: the digits of its significand, and the exponents of its normal numbers.

    `flushed` if results below the smallest normal number become 0, as a processor can be told to do.
    """

    digits: int
    least: int
    most: int
    flushed: bool = False

    @property
    def half(self) -> float:
        """Half a unit in the last place, as a part of the number: what rounding to nearest may cost."""
        return 2.0**-self.digits

    @property
    def smallest(self) -> float:
        """The distance of subnormal numbers, or of the smallest number from 0."""
        return math.ldexp(1.0, self.least if self.flushed else self.least - self.digits + 1)

    @property
    def largest(self) -> float:
        return math.ldexp(2.0 - 2.0 ** (1 - self.digits), self.most)


FORMATS: Final = {
    "float64": Format(53, -1022, 1023),
    "float32": Format(24, -126, 127),
    "float32, flushed": Format(24, -126, 127, flushed=True),
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
}


def _unit(magnitude: NDArray[np.float64], form: Format) -> NDArray[np.float64]:
    """Return the distance from one number of the format to the next at `magnitude`."""
    exponent = np.frexp(magnitude)[1] - 1
    return np.ldexp(1.0, np.clip(exponent, form.least, form.most) - (form.digits - 1))


def rounded(values: Any, dtype: str) -> NDArray[np.float64]:
    """Return float64 `values` rounded to the nearest numbers of `dtype`, to infinity beyond its largest."""
    exact, form = np.asarray(values, np.float64), FORMATS[dtype]
    if dtype == "float64":
        return exact.copy()
    with np.errstate(invalid="ignore"):
        unit = _unit(np.where(np.isfinite(exact), np.abs(exact), 0.0), form)
        near = np.round(exact / unit) * unit
        return np.where(np.abs(near) > form.largest, np.sign(exact) * np.inf, near)


def ulps(found: Any, expected: Any, dtype: str, beside: Any = 0.0) -> NDArray[np.float64]:
    """Return, element by element, how many units in the last place of `dtype` `found` is from `expected`.

    The unit is the distance from one number of `dtype` to the next at the larger of |expected| and |beside|; below the
    smallest normal number it is the subnormals' distance. `beside` is what a sum was made from (a parameter before its
    step), since a sum that cancels can be no better than its terms are. `expected` is exact (float64) and not rounded: to
    round it once costs half an ulp. Two NaN, and two infinities of one sign, are 0 apart; an `expected` beyond the largest
    number of `dtype` is an infinity; a number and what is none are infinitely far apart.
    """
    form = FORMATS[dtype]
    exact = np.asarray(expected, np.float64)
    target = np.where(np.isinf(rounded(exact, dtype)), rounded(exact, dtype), exact)
    given, near = np.broadcast_arrays(np.asarray(found, np.float64), target)
    same = (given == near) | (np.isnan(given) & np.isnan(near))
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.maximum(np.abs(near), np.abs(beside))
        unit = _unit(np.where(np.isfinite(magnitude), magnitude, 0.0), form)
        apart = np.abs(given - near) / unit
    return np.where(same, 0.0, np.where(np.isfinite(given) & np.isfinite(near), apart, np.inf))


@dataclass(frozen=True)
class Allowed:
    """A tolerance and its reason."""

    amount: float
    reason: str


_EXACT: Final = Allowed(0, "the same operations in the same order, each rounded to nearest as IEEE 754 says")
_ROUNDED: Final = Allowed(1, "each operation rounds to nearest once; then the bound is a theorem")
_TORCH: Final = Allowed(
    2, "torch's square root is a whole unit off for a part of its inputs, twice what rounding costs"
)
_RECIPROCAL: Final = Allowed(
    2, "a division by a scalar is a product with its reciprocal, and the oracle rounds as well"
)
_ONE_ROOT: Final = Allowed(2, "a quotient of two roots is the root of one quotient, and the oracle rounds as well")
_TEXT: Final = Allowed(
    5,
    "MXNet hands a number to its operators as text of 16 digits: up to 5e-16 of it is lost, 4.5 times what rounding costs",
)
_JOINED: Final = Allowed(2, "XLA joins a product and a sum into one operation, and the oracle rounds as well")

_GPU: Final = (
    *("GPU kernel (interpreter)", "GPU kernel (interpreter), capturable"),
    *("GPU kernel", "GPU kernel, capturable"),
)

_KERAS: Final = ("Keras on TensorFlow", "Keras on JAX", "Keras on PyTorch")

ROUNDINGS: Final[Mapping[tuple[str, str], Allowed]] = {
    ("reference on NumPy", "float64"): _EXACT,
    ("reference on NumPy", "float32"): _ROUNDED,
    ("reference on torch", "float64"): _TORCH,
    ("reference on torch", "float32"): _TORCH,
    ("reference on JAX", "float64"): _EXACT,
    ("reference on JAX", "float32"): _ROUNDED,
    ("reference on TensorFlow", "float64"): _EXACT,
    ("reference on TensorFlow", "float32"): _ROUNDED,
    ("reference on MXNet", "float64"): _TEXT,
    ("reference on MXNet", "float32"): _ROUNDED,
    ("reference on MXNet's older arrays", "float64"): _TEXT,
    ("reference on MXNet's older arrays", "float32"): _ROUNDED,
    ("reference on array-api-strict", "float64"): _EXACT,
    ("reference on array-api-strict", "float32"): _ROUNDED,
    **{
        (f"reference on {library}, lower types", dtype): _ROUNDED
        for library in ("NumPy", "torch", "JAX", "TensorFlow", "MXNet", "MXNet's older arrays")
        for dtype in ("bfloat16", "float16")
    },
    ("CPU kernel", "float64"): _EXACT,
    ("CPU kernel", "float32"): _ROUNDED,
    ("steprule.torch, fused", "float64"): _EXACT,
    ("steprule.torch, fused", "float32"): _ROUNDED,
    ("steprule.torch, plain", "float64"): _TORCH,
    ("steprule.torch, plain", "float32"): _TORCH,
    ("steprule.torch, fused rows", "float64"): _EXACT,
    ("steprule.torch, fused rows", "float32"): _ROUNDED,
    ("steprule.torch, plain rows", "float64"): _TORCH,
    ("steprule.torch, plain rows", "float32"): _TORCH,
    ("steprule.torch, lower types", "bfloat16"): _ROUNDED,
    ("steprule.torch, lower types", "float16"): _ROUNDED,
    ("steprule.torch, lower types, plain", "bfloat16"): _ROUNDED,
    ("steprule.torch, lower types, plain", "float16"): _ROUNDED,
    ("steprule.jax, transformation", "float64"): _JOINED,
    ("steprule.jax, transformation", "float32"): _ROUNDED,
    ("steprule.jax, apply", "float64"): _EXACT,
    ("steprule.jax, apply, plain", "float64"): _JOINED,
    **{
        (engine, dtype): _ROUNDED
        for engine in ("steprule.jax, apply", "steprule.jax, apply, plain")
        for dtype in ("float32", "bfloat16", "float16")
    },
    **{
        (engine, dtype): _EXACT if dtype == "float64" else _ROUNDED
        for engine in _GPU
        for dtype in ("float32", "float64", "bfloat16", "float16")
    },
    **{
        (engine, dtype): _EXACT if dtype == "float64" else _ROUNDED
        for engine in _KERAS
        for dtype in ("float32", "float64", "bfloat16")
    },
}
"""For each engine and dtype, the error of a step as a multiple of what rounding each operation once may do (`rounding`)."""

ROUNDINGS_OF_RULE: Final[Mapping[tuple[str, str, str], Allowed]] = {
    ("reference on JAX", "float64", "adam"): _RECIPROCAL,
    ("CPU kernel", "float64", "adam"): _RECIPROCAL,
    ("steprule.torch, fused", "float64", "adam"): _RECIPROCAL,
    ("steprule.torch, fused rows", "float64", "adam"): _RECIPROCAL,
    ("CPU kernel", "float64", "adadelta"): _ONE_ROOT,
    ("steprule.torch, fused", "float64", "adadelta"): _ONE_ROOT,
    ("steprule.jax, apply", "float64", "adam"): _RECIPROCAL,
    ("steprule.jax, apply", "float64", "adadelta"): _ONE_ROOT,
    **{(engine, "float64", "adam"): _RECIPROCAL for engine in (*_GPU, *_KERAS)},
    **{(engine, "float64", "adadelta"): _ONE_ROOT for engine in (*_GPU, *_KERAS)},
    ("steprule.torch, fused rows", "float64", "adadelta"): _ONE_ROOT,
}
"""The rules for which an engine may be farther off: those that divide by a scalar, or one root by another."""

ULPS: Final[Mapping[str, Allowed]] = {
    "twin of torch.optim": Allowed(
        64,
        "a dozen steps of a few units each: torch groups the same products otherwise, and its root may be a unit off",
    ),
    "twin over 200 steps": Allowed(
        64, "200 steps of a few units each, of which most cancel: a library groups the same products otherwise"
    ),
    "twin of optax": Allowed(
        64, "a dozen steps of a few units each: optax multiplies by reciprocals of roots, which XLA may round otherwise"
    ),
    "twin in Keras": Allowed(
        64,
        "a dozen steps of a few units each: Keras groups the same products otherwise, and rounds its factors in between",
    ),
    "dense run": Allowed(
        2,
        "for each step of the run: the dense run has rounded a slot and its products in each, the power of them once",
    ),
    "a batch shared out": Allowed(
        8, "a mean over ranks sums a batch in another order, a unit or so in each step, of the tensor's largest element"
    ),
    "equation": Allowed(16, "a closed form rounds in other places than the steps that it sums up"),
}
"""Distances in units in the last place, as `ulps` has them."""

_STEPS: Final[Mapping[str, Allowed]] = {
    "float64": Allowed(
        16, "the rows that are not 0 round a root, a reciprocal or a number's text otherwise, in every step"
    ),
    "float32": Allowed(32, "each operation of 200 steps rounds, to either side, so that most of it cancels"),
    "bfloat16": Allowed(32, "each operation of 200 steps rounds, to either side, so that most of it cancels"),
    "float16": Allowed(32, "each operation of 200 steps rounds, to either side, so that most of it cancels"),
}
_SAME_STEP: Final = (
    "the same step is added again and again, and the sum rounds to the same side each time: half a unit a step"
)
_SIGN: Final = (
    "the rule asks for the sign of a difference, and where that is nearly 0 its rounding turns the step around"
)
_PRODUCTS: Final = (
    "each step multiplies a slot by a number near 1, so that a rounding stays and the next is added to it"
)
_STEPS_OF_RULE: Final[Mapping[tuple[str, str], Allowed]] = {
    ("float32", "lion"): Allowed(128, _SAME_STEP),
    **{("float32", rule): Allowed(128, _PRODUCTS) for rule in ("delta_bar_delta", "vsgd", "vsgd_fd")},
    ("bfloat16", "lion"): Allowed(256, _SIGN),
    ("float16", "lion"): Allowed(128, _SIGN),
    ("float16", "vsgd_fd"): Allowed(128, _SIGN),
    ("float16", "yogi"): Allowed(64, _SIGN),
}


def over_steps(dtype: str, rule: str) -> Allowed:
    """Return how far an engine may be from the oracle after the 200 steps of `trajectory`, in ulps of `dtype`."""
    return _STEPS_OF_RULE.get((dtype, rule), _STEPS[dtype])


_SMALL: Final = "its eps, or an average of small squares, is below the numbers that float16 has"
WITHOUT_BOUND: Final[Mapping[tuple[str, str], str]] = {
    **{("float16", rule): _SMALL for rule in ("adagrad", "adam", "yogi", "lion")},
    **{
        (dtype, rule): _PRODUCTS for dtype in ("float16", "bfloat16") for rule in ("delta_bar_delta", "vsgd", "vsgd_fd")
    },
}
"""Types and rules for which an engine that does not widen has no bound over many steps, and why."""

LOSSES: Final[Mapping[str, Allowed]] = {
    "float64": Allowed(1e-13, "a few roundings of a sum of 1797 logarithms"),
    "float32": Allowed(1e-5, "the digits of float32, of which the way loses one or two"),
    "bfloat16": Allowed(2e-2, "the digits of bfloat16: one unit is 0.8 %"),
    "float16": Allowed(2e-3, "the digits of float16: one unit is 0.1 %"),
}
"""How far the loss after the engine's own 200 steps may be from the oracle's, as a share of it."""

SHARES: Final[Mapping[str, Allowed]] = {
    "summed otherwise": Allowed(
        1e-11,
        "in float64: sparse gradients are summed in another order, and where they cancel, their size, by which some rules "
        "divide, is off by more than a unit",
    ),
    "compiled otherwise": Allowed(
        1e-6, "in float32: some steps of a few units each, joined and ordered as XLA likes in each computation"
    ),
    "hyperparameters in float32": Allowed(
        5e-5,
        "optax.inject_hyperparams keeps them so: 1 - float32(0.999) is off by 1.3e-5, and that in each of five steps",
    ),
    "trained as one batch": Allowed(
        1e-5, "in float32: matrix products of a batch of nets are summed in another order, over some hundred steps"
    ),
    "slopes": Allowed(1e-4, "in float32, through two steps, against a difference quotient in float64"),
    "nearly unchanged": Allowed(2e-4, "eps, 1e-6, is added to squared slopes of about 0.01 and more"),
    "curvature, float64": Allowed(
        1e-11, "sums of some thousand products in another order, of the array's largest element"
    ),
    "curvature, float32": Allowed(
        2e-5, "sums of some thousand products in another order, of the array's largest element"
    ),
}
"""Distances as a share of the whole way."""

STANDARD_ERRORS: Final = Allowed(6, "a mean of random numbers is as far off in one of 500 million runs")
"""Distances in standard errors of the mean."""

AIRFOIL_LOSS = 3e-7
"""How far the final losses of the airfoil experiment may be from NumPy's: of 300 steps in float32, whose matrix products
are summed in another order in each framework; 4.5e-8 was the most that was seen, over ten seeds."""
