"""Numbers as text, the same in what is printed while trials run, in reports and in what an experiment says of itself."""

from __future__ import annotations

import re

__all__ = ["numeral", "plural", "short_exponent"]


def short_exponent(text: str) -> str:
    """Return a number with its power of ten as the papers print it: `1e-6` for `1e-06`, `1e5` for `1e+05`."""
    return re.sub(r"e([+-]?)0*(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", text)


def numeral(value: float) -> str:
    """Return a setting as the papers print it: `0.95`, `1e-6`."""
    return short_exponent(f"{value:g}")


def plural(count: int, noun: str, several: str = "") -> str:
    """Return `1 epoch`, `20 epochs`; `several` is for a noun whose plural has more than an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {several or noun + 's'}"
