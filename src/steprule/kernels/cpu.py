"""One fused loop on the CPU for any rule: Numba source from the program, and a step over many tensors at once.

All tensors of a step are one launch: a table of their addresses, cut into chunks, which threads claim one by one. A loop
per tensor would lose everything on a net of small tensors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .. import notation
from ..program import Program, expression
from . import codecs, team
from .cache import compiled
from .chunks import chunks
from .codecs import BLOCK, STORAGES, Storage
from .native import CHUNK_FIELDS, LAUNCH_FIELDS
from .source import name_values, remark, value_lines

__all__ = ["CHUNK", "Elements", "Table", "kernel", "launch", "source"]

CHUNK: Final = 16_384
"""Elements per chunk: small enough to share out, large enough that claiming one costs nothing beside it."""

_HEADER: Final = '''"""One {real} step of {title}, made by steprule: {bytes} bytes, {operations} operations per element."""

from math import sqrt

from numba import carray, cfunc, {real}, njit

from steprule.kernels.native import claim, int64_at, {pointers}
{codecs}
ZERO, ONE = {real}(0), {real}(1)
{helpers}

@cfunc("void(intp)", error_model="numpy", cache=CACHE)
def step(launch):
    fields = carray(int64_at(launch), {fields})
    claimed = int64_at(fields[0])
    chunks = carray(int64_at(fields[1]), (fields[2], {chunk_fields}))
    pointers = int64_at(fields[3])
    rows = int64_at(fields[4])
    scalars = {real}_at(fields[5])
    keys = int64_at(fields[6])
    flags = int64_at(fields[7])
    while True:
        chunk = claim(claimed)
        if chunk >= len(chunks):
            break
        tensor, first, size = chunks[chunk]
        row, key = {scalars} * rows[tensor], keys[tensor]
        arrays = {arrays} * tensor
'''

# Written out so that NaN goes through as in NumPy and nothing is promoted to float64.
_HELPERS: Final = {
    "sign": "def sign(v):\n    return ONE if v > ZERO else (-ONE if v < ZERO else v)",
    "maximum": "def maximum(a, b):\n    return a if a > b or a != a else b",
    "minimum": "def minimum(a, b):\n    return a if a < b or a != a else b",
    "where": "def where(condition, a, b):\n    return a if condition else b",
}

# Every name that a generated module uses for itself.
_TAKEN: Final = frozenset(re.findall(r"[A-Za-z_]\w*", _HEADER + "".join(_HELPERS.values()))) | {
    *("i", "range", "min", "abs", "float32", "float64", *notation.__all__, *codecs.FUNCTIONS),
    *("begin", "count", "bad", "copy", "copy_at", "float32_at", "float64_at", "uint16_at", "uint8_at"),
}

# What belongs to an array `a` is called `a_at`, and so on.
_SUFFIXES: Final = ("", "_at", "_new", "_most", "_scale", "_scale_at", "_base", "_per_least", "_random")


@dataclass(frozen=True)
class Elements:
    """What the arrays of a step hold: numbers of type `real`, in which the step is computed, unless `stored` says otherwise.

    `real` is "float32" or "float64". `stored` has pairs of an array and how it is stored, a name of `codecs.STORAGES`.
    `copy`, such a name too, asks for the new parameter to be written a second time, in that form: `x` is then a more exact
    copy of the parameter that a net computes with.
    """

    real: str
    stored: tuple[tuple[str, str], ...] = ()
    copy: str = ""

    def storage(self, name: str) -> Storage | None:
        """Return how the array `name` is stored, None for numbers of type `real`."""
        known = dict(self.stored) | ({"copy": self.copy} if self.copy else {})
        return STORAGES[known[name]] if name in known else None

    def random(self, program: Program) -> tuple[str, ...]:
        """Return the arrays that are rounded at random."""
        return tuple(name for name in self.columns(program) if (storage := self.storage(name)) and storage.random)

    def scales(self, program: Program) -> tuple[str, ...]:
        """Return the arrays whose blocks have a scale."""
        return tuple(name for name in program.arrays if (storage := self.storage(name)) and storage.exponents)

    def columns(self, program: Program) -> tuple[str, ...]:
        """Return the arrays of a launch in the order of its table: a scale's is called as its array, and `_scale`."""
        scales = tuple(f"{name}_scale" for name in self.scales(program))
        return (*program.arrays, *scales, *(("copy",) if self.copy else ()))

    def bytes_per_element(self, program: Program) -> float:
        """Return the bytes that one element's step moves: each input read once, each output written once."""
        itemsize = np.dtype(self.real).itemsize

        def size(name: str) -> float:
            storage = self.storage(name)
            return storage.bytes + (itemsize / BLOCK if storage.exponents else 0) if storage else itemsize

        moved = (*program.inputs, *program.outputs, *(("copy",) if self.copy else ()))
        return sum(map(size, moved))


def source(program: Program, elements: Elements | str) -> str:
    """Return the kernel of `program` for such `elements` ("float32" and "float64" stand for nothing but such), as Python.

    Its function `step` takes the address of a launch (see `native.LAUNCH_FIELDS`): the counter that threads share, the
    chunks, one row of addresses per tensor (those of `elements.columns(program)` in order), each tensor's row of scalars,
    those rows, and each tensor's key of random numbers. Every thread that calls it claims chunks until none is left.
    """
    elements = _elements(elements)
    real = elements.real
    names, called = name_values(program, _TAKEN, _SUFFIXES)
    columns = elements.columns(program)
    lines = [
        f"{names[id(scalar)]} = scalars[row + {index}]{remark(scalar)}" for index, scalar in enumerate(program.scalars)
    ]
    if elements.scales(program):
        # The numbers of a block must all be known before the first of them can be stored.
        loop = [*_arrays(elements, columns, called), *_block(program, elements, names, called)]
        lines += [f"{called[name]}_new = carray(scratch(), {BLOCK})" for name in elements.scales(program)]
        lines += [f"for begin in range(first, first + size, {BLOCK}):"]
        lines += [f"    {line}" for line in (f"count = min({BLOCK}, first + size - begin)", *loop)]
    else:
        lines += ["begin, count = first, size", *_arrays(elements, columns, called)]
        lines += _loop(program, elements, names, called)
    text = "\n".join(f"        {line}" for line in lines) + "\n"
    helpers = [f"\n\n@njit\n{helper}\n" for name, helper in _HELPERS.items() if re.search(rf"\b{name}\(", text)]
    held = {storage.holds for name in columns if (storage := elements.storage(name))} | {real}
    used = sorted(name for name in codecs.FUNCTIONS if re.search(rf"\b{name}\(", text))
    return (
        _HEADER.format(
            real=real,
            title=program.title,
            bytes=f"{elements.bytes_per_element(program):g}",
            operations=program.operations,
            helpers="".join(helpers),
            fields=len(LAUNCH_FIELDS),
            chunk_fields=len(CHUNK_FIELDS),
            scalars=len(program.scalars),
            arrays=len(columns),
            pointers=", ".join(sorted(f"{each}_at" for each in held)),
            codecs=f"from steprule.kernels.codecs import {', '.join(used)}\n" if used else "",
        )
        + text
    )


def _elements(elements: Elements | str) -> Elements:
    return Elements(elements) if isinstance(elements, str) else elements


def _arrays(elements: Elements, columns: Sequence[str], called: Mapping[str, str]) -> list[str]:
    """Return the lines that make arrays of the `count` elements from `begin` on, and of the block's scales."""
    lines = []
    for index, name in enumerate(columns):
        if name not in called and name != "copy":
            scaled = called[name.removesuffix("_scale")]
            lines.append(f"{scaled}_scale_at = float32_at(pointers[arrays + {index}] + 4 * (begin // {BLOCK}))")
            continue
        storage = elements.storage(name)
        holds = storage.holds if storage else elements.real
        place = f"pointers[arrays + {index}] + {np.dtype(holds).itemsize} * begin"
        lines.append(f"{called.get(name, name)}_at = carray({holds}_at({place}), count)")
    return lines


def _reads(program: Program, elements: Elements, called: Mapping[str, str]) -> list[str]:
    """Return the lines that read one element of each input."""
    lines = []
    for name in program.inputs:
        storage, mine = elements.storage(name), called[name]
        read = f"{mine}_at[i]"
        if storage is not None:
            scaled = f", {mine}_scale, {mine}_base, {storage.exponents}" if storage.exponents else ""
            read = f"{storage.decode}({read}{scaled})"
        lines.append(f"{mine} = {read}")
    return lines


def _write(program: Program, elements: Elements, called: Mapping[str, str], name: str, value: str) -> str:
    """Return the line that stores an element of an array that has no scales."""
    storage = elements.storage(name)
    if storage is None:
        return f"{called[name]}_at[i] = {value}"
    random = f", {_noise(elements, program, name)}" if storage.random else ""
    return f"{called.get(name, name)}_at[i] = {storage.encode}({elements.real}({value}){random})"


def _noise(elements: Elements, program: Program, name: str) -> str:
    """Return the call that draws 32 random bits for an element of an array; the compiler draws once for each two of them."""
    number = elements.random(program).index(name)
    draw = f"noise(begin + i, key + {number // 2})"
    return f"turned({draw})" if number % 2 else draw


def _loop(program: Program, elements: Elements, names: dict[int, str], called: Mapping[str, str]) -> list[str]:
    """Return the loop over elements; the new numbers of an array with scales go to where `_block` finds them."""
    body = _reads(program, elements, called) + value_lines(program, names)
    for name, value in program.outputs.items():
        mine = called[name]
        if name in elements.scales(program):
            body.append(f"{mine}_new[i] = {expression(value, names)}")
            body.append(f"{mine}_most = larger({mine}_most, magnitude({mine}_new[i]))")
        else:
            body.append(_write(program, elements, called, name, expression(value, names)))
    if elements.copy:
        body.append(_write(program, elements, called, "copy", f"{called['x']}_at[i]"))
    before, after = [], []
    if program.finite is not None:
        body.append(f"bad += 0 if {names[id(program.finite)]} else 1")
        before, after = ["bad = 0"], ["if bad > 0:", "    flags[tensor] = 1"]
    return [*before, "for i in range(count):", *(f"    {line}" for line in body), *after]


def _block(program: Program, elements: Elements, names: dict[int, str], called: Mapping[str, str]) -> list[str]:
    """Return the step of one block, and then the encoding of the arrays that have scales."""
    before, after, encoded = [], [], []
    for name in elements.scales(program):
        mine, storage = called[name], elements.storage(name)
        assert storage is not None
        before += [
            f"{mine}_scale = {mine}_scale_at[0]",
            f"{mine}_base = int8_base({mine}_scale, {storage.exponents})",
            f"{mine}_most = magnitude(ZERO)",
        ]
        after += [
            f"{mine}_scale = int8_scale({mine}_most)",
            f"{mine}_scale_at[0] = {mine}_scale",
            f"{mine}_base = int8_base({mine}_scale, {storage.exponents})",
            f"{mine}_per_least = int8_per_least({mine}_base)",
        ]
        encoded += [
            f"    {mine}_random = {_noise(elements, program, name)}",
            f"    {mine}_at[i] = to_int8({mine}_new[i], {mine}_base, {mine}_per_least, {mine}_random, {storage.exponents})",
        ]
    return [*before, *_loop(program, elements, names, called), *after, "for i in range(count):", *encoded]


@functools.cache
def kernel(program: Program, elements: Elements | str) -> Any:
    """Return the compiled kernel of `source(program, elements)`, a `team.Work`, from the cache on disk if it is there."""
    return team.Work(compiled(program.title, source(program, elements)))


class Table:
    """The tensors of one launch: their addresses, cut into chunks.

    `pointers` is int64 (tensors, arrays), `sizes` the number of elements of each tensor, all of them dense in memory.
    `rows`, int64 (tensors,), says which row of the scalars each tensor takes; all take row 0 until it is set. `keys`, int64
    (tensors,), begins each tensor's random numbers where its elements are rounded at random. A guarded step sets `flags`,
    int64 (tensors,), to 1 where a gradient is not finite.
    """

    def __init__(self, pointers: NDArray[np.int64], sizes: Sequence[int]) -> None:
        self.pointers: Final = np.ascontiguousarray(pointers, dtype=np.int64)
        self.rows: Final = np.zeros(len(sizes), dtype=np.int64)
        self.keys: Final = np.zeros(len(sizes), dtype=np.int64)
        self.flags: Final = np.zeros(len(sizes), dtype=np.int64)
        self.chunks: Final = chunks(sizes, CHUNK)
        self.elements: Final = sum(sizes)


def launch(run: Any, table: Table, scalars: NDArray[Any], threads: int) -> None:
    """Step every tensor of `table` by the compiled kernel `run`, in place, in at most `threads` threads.

    `scalars`, of the kernel's type and C-contiguous, has a row of `program.fold(...)` for each value in `table.rows`.
    """
    claimed = np.zeros(1, dtype=np.int64)
    addresses = (claimed, table.chunks, len(table.chunks), table.pointers, table.rows, scalars, table.keys, table.flags)
    fields = np.array([each if isinstance(each, int) else each.ctypes.data for each in addresses], dtype=np.int64)
    # To wake a thread takes about as long as a chunk.
    team.run(run, fields.ctypes.data, threads if table.elements > CHUNK else 1)
