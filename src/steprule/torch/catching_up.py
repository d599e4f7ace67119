"""What an optimizer offers to those who read parameters or state while rows may be behind (see `lag`)."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from .compiled import Optimizer
from .lag import Lags

__all__ = ["CatchingUp"]


class CatchingUp(Optimizer):
    """Brings rows that sparse gradients have not named up to date: when asked, on `state_dict`, and before a copy."""

    @functools.cached_property
    def lags(self) -> Lags:
        """The rows that are behind, by parameter."""
        return Lags()

    def catch_up(self) -> None:
        """Bring every row of every parameter and slot to where dense gradients would have brought it.

        To be called before `state`, or a parameter that a step shrinks as a whole, is read or written by hand. It costs a
        pass over the memory of what is behind, and nothing where nothing is.
        """
        self.lags.catch_up()

    def watch(self, module: nn.Module) -> None:
        """Have each `nn.Embedding` and `nn.EmbeddingBag` in `module` catch up the rows that it is about to read.

        Needed where a step shrinks every row of the parameter (weight decay), so that an embedding does not read what the
        dense run would have shrunk. Before the module's own `state_dict` and `load_state_dict`, all rows are caught up.

        Raises `ValueError` where there is none in `module`.
        """
        if not self.lags.watch(module):
            raise ValueError(f"{type(module).__name__} holds no nn.Embedding and no nn.EmbeddingBag to watch")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, caught up: it is that of a run with dense gradients."""
        self.catch_up()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned; parameters are caught up before that."""
        self.lags.settle_all()
        super().load_state_dict(state_dict)
