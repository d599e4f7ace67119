"""What a user's loss function has returned."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["scalar"]


def scalar(loss: Any, of: str) -> Tensor:
    """Return the loss of a batch of the problem `of`. Raises `ValueError` where it is no tensor, or one with a shape."""
    if isinstance(loss, Tensor) and not loss.dim():
        return loss
    found = f"has the shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"is of type {type(loss).__name__}"
    raise ValueError(
        f"the loss of {of} {found}; allowed is a tensor without dimensions, the mean over the examples of a batch"
    )
