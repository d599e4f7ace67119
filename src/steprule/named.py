"""Objects of the user's, by the name that a command line can hold: `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["digest", "from_here", "is_file", "is_installed", "load", "name_of", "name_within", "place_of"]

_FILES: Final = "steprule_user_"
"""With which the names of modules begin that are files of users'."""


def load(name: str) -> Any:
    """Return the object that `name` stands for. Raises `ValueError`, in one sentence, where there is none."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute or (place.startswith(".") and not place.endswith(".py")):
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
    known = f"{_FILES}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    specification: Any = importlib.util.spec_from_file_location(known, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[known] = module
    # Neighbouring files can be imported, as when Python runs the file.
    if str(path.resolve().parent) not in sys.path:
        sys.path.insert(0, str(path.resolve().parent))
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module


def is_file(module: str) -> bool:
    """Whether the module of that name is a file that `load` has read."""
    return module.startswith(_FILES)


@functools.cache
def _installed() -> tuple[Path, ...]:
    own = [sysconfig.get_path(each) for each in ("purelib", "platlib", "stdlib", "platstdlib")]
    places = [*own, *site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parent)]
    return tuple({Path(each).resolve() for each in places})


def is_installed(file: Path) -> bool:
    """Whether a file is Python's own, an installed package's or steprule's: what it holds, versions tell."""
    return any(file.resolve().is_relative_to(each) for each in _installed())


def place_of(error: BaseException) -> str:
    """Return the line of a user's file that is nearest to where an error was raised, as ` (file, line 3)`.

    Empty where no user's line led to it, and for a `SyntaxError`, which names its line itself.
    """
    # Code that was made while running, such as a data class's __init__, is in no file.
    files = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
    users = [each for each in files if not is_installed(Path(each.filename))]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users and not isinstance(error, SyntaxError) else ""


def name_within(thing: Any) -> str:
    """Return the name, with dots, by which its module has a function or rule; empty where it has not."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    qualified: str = getattr(thing, "__qualname__", "")
    found: Any = module
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if found is thing:
        return qualified
    # `plain = rule(_plain)`: the function's name is not the rule's.
    return next((name for name, value in vars(module).items() if value is thing), "") if module else ""


def name_of(thing: Any) -> str:
    """Return the name under which another process finds a function or rule. Raises `ValueError` where it has none."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    qualified = getattr(thing, "__qualname__", "")
    if "<locals>" in qualified:
        raise ValueError(f"{qualified} is local to a function; another process can find only what a module defines")
    qualified = name_within(thing)
    file = getattr(module, "__file__", None)
    in_file = module is not None and (module.__name__ == "__main__" or is_file(module.__name__))
    if module is None or not qualified or (in_file and not (file and Path(file).is_file())):
        raise ValueError(
            f"{thing!r} has no name by which another process can find it; allowed is what a module defines"
        )
    return f"{Path(str(file)).resolve() if in_file else module.__name__}:{qualified}"


def from_here(name: str) -> str:
    """Return a name with the path of its file, if it has one, in one of its spellings: short below the working folder."""
    place, _, rest = name.rpartition(":")
    if not place.endswith(".py"):
        return name
    file, here = Path(place).resolve(), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{rest}"


def digest(function: Callable[..., Any], name: str = "") -> str:
    """Return a short hash of the file that defines `function`, and of that in which `name` finds it: another text may give
    other results. Users' files count with the files beside them that they import.

    The two differ where a decorator, or `functools.partial`, stands for what the file defines.
    """
    place = name.rpartition(":")[0]
    modules = [sys.modules[function.__module__], sys.modules.get(place)]
    files = {Path(place)} if place.endswith(".py") else set()
    files |= {Path(file) for each in modules if (file := getattr(each, "__file__", None))}
    texts = [file.read_bytes() for file in sorted(set().union(*map(_with_imported, files)))]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12] if texts else ""


def _with_imported(file: Path) -> set[Path]:
    """Return a file with those that it imports from its folder or, in a package, from where the package lies, and so on."""
    first = file.resolve()
    found: set[Path] = set()
    root = first.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    installed = is_installed(first)
    left = [first]
    while left:
        each = left.pop()
        if each in found or not each.is_file():
            continue
        found.add(each)
        if installed:
            break
        for path in _imported(each, root):
            left += [path.with_suffix(".py"), path / "__init__.py"]
    return found


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield where the modules that `file` imports would lie, without their endings, if they lay in `root`."""
    try:
        parsed = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for each in ast.walk(parsed):
        if isinstance(each, ast.Import):
            yield from (root.joinpath(*alias.name.split(".")) for alias in each.names)
        elif isinstance(each, ast.ImportFrom):
            folder = file.parents[each.level - 1] if each.level else root
            module = folder.joinpath(*(each.module or "").split("."))
            yield from (module, *(module / alias.name for alias in each.names))
