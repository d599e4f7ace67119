"""float16 in a kernel, where the processor converts it and where it does not: against NumPy, number by number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import types
from numpy.typing import NDArray

from steprule.kernels import coding

HALVES = np.arange(1 << 16, dtype=np.uint16)

by_the_processor = pytest.mark.parametrize("by_the_processor", [True, False])


def compiled(function: Callable[[Any], Any], signature: Any, by_the_processor: bool, patch: pytest.MonkeyPatch) -> Any:
    """Return `function` for each element of an array, with conversions of the one kind or the other.

    A processor that converts raises flags, of which NumPy warns.
    """
    if by_the_processor and not coding._converts_halves():
        pytest.skip("this processor does not convert float16")
    patch.setattr(coding, "_converts_halves", lambda: by_the_processor)
    return numba.vectorize([signature])(lambda number: function(number))


def bits(numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
    return numbers.view(np.uint32)


@by_the_processor
def test_every_float16_is_read_as_it_is(by_the_processor: bool, monkeypatch: pytest.MonkeyPatch):
    read = compiled(coding.from_float16, types.float32(types.uint16), by_the_processor, monkeypatch)
    with np.errstate(invalid="ignore"):
        found, expected = read(HALVES), HALVES.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), ~numbers)
    assert np.array_equal(bits(found)[numbers], bits(expected)[numbers])


@by_the_processor
def test_what_lies_between_two_goes_to_the_nearer(by_the_processor: bool, monkeypatch: pytest.MonkeyPatch):
    write = compiled(coding.to_float16, types.uint16(types.float32), by_the_processor, monkeypatch)
    exact = HALVES[:0x7C00].view(np.float16).astype(np.float32)
    # Beyond the largest, what would be the next.
    middles = (exact + np.append(exact[1:], np.float32(65536))) / 2
    others = np.array([65536, 1e30, np.inf, np.nan, 1e-30, 1e-45, 3.4e38], np.float32)
    each = np.concatenate([exact, middles, np.nextafter(middles, 0), np.nextafter(middles, np.float32(np.inf)), others])
    numbers = np.concatenate([each, -each])
    with np.errstate(over="ignore", under="ignore"):
        found, expected = write(numbers).view(np.float16), numbers.astype(np.float16)
    none = np.isnan(numbers)
    assert np.isnan(found[none]).all() and none.sum() == 2
    assert np.array_equal(found[~none].view(np.uint16), expected[~none].view(np.uint16))


_STEP = """
import torch
import steprule.torch
from steprule.kernels import coding

x = torch.nn.Parameter(torch.full((300,), 2.0, dtype=torch.float16))
x.grad = torch.full_like(x, 0.5)
steprule.torch.SGD([x], lr=0.5).step()
print(coding._converts_halves(), x.unique().tolist())
"""


@pytest.mark.parametrize("features", ["", "+avx,+avx2,+fma", "+f16c,-avx"])
def test_a_processor_that_does_not_convert_it_steps_too(features: str, tmp_path: Path):
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "STEPRULE_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _STEP], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False [1.75]"
