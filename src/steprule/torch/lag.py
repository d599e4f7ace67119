"""Rows that are behind: those that a sparse gradient has not named, and that a dense step would have scaled.

What they have missed is made up for as one power when they are touched, read (`RuleOptimizer.watch`), or when the whole
state is asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import torch
from torch import Tensor, nn

from .compiled import outside_compiled_code
from .launch import real_of

__all__ = ["Lag", "Lags", "multiplied"]

_BLOCK: Final = 1 << 18
"""Elements that are scaled at a time: few enough to stay in the cache."""
_TABULATED: Final = 1 << 18
"""The most numbers of missed steps whose factors are kept in a table.

Looking a factor up takes a seventh of the time of computing it.
"""


class Lag:
    """One parameter and its slots, by name, with the factor by which a step without gradient scales a row of each.

    A name that is not in `scales` stays as it is in such a step.
    """

    def __init__(self, arrays: Mapping[str, Tensor], scales: Mapping[str, float]) -> None:
        self.scales: Final = dict(scales)
        self._arrays: Final = {name: arrays[name] for name in scales}
        self._places: Final = {name: _place(tensor) for name, tensor in self._arrays.items()}
        real = real_of(next(iter(self._arrays.values())).dtype)
        self._powers: Final = {scale: _Powers(scale, real) for scale in set(scales.values())}
        self._steps = 0
        self._steps_of_row: Final = np.zeros(len(next(iter(arrays.values()))), np.int64)

    def is_of(self, arrays: Mapping[str, Tensor]) -> bool:
        """Whether it is the lag of `arrays`, and all lie where they were."""
        return all(arrays[name] is tensor for name, tensor in self._arrays.items()) and self.is_in_place()

    def is_in_place(self) -> bool:
        """Whether its arrays lie where they were."""
        return all(_place(tensor) == self._places[name] for name, tensor in self._arrays.items())

    def behind(self) -> bool:
        """Whether some row is."""
        return bool((self._steps_of_row != self._steps).any())

    def factors(self, rows: NDArray[np.int64] | slice) -> dict[str, NDArray[Any]]:
        """Return for each array that is scaled two factors for each of `rows`, whose product makes up for what it missed.

        (rows, 2), float64 for an array of float64, else float32.
        """
        missed = self._steps - self._steps_of_row[rows]
        made = {scale: powers.of(missed) for scale, powers in self._powers.items()}
        return {name: made[scale] for name, scale in self.scales.items()}

    def stepped(self, rows: NDArray[np.int64]) -> None:
        """Count a step, and that `rows` have made it and all before it."""
        self._steps += 1
        self._steps_of_row[rows] = self._steps

    @torch.no_grad()
    def catch_up_rows(self, rows: NDArray[np.int64]) -> None:
        """Bring the distinct `rows` up to date."""
        rows = rows[self._steps_of_row[rows] != self._steps]
        if not len(rows):
            return
        for name, factors in self.factors(rows).items():
            # `.data`, since what autograd has saved of a forward pass are rows that were up to date, and those stay.
            array = self._arrays[name].data
            places = torch.from_numpy(rows).to(array.device)
            scaled = multiplied(array.index_select(0, places), factors)
            array.index_copy_(0, places, scaled)
        self._steps_of_row[rows] = self._steps

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring every row up to date: a pass over all of the memory."""
        if not self.behind():
            return
        rows = len(self._steps_of_row)
        width = max(max(tensor.numel() for tensor in self._arrays.values()) // max(rows, 1), 1)
        block = max(_BLOCK // width, 1)
        for first in range(0, rows, block):
            some = slice(first, first + block)
            for name, factors in self.factors(some).items():
                multiplied(self._arrays[name][some], factors)
        self._steps_of_row[:] = self._steps


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    """Return where a tensor lies, and its sizes: one that has lost rows may begin where it did."""
    return tensor.data_ptr(), tensor.shape


class _Powers:
    """The two factors of a scale for each number of missed steps: looked up, in a table that grows as rows fall behind."""

    def __init__(self, scale: float, real: str) -> None:
        self._scale, self._real = scale, real
        self._table = _factors(scale, np.arange(64), real)

    def of(self, missed: NDArray[np.int64]) -> NDArray[Any]:
        """Return `_factors` of `missed`."""
        most = int(missed.max(initial=0))
        while most >= len(self._table) < _TABULATED and not self._vanish():
            self._table = _factors(self._scale, np.arange(2 * len(self._table)), self._real)
        if most < len(self._table):
            return np.take(self._table, missed, axis=0)
        if self._vanish():
            return np.take(self._table, missed, axis=0, mode="clip")
        return _factors(self._scale, missed, self._real)

    def _vanish(self) -> bool:
        """Whether the last factors are 0, as all that follow are then."""
        return not self._table[-1].any()


def _factors(scale: float, missed: NDArray[np.int64], real: str) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        powers = np.power(np.float64(scale), missed)
        made = np.ones((len(missed), 2), real)
        made[:, 0] = powers
        # Below the smallest normal number, a power has lost its digits; its two halves have not.
        small = np.flatnonzero(np.abs(powers) < np.finfo(real).tiny)
        if len(small):
            half = missed[small] // 2
            made[small] = np.power(np.float64(scale), np.stack([half, missed[small] - half], axis=1))
    return made


def multiplied(rows: Tensor, factors: NDArray[Any]) -> Tensor:
    """Multiply each of `rows` by its two factors, in place, and return it."""
    for each in np.ascontiguousarray(factors.T):
        if (each != 1).any():
            rows.mul_(torch.from_numpy(each).to(rows.device).view(-1, *[1] * (rows.dim() - 1)))
    return rows


class Lags:
    """The lags of an optimizer's parameters, and the modules that catch up what they read."""

    def __init__(self) -> None:
        self._of: Final[dict[Tensor, Lag]] = {}
        self._watched: Final[weakref.WeakSet[nn.Module]] = weakref.WeakSet()

    def of(self, arrays: Mapping[str, Tensor], scales: Mapping[str, float]) -> Lag | None:
        """Return the lag of the parameter `arrays["x"]` and its slots, up to date under other `scales` than before.

        None where nothing is scaled.
        """
        parameter = arrays["x"]
        if parameter in self._of and self._of[parameter].scales != scales:
            self.settle(parameter)
        if scales and parameter not in self._of:
            self._of[parameter] = Lag(arrays, scales)
        return self._of.get(parameter)

    def check(self, arrays: Mapping[str, Tensor], *, fresh: bool) -> None:
        """Take `arrays` for those of the parameter `arrays["x"]`; `fresh` says that its slots were just made.

        Raises `RuntimeError` where others were in their place while they were behind, as `_get` does.
        """
        parameter = arrays["x"]
        lag = self._get(parameter)
        if lag is None or lag.is_of(arrays):
            return
        del self._of[parameter]
        if fresh:
            lag.catch_up()
        elif lag.behind():
            raise _replaced(parameter)

    def _get(self, parameter: Tensor) -> Lag | None:
        """Return the lag of the parameter.

        Raises `RuntimeError` where its memory was replaced while it was behind: nobody can tell whether it was by what is
        up to date. It is taken as it is from then on.
        """
        lag = self._of.get(parameter)
        if lag is None or lag.is_in_place():
            return lag
        del self._of[parameter]
        if lag.behind():
            raise _replaced(parameter)
        return None

    def settle(self, parameter: Tensor) -> None:
        """Bring the parameter and its slots up to date and forget that they ever were behind."""
        lag = self._get(parameter)
        if lag is not None:
            lag.catch_up()
            del self._of[parameter]

    def settle_all(self) -> None:
        for parameter in list(self._of):
            self.settle(parameter)

    def watch(self, module: nn.Module) -> int:
        """Have each embedding in `module` catch up the rows that it is about to read; return how many there are."""
        found = [each for each in module.modules() if isinstance(each, (nn.Embedding, nn.EmbeddingBag))]
        for each in found:
            if each not in self._watched:
                self._watched.add(each)
                hook = _Hook(self)
                each.register_forward_pre_hook(hook.before_forward, with_kwargs=True)
                each.register_state_dict_pre_hook(hook.before_state)  # type: ignore[no-untyped-call]
                each.register_load_state_dict_pre_hook(hook.before_state)  # type: ignore[no-untyped-call]
        return len(found)

    def watches(self, parameter: Tensor) -> bool:
        return any(module.weight is parameter for module in self._watched)

    def catch_up(self, parameter: Tensor | None = None) -> None:
        """Bring the parameter and its slots up to date; all parameters, if none is named."""
        for each in list(self._of) if parameter is None else [parameter]:
            lag = self._get(each)
            if lag is not None:
                lag.catch_up()

    def catch_up_rows(self, parameter: Tensor, rows: Tensor) -> None:
        """Bring the rows whose numbers are in `rows`, an integer tensor of any shape, up to date."""
        lag = self._get(parameter)
        if lag is not None:
            distinct = np.unique(rows.detach().cpu().numpy())
            # What is out of range, the forward pass refuses in its own words.
            lag.catch_up_rows(distinct[(distinct >= 0) & (distinct < len(parameter))])


def _replaced(parameter: Tensor) -> RuntimeError:
    return RuntimeError(
        f"the memory of a parameter of shape {tuple(parameter.shape)} or of its state was replaced while some of its rows "
        "were behind; call optimizer.catch_up() before that"
    )


class _Hook:
    """What a watched module calls. A copy of the module has other parameters, and its hook does nothing."""

    def __init__(self, lags: Lags | None = None) -> None:
        self._lags: Final = (lambda: None) if lags is None else weakref.ref(lags)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()

    @outside_compiled_code
    def before_forward(self, module: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        lags, rows = self._lags(), args[0] if args else named.get("input")
        if lags is not None and isinstance(rows, Tensor):
            lags.catch_up_rows(module.weight, rows)

    def before_state(self, module: Any, *_: Any) -> None:
        lags = self._lags()
        if lags is not None:
            lags.catch_up(module.weight)
