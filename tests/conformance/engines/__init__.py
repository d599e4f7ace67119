"""Each engine behind one interface, from a module for each framework, which is imported where the framework is installed.

A new one: `on_<framework>.py` with a mapping `ENGINES` of names to `Engine`, and its line in `_MODULES`; then the tolerance
of each of its element types in `tolerances.ROUNDINGS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Final

from .engine import Engine, State, initial

__all__ = ["ENGINES", "Engine", "State", "initial"]

_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "on_arrays": (),
    "on_cpu": (),
    "on_torch": ("torch",),
    "on_jax": ("jax", "optax"),
    "on_keras": ("keras",),
}
"""The modules, and the packages that each imports."""


def _engines() -> Iterator[tuple[str, Engine]]:
    for module, packages in _MODULES.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            yield module, Engine(absent=f"{', '.join(missing)} is not installed")
        else:
            yield from importlib.import_module(f".{module}", __name__).ENGINES.items()


ENGINES: Final[Mapping[str, Engine]] = dict(_engines())
