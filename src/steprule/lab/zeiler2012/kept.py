"""Trainings that are no trials of a comparison, each kept as a file when it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ...folders import replace

__all__ = ["keep", "kept", "path_of"]

T = TypeVar("T")


def path_of(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
    """Return the file of a training; trainings of one name and several keys are kept beside each other."""
    return folder / f"{name}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]}.json"


def kept(path: Path, key: Mapping[str, Any], figure: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
    """Return what `read` makes of the training for `figure` in `path`; None where there is none, or one of another `key`.

    Raises `ValueError` where the file is no such training.
    """
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return read(found) if all(found[name] == value for name, value in key.items()) else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no training of {figure} ({error!r}); remove it, or choose another folder"
        ) from None


def keep(path: Path, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write a training, with the `key` of all that decides it: settings, problem and code."""
    replace(path, json.dumps({**key, **found}).encode())
