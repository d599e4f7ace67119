"""A Ray for the tests that need one, started once, since that takes as long as they do; and a disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.requirements import ray_at_ease, require, require_installed


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """The Ray that `train` starts on this machine, for all tests of a module."""
    require_installed("ray")
    from steprule.cluster import engine

    with ray_at_ease(), engine.running(None, 6):
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    require(mounted.returncode == 0, "a disk of one's own needs the rights of the system's administrator")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
