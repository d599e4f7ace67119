"""Whether objects are those that they were, and tensors where they were in memory: hundreds of them in one call.

A step asks this of each parameter, gradient and slot; in Python, to ask takes as long as to step small ones. Machine code
asks it of CPython (`PyList_GetItem`, `PyDict_GetItem`) and of the function that PyTorch's own compiler gives its generated
code to find a tensor's memory by. Without one of these, Python asks.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from torch import Tensor

from ..kernels.machine_code import assembled
from .memory import PLAIN_TYPES

try:
    from torch._C._dynamo import guards
except ImportError:  # it is private to PyTorch, and may go
    guards = None  # type: ignore[assignment]

__all__ = ["Addresses", "Held", "natives", "same"]

_pointer: Final = Tensor.data_ptr
_MEMORY: Final[int] = getattr(guards, "_torchinductor_pyobject_tensor_data_ptr", 0)

# `moved` compares where each tensor of a list lies with what stands in a column, an address every `stride` bytes, where it
# writes it too if it is to `write`; it returns 0 where all are equal.
_MOVED: Final = """
define i64 @moved(i64 %tensors, i64 %column, i64 %stride, i64 %count, i64 %write) {{
entry:
  %writes = icmp ne i64 %write, 0
  %item = inttoptr i64 {item} to i64 (i64, i64)*
  %memory = inttoptr i64 {memory} to i64 (i64)*
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %body]
  %place = phi i64 [%column, %entry], [%behind, %body]
  %new = phi i64 [0, %entry], [%seen, %body]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %body, label %end
body:
  %tensor = call i64 %item(i64 %tensors, i64 %i)
  %now = call i64 %memory(i64 %tensor)
  %at = inttoptr i64 %place to i64*
  %before = load i64, i64* %at
  %stays = select i1 %writes, i64 %now, i64 %before
  store i64 %stays, i64* %at
  %bits = xor i64 %now, %before
  %seen = or i64 %new, %bits
  %next = add i64 %i, 1
  %behind = add i64 %place, %stride
  br label %loop
end:
  ret i64 %new
}}
"""

# Whether what is found for each i is object i of a list: `same` looks in another list, `held` in dict i under name i.
_FOUND: Final = """
define i64 @{symbol}({lists}, i64 %objects, i64 %count) {{
entry:
  %item = inttoptr i64 {item} to i64 (i64, i64)*
  %get = inttoptr i64 {get} to i64 (i64, i64)*
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %body]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %body, label %end
body:
{found}
  %object = call i64 %item(i64 %objects, i64 %i)
  %next = add i64 %i, 1
  %equal = icmp eq i64 %found, %object
  br i1 %equal, label %loop, label %end
end:
  %result = phi i64 [1, %loop], [0, %body]
  ret i64 %result
}}
"""
_SAME: Final = "  %found = call i64 %item(i64 %some, i64 %i)"
_HELD: Final = """\
  %dict = call i64 %item(i64 %dicts, i64 %i)
  %name = call i64 %item(i64 %names, i64 %i)
  %found = call i64 %get(i64 %dict, i64 %name)"""

# Of each tensor of a list: the class, at byte `kind` of the Python object, and `words` numbers from byte `low` on of what
# this points to at byte `target`. They are compared with a row of a table, in the bits that `masks` has for each, and are
# written there too if it is to `write`; `described` returns 0 where all are equal.
_DESCRIBED: Final = """
define i64 @described(
  i64 %tensors, i64 %table, i64 %count, i64 %kind, i64 %target, i64 %low, i64 %words, i64 %masks, i64 %write
) {{
entry:
  %writes = icmp ne i64 %write, 0
  %item = inttoptr i64 {item} to i64 (i64, i64)*
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %done]
  %row = phi i64 [%table, %entry], [%behind, %done]
  %new = phi i64 [0, %entry], [%so_far, %done]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %tensor, label %end
tensor:
  %object = call i64 %item(i64 %tensors, i64 %i)
  %class_at = add i64 %object, %kind
  %class = inttoptr i64 %class_at to i64*
  %target_at = add i64 %object, %target
  %pointer = inttoptr i64 %target_at to i64*
  %inner = load i64, i64* %pointer
  %first = add i64 %inner, %low
  %class_now = load i64, i64* %class
  br label %word
word:
  %j = phi i64 [0, %tensor], [%j_next, %more]
  %now = phi i64 [%class_now, %tensor], [%word_now, %more]
  %place = phi i64 [%row, %tensor], [%place_next, %more]
  %mask_at = phi i64 [%masks, %tensor], [%mask_next, %more]
  %found = phi i64 [%new, %tensor], [%so_far, %more]
  %at = inttoptr i64 %place to i64*
  %before = load i64, i64* %at
  %stays = select i1 %writes, i64 %now, i64 %before
  store i64 %stays, i64* %at
  %mask_pointer = inttoptr i64 %mask_at to i64*
  %mask = load i64, i64* %mask_pointer
  %differing = xor i64 %now, %before
  %bits = and i64 %differing, %mask
  %so_far = or i64 %found, %bits
  %place_next = add i64 %place, 8
  %mask_next = add i64 %mask_at, 8
  %goes_on = icmp slt i64 %j, %words
  br i1 %goes_on, label %more, label %done
more:
  %offset = mul i64 %j, 8
  %word_at = add i64 %first, %offset
  %word_pointer = inttoptr i64 %word_at to i64*
  %word_now = load i64, i64* %word_pointer
  %j_next = add i64 %j, 1
  br label %word
done:
  %behind = add i64 %place, 8
  %next = add i64 %i, 1
  br label %loop
end:
  ret i64 %new
}}
"""

# Each takes lists, and then numbers; a call keeps the interpreter lock.
_FUNCTIONS: Final = {"moved": (1, 4), "same": (2, 1), "held": (3, 1), "described": (1, 8)}


@functools.cache
def natives() -> Mapping[str, Callable[..., int]] | None:
    """Return the machine code of `_FUNCTIONS`, or None where they cannot be had."""
    # Without the interpreter lock, another thread may let go of what a list or dict has just given.
    locked: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    if not _MEMORY or not locked or sys.implementation.name != "cpython" or sys.maxsize < 2**32:
        return None

    def address(name: str) -> int | None:
        return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value

    of_python = {"item": address("PyList_GetItem"), "get": address("PyDict_GetItem")}
    text = _MOVED.format(memory=_MEMORY, **of_python)
    text += _FOUND.format(symbol="same", lists="i64 %some", found=_SAME, **of_python)
    text += _FOUND.format(symbol="held", lists="i64 %dicts, i64 %names", found=_HELD, **of_python)
    text += _DESCRIBED.format(**of_python)
    try:
        start = assembled(text, *_FUNCTIONS)
    except (OSError, RuntimeError):  # a processor or system that LLVM makes no code for
        return None
    return {
        name: ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.py_object] * lists, *[ctypes.c_int64] * numbers)(start[name])
        for name, (lists, numbers) in _FUNCTIONS.items()
    }


def same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    if len(some) != len(others):
        return False
    native = natives()
    if native is None or not type(some) is type(others) is list:
        return all(map(operator.is_, some, others))
    return bool(native["same"](some, others, len(some)))


class Held:
    """What dicts hold under some names, each dict with one name, and again with each of its others."""

    def __init__(self, places: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        self._dicts: Final = [each for each, _ in places]
        self._names: Final = [name for _, name in places]
        self._objects: Final = [each[name] for each, name in places]
        # Another class's way of looking a name up is its own.
        self._native: Final = natives() if all(type(each) is dict for each in self._dicts) else None

    def still(self) -> bool:
        """Whether each dict still holds the same object under the same name."""
        if self._native is not None:
            return bool(self._native["held"](self._dicts, self._names, self._objects, len(self._dicts)))
        missing = object()
        found = (each.get(name, missing) for each, name in zip(self._dicts, self._names, strict=True))
        return all(map(operator.is_, found, self._objects))


class Addresses:
    """Where the memory of tensors begins: `column`, int64 (tensors,) of any stride.

    Which tensors these are may change from call to call, but not how many, and not their `Layout`: whoever calls has seen to
    that. PyTorch's function ends the process where it finds no memory. So the first call goes through Python, where that is
    an error, and the others find tensors of the same classes and dispatch keys.
    """

    def __init__(self, column: NDArray[np.int64]) -> None:
        if column.ndim != 1 or column.dtype != np.int64:
            raise ValueError(f"the column is {column.dtype} {column.shape}; allowed is int64 (tensors,)")
        self._column: Final = column
        self._where: Final = (column.ctypes.data, *column.strides, len(column))
        self._native: Mapping[str, Callable[..., int]] | None = None

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Addresses:
        """Return where these tensors lie now."""
        made = cls(np.zeros(len(tensors), np.int64))
        made.follow(list(tensors))
        return made

    def hold(self, tensors: list[Tensor]) -> bool:
        """Whether each tensor lies where the column says."""
        return not self._moved(tensors, write=False)

    def follow(self, tensors: list[Tensor]) -> bool:
        """Write where the tensors lie into the column; return whether that is new for one of them."""
        return self._moved(tensors, write=True)

    def _moved(self, tensors: list[Tensor], *, write: bool) -> bool:
        if len(tensors) != len(self._column):
            raise ValueError(f"there are {len(tensors)} tensors; allowed are {len(self._column)}")
        if self._native is not None and type(tensors) is list:
            return bool(self._native["moved"](tensors, *self._where, write))
        found = np.array(list(map(_pointer, tensors)), np.int64)
        self._native = natives() if all(type(tensor) in PLAIN_TYPES for tensor in tensors) else None
        moved = not np.array_equal(found, self._column)
        if write:
            self._column[:] = found
        return moved
