"""What a test needs of the machine, asked for in one way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.version import Version

__all__ = [
    "interrupts_heeded",
    "ray_at_ease",
    "require",
    "require_data_set",
    "require_installed",
    "require_release",
]


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
    places = ([file.path, *file.also] for file in DATA_SETS[name].files)
    present = all(any((Path(folder) / path).is_file() for path in each) for each in places)
    require(folder and present, f"the data set {name} is not in $STEPRULE_DATA")


def require_installed(*packages: str) -> None:
    """Require that the packages, by the names under which they are imported, are installed."""
    for package in packages:
        found = importlib.util.find_spec(package)
        # A folder of tests of that name is no package.
        require(found is not None and found.origin, f"{package} is not installed")


def require_release(package: str, least: str, why: str) -> None:
    """Skip the running test where `package` is older than `least`, and cannot do yet what `why` says; that is no failure."""
    found = importlib.metadata.version(package)
    if Version(found) < Version(least):
        pytest.skip(f"{package} is {found}; {why} before {least}")


@contextmanager
def interrupts_heeded() -> Iterator[None]:
    """Let the processes that start within die of SIGINT, which what a shell runs in the background ignores.

    A program starts with the default action for each signal that its parent handles, and ignores what its parent ignores.
    Popen's `preexec_fn` would do it too, but runs the handlers that other libraries (JAX) have registered for forks.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ray_at_ease() -> Iterator[None]:
    """Let Ray start here: on a busy machine, and in a process whose warnings are errors."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Ray's workers give way to everything else, and then never get ready on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        # Of Ray's own files and sockets.
        warnings.simplefilter("ignore", ResourceWarning)
        # JAX, where a test before has loaded it, warns of each process that Ray starts.
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
        yield
