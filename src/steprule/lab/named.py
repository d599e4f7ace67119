"""Objects of the user's, by the name that a command line can hold: `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["digest", "load", "name_of"]


def load(name: str) -> Any:
    """Return the object that `name` stands for. Raises `ValueError`, in one sentence, where there is none."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise ValueError(f"{name!r} names no object; allowed are package.module:name and path/to/file.py:name")
    module = _file(Path(place), name) if place.endswith(".py") else _module(place, name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{name!r} names no object: {place} has no {attribute}")
        found = getattr(found, part)
    return found


def _module(place: str, name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise
        raise ValueError(f"{name!r} names no object: there is no module {error.name}") from None


def _file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{name!r} names no object: there is no file {path}")
    # One module for one file, in the table of modules, so that what it defines can be pickled.
    known = f"steprule_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    specification: Any = importlib.util.spec_from_file_location(known, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[known] = module
    # Neighbouring files can be imported, as when Python runs the file.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def name_of(thing: Any) -> str:
    """Return the name of a function or rule under which another process finds it. Raises `ValueError` for a local one."""
    if "<" in thing.__qualname__:
        raise ValueError(
            f"{thing.__qualname__} is local to a function; another process can find only what a module defines"
        )
    module = sys.modules[thing.__module__]
    if thing.__module__ == "__main__" or thing.__module__.startswith("steprule_user_"):
        return f"{Path(str(module.__file__)).resolve()}:{thing.__qualname__}"
    return f"{thing.__module__}:{thing.__qualname__}"


def digest(function: Callable[..., Any]) -> str:
    """Return a short hash of the file that defines `function`: another text may give other results."""
    file = getattr(sys.modules[function.__module__], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else ""
