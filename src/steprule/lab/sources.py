"""The user's own Python files, for a machine that does not have them."""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..folders import replace
from ..named import is_installed

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """An object's name (see `named.load`) and the text of the files that it may need, by their paths in one folder.

    `files` is empty where the object is built in or of an installed package, which the other machine has as well.
    """

    name: str
    folder: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, name: str) -> Sources:
        """Of a name that can be loaded here: a file's folder with its modules and packages, or a package."""
        place = name.rpartition(":")[0]
        if not place:
            return cls(name, "", {})
        if place.endswith(".py"):
            path = Path(place).resolve()
            return cls(f"{path}:{name.rpartition(':')[2]}", str(path.parent), dict(_texts(path.parent)))
        top = importlib.import_module(place.partition(".")[0])
        found = Path(str(top.__file__)).resolve() if getattr(top, "__file__", None) else None
        if found is None or is_installed(found):
            return cls(name, "", {})
        package = found.name == "__init__.py"
        folder = found.parent.parent if package else found.parent
        files = _package(found.parent, folder) if package else [(found.name, found.read_bytes())]
        return cls(name, str(folder), dict(files))

    def unpacked(self) -> str:
        """Return the name by which the object is found on this machine, after its files have been put where they are not."""
        if not self.files:
            return self.name
        folder = Path(self.folder)
        if any(
            not (folder / each).is_file() or (folder / each).read_bytes() != text for each, text in self.files.items()
        ):
            digest = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"steprule-{digest}"
            for each, text in self.files.items():
                (folder / each).parent.mkdir(parents=True, exist_ok=True)
                replace(folder / each, text)
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        return self.name.replace(self.folder, str(folder), 1) if self.name.startswith(self.folder) else self.name


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*.py")):
        yield path.name, path.read_bytes()
    for path in sorted(folder.glob("*/__init__.py")):
        yield from _package(path.parent, folder)


def _package(package: Path, root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(root).as_posix(), path.read_bytes()
