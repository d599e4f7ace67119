"""Archives of many small files, read where they lie: nothing is unpacked to disk."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path

from .registry import DataError

__all__ = ["members", "sha256"]


def members(path: Path, ending: str) -> dict[str, bytes]:
    """Return the files in a zip or tar archive whose names end with `ending`, by the last part of their names, sorted.

    Raises:
        DataError: the file is no zip and no tar archive, is truncated or corrupt, or has two such files of one name.
    """
    try:
        found = _zip(path, ending) if zipfile.is_zipfile(path) else _tar(path, ending)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no sound zip or tar archive ({error})") from error
    last = [name.rpartition("/")[2] for name, _ in found]
    if len(set(last)) < len(last):
        raise DataError(f"{path} has two files of one name that end with {ending}; allowed is one of each")
    return dict(sorted(zip(last, (content for _, content in found), strict=True)))


def _zip(path: Path, ending: str) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist() if name.endswith(ending)]


def _tar(path: Path, ending: str) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() and member.name.endswith(ending) else None
            if file is not None:
                found.append((member.name, file.read()))
    return found


def sha256(path: Path, ending: str = "") -> str:
    """Return the SHA-256 of a file or, where `ending` is given, of its members with that ending, whatever packs them.

    The latter is taken over what `sha256sum` prints of the members, in the order of their names. Raises `DataError` as
    `members` does.
    """
    if not ending:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members(path, ending).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
