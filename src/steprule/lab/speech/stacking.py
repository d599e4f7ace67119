"""Frames with those around them, put together where a net needs them: 26 copies of a corpus would fill the memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor, nn

__all__ = ["BEFORE", "STACKED", "Stack", "padded"]

STACKED = 26
"""Frames in an input (Zeiler 2012, 4.4)."""
BEFORE = 12
"""Of them, those before the frame that is classified. The paper does not say where in the 26 it is."""


class Stack(nn.Module):
    """Turns numbers of rows (N,), int64, into the rows from each on, `count` of them, as one vector: (N, count * width).

    `rows` (R, width) lie in one piece of memory, so that a stack is a view of them and a batch is one gather. They are no
    part of the module's state: a checkpoint has the net alone.
    """

    rows: Tensor

    def __init__(self, rows: Tensor, count: int = STACKED) -> None:
        super().__init__()
        self.register_buffer("rows", rows.contiguous(), persistent=False)
        self.count = count

    def forward(self, first: Tensor) -> Tensor:
        height, width = self.rows.shape
        stacks = self.rows.as_strided((height - self.count + 1, self.count * width), (width, 1))
        return stacks.index_select(0, first)


def padded(utterances: Sequence[NDArray[np.float32]]) -> tuple[Tensor, list[Tensor]]:
    """Return the frames of all utterances as rows, and for each utterance the first row of every frame's stack.

    The first and the last frame of an utterance are repeated, so that no stack reaches into another utterance.
    """
    rows, firsts, start = [], [], 0
    for each in utterances:
        rows.append(np.pad(each, ((BEFORE, STACKED - 1 - BEFORE), (0, 0)), "edge"))
        firsts.append(torch.arange(start, start + len(each)))
        start += len(rows[-1])
    return torch.from_numpy(np.concatenate(rows)), firsts
