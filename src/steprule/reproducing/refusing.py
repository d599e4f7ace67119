"""Options of `steprule reproduce zeiler2012` that would do nothing with what is asked for: each is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["refuse_unused"]

_OF_CHECK: Final = ("--cells", "--seed")
_MODES: Final[Mapping[str, Sequence[str]]] = {"--published": ("--out", "--no-train"), "--check": ("--jobs", *_OF_CHECK)}
"""What shows or checks committed results, by the options that it takes."""


def refuse_unused(options: Mapping[str, Any], parts: Sequence[str], takers: Mapping[str, Sequence[str]]) -> None:
    """Raise `ValueError` for an option that is given and that nothing takes.

    `options` are by name, without its dashes; one that is None, False or empty is not given. `takers` are the parts that
    take an option which not all do, by its name with dashes; one of the `parts` that are asked for suffices.
    """
    told = {name: value for name, value in options.items() if value not in (None, "") and value is not False}
    given = {f"--{name}": value for name, value in told.items()}
    for mode, allowed in _MODES.items():
        other = next((name for name in given if name != mode and name not in allowed), None)
        if mode in given and other is not None:
            raise ValueError(f"{_said(given, other)} is given with {mode}; allowed with it are {_listed(allowed)}")
    for name in _OF_CHECK:
        if name in given and "--check" not in given:
            raise ValueError(f"{_said(given, name)} is given without --check; allowed is it with --check")
    for name, able in takers.items():
        if name in given and not set(parts) & set(able):
            raise ValueError(
                f"{_said(given, name)} is given with {_listed(parts)}; allowed with it are {_listed(able)}"
            )


def _said(given: Mapping[str, Any], name: str) -> str:
    return name if given[name] is True else f"{name} {given[name]}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
