"""One engine's process: reads the job from its standard input, and writes what it measures as JSON lines.

It is started as `python -m steprule.lab.d2l.worker ENGINE` by `steprule.lab.d2l.processes`, in an interpreter that has the
framework, and perhaps little else.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from typing import Any

import numpy as np

from ... import __version__
from ..worker import take_streams, write
from .protocol import Examples, Plan, train

__all__ = ["main"]


def main(engine: str) -> None:
    """Train the job's plans with each seed.

    Each plan first trains for an epoch that counts for nothing: what compiles or loads on the first step is not timed.
    """
    commands, protocol = take_streams()
    job: dict[str, Any] = json.load(commands)
    try:
        framework: Any = importlib.import_module(f".engines.{engine}", __package__)
    except ModuleNotFoundError as missing:
        write(protocol, {"absent": missing.name})
        return
    versions = {package: sys.modules[package].__version__ for package in framework.PACKAGES}
    write(protocol, {"versions": {"Python": sys.version.split()[0], "steprule": __version__, **versions}})
    examples = Examples(np.array(job["features"], np.float32), np.array(job["labels"], np.float32))
    for number, told in enumerate(job["plans"]):
        plan = Plan(**told)
        make = framework.WAYS[plan.way]
        train(make(plan, examples, 0), 1, 0)
        for seed in range(job["seeds"]):
            trace = train(make(plan, examples, seed), plan.epochs, seed)
            write(protocol, {"plan": number, "seed": seed, "trace": dataclasses.asdict(trace)})


if __name__ == "__main__":
    main(sys.argv[1])
