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

__all__ = ["FORMATS", "ROUNDINGS", "ROUNDINGS_OF_RULE", "SHARES", "ULPS", "Allowed", "Format", "rounded", "ulps"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point type: the digits of its significand, and the exponents of its normal numbers."""

    digits: int
    least: int
    most: int

    @property
    def half(self) -> float:
        """Half a unit in the last place, as a part of the number: what rounding to nearest may cost."""
        return 2.0**-self.digits

    @property
    def smallest(self) -> float:
        """The distance of subnormal numbers."""
        return math.ldexp(1.0, self.least - self.digits + 1)

    @property
    def largest(self) -> float:
        return math.ldexp(2.0 - 2.0 ** (1 - self.digits), self.most)


FORMATS: Final = {
    "float64": Format(53, -1022, 1023),
    "float32": Format(24, -126, 127),
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

SHARES: Final[Mapping[str, Allowed]] = {
    "summed otherwise": Allowed(
        1e-11,
        "in float64: sparse gradients are summed in another order, and where they cancel, their size, by which some rules "
        "divide, is off by more than a unit",
    ),
    "nearly unchanged": Allowed(2e-4, "eps, 1e-6, is added to squared slopes of about 0.01 and more"),
}
"""Distances as a share of the whole way."""
