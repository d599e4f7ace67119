"""The optimizers of other libraries that make the steps of our rules, and where they differ.

Another library: `of_<library>.py` with a list `TWINS`, and its line in `_MODULES`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Final

from .twin import Twin

__all__ = ["TWINS", "Twin"]

_MODULES: Final[Mapping[str, tuple[str, ...]]] = {"of_torch": ("torch",), "of_optax": ("jax", "optax")}
"""The modules, and the packages that each imports."""

TWINS: Final[tuple[Twin, ...]] = tuple(
    twin
    for module, packages in _MODULES.items()
    if all(map(importlib.util.find_spec, packages))
    for twin in importlib.import_module(f".{module}", __name__).TWINS
)
