"""A warning where a rule that needs the gradient of the full batch seems to get that of mini-batches."""

from __future__ import annotations

import warnings
from typing import Any, Final

import torch

from .. import rules
from .elements import plain
from .optimizer import optimizer
from .storing import load

__all__ = ["DeltaBarDelta"]

_STEPS: Final = 50
"""Steps that are looked at together."""
_SHARE: Final = 0.4
"""The share of rates that shrink above which it warns: on digits, full batches stay below 0.33, and noise has 0.5."""
_SAMPLE: Final = 1024
"""Elements of a parameter that are looked at."""

_Base: Any = optimizer(rules.delta_bar_delta)


class DeltaBarDelta(_Base):  # type: ignore[misc]  # a class made at run time
    """Warns, once, where over 50 steps on the CPU more than 40 % of the rates shrink, as they do on mini-batches."""

    __module__ = "steprule.torch"

    _rates: list[torch.Tensor] | None = None
    _shares: list[float] | None = None

    @torch.no_grad()
    def _stepped(self) -> None:
        """Look at the rates, on the host, and at how many have shrunk."""
        stepped = [each for group in self.param_groups for each in group["params"] if _looked_at(each, self.state)]
        if not stepped or len(self._shares or []) >= _STEPS:
            return
        rates = [_sample(load(self.state[each], "rate", self.rule)).clone() for each in stepped]
        before, self._rates = self._rates, rates
        if before is None or [len(each) for each in before] != [len(each) for each in rates]:
            return
        shrunk = sum(int((new < old).sum()) for new, old in zip(rates, before, strict=True))
        moved = sum(int((_sample(each.grad) != 0).sum()) for each in stepped)
        self._shares = [*(self._shares or []), shrunk / max(moved, 1)]
        share = sum(self._shares) / len(self._shares)
        if len(self._shares) == _STEPS and share <= _SHARE:
            self._shares = None
        elif len(self._shares) == _STEPS:
            warnings.warn(
                f"over {_STEPS} steps, {share:.0%} of the rates of delta-bar-delta shrink at each step, as they do on "
                "mini-batches, whose noise turns the gradient's sign; it needs the gradient of the full batch",
                UserWarning,
                stacklevel=3,
            )


DeltaBarDelta.__doc__ = f"{_Base.__doc__}\n\n{DeltaBarDelta.__doc__}"


def _looked_at(parameter: torch.Tensor, state: Any) -> bool:
    grad = parameter.grad
    dense = grad is not None and grad.layout is torch.strided and not grad.is_complex() and grad.device.type == "cpu"
    return dense and "rate" in state.get(parameter, {})


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    return plain(tensor).reshape(-1)[:_SAMPLE]
