"""Where steprule keeps files of its own on the user's machine, and how it writes one."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "held", "keep", "kept", "made_folder", "replace", "write_json", "written_aside"]


def cache_folder() -> Path:
    """The folder for files that can be made or fetched again; it may not exist yet, and is not created here.

    It is `$STEPRULE_CACHE` where that is set and not empty, else the operating system's folder for a user's caches.
    """
    chosen = os.environ.get("STEPRULE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    # Imported here so that `import steprule` does not pay for it.
    import platformdirs

    return platformdirs.user_cache_path("steprule")


def made_folder(out: Path) -> Path:
    """Make the folder for results, and those above it, where they are not there; return it.

    Called before the work whose results are to be there. Raises `ValueError` where it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out is {out}, where no folder can be made: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise ValueError(f"out is {out}, a folder that cannot be written to")
    return out


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from holding the same folder; the end of this one, however it ends, lets go of it too.

    Raises `ValueError` where another holds it, or the file that says so, `folder/.held`, cannot be made.
    """
    # Its locks are those of every system, and of what is mounted from another machine.
    import sqlite3

    path = folder / ".held"
    with ExitStack() as opened:
        try:
            lock = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None, timeout=1)))
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise ValueError(f"{folder} is in use by another process; wait for it, or use another folder") from None
            raise ValueError(f"{path} cannot be made or locked ({error}); allowed is a folder where it can") from None
        yield


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of `path` at the end: a reader sees the old one or the new one.

    Where anything is raised, the old file is left as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a whole file: a reader sees the old one or the new one, never a part.

    Raises `OSError`, which names it, where it cannot be written; the old file is left as it was.
    """
    with written_aside(path) as aside:
        try:
            aside.write_bytes(content)
        except OSError as error:
            error.filename = str(path)  # that of a full disk names no file, others the one aside
            raise


def keep(path: Path, content: bytes) -> None:
    """Write what `kept` reads, in a folder that is made where it is missing. Raises `OSError` where that cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace(path, _digest(content) + b"\n" + content)


def kept(path: Path) -> bytes | None:
    """Return what `keep` has written, or None where there is no such file or it is damaged."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if digest == _digest(content) else None


def _digest(content: bytes) -> bytes:
    import hashlib  # here, so that `import steprule` does not pay for it

    return hashlib.sha256(content).hexdigest().encode()


def write_json(path: Path, content: Any) -> None:
    """Write a whole file of JSON, which has no NaN and no infinity: null stands for them. Errors as those of `replace`."""
    replace(path, json.dumps(_finite(content), indent=1, allow_nan=False).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
