"""Arguments that count something."""

from __future__ import annotations

from typing import Any

__all__ = ["check_count"]


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `ValueError` for what is no whole number, or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed is a whole number from {least}")
