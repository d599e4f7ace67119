"""Trainings that are no trials of a comparison, each kept as a file when it is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...folders import replace

__all__ = ["keep", "kept"]


def kept(path: Path, key: Mapping[str, Any], figure: str) -> dict[str, Any] | None:
    """Return what `path` holds of a training for `figure`; None where there is nothing, or where it has another `key`.

    Raises `ValueError` where the file is no such training.
    """
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if all(found[name] == value for name, value in key.items()) else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no training of {figure} ({error!r}); remove it, or choose another folder"
        ) from None


def keep(path: Path, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write a training, with the `key` of all that decides it: settings, problem and code."""
    replace(path, json.dumps({**key, **found}).encode())
