"""Kernels for the GPU on the CPU, through Triton's interpreter: slow, and the same source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

import torch
from steprule.kernels import gpu as kernels
from steprule.torch import gpu

__all__ = ["interpreting", "require_interpreter"]


def require_interpreter() -> None:
    """Skip the running test where there is no Triton: it comes for Linux only."""
    if not kernels.installed():
        pytest.skip("triton is not installed")


def _convert(values: NDArray[Any], of: Any, to: Any, rounding: Any) -> NDArray[Any]:
    """Convert float32 to bfloat16, which NumPy does not have, to nearest as a GPU does; the interpreter cuts digits off."""
    if (str(of), str(to)) == ("bf16", "fp32"):
        return values.astype(np.uint32) << 16
    assert (str(of), str(to)) == ("fp32", "bf16")
    return torch.tensor(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


@contextmanager
def interpreting() -> Iterator[None]:
    """Let CPU tensors be those of a GPU, whose kernels are interpreted.

    Triton asks for this variable where a kernel is made, so that other tests of the process go on as before.
    """
    require_interpreter()
    # NumPy, which interprets, warns of what a kernel computes silently.
    with (
        mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1"}),
        mock.patch.object(gpu, "DEVICES", {"cpu"}),
        mock.patch("triton.runtime.interpreter._convert_float", _convert),
        np.errstate(all="ignore"),
    ):
        yield
