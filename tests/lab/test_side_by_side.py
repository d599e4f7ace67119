"""Calls in processes of their own: what they return, tell and raise, and what is left of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lab.processes import gone, kill, soon

import torch
from steprule.lab.side_by_side import calls
from steprule.lab.workers import share_threads

ROOT = Path(__file__).parents[2]


def _counted(until: int, tell: Callable[[int], None]) -> tuple[int, int, int]:
    for number in range(until):
        tell(number)
    return until, os.getpid(), torch.get_num_threads()


def _unwilling(number: int, tell: Callable[[int], None]) -> int:
    if number == 1:
        raise LookupError("there is no such thing")
    return _waiting(number, tell)


def _waiting(number: int, tell: Callable[[int], None]) -> int:
    tell(os.getpid())
    time.sleep(600)
    return number


class OddError(Exception):
    """Is made of two words, and pickle keeps one."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


def _odd(how: str, tell: Callable[[int], None]) -> object:
    if how == "odd":
        raise OddError("left", "right")
    if how == "exit":
        raise SystemExit("no more")
    if how == "pipe":
        raise BrokenPipeError("my own pipe")
    return lambda: None


def _dying(number: int, tell: Callable[[int], None]) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_each_has_a_process_and_tells_of_itself() -> None:
    told: list[tuple[int, int]] = []
    found = dict(calls(_counted, [(1,), (3,), (2,)], 2, lambda *each: told.append(each)))
    assert [found[number][0] for number in range(3)] == [1, 3, 2]
    assert sorted(told) == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert len({process for _, process, _ in found.values()} | {os.getpid()}) == 4
    assert {threads for *_, threads in found.values()} == {share_threads(2)}


def test_what_one_raises_is_raised_here_and_ends_the_others() -> None:
    with pytest.raises(LookupError, match="there is no such thing"):
        list(calls(_unwilling, [(0,), (1,)], 2, lambda *_: None))
    assert not multiprocessing.active_children()


def test_one_that_dies_is_told_of() -> None:
    with pytest.raises(RuntimeError, match=r"a process that trained has died \(exit code -9\)"):
        list(calls(_dying, [(0,)], 1, lambda *_: None))


@pytest.mark.parametrize("how", ["odd", "exit", "pipe", "result"])
def test_what_cannot_travel_is_told_in_words(how: str) -> None:
    told = {"odd": "OddError: left and right", "exit": "SystemExit: no more", "pipe": "my own pipe", "result": "pickle"}
    with pytest.raises((RuntimeError, BrokenPipeError, AttributeError, TypeError), match=told[how]):
        list(calls(_odd, [(how,)], 1, lambda *_: None))


def test_whoever_stops_looking_ends_them_all() -> None:
    processes: list[int] = []

    def told(number: int, process: int) -> None:
        processes.append(process)
        if len(processes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(calls(_waiting, [(0,), (1,)], 2, told))
    soon(lambda: gone(processes))


PARENT = """
from tests.lab.test_side_by_side import _waiting, calls

list(calls(_waiting, [(0,), (1,)], 2, lambda number, process: print(process, flush=True)))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_they_end_when_whoever_called_is_killed(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            processes = [int(parent.stdout.readline()) for _ in range(2)]
        finally:
            parent.send_signal(how)
    try:
        soon(lambda: gone(processes))
    finally:
        for each in processes:
            kill(each)


def test_the_number_of_processes_is_checked() -> None:
    with pytest.raises(ValueError, match="jobs is 0; allowed is a whole number from 1"):
        next(calls(_counted, [(1,)], 0, lambda *_: None))
