"""Arguments that count something."""

from __future__ import annotations

from typing import Any

__all__ = ["check_count"]


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `ValueError` for what is no whole number, or is below `least`."""
    if type(value) is not int or value < least:
        kind = "" if type(value) is int else ", an int"  # JSON takes no other, and what counts is kept in files
        raise ValueError(f"{name} is {value!r}; allowed is a whole number from {least}{kind}")
