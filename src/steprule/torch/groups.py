"""What a parameter group asks for, and whether it still asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from ..around import Around
from . import gpu, storing
from .identity import same
from .keywords import Keywords
from .storing import Storing

__all__ = ["Group"]

# The options of a group on which the form of its parameters' steps depends.
_DECIDING: Final = (*storing.OPTIONS, "capturable", "sparse")
_FIXED: Final = (float, int, bool, str, type(None), torch.dtype)
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
        self._seen = self._present(group, scale)
        self._noted = self._note(group, scale)
        self._changed = True

    def _form_and_values(self, group: Mapping[str, Any], scale: float | None) -> tuple[Around, dict[str, Any]]:
        form, values = self._keywords.form_and_values(group, scale)
        return self._keywords.with_tensors(group, form, values) if self._differentiable else (form, values)

    def _present(self, group: Mapping[str, Any], scale: float | None) -> tuple[Any, ...]:
        """Return what of a group decides its step, to be compared with what it was."""
        state_dtype, *options = map(group.get, _DECIDING)
        if isinstance(state_dtype, Mapping):
            state_dtype = dict(state_dtype)  # it may be changed in place
        # A tensor in the graph may be another one of the same value.
        return (state_dtype, *options, scale, *(() if self._differentiable else self._floats(group)))

    def _floats(self, group: Mapping[str, Any]) -> tuple[float, ...]:
        found = list(self._keywords.watched(group))
        if self.capturable:
            # To read a tensor on a device would be to wait for it.
            found = [id(each) if gpu.is_live(each) else each for each in found]
        try:
            return tuple(map(float, found))
        except _NO_NUMBER:
            return tuple(map(_number, found))

    def follows(self, group: Mapping[str, Any], scale: float | None) -> bool:
        """Take over the group's present values; return whether the form of the step is the same as before."""
        if self._noted is not None and same(_parts(group, scale), self._noted):
            return True
        if not self._takes_over(group, scale):
            return False
        self._noted = self._note(group, scale)
        return True

    def _note(self, group: Mapping[str, Any], scale: float | None) -> list[Any] | None:
        """Return what the group consists of, if it asks for the same as long as that is so."""
        deciding = (value for name, value in group.items() if name not in _ELSEWHERE)
        return None if self._differentiable or not all(map(_is_fixed, deciding)) else _parts(group, scale)

    def _takes_over(self, group: Mapping[str, Any], scale: float | None) -> bool:
        present = self._present(group, scale)
        if present == self._seen and not self._differentiable and self._keywords.foreign.isdisjoint(group):
            return True
        if present[: len(_DECIDING)] != self._seen[: len(_DECIDING)]:
            return False
        form, self.values = self._form_and_values(group, scale)
        self._seen, self._changed = present, True
        return form == self.around

    def taken_over(self) -> bool:
        """Return whether the values are new since this was last asked."""
        changed, self._changed = self._changed, False
        return changed


def _parts(group: Mapping[str, Any], scale: float | None) -> list[Any]:
    return [*group, *group.values(), scale]


def _is_fixed(value: Any) -> bool:
    """Whether `value` stays as it is as long as it is the same object."""
    return type(value) in _FIXED or (type(value) is tuple and all(map(_is_fixed, value)))


def _number(value: Any) -> float:
    """Return a number that is another where `value` is; of what is none, the check of the values tells."""
    try:
        return float(value)
    except _NO_NUMBER:
        return hash(repr(value))
