"""The source of the fused loop on the CPU, for Numba, from a rule's program.

A dense step walks the elements of a chunk, by blocks where an array has a scale for each; a step by a sparse gradient walks
the rows that it names. Both have the program's lines in their innermost loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from .. import notation
from ..program import Program, assignments, expression
from .chunks import CHUNK_FIELDS
from .codecs import BLOCK, FUNCTIONS
from .elements import Elements
from .source import name_values, remarks

__all__ = ["row_source", "source"]


_AHEAD: Final = 4
"""How many rows ahead memory is asked for: rows lie anywhere, and the processor cannot guess which is next."""
_FETCHED: Final = 256
"""Bytes of each row that are asked for; those that follow, the processor guesses."""

_HEADER: Final = '''"""One {real} step of {title}, made by steprule: {bytes} bytes, {operations} operations per element."""

from math import sqrt

from numba import cfunc, {real}, njit

from steprule.kernels.native import {native}
{coding}
ZERO, ONE = {real}(0), {real}(1)
{helpers}

@cfunc("void(intp)", error_model="numpy")
def step(launch):
    fields = int64_at(launch)
    claimed = int64_at(fields[0])
    chunks = int64_at(fields[1])
    pointers = int64_at(fields[3])
    rows = int64_at(fields[4])
    scalars = {real}_at(fields[5])
    keys = int64_at(fields[6])
    flags = int64_at(fields[7])
    before = flush_subnormals()
    while True:
        chunk = claim(claimed)
        if chunk >= fields[2]:
            break
        place = {chunk_fields} * chunk
        tensor, first, size = chunks[place], chunks[place + 1], chunks[place + 2]
        row, key = {scalars} * rows[tensor], keys[tensor]
        arrays = {arrays} * tensor
'''

_FOOTER: Final = """    restore_subnormals(before)
"""

# Written out so that NaN goes through as in NumPy and nothing is promoted to float64.
_HELPERS: Final = {
    "sign": "def sign(v):\n    return ONE if v > ZERO else (-ONE if v < ZERO else v)",
    "maximum": "def maximum(a, b):\n    return a if a > b or a != a else b",
    "minimum": "def minimum(a, b):\n    return a if a < b or a != a else b",
    "where": "def where(condition, a, b):\n    return a if condition else b",
}

# What a generated module imports of `native`, which loads Numba; a kernel that is found compiled does without.
_NATIVE: Final = (
    *("claim", "float32_at", "float64_at", "flush_subnormals", "int64_at", "prefetch", "restore_subnormals"),
    *("uint8_at", "uint16_at"),
)

# Every name that a generated module uses for itself.
_TAKEN: Final = frozenset(re.findall(r"[A-Za-z_]\w*", _HEADER + _FOOTER + "".join(_HELPERS.values()))) | {
    *("i", "range", "min", "abs", "float32", "float64", *notation.__all__, *FUNCTIONS, *_NATIVE),
    *("k", "numbers", "here", "soon", "line", "begin", "count", "bad", "copy", "copy_at"),
}

# What belongs to an array `a` is called `a_at`, and so on.
_SUFFIXES: Final = (
    "",
    "_at",
    "_new",
    "_most",
    "_scale",
    "_scale_at",
    "_base",
    "_per_least",
    "_random",
    "_draw",
    "_by",
    "_by_1",
    "_by_2",
)


def source(program: Program, elements: Elements | str) -> str:
    """Return the kernel of `program` for such `elements` ("float32" and "float64" stand for nothing but such), as Python.

    Its function `step` takes the address of a launch (see `chunks.LAUNCH_FIELDS`): the counter that threads share, the
    chunks, one row of addresses per tensor (those of `elements.columns(program)` in order), each tensor's row of scalars,
    those rows, and each tensor's key of random numbers. Every thread that calls it claims chunks until none is left.
    """
    elements = _elements(elements)
    names, called = name_values(program, _TAKEN, _SUFFIXES)
    columns = elements.columns(program)
    arrays = _arrays(elements, columns, called)
    if elements.scales(program):
        # The numbers of a block must all be known before the first of them can be stored.
        loop = [*arrays, *_block(program, elements, names, called)]
        lines = [f"{called[name]}_new = scratch()" for name in _encoded(program, elements)]
        lines += [f"for begin in range(first, first + size, {BLOCK}):"]
        lines += [f"    {line}" for line in (f"count = min({BLOCK}, first + size - begin)", *loop)]
    else:
        lines = ["begin, count = first, size", *arrays, *_loop(program, elements, names, called)]
    return _module(program, elements, len(columns), names, lines)


def row_source(program: Program, real: str, scaled: Sequence[str]) -> str:
    """Return the kernel of `source(program, real)` for some rows of each tensor, those that a sparse gradient names.

    `scaled` are the arrays of which each row is multiplied by two factors of its own before the step. A chunk counts rows of
    the gradient; a tensor's row of addresses goes on, behind those of `program.arrays`, with the number of elements of a
    row, the address of the rows' numbers (int64), and for each of `scaled` that of the rows' pairs of factors.
    """
    elements, itemsize = Elements(real), np.dtype(real).itemsize
    names, called = name_values(program, _TAKEN, _SUFFIXES)
    arrays = len(program.arrays)
    size = f"{itemsize} * count"
    lines = [f"count = pointers[arrays + {arrays}]", f"numbers = int64_at(pointers[arrays + {arrays + 1}])"]
    for index, name in enumerate(scaled, arrays + 2):
        lines.append(f"{called[name]}_by = {real}_at(pointers[arrays + {index}])")
    walk = [f"here = {size} * numbers[k]", f"soon = {size} * numbers[min(k + {_AHEAD}, first + size - 1)]"]
    walk += [f"for line in range(0, min({size}, {_FETCHED}), 64):"]
    for index, name in enumerate(program.arrays):
        if name != "g":
            walk.append(f"    prefetch(pointers[arrays + {index}] + soon + line)")
    for index, name in enumerate(program.arrays):
        place = f"{size} * k" if name == "g" else "here"
        walk.append(f"{called[name]}_at = {real}_at(pointers[arrays + {index}] + {place})")
    for name in scaled:
        by = f"{called[name]}_by"
        walk.append(f"{by}_1, {by}_2 = {by}[2 * k], {by}[2 * k + 1]")
    loads = {name: f"{called[name]}_at[i] * {called[name]}_by_1 * {called[name]}_by_2" for name in scaled}
    walk += _loop(program, elements, names, called, loads)
    lines += ["for k in range(first, first + size):", *(f"    {line}" for line in walk)]
    return _module(program, elements, arrays + 2 + len(scaled), names, lines)


def _module(program: Program, elements: Elements, columns: int, names: Mapping[int, str], chunk: Sequence[str]) -> str:
    """Return a kernel whose table of addresses has `columns`, and which does the lines `chunk` with each chunk."""
    scalars = [
        f"{names[id(scalar)]} = scalars[row + {index}]{remark}"
        for index, (scalar, remark) in enumerate(zip(program.scalars, remarks(program), strict=True))
    ]
    text = "".join(f"        {line}\n" for line in (*scalars, *chunk)) + _FOOTER

    def called(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if re.search(rf"\b{name}\(", text))

    used = called(FUNCTIONS)
    header = _HEADER.format(
        real=elements.real,
        title=program.title,
        bytes=f"{elements.bytes_per_element(program):g}",
        operations=program.operations,
        helpers="".join(f"\n\n@njit\n{_HELPERS[name]}\n" for name in called(_HELPERS)),
        native=", ".join(sorted({"claim", "flush_subnormals", "int64_at", f"{elements.real}_at", *called(_NATIVE)})),
        coding=f"from steprule.kernels.coding import {', '.join(used)}\n" if used else "",
        chunk_fields=len(CHUNK_FIELDS),
        scalars=len(program.scalars),
        arrays=columns,
    )
    return header + text


def _elements(elements: Elements | str) -> Elements:
    return Elements(elements) if isinstance(elements, str) else elements


def _arrays(elements: Elements, columns: Sequence[str], called: Mapping[str, str]) -> list[str]:
    """Return the lines that point to the elements from `begin` on, and to the block's scales."""
    lines = []
    for index, name in enumerate(columns):
        if name not in called and name != "copy":
            scaled = called[name.removesuffix("_scale")]
            lines.append(f"{scaled}_scale_at = float32_at(pointers[arrays + {index}] + 4 * (begin // {BLOCK}))")
            continue
        storage = elements.storage(name)
        holds = storage.holds if storage else elements.real
        place = f"pointers[arrays + {index}] + {np.dtype(holds).itemsize} * begin"
        lines.append(f"{called.get(name, name)}_at = {holds}_at({place})")
    return lines


def _reads(
    program: Program, elements: Elements, called: Mapping[str, str], loads: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return the lines that read one element of each input; `loads` says how, where that is not only from its array."""
    lines = []
    for name in program.inputs:
        storage, mine = elements.storage(name), called[name]
        read = loads.get(name, f"{mine}_at[i]")
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
    random = f", {_noise(elements, program, called, name)}" if storage.random else ""
    return f"{called.get(name, name)}_at[i] = {storage.encode}({elements.real}({value}){random})"


def _noise(elements: Elements, program: Program, called: Mapping[str, str], name: str) -> str:
    """Return the call that makes 32 random bits for an element of an array; the compiler makes them once for each two."""
    bits = f"noise({_draw(elements, program, called, name)})"
    return f"turned({bits})" if elements.random(program).index(name) % 2 else bits


def _draw(elements: Elements, program: Program, called: Mapping[str, str], name: str) -> str:
    """Return the name of what the random bits of an array, and those of the one before or after it, are made of."""
    random = elements.random(program)
    return f"{called[random[random.index(name) // 2 * 2]]}_draw"


def _drawing(
    elements: Elements, program: Program, called: Mapping[str, str], names: Iterable[str], body: Sequence[str]
) -> list[str]:
    """Return the loop of `body` over the elements, and what the random bits of the arrays `names` need around it."""
    random = elements.random(program)
    draws = {_draw(elements, program, called, name): random.index(name) // 2 for name in names if name in random}
    starts = [f"{draw} = first_draw(begin, key + {number})" for draw, number in draws.items()]
    goes_on = [f"{draw} = next_draw({draw})" for draw in draws]
    return [*starts, "for i in range(count):", *(f"    {line}" for line in (*body, *goes_on))]


def _loop(
    program: Program,
    elements: Elements,
    names: Mapping[int, str],
    called: Mapping[str, str],
    loads: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return the loop over elements; the new numbers of an array with scales go to where `_block` finds them."""
    body = _reads(program, elements, called, loads) + assignments(program.line_values(), names)
    scaled = elements.scales(program)
    for name, value in program.outputs.items():
        mine = called[name]
        if name in scaled:
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
    stored = [name for name in program.outputs if name not in scaled]
    return [*before, *_drawing(elements, program, called, stored, body), *after]


def _encoded(program: Program, elements: Elements) -> list[str]:
    """Return the arrays with scales that a step writes; one that it only reads keeps its codes."""
    return [name for name in elements.scales(program) if name in program.outputs]


def _block(program: Program, elements: Elements, names: Mapping[int, str], called: Mapping[str, str]) -> list[str]:
    """Return the step of one block, and then the encoding of the arrays that have scales."""
    before, after, encoded = [], [], []
    for name in elements.scales(program):
        mine, storage = called[name], elements.storage(name)
        assert storage is not None
        before += [
            f"{mine}_scale = {mine}_scale_at[0]",
            f"{mine}_base = int8_base({mine}_scale, {storage.exponents})",
        ]
    written = _encoded(program, elements)
    for name in written:
        mine, storage = called[name], elements.storage(name)
        assert storage is not None
        before.append(f"{mine}_most = magnitude(ZERO)")
        after += [
            f"{mine}_scale = int8_scale({mine}_most)",
            f"{mine}_scale_at[0] = {mine}_scale",
            f"{mine}_base = int8_base({mine}_scale, {storage.exponents})",
            f"{mine}_per_least = int8_per_least({mine}_base)",
        ]
        encoded += [
            f"{mine}_random = {_noise(elements, program, called, name)}",
            f"{mine}_at[i] = to_int8({mine}_new[i], {mine}_base, {mine}_per_least, {mine}_random, {storage.exponents})",
        ]
    encoding = _drawing(elements, program, called, written, encoded) if written else []
    return [*before, *_loop(program, elements, names, called), *after, *encoding]
