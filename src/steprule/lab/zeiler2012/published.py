"""The results of the full run, which stand in this folder: one readable file, from which the documentation is made."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...folders import replace
from . import files
from .parts import Result
from .reproduction import parts

__all__ = ["PATH", "as_text", "read", "take"]

PATH: Final = Path(__file__).parent / "results.json"

_LINES: Final = 5  # a line for each trial: parts, a part, its comparisons, a comparison, its trials


def as_text(results: Sequence[Result]) -> str:
    """Return results as the text of such a file."""
    told = {
        "source": "Zeiler 2012, https://arxiv.org/abs/1212.5701; made by `steprule reproduce zeiler2012`",
        "parts": {result.part.name: result.as_json() for result in results},
    }
    return files.text(told, _LINES) + "\n"


def read(path: Path = PATH) -> tuple[Result, ...]:
    """Return the results of a file that `as_text` has made, in its order.

    Raises `ValueError` where the file is none, and `OSError` where it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there are no committed results: {path.name} is not in {path.parent.name}")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["parts"]
        return tuple(parts()[name].read(told[name]) for name in told)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of results of zeiler2012 ({error!r})") from error


def take(path: Path, into: Path = PATH) -> None:
    """Put the parts of a file of results into the committed ones, each in place of what they had of it.

    Errors as those of `read`.
    """
    told = {result.part.name: result for result in (read(into) if into.is_file() else ())}
    told |= {result.part.name: result for result in read(path)}
    replace(into, as_text([told[name] for name in parts() if name in told]).encode())


if __name__ == "__main__":
    take(Path(sys.argv[1]))
