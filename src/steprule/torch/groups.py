"""What a parameter group asks for, and whether it still asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

import torch

from ..around import Around
from ..specification import Hyperparameter, Range
from . import gpu, storing
from .identity import same
from .keywords import Keywords
from .storing import Storing

__all__ = ["Group"]

# The options of a group on which the form of its parameters' steps depends.
_DECIDING: Final = (*storing.OPTIONS, "capturable", "sparse")
_NUMBERS: Final = (float, np.float64)
_FIXED: Final = (*_NUMBERS, int, bool, str, type(None), torch.dtype)
_SCALE: Final = Hyperparameter("grad_scale", Range(), None)
"""What `GradScaler` asks for, a new object at each step."""
_ELSEWHERE: Final = ("params", "param_names")
"""What of a group no step's form depends on; the plan looks at the parameters."""
_NO_NUMBER: Final = (TypeError, ValueError, RuntimeError)
"""What `float` raises of what is no number; of a tensor of several, PyTorch raises a `RuntimeError`."""


class Group:
    """A parameter group's hyperparameters, as floats, and the form of step that they ask for."""

    def __init__(self, group: Mapping[str, Any], keywords: Keywords, scale: float | None, differentiable: bool) -> None:
        self._keywords: Final = keywords
        self._differentiable: Final = differentiable
        self.capturable: Final = bool(group["capturable"])
        self.raises: Final = group["on_nonfinite"] == "raise"
        self.lazy: Final = group["sparse"] == "lazy"
        self.storing: Final = Storing.of(keywords.rule, group)
        self.around, self.values = self._form_and_values(group, scale)
        self._options: Final = _options(group)
        self._numbers: tuple[Any, ...] | None = self._floats(group, scale)
        self._noted = self._note(group, scale)
        self._changed = True

    def _form_and_values(self, group: Mapping[str, Any], scale: float | None) -> tuple[Around, dict[str, Any]]:
        form, values = self._keywords.form_and_values(group, scale)
        return self._keywords.with_tensors(group, form, values) if self._differentiable else (form, values)

    def _floats(self, group: Mapping[str, Any], scale: float | None) -> tuple[Any, ...]:
        """Return what of a group is numbers, to be compared with what it was."""
        if self._differentiable:
            return (scale,)  # a tensor in the graph may be another one of the same value
        found = list(self._keywords.watched(group))
        if self.capturable:
            # To read a tensor on a device would be to wait for it.
            found = [id(each) if gpu.is_live(each) else each for each in found]
        try:
            return (scale, *map(float, found))
        except _NO_NUMBER:
            return (scale, *map(_number, found))

    def follows(self, group: Mapping[str, Any], scale: float | None) -> bool:
        """Take over the group's present values; return whether the form of the step is the same as before."""
        if self._noted is not None:
            parts = _parts(group, scale)
            if same(parts, self._noted) or self._takes_numbers(parts, self._noted):
                return True
        if not self._takes_over(group, scale):
            return False
        self._noted = self._note(group, scale)
        return True

    def _note(self, group: Mapping[str, Any], scale: float | None) -> list[Any] | None:
        """Return what the group consists of, if it asks for the same as long as that is so."""
        deciding = (value for name, value in group.items() if name not in _ELSEWHERE)
        return None if self._differentiable or not all(map(_is_fixed, deciding)) else _parts(group, scale)

    def _takes_numbers(self, parts: list[Any], noted: list[Any]) -> bool:
        """Take over what is not as it was noted, as schedulers change it in each step, if that is valid numbers and no more.

        Otherwise nothing is taken over, and the long way says what is wrong.
        """
        half = len(parts) // 2
        if parts[:half] != noted[:half]:
            return False
        values = dict(self.values)
        for name, value, before in zip(parts[:half], parts[half:], noted[half:], strict=True):
            if value is before:
                continue
            declared = self._keywords.adjustable.get(name, ()) if name is not None else (_SCALE,)
            numbers = (value,) if len(declared) == 1 else value
            if before is None or not declared or type(numbers) is not tuple or len(numbers) != len(declared):
                return False
            for each, number in zip(declared, numbers, strict=True):
                if type(number) not in _NUMBERS or number not in each.range:
                    return False
                values[each.name] = float(number)
        self.values, self._noted, self._numbers, self._changed = values, parts, None, True
        return True

    def _takes_over(self, group: Mapping[str, Any], scale: float | None) -> bool:
        if _options(group) != self._options:
            return False
        numbers = self._floats(group, scale)
        if numbers == self._numbers and not self._differentiable and self._keywords.foreign.isdisjoint(group):
            return True
        form, self.values = self._form_and_values(group, scale)
        self._numbers, self._changed = numbers, True
        return form == self.around

    def taken_over(self) -> bool:
        """Return whether the values are new since this was last asked."""
        changed, self._changed = self._changed, False
        return changed


def _options(group: Mapping[str, Any]) -> list[Any]:
    """Return the options that decide a step, to be compared with what they were."""
    # A mapping may be changed in place.
    return [dict(option) if isinstance(option, Mapping) else option for option in map(group.get, _DECIDING)]


def _parts(group: Mapping[str, Any], scale: float | None) -> list[Any]:
    """Return the names of what a group consists of, None for the scale, and then what stands under them."""
    return [*group, None, *group.values(), scale]


def _is_fixed(value: Any) -> bool:
    """Whether `value` stays as it is as long as it is the same object."""
    return type(value) in _FIXED or (type(value) is tuple and all(map(_is_fixed, value)))


def _number(value: Any) -> float:
    """Return a number that is another where `value` is; of what is none, the check of the values tells."""
    try:
        return float(value)
    except _NO_NUMBER:
        return hash(repr(value))
