"""A shard's state in a file: safetensors, written aside and renamed, so that a reader sees the old one or the new one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from torch import Tensor

from ..folders import written_aside

__all__ = ["read", "write"]


def write(path: Path, arrays: dict[str, Tensor], counts: dict[str, Any]) -> None:
    """Write what `Shard.state` returned. Raises `OSError` where that cannot be done; an older file is left as it was."""
    with written_aside(path) as aside:
        try:
            save_file(arrays, aside, metadata={"counts": json.dumps(counts)})
        except SafetensorError as error:  # in which the library wraps what the system says
            raise OSError(f"{path} cannot be written: {error}") from error
        with aside.open("rb") as file:
            # Before the journal is cleared, which has what this has.
            os.fsync(file.fileno())


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `Shard.load` takes. Raises `ValueError` for a file that is no snapshot."""
    try:
        with safe_open(path, framework="pt") as file:
            counts = (file.metadata() or {}).get("counts")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no snapshot of a shard: {error}") from None
    if counts is None:
        raise ValueError(f"{path} is no snapshot of a shard: it has no counts")
    return arrays, json.loads(counts)
