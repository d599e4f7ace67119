"""What a test needs of the machine, asked for in one way."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

__all__ = ["heed_interrupts", "require", "require_data_set", "require_installed"]


def require(condition: object, reason: str) -> None:
    """Skip the running test with `reason` unless `condition` holds; fail it instead where STEPRULE_REQUIRE_ALL=1."""
    if condition:
        return
    if os.environ.get("STEPRULE_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_data_set(name: str) -> None:
    """Require that every file of the data set is in `$STEPRULE_DATA`, so that no test downloads."""
    from steprule.lab.data import DATA_SETS

    folder = os.environ.get("STEPRULE_DATA", "")
    present = all((Path(folder) / file.path).is_file() for file in DATA_SETS[name].files)
    require(folder and present, f"the data set {name} is not in $STEPRULE_DATA")


def require_installed(*packages: str) -> None:
    """Require that the packages, by the names under which they are imported, are installed."""
    for package in packages:
        require(importlib.util.find_spec(package), f"{package} is not installed")


def heed_interrupts() -> None:
    """Make a process that is about to start die of SIGINT, which is ignored in what a shell runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
