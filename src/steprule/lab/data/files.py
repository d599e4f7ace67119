"""Where the files of a data set are: in `$STEPRULE_DATA`, in the user's cache, or still at their public address."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ...folders import cache_folder
from .archives import sha256
from .download import download
from .registry import DATA_SETS, DataError, DataFile, DataSet, data_set

__all__ = ["Overview", "locate", "overview"]


@dataclass(frozen=True)
class Overview:
    """One line about a data set; `place` says where it is now, or where it would come from."""

    name: str
    title: str
    licence: str
    place: str


def locate(name: str) -> dict[str, Path]:
    """Find the files of a data set, and download those that are not here into the user's cache.

    Each file is taken from the folder `$STEPRULE_DATA` (laid out as the cache is: `mnist/...`, `airfoil/...`), else
    from `data/` in `steprule.folders.cache_folder()`, else from its public addresses. Its SHA-256 is checked the first
    time that a process finds it, and again if it has changed since. A download that breaks off is not resumed; see
    `steprule.lab.data.download`.

    Args:
        name: a name in `DATA_SETS`.

    Returns:
        The path of each file by its name, such as "train-labels-idx1-ubyte.gz"; empty for `digits`, which is in
        scikit-learn.

    Raises:
        DataError: there is no such data set, `$STEPRULE_DATA` is not a folder, a file has the wrong SHA-256 (one found
            is never replaced), or a missing file could not be downloaded.
        ModuleNotFoundError: a file has to be downloaded and an extra is not installed.
    """
    return {file.name: _find(file) or _fetch(file) for file in data_set(name).files}


def overview() -> list[Overview]:
    """Say of every data set where it is now. Files that are here are checked; nothing is downloaded.

    Raises:
        DataError: `$STEPRULE_DATA` is not a folder. A file with the wrong SHA-256 is told in `place`.
    """
    _given_folder()
    return [Overview(each.name, each.title, each.licence, _place(each)) for each in DATA_SETS.values()]


def _find(file: DataFile) -> Path | None:
    given = _given_folder()
    for place in (file.path, *file.also):
        if given is not None and (given / place).exists():
            _check(given / place, file, "the right file in its place, or none, is allowed")
            return given / place
    cached = _cached(file)
    if cached.exists():
        _check(cached, file, "once deleted it is downloaded again")
        return cached
    return None


def _fetch(file: DataFile) -> Path:
    path = _cached(file)
    download(file, path)
    return path


def _cached(file: DataFile) -> Path:
    return cache_folder() / "data" / file.path


def _given_folder() -> Path | None:
    value = os.environ.get("STEPRULE_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(f"$STEPRULE_DATA is {value!r}, which is not a folder; it must name one or be unset")
    return folder


def _check(path: Path, file: DataFile, remedy: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is not a file; {remedy}")
    status = path.stat()
    found = _sha256(path.absolute(), file.members, status.st_size, status.st_mtime_ns)
    if found != file.sha256:
        of = f"of its {file.members} files " if file.members else ""
        raise DataError(f"{path} has the SHA-256 {of}{found}, expected {file.sha256}; {remedy}")


@functools.cache
def _sha256(path: Path, members: str, _size: int, _modified: int) -> str:
    """The size and the time of change are part of what is remembered, so that a changed file is read again."""
    return sha256(path, members)


def _place(data: DataSet) -> str:
    if not data.files:
        installed = importlib.util.find_spec("sklearn") is not None
        return "in scikit-learn" if installed else "not here yet; comes with pip install 'steprule[lab]'"
    try:
        found = {file: _find(file) for file in data.files}
    except DataError as error:
        return str(error)
    here = " and ".join(dict.fromkeys(str(path.parent) for path in found.values() if path is not None))
    missing = [file for file, path in found.items() if path is None]
    if not missing:
        return here
    address = missing[0].urls[0].removesuffix(missing[0].name)
    origin = f"comes from {address} ({sum(file.size for file in missing) / 1e6:.1f} MB)"
    if here:
        return f"{len(missing)} of {len(data.files)} files not here yet ({here} has the others); {origin}"
    return f"not here yet; {origin}"
