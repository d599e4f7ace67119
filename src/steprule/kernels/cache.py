"""Compiled kernels, kept on disk between processes.

A file's name is the hash of the source, of the modules that it builds on, and of the machine that it is for; it begins with
a hash of what it holds. A folder that cannot be written, or that holds a damaged file, costs the time of compiling and is no
failure.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..folders import cache_folder, keep, kept
from . import machine_code
from .machine_code import Code

__all__ = ["compiled"]

_modules: Final[dict[str, ModuleType]] = {}  # by source; Numba's machine code lives as long as they

_BUILT_ON: Final = ("native.py", "coding.py", "codecs.py", "machine_code.py", "cache.py")


def compiled(name: str, source: str, function: str = "step") -> int:
    """Return the address of the C `function` that the module `source` compiles, from the cache where that can be.

    `name` begins the file's name. Numba is loaded only where there is something to compile.
    """
    path = cache_folder() / "kernels" / f"{name}_{_digest(source, function)}.o"
    code = _read(path)
    if code is not None:
        try:
            return machine_code.loaded(code)
        except OSError as error:
            warnings.warn(
                f"the kernel of {name} in {path} cannot be used here ({error}), so that each process compiles it anew",
                RuntimeWarning,
                stacklevel=2,
            )
    made = _compiled(name, source, function)
    try:
        _write(path, machine_code.emitted(made))
    except Exception as error:  # whatever is wrong with a cache, it must not stop a training run
        warnings.warn(
            f"the kernel of {name} cannot be kept in {path.parent} ({error}), so that each process compiles it anew; "
            "STEPRULE_CACHE can name another folder",
            RuntimeWarning,
            stacklevel=2,
        )
    return made.address  # type: ignore[no-any-return]


def _digest(source: str, function: str) -> str:
    parts = [source.encode(), function.encode(), machine_code.host().encode(), *_built_on()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@functools.cache
def _built_on() -> list[bytes]:
    return [Path(__file__).with_name(each).read_bytes() for each in _BUILT_ON]


def _compiled(name: str, source: str, function: str) -> Any:
    if source not in _modules:
        from numba.core import config

        # Numba imports the module that a function says it is of: under the rule's name, a file of the user's would be run.
        module = ModuleType(f"<steprule {name}>")
        # With NUMBA_DISABLE_JIT, by which users debug functions of their own, what a kernel calls would not be compiled.
        disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0  # type: ignore[attr-defined]
        try:
            exec(compile(source, module.__name__, "exec"), module.__dict__)
        finally:
            config.DISABLE_JIT = disabled  # type: ignore[attr-defined]
        _modules[source] = module
    return getattr(_modules[source], function)


def _read(path: Path) -> Code | None:
    """Return what `_write` has written, or None where there is no such file or it is damaged."""
    rest = kept(path)
    if rest is None:
        return None
    try:
        header, machine = rest.split(b"\n", 1)
        said = json.loads(header)
        return Code(said["symbol"], tuple(said["needs"]), machine)
    except (ValueError, KeyError):
        return None


def _write(path: Path, code: Code) -> None:
    header = json.dumps({"symbol": code.symbol, "needs": code.needs}).encode()
    keep(path, header + b"\n" + code.object)
