"""Compiled kernels, kept on disk between processes.

A kernel's source is written to a file, which is where Numba looks for what it has compiled before. The file's name is the
hash of what it holds and of the modules that it builds on. A folder that cannot be written, or that holds a damaged file,
costs the time of compiling and is no failure.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..folders import cache_folder
from . import codecs, native

__all__ = ["compiled"]

_modules: Final[list[ModuleType]] = []  # machine code lives as long as the module that compiled it

_FLAG: Final = "CACHE"


def compiled(name: str, source: str, function: str = "step") -> int:
    """Return the address of the C `function` that the module `source` compiles, from the cache where that can be.

    `name` begins the file's name. `source` reads the global `CACHE` to know whether it may keep what it compiles.
    """
    path = cache_folder() / "kernels" / f"{name}_{_digest(source)}.py"
    try:
        try:
            return _from_disk(path, source, function)
        except Exception:  # a damaged file can raise anything; make it anew, once
            _remove(path)
            return _from_disk(path, source, function)
    except Exception as error:  # whatever is wrong with a cache, it must not stop a training run
        module = ModuleType(path.stem)
        setattr(module, _FLAG, False)
        # Where the fault is the source's own, this raises it.
        exec(compile(source, f"<steprule {name}>", "exec"), module.__dict__)
        _modules.append(module)
        warnings.warn(
            f"the kernel of {name} cannot be kept in {path.parent} ({error}), so that each process compiles it anew; "
            "STEPRULE_CACHE can name another folder",
            RuntimeWarning,
            stacklevel=2,
        )
        return getattr(module, function).address  # type: ignore[no-any-return]


def _digest(source: str) -> str:
    parts = [source.encode(), *(Path(str(module.__file__)).read_bytes() for module in (native, codecs))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _from_disk(path: Path, source: str, function: str) -> int:
    if not path.exists():
        _write(path, source)
    elif path.read_text(encoding="utf-8") != source:
        raise OSError(f"{path} does not hold the kernel that its name promises")
    specification: Any = importlib.util.spec_from_file_location(f"steprule_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    setattr(module, _FLAG, True)
    # Numba finds the module of what it loads from the disk by its name.
    sys.modules[module.__name__] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    # Its name in the table of modules goes to whoever loads the same file again, for another function.
    _modules.append(module)
    return getattr(module, function).address  # type: ignore[no-any-return]


def _remove(path: Path) -> None:
    for file in (path, *path.parent.glob(f"__pycache__/{path.stem}.*")):
        file.unlink(missing_ok=True)


def _write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(source)
    Path(aside).replace(path)
