"""What the sources of all engines' kernels share: the names of a program's values, and what is said of its scalars."""

from __future__ import annotations

from collections.abc import Collection

from ..program import Program, expression

__all__ = ["Names", "name_values", "remarks"]


class Names:
    """Hands out names, each once: none that is `taken`, also not with one of the `suffixes`."""

    def __init__(self, taken: Collection[str], suffixes: Collection[str] = ("",)) -> None:
        self._used = set(taken)
        self._suffixes = suffixes

    def unused(self, wish: str) -> str:
        """Return `wish`, with as many underscores behind it as it takes."""
        while not self._used.isdisjoint(wish + suffix for suffix in self._suffixes):
            wish += "_"
        self._used.update(wish + suffix for suffix in self._suffixes)
        return wish


def name_values(
    program: Program, taken: Collection[str], suffixes: Collection[str] = ("", "_at")
) -> tuple[dict[int, str], dict[str, str]]:
    """Name what a kernel holds: values by their `id`, and arrays by what the rule calls them.

    A symbol and an array are called as in the rule, a computed scalar c1, c2, ..., a line's value as the program says. No
    name is in `taken`, none with one of the `suffixes`, by which an engine calls what belongs to an array.
    """
    unused = Names(taken, suffixes).unused
    called = {name: unused(name) for name in program.arrays}
    symbols = [value for value in (*program.values(), *program.scalars) if value.operation == "symbol"]
    names = {id(value): called[value.name] if value.varies else unused(value.name) for value in symbols}
    lines = program.line_values()
    for value in lines:
        if id(value) in program.names:
            names[id(value)] = unused(program.names[id(value)])
    for prefix, rest in (("c", program.scalars), ("v", lines)):
        for number, value in enumerate([value for value in rest if id(value) not in names], 1):
            names[id(value)] = unused(f"{prefix}{number}")
    return names, called


def remarks(program: Program) -> list[str]:
    """Return for each scalar the comment that says what it is, where its name does not; what is too long is left out."""
    long = {id(value): "..." for value in program.scalar_lines()}
    return [
        ""
        if scalar.operation == "symbol"
        else f"  # {expression(scalar, {key: dots for key, dots in long.items() if key != id(scalar)})}"
        for scalar in program.scalars
    ]
