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
    """Return the name of the processor, and its family and model, as far as the system tells.

    Virtual machines shorten names: processors of one name may add up a matrix product in another order.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in reversed([line.partition(":") for line in lines])}
    name = told.get("model name") or platform.processor() or platform.machine()
    kind = [f"{word} {told[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in told]
    return ", ".join([name, *kind])


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
