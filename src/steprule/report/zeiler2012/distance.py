"""How far a number is from the paper's, as one of seven shades: the same on the page, in its figures and in the terminal."""

from __future__ import annotations

import math
from bisect import bisect_right

from .. import theme
from ..drawing import Key

__all__ = ["KEYS", "shade", "style"]

LIMITS = (0.05, 0.10, 0.25)
"""Up to these shares of the paper's number a shade reaches, on either side of it."""

_BANDS = ("within 5 %", "5 to 10 %", "10 to 25 %", "more than 25 %")

KEYS = (
    *(Key(f"apart-{index}", f"{_BANDS[3 - index]} below") for index in range(3)),
    Key("apart-3", _BANDS[0]),
    *(Key(f"apart-{index}", f"{_BANDS[index - 3]} above") for index in range(4, theme.DISTANCES)),
)
"""The legend: `shade` is the place in it."""


def shade(ours: float, papers: float) -> int:
    """Return the shade of `ours`, which may be infinite where it diverged."""
    apart = ours / papers - 1
    # 2.2 is 10 % from 2.0, and stays so when it is rounded.
    steps = bisect_right(LIMITS, abs(apart) * (1 - 1e-9))
    return len(LIMITS) + int(math.copysign(steps, apart))


def style(shade: int) -> str:
    """Return a shade as Rich's style: dark text on the colour, whatever the terminal's own colours are."""
    return f"{theme.LIGHT['ink']} on {theme.LIGHT[f'apart-{shade}']}"
