"""A worker process: reads trials from its standard input, one JSON line each, and writes their epochs as JSON lines.

It is started as `python -m steprule.lab.worker PROBLEM THREADS` by `steprule.lab.workers`, in a session of its own, and ends
when its input does, with all that the user's code has started, so that nothing outlives whoever started it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ..named import place_of

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["cause_of", "main", "messages", "take_streams", "use_threads", "write"]


def main(problem_name: str, threads: int) -> None:
    """Run trials until the input ends."""
    commands, protocol = take_streams()
    trials: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(commands, trials), daemon=True).start()

    from .problem import find_problem

    use_threads(threads)
    problem = find_problem(problem_name)()
    write(protocol, {"ready": True})
    while True:
        for message in messages(problem, trials.get()):
            write(protocol, message)


def use_threads(threads: int) -> None:
    """Let PyTorch compute in `threads` threads, and no more beside them."""
    import torch

    torch.set_num_threads(threads)
    # Which can be set once in a process, and a process may run several trials.
    if torch.get_num_interop_threads() != threads:
        torch.set_num_interop_threads(threads)


def messages(problem: Problem, trial: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Train and yield what is to be told of it: each `epoch`, then the `end`, with the `cause` of a failure.

    The end has the `warnings` that a user would see in a process of his own, such as PyTorch's of shapes that do not fit.
    """
    from .grids import find_rule
    from .training import train

    with warnings.catch_warnings(record=True) as warned:
        try:
            diverged = True
            if trial["data"]:
                problem.check_data(trial["data"])
            rule = find_rule(trial["rule"])
            for epoch in train(problem, rule, trial["hyperparameters"], trial["seed"], trial["epochs"]):
                yield {"epoch": dataclasses.asdict(epoch)}
                diverged = epoch.diverged
            end = {"end": "diverged" if diverged else "finished", "cause": ""}
        except Exception as error:
            traceback.print_exc()
            end = {"end": "failed", "cause": cause_of(error)}
    yield {**end, "warnings": _of_the_user(warned)}


def _of_the_user(warned: Sequence[warnings.WarningMessage]) -> list[tuple[str, str, int]]:
    """Return the first warning of each place: the text, the file and the line."""
    first: dict[tuple[str, int], str] = {}
    for each in warned:
        if issubclass(each.category, UserWarning):
            first.setdefault((each.filename, each.lineno), str(each.message))
    return [(text, *place) for place, text in first.items()]


def cause_of(error: BaseException) -> str:
    """Return an exception as one line, with that of the user's file from which it came."""
    return " ".join("".join(traceback.format_exception_only(error)).split()) + place_of(error)


def take_streams() -> tuple[TextIO, TextIO]:
    """Keep the standard streams for the protocol: what the user's code reads and prints, from C too, goes elsewhere."""
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    if hasattr(os, "register_at_fork"):
        # A process that the user's code forks would keep the protocol open, so that nobody saw this one die.
        for stream in (commands, protocol):
            os.register_at_fork(after_in_child=functools.partial(os.dup2, nothing, stream.fileno()))
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # what both write comes in order
    return commands, protocol


def _read(lines: TextIO, trials: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in lines:
        trials.put(json.loads(line))
    # Whoever wanted the results is gone.
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def write(protocol: TextIO, message: dict[str, Any]) -> None:
    """Send one message, as a line of JSON."""
    protocol.write(json.dumps(message) + "\n")
    protocol.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
