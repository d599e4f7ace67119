"""Calls of a function in processes of their own, some at a time, for long work that is no trial of a comparison."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

from ..counts import check_count
from .worker import cause_of, use_threads
from .workers import share_threads

__all__ = ["calls"]

_CONTEXT: Final = multiprocessing.get_context("spawn")  # a fork of a process that has computed may hang


def calls(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], jobs: int, told: Callable[..., object]
) -> Iterator[tuple[int, Any]]:
    """Call `function(*arguments[i], tell)` for each i, `jobs` at a time; yield i and what it returned, as they end.

    What the function calls `tell` with, `told` is called with here: i, and then that. The processes share the cores. The
    function, arguments and results must be such as pickle takes. No process outlives the iteration, or this
    process.

    Raises what the function raises, and `RuntimeError` where its process dies, exits, or raises what pickle does not take.
    """
    check_count("jobs", jobs)
    waiting = list(enumerate(arguments))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, each = waiting.pop()
                here, there = _CONTEXT.Pipe(duplex=False)
                process = _CONTEXT.Process(target=_call, args=(there, share_threads(jobs), function, each), daemon=True)
                with _without_interrupts():  # which whoever starts it is to answer
                    process.start()
                there.close()  # so that nobody but the process has it open, and its death can be read
                running[here] = number, process
            spoken = wait(list(running))
            for here in [each for each in running if each in spoken]:
                number, process = running[here]
                kind, value = _received(here, process)
                if kind == "told":
                    told(number, *value)
                    continue
                del running[here]
                process.join()
                if kind == "raised":
                    raise value
                yield number, value
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Have a process that starts here ignore Ctrl-C, from its beginning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _received(here: Connection, process: Any) -> tuple[str, Any]:
    try:
        kind, value = here.recv()
    except (EOFError, OSError):  # the latter in the midst of a message
        process.join()
        return "raised", RuntimeError(f"a process that trained has died (exit code {process.exitcode})")
    return kind, value


def _call(there: Connection, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)

    def send(kind: str, value: Any) -> None:
        message = ForkingPickler.dumps((kind, value))
        try:
            there.send_bytes(message)
        except BrokenPipeError:  # the parent has died
            os._exit(1)

    try:
        send("ended", function(*arguments, lambda *what: send("told", what)))
    except (Exception, SystemExit) as error:
        send("raised", _as_it_travels(error))


def _end_with_parent() -> None:
    """End with the parent, however that ends: from one thing to tell to the next it may be hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _as_it_travels(error: BaseException) -> Exception:
    """Return the error, or its words where pickle does not take it or another process is not to end by it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(cause_of(error))
    return error if isinstance(error, Exception) else RuntimeError(cause_of(error))
