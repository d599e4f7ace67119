"""Worker processes: what they report, how they end, and that nothing outlives whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lab import small
from tests.lab.processes import PATIENCE, alive, children, gone, kill, soon

from steprule import rules
from steprule.lab import Epoch
from steprule.lab.machine import available_cores
from steprule.lab.training import train
from steprule.lab.workers import (
    WORKER_VARIABLE,
    Ended,
    Event,
    Measured,
    Started,
    Task,
    environment,
    run,
    share_threads,
)

ROOT = Path(__file__).parents[2]
SMALL = Path(small.__file__).read_text(encoding="utf-8")


def tasks(seeds: int, **changes: Any) -> list[Task]:
    usual = {"rule": "sgd", "hyperparameters": {"lr": 0.1}, "epochs": small.EPOCHS}
    return [Task(number=10 * seed, seed=seed, **usual | changes) for seed in range(seeds)]


def events(problem: Callable[[], Any], seeds: int = 3, jobs: int = 1, **changes: Any) -> list[Event]:
    return list(run(small.named(problem), tasks(seeds, **changes), jobs))


def of(number: int, found: list[Event]) -> list[Event]:
    return [event for event in found if event.number == number]


def endings(found: list[Event]) -> dict[int, str]:
    return {event.number: event.status for event in found if isinstance(event, Ended)}


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    before = set(children(os.getpid()))
    yield
    assert set(children(os.getpid())) <= before


@pytest.fixture(scope="module")
def lines() -> list[Event]:
    return events(small.line, seeds=4, jobs=2)


def test_each_trial_is_started_then_measured_then_ended(lines: list[Event]) -> None:
    assert {event.number for event in lines} == {0, 10, 20, 30}
    for seed in range(4):
        started, *measured, ended = of(10 * seed, lines)
        assert started == Started(10 * seed)
        assert ended == Ended(10 * seed, "finished", "")
        assert [type(each) for each in measured] == [Measured] * small.EPOCHS
        expected = train(small.line(), rules.sgd, {"lr": 0.1}, seed, small.EPOCHS)
        for each, epoch in zip(measured, expected, strict=True):
            assert isinstance(each, Measured)
            assert untimed(each.epoch) == untimed(epoch)


def untimed(epoch: Epoch) -> tuple[object, ...]:
    return epoch.number, epoch.loss, epoch.test, epoch.validation


def test_trials_are_started_in_their_order(lines: list[Event]) -> None:
    assert [event.number for event in lines if isinstance(event, Started)] == [0, 10, 20, 30]


def test_more_processes_than_trials_do_no_harm() -> None:
    assert endings(events(small.line, seeds=2, jobs=7)) == {0: "finished", 10: "finished"}


def test_nothing_to_do_starts_nothing() -> None:
    assert list(run("no.module:at_all", [], 2)) == []


def test_a_diverged_trial_is_no_failed_one() -> None:
    *_, last, ended = events(small.line, seeds=1, hyperparameters={"lr": 100.0}, epochs=500)
    assert ended == Ended(0, "diverged", "")
    assert isinstance(last, Measured)
    assert 1 <= last.epoch.number < 500


def test_a_failure_inside_a_trial_is_told_and_the_others_go_on() -> None:
    found = events(small.failing)
    (line,) = [number for number, text in enumerate(SMALL.splitlines(), 1) if '"there is no second epoch"' in text]
    cause = f"LookupError: there is no second epoch ({small.__file__}, line {line})"
    assert of(10, found)[-1] == Ended(10, "failed", cause)
    assert [type(event) for event in of(10, found)] == [Started, Measured, Ended]
    assert endings(found) == {0: "finished", 10: "failed", 20: "finished"}


def test_what_a_trial_is_warned_of_is_told_here_once() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        found = events(small.broadcast, seeds=2, jobs=2)
    assert set(endings(found).values()) == {"finished"}
    told = [str(each.message) for each in warned]
    assert len(told) == 1
    assert "Using a target size (torch.Size([8])) that is different to the input size" in told[0]


def test_a_worker_that_is_killed_is_told_with_its_trial_and_the_others_go_on() -> None:
    found = events(small.killed, seeds=4, jobs=2)
    assert of(10, found)[-1] == Ended(10, "failed", "its process ended with SIGKILL")
    assert [type(event) for event in of(10, found)] == [Started, Measured, Ended]
    assert endings(found) == {0: "finished", 10: "failed", 20: "finished", 30: "finished"}


def test_a_worker_that_is_killed_while_it_writes_is_told_as_well() -> None:
    found = events(small.killed_in_mid_message, seeds=3)
    assert endings(found) == {0: "finished", 10: "failed", 20: "finished"}


def test_a_worker_that_exits_is_told_with_its_status() -> None:
    found = events(small.leaving, seeds=2)
    assert of(10, found)[-1] == Ended(10, "failed", "its process ended with exit status 7")


def test_the_last_words_of_a_worker_are_of_its_last_trial() -> None:
    found = events(small.talking_then_killed, seeds=2)
    assert of(10, found)[-1] == Ended(10, "failed", "its process ended with SIGKILL")


def test_a_rule_that_cannot_be_found_fails_its_trial() -> None:
    (ended,) = [event for event in events(small.line, seeds=1, rule="absent") if isinstance(event, Ended)]
    assert ended.status == "failed"
    assert ended.cause.startswith("ValueError: there is no rule 'absent'")


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (small.unmakeable, "its process ended with exit status 1, saying last: LookupError: there are no data here"),
        (small.unmakeable_and_dead, "its process ended with SIGKILL"),
    ],
)
def test_a_problem_that_cannot_be_made_is_told(problem: Callable[[], Any], cause: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        events(problem, jobs=2)
    assert str(caught.value) == f"the problem {small.named(problem)} could not be made: {cause}"


def test_what_a_problem_prints_before_it_fails_does_not_hide_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with pytest.raises(RuntimeError, match="saying last: LookupError: there are no data here$"):
        events(small.unmakeable_with_a_word)


def test_what_the_users_code_prints_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_TALKS", "1")
    found = events(small.printing, seeds=2)
    assert endings(found) == {0: "finished", 10: "finished"}
    assert len([event for event in found if isinstance(event, Measured)]) == 2 * small.EPOCHS


# In a process of their own, since what hangs here hangs for ever.
APART = """
import sys
from tests.lab import small
from tests.lab.test_workers import endings, events
print("ends", endings(events(getattr(small, sys.argv[1]), seeds=1)))
"""


@pytest.mark.parametrize("problem", [small.printing_beside_python, small.asking])
def test_what_goes_through_the_standard_streams_does_no_harm(problem: Callable[[], Any]) -> None:
    command = [sys.executable, "-c", APART, problem.__name__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert "ends {0: 'finished'}" in done.stdout


@pytest.mark.parametrize("sessions", [True, False])
def test_closing_ends_the_processes_in_the_midst_of_a_trial(sessions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sessions:
        monkeypatch.delattr(os, "killpg")
    before = set(children(os.getpid()))
    going = run(small.named(small.endless), tasks(2), 2)
    assert next(going) == Started(0)
    workers = set(children(os.getpid())) - before
    assert len(workers) == 2
    # In sessions of their own: the terminal's Ctrl-C is for the process that keeps the results.
    assert os.getsid(0) not in map(os.getsid, workers)
    going.close()  # type: ignore[attr-defined]  # a generator
    assert not workers & set(children(os.getpid()))


PARENT = """
import sys
from tests.lab import small
from tests.lab.test_workers import run, tasks

print("running", flush=True)
for event in run(small.named(small.endless), tasks(4), 2):
    print(event, flush=True)
"""


@pytest.mark.parametrize("moment", ["running", "Started(number=10)"])
def test_workers_end_when_their_parent_is_killed(moment: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers: list[int] = []
    try:
        while parent.stdout.readline().strip() != moment:
            assert parent.poll() is None
        soon(lambda: len(children(parent.pid)) == 2)
        workers = children(parent.pid)
        assert all(map(alive, workers))
    finally:
        kill(parent.pid)
        parent.wait()
        parent.stdout.close()
    try:
        soon(lambda: gone(workers))
    finally:
        for worker in workers:
            kill(worker)


@pytest.mark.parametrize(
    ("problem", "ends"),
    [(small.forking, "finished"), (small.forking_then_killed, "failed"), (small.forking_then_endless, None)],
)
def test_what_the_users_code_has_forked_ends_with_its_worker(
    problem: Callable[[], Any], ends: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = tmp_path / "child"
    monkeypatch.setenv("SMALL_CHILD", str(note))
    command = [sys.executable, "-c", APART, problem.__name__]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            if ends is None:
                soon(lambda: note.exists() and note.read_text().endswith("\n"))
            else:
                assert parent.communicate(timeout=PATIENCE)[0] == f"ends {{0: '{ends}'}}\n"
        finally:
            kill(parent.pid)
    child = int(note.read_text())
    try:
        soon(lambda: gone([child]))
    finally:
        kill(child)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_computes_in_its_share_of_the_cores(jobs: int) -> None:
    found = events(small.threads, seeds=jobs, jobs=jobs, epochs=1)
    assert {event.epoch.test for event in found if isinstance(event, Measured)} == {share_threads(jobs)}


def test_cores_are_shared_out() -> None:
    cores = available_cores()
    assert share_threads(1) == cores
    assert share_threads(cores) == 1
    assert share_threads(10 * cores) == 1
    assert all(share_threads(jobs) * jobs <= cores for jobs in range(1, cores + 1))


def test_a_workers_environment_is_the_users_with_the_threads_set(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMBA")
    for library in libraries:
        monkeypatch.setenv(f"{library}_NUM_THREADS", "64")
    monkeypatch.setenv("USERS_OWN", "kept")
    made = environment(3)
    assert {made[f"{library}_NUM_THREADS"] for library in libraries} == {"3"}
    assert made["USERS_OWN"] == "kept"


def test_a_worker_starts_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER_VARIABLE, "1")
    with pytest.raises(RuntimeError, match=r"put it under `if __name__ == '__main__':`$"):
        events(small.line)
