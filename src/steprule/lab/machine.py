"""The machine that a measurement is made on, and the command that made it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

__all__ = ["available_cores", "command", "facts", "processor"]


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named_models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named_models[0] if named_models else platform.processor() or platform.machine()


def facts() -> dict[str, str]:
    """Return what a reader of measurements wants to know of the machine."""
    return {
        "processor": processor(),
        "cores": str(available_cores()),
        "system": f"{platform.system()} {platform.release()}",
    }


def command() -> str:
    """Return the command line of this process, as one would type it again."""
    program = Path(sys.argv[0]).name
    return shlex.join(["steprule" if program in ("steprule", "cli.py", "__main__.py") else program, *sys.argv[1:]])
