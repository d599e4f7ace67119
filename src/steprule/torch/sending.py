"""What a device reads of the host: sent ahead of the work, from pinned memory, and for each CUDA graph a copy of its own."""

from __future__ import annotations

from typing import Any, Final

from numpy.typing import NDArray

import torch
from torch import Tensor

__all__ = ["CAPTURED", "Sent"]

CAPTURED: Final[list[object]] = []
"""Memory that a graph reads at each replay; nothing tells when a graph is gone."""


class Sent:
    """An array of the host's that the device has a copy of, at one address for good."""

    def __init__(self, values: NDArray[Any], device: torch.device) -> None:
        self._all: Final = torch.empty(values.shape, dtype=torch.from_numpy(values).dtype, device=device)
        self.there = self._all
        """The copy, of as many rows as were sent last."""
        self._spare: tuple[Tensor, Tensor] | None = None
        self.send(values)

    def send(self, values: NDArray[Any]) -> None:
        """Copy `values`, all rows or fewer, there in the order of the device's work; the caller may change them at once."""
        self.there = self._all[: len(values)]
        # PyTorch gives pinned memory out again only when the copy is done.
        self.there.copy_(self._here().copy_(torch.from_numpy(values)), non_blocking=True)

    def _here(self) -> Tensor:
        there = self.there
        return torch.empty(there.shape, dtype=there.dtype, pin_memory=there.device.type != "cpu")

    def await_capture(self) -> None:
        """Make ready what the next graph's copy takes: memory cannot be pinned in a capture everywhere."""
        if self._spare is None:
            self._spare = self._here(), torch.empty_like(self.there)

    def in_graph(self, values: NDArray[Any]) -> Tensor:
        """Return a copy of `values` for the graph that is being captured, which makes it again at each replay.

        It is the graph's own: what steps outside of graphs read stays as they have left it.
        """
        self.await_capture()
        assert self._spare is not None
        pinned, own = self._spare
        self._spare = None
        own.copy_(pinned.copy_(torch.from_numpy(values)), non_blocking=True)
        CAPTURED.append((pinned, own))
        return own
