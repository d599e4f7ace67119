"""Threads that share out a kernel's work: PyTorch's where they are, ours otherwise, and after a fork."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import pytest
from tests.lab.processes import PATIENCE
from tests.requirements import require, require_installed

from steprule.kernels import team


@pytest.fixture(params=["PyTorch's threads", "our threads"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "our threads":
        monkeypatch.setattr(team, "_find_openmp", lambda: None)
    else:
        require_installed("torch")
        importlib.import_module("torch")
        require(team._find_openmp(), "PyTorch's OpenMP runtime has no GOMP_parallel here")
    return request.param


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "_find_openmp", lambda: None)


def is_helper() -> bool:
    return threading.current_thread().name == "steprule"


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE), "waited in vain"


def test_the_caller_takes_part_and_the_address_is_handed_on(either: str):
    seen = []
    team.run(team.Work(lambda launch: seen.append((launch, threading.get_ident()))), 4711, threads=3)
    assert (4711, threading.get_ident()) in seen
    assert {launch for launch, _ in seen} == {4711}
    assert 1 <= len(seen) <= 3


def test_one_thread_is_the_caller_alone(either: str):
    seen = []
    team.run(lambda launch: seen.append(threading.get_ident()), 1, threads=1)
    assert seen == [threading.get_ident()]


def test_work_is_done_when_run_returns(either: str):
    # Every call counts the work that it finds, as a kernel claims its chunks.
    lock, left, done = threading.Lock(), list(range(2000)), []

    def work(launch: int) -> None:
        while True:
            with lock:
                if not left:
                    return
                item = left.pop()
            done.append(item)

    for _ in range(20):
        left, done = list(range(100)), []
        team.run(team.Work(work), 1, threads=4)
        assert sorted(done) == list(range(100))


def test_several_callers_at_once(either: str):
    together, wrong = threading.Barrier(4), []

    def caller(number: int) -> None:
        together.wait(PATIENCE)
        for turn in range(100):
            seen: list[int] = []
            address = 1000 * number + turn + 1
            team.run(team.Work(seen.append), address, threads=3)
            if not seen or set(seen) != {address}:
                wrong.append((address, seen))

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(PATIENCE)
        assert not each.is_alive()
    assert wrong == []


def test_run_waits_for_a_helper_that_has_begun(ours: None):
    begun, ended = threading.Event(), []

    def work(launch: int) -> None:
        if is_helper():
            begun.set()
            # The caller has left its own part by now or leaves it any moment: only waiting keeps the order.
            threading.Event().wait(0.02)
            ended.append(True)
        else:
            wait(begun)

    team.run(work, 1, threads=2)
    assert ended == [True]


def test_run_does_not_wait_for_a_helper_that_has_not_begun(ours: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "_helpers", team._Helpers())
    busy, release, calls = threading.Event(), threading.Event(), []

    def long_work(launch: int) -> None:
        if is_helper():
            busy.set()
        wait(release)

    other = threading.Thread(target=team.run, args=(long_work, 1, 2))
    other.start()
    wait(busy)
    team.run(lambda launch: calls.append(is_helper()), 2, threads=2)
    assert calls == [False]
    release.set()
    other.join(PATIENCE)
    # The only helper has found the second job in its queue by then, and left it alone.
    team.run(lambda launch: None, 3, threads=2)
    assert calls == [False]


def test_an_error_in_a_helper_is_raised(ours: None):
    begun = threading.Event()

    def work(launch: int) -> None:
        if is_helper():
            begun.set()
            raise ArithmeticError("in a helper")
        wait(begun)

    with pytest.raises(ArithmeticError, match="in a helper"):
        team.run(work, 1, threads=2)
    begun.clear()
    with pytest.raises(ArithmeticError, match="in a helper"):
        team.run(work, 1, threads=2)  # the helper is still there


def test_an_error_in_the_caller_is_raised_when_the_helpers_have_ended(ours: None):
    begun, ended = threading.Event(), []

    def work(launch: int) -> None:
        if is_helper():
            begun.set()
            threading.Event().wait(0.02)
            ended.append(True)
        else:
            wait(begun)
            raise ArithmeticError("in the caller")

    with pytest.raises(ArithmeticError, match="in the caller"):
        team.run(work, 1, threads=2)
    assert ended == [True]


def test_helpers_are_made_once_and_do_not_keep_a_process_alive(ours: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(team, "_helpers", team._Helpers())
    before = set(threading.enumerate())
    for _ in range(5):
        team.run(lambda launch: None, 1, threads=4)
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == 3
    assert all(helper.daemon for helper in helpers)


def script(text: str, *arguments: str) -> list[str]:
    """Run `text`, which waits for nothing longer than 150 s, in a process of its own; return the lines that it prints."""
    run = subprocess.run([sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


# A forked child steps after its parent has, in several threads; parent and child must come to the same bits.
_FORK = """
import hashlib, os, sys, threading, time, warnings
import numpy as np
warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
if sys.argv[1] == "with torch":
    import torch
from steprule import around, rules
from steprule.kernels import cpu, team
from steprule.program import lower

program = lower(rules.adadelta)
arrays = {name: np.full(5 * cpu.CHUNK, 0.5) for name in program.arrays}
table = cpu.Table(np.array([[arrays[name].ctypes.data for name in program.arrays]]), [5 * cpu.CHUNK])
scalars = np.array([program.fold(t=1, **around.validated(rules.adadelta, {}))])
run = cpu.kernel(program, "float64")

def step():
    cpu.launch(run, table, scalars, threads=4)
    if team._find_openmp() is None:
        assert sum(thread.name == "steprule" for thread in threading.enumerate()) == 3
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()

def fork(body):
    into, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(out, body().encode())
        os._exit(0)
    os.close(out)
    deadline = time.monotonic() + 150
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit("the child hangs")
        time.sleep(0.01)
    return os.read(into, 1000).decode()

if sys.argv[1] == "without torch":
    team._find_openmp = lambda: None
step()
both = fork(lambda: step() + " " + fork(step))
print(both, step(), step())
"""


@pytest.mark.parametrize("threads", ["with torch", "without torch"])
def test_a_forked_child_and_its_child_step_after_their_parent_has(threads: str):
    (line,) = script(_FORK, threads)
    child, grandchild, second, third = line.split()
    assert child == second
    assert grandchild == third


_MULTIPROCESSING = """
import multiprocessing, sys, warnings
import torch
import steprule.torch as ours
warnings.simplefilter("ignore", DeprecationWarning)
torch.set_num_threads(2)

parameters = [torch.nn.Parameter(torch.full((40_000,), 0.5)) for _ in range(3)]
for parameter in parameters:
    parameter.grad = torch.full((40_000,), 2.0)
optimizer = ours.Adam(parameters)
optimizer.step()

def child(queue):
    optimizer.step()
    queue.put([float(parameter.detach()[place]) for parameter in parameters for place in (0, 20_000, 39_999)])

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=child, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=150) for _ in processes]
    for process in processes:
        process.join(150)
        assert process.exitcode == 0
    optimizer.step()
    expected = [float(parameter.detach()[0]) for parameter in parameters for _ in range(3)]
    print(found == [expected, expected])
"""


def test_children_of_multiprocessing_step_the_optimizer_that_their_parent_has_stepped():
    assert script(_MULTIPROCESSING) == ["True"]


def test_a_process_ends_while_helpers_sleep():
    code = "from steprule.kernels import team; team._find_openmp = lambda: None; team.run(print, 1, 4)"
    assert set("".join(script(code))) == {"1"}
