"""Processes in which something is measured by itself: each prints its numbers and ends."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from ..lab.workers import ending

__all__ = ["printed"]


def printed(what: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a process that measures `what`, and return what it prints. Raises `RuntimeError` where it fails."""
    done = subprocess.run(command, env=environment, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{what} could not be measured: {ending(done.returncode, done.stderr)}")
    return done.stdout.decode()
