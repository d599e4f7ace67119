"""The source of the fused loop on the GPU, for Triton, from a rule's program."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from .. import notation
from ..program import Program, assignments, expression
from ..tracing import with_operands
from .source import Names, name_values, remarks

__all__ = ["TYPES", "columns_of", "real_of", "source", "value_names"]

TYPES: Final[Mapping[str, int]] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""The types that an array may have, and the bytes of an element."""

_HEADER: Final = '''"""One {real} step of {title}, made by steprule: {bytes} bytes, {operations} operations per element."""

import triton
import triton.language as tl
{imports}{helpers}

@triton.jit
def elements(
    {places},
    {shared}size, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):
    i = tl.arange(0, BLOCK)
    inside = None if WHOLE else i < size
{loop}


@triton.jit
def step(pointers, rows, chunks, scalars, BLOCK: tl.constexpr):
    chunk = chunks + 3 * tl.program_id(0).to(tl.int64)
    tensor, first, size = tl.load(chunk), tl.load(chunk + 1), tl.load(chunk + 2)
    row = scalars + {scalars} * tl.load(rows + tensor)
    arrays = pointers + {arrays} * tensor
{lines}
'''

_FOLD: Final = """

@triton.jit
def fold(counts, groups, values, scalars):
    tensor = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + tensor).to(tl.pointer_type(tl.float32))
    counted = tl.load(count) + 1
    tl.store(count, counted)
    row = values + {values} * tl.load(groups + tensor)
    scalars += {scalars} * tensor
{lines}
"""

# Written out so that NaN goes through as in NumPy. A condition that is the same for all elements comes as a number.
_HELPERS: Final = {
    "sign": "def sign(v):\n    return tl.where(v > 0, 1.0, tl.where(v < 0, -1.0, v))",
    "maximum": "def maximum(a, b):\n    return tl.where(a > b, a, tl.where(a != a, a, b))",
    "minimum": "def minimum(a, b):\n    return tl.where(a < b, a, tl.where(a != a, a, b))",
    "where": "def where(condition, a, b):\n    return tl.where(condition != 0, a, b)",
}
_POWER: Final = "from triton.language.extra.libdevice import pow as power\n"

# Triton's `/` and `sqrt` are estimates in float32, and exact in float64, where it has no other.
_FUNCTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "float32": {"divide": "tl.div_rn", "sqrt": "tl.sqrt_rn", "abs": "tl.abs", "power": "power"},
    "float64": {"sqrt": "tl.sqrt", "abs": "tl.abs", "power": "power"},
}

# Every name that a generated module uses for itself.
_TAKEN: Final = frozenset(re.findall(r"[A-Za-z_]\w*", _HEADER + _FOLD + _POWER + "".join(_HELPERS.values()))) | {
    *("copy", "copy_at", "tl", "float", "int", "min", "max", "range", "t", *notation.__all__)
}


def real_of(formats: Mapping[str, str]) -> str:
    """Return the type in which a step over arrays of such types is computed: the parameter's, and float32 at least."""
    return "float64" if formats["x"] == "float64" else "float32"


def value_names(program: Program) -> tuple[str, ...]:
    """Return what the columns of `values` are for `fold`: the hyperparameters, and what gradients are divided by."""
    return (*program.hyperparameters, "grad_scale")


def columns_of(program: Program, formats: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arrays of a launch in the order of its table."""
    return (*program.arrays, *(("copy",) if "copy" in formats else ()))


def source(program: Program, formats: Mapping[str, str] | str) -> str:
    """Return the kernels of `program` as a Python module for Triton.

    `formats` has, for each of `program.arrays`, the type of its elements, a name of `TYPES`; one name stands for all.
    Lower types are widened to float32 in registers. With a type for `copy`, the new parameter is written a second time, to
    such an array: `x` is then a more exact copy of the parameter that a net computes with.

    `step` takes int64 tables: one row of addresses per tensor (those of `program.arrays` in order, then of `copy`), each
    tensor's row of scalars, and the chunks (tensor, first element, elements); and the rows of scalars, of type
    `real_of(formats)`. A program instance steps one chunk. `fold` makes such rows on the device: of each tensor's step count
    (float32, at the address in `counts`), to which it adds 1 first, of its row in `values`, and of those rows, float64
    (rows, `value_names(program)`).

    Raises `ValueError` for a type that there is none of, and `KeyError` for an array whose type is missing.
    """
    formats = dict.fromkeys(program.arrays, formats) if isinstance(formats, str) else formats
    columns = columns_of(program, formats)
    for name in columns:
        if formats[name] not in TYPES:
            raise ValueError(f"the type of {name} is {formats[name]!r}; allowed are {', '.join(TYPES)}")
    real = real_of(formats)
    names, called = name_values(program, _TAKEN)
    called["copy"] = "copy"
    fold = _fold_lines(program, real)
    loop = _loop(program, formats, names, called)
    text = "\n".join([*loop, *fold])
    helpers = [f"\n\n@triton.jit\n{text_}\n" for name, text_ in _HELPERS.items() if re.search(rf"\b{name}\(", text)]
    shared = [names[id(scalar)] for scalar in program.scalars]
    moved = sum(TYPES[formats[name]] for name in (*program.inputs, *program.outputs, *columns[len(program.arrays) :]))
    return _HEADER.format(
        real=real,
        title=program.title,
        bytes=moved,
        operations=program.operations,
        imports=_POWER if "power(" in text else "",
        helpers="".join(helpers),
        places=", ".join(f"{called[name]}_at" for name in columns),
        shared="".join(f"{name}, " for name in shared),
        loop=_indented(loop),
        scalars=len(program.scalars),
        arrays=len(columns),
        lines=_indented(_step_lines(program, formats, names, called)),
    ) + _FOLD.format(values=len(value_names(program)), scalars=len(program.scalars), lines=_indented(fold))


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _loop(
    program: Program, formats: Mapping[str, str], names: Mapping[int, str], called: Mapping[str, str]
) -> list[str]:
    real = real_of(formats)

    def widened(name: str) -> str:
        return "" if formats[name] == real else f".to(tl.{real})"

    def narrowed(name: str) -> str:
        return "" if formats[name] == real else f".to(tl.{formats[name]})"

    lines = [f"{called[name]} = tl.load({called[name]}_at + i, inside){widened(name)}" for name in program.inputs]
    lines += assignments(program.line_values(), names, _FUNCTIONS[real])
    # All is read before anything is written: slots may change places.
    written = [(name, value) for name, value in program.outputs.items()]
    written += [(name, program.outputs["x"]) for name in columns_of(program, formats)[len(program.arrays) :]]
    return lines + [
        f"tl.store({called[name]}_at + i, {names[id(value)]}{narrowed(name)}, inside)" for name, value in written
    ]


def _step_lines(
    program: Program, formats: Mapping[str, str], names: Mapping[int, str], called: Mapping[str, str]
) -> list[str]:
    shared = [names[id(scalar)] for scalar in program.scalars]
    lines = [
        f"{name} = tl.load(row + {index}){remark}"
        for index, (name, remark) in enumerate(zip(shared, remarks(program), strict=True))
    ]
    columns = columns_of(program, formats)
    places = [f"{called[name]}_at" for name in columns]
    lines += [
        f"{place} = tl.load(arrays + {index}) + {TYPES[formats[name]]} * first"
        for index, (place, name) in enumerate(zip(places, columns, strict=True))
    ]
    pointers = [f"{place}.to(tl.pointer_type(tl.{formats[name]}))" for place, name in zip(places, columns, strict=True)]
    rest = "".join(f"{name}, " for name in shared)
    return [
        *lines,
        # Only of what it is told to be a multiple of 16 bytes, and to be there, Triton loads 16 bytes at once.
        f"if (size == BLOCK) & (({' | '.join(places)}) % 16 == 0):",
        "    elements(",
        *(f"        tl.multiple_of({pointer}, 16)," for pointer in pointers),
        f"        {rest}size, True, BLOCK,",
        "    )",
        "else:",
        "    elements(",
        *(f"        {pointer}," for pointer in pointers),
        f"        {rest}size, False, BLOCK,",
        "    )",
    ]


def _fold_lines(program: Program, real: str) -> list[str]:
    """Return the lines of `fold` that compute a tensor's scalars in float64."""
    values = with_operands(program.scalars)
    numbers = [value for value in values if value.operation == "number"]
    symbols = [value for value in values if value.operation == "symbol"]
    used = {value.name for value in symbols}
    unused = Names(_TAKEN).unused
    called = {name: unused(name) for name in (*value_names(program), "t")}
    # A literal by itself would be of float32.
    names = {id(value): unused(f"n{number}") for number, value in enumerate(numbers, 1)}
    lines = [f"{names[id(value)]} = tl.full((), {expression(value)}, tl.float64)" for value in numbers]
    names |= {id(value): called[value.name] for value in symbols}
    if "t" in used:
        lines.append(f"{called['t']} = counted.to(tl.float64)")
    lines += [
        f"{called[name]} = tl.load(row + {index})" for index, name in enumerate(value_names(program)) if name in used
    ]
    names |= {id(value): unused(f"s{number}") for number, value in enumerate(program.scalar_lines(), 1)}
    lines += assignments(program.scalar_lines(), names, _FUNCTIONS["float64"])
    return lines + [
        f"tl.store(scalars + {index}, ({expression(scalar, names, _FUNCTIONS['float64'])}).to(tl.{real}))"
        for index, scalar in enumerate(program.scalars)
    ]
