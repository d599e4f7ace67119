"""What must be so before any test is imported; and a disk that is soon full."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.requirements import require

# No test measures time: on a busy machine anything may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if importlib.util.find_spec("triton") and importlib.util.find_spec("tensorflow"):
    # Loaded after TensorFlow, Triton's library ends the process: both bring LLVM.
    import triton  # noqa: F401


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    require(mounted.returncode == 0, "a disk of one's own needs the rights of the system's administrator")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
