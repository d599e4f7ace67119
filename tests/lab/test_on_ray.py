"""Trials on a Ray cluster of two nodes: the numbers of local workers, and what is lost is tried again or told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab import small
from tests.lab.processes import LOOPBACK, children, gone, kill, listening, soon
from tests.requirements import interrupts_heeded, require_installed

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    require_installed("ray")
    command = [sys.executable, "-m", "tests.lab.on_two_nodes", str(tmp_path_factory.mktemp("cluster"))]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def finished(epochs: int = small.EPOCHS, started: int = 1) -> dict[str, Any]:
    return {"started": started, "epochs": list(range(1, epochs + 1)), "end": "finished: "}


def without_test(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trial.items() if name != "test"}


def test_there_is_a_job_for_each_cpu(found: Any) -> None:
    assert found["jobs"] == 2


def test_the_numbers_are_those_of_local_workers_bit_for_bit(found: Any) -> None:
    compared = found["compared"]
    assert compared["same"]
    assert compared["statuses"] == ["finished", "finished", "diverged"] * 2
    assert compared["machine"]["processes"] == "2, on a Ray cluster of 2 nodes"


def test_what_the_cluster_has_finished_is_not_run_again_here(found: Any) -> None:
    assert found["compared"]["left for local workers"] == 0


def test_the_users_own_file_is_brought_to_a_machine_that_has_it_not(found: Any) -> None:
    assert without_test(found["brought"]["0"]) == finished()


def test_a_trial_computes_in_as_many_threads_as_it_has_cpus(found: Any) -> None:
    assert [each["test"] for each in found["threads"].values()] == [1.0, 1.0]


def test_a_process_that_dies_each_time_fails_its_trial_with_the_cause(found: Any) -> None:
    first, second = (found["killed"][number] for number in "01")
    assert without_test(first) == finished()
    assert (second["started"], second["epochs"]) == (3, [1, 1, 1])
    assert second["end"].startswith("failed: its process was lost 3 times: ")
    assert "died unexpectedly" in second["end"]


def test_a_problem_that_cannot_be_made_there_is_told(found: Any) -> None:
    assert "could not be made: LookupError: there are no data here (" in found["unmade"]


def test_closing_ends_the_trials(found: Any) -> None:
    assert found["free again"]


def test_the_trials_of_a_lost_node_are_run_again(found: Any) -> None:
    trials = found["lost"].values()
    assert [each["end"] for each in trials] == ["finished: "] * 3
    assert sorted(each["started"] for each in trials) == [1, 1, 2]
    assert all(each["epochs"][-60:] == list(range(1, 61)) for each in trials)


def test_leaving_it_ends_the_connection(found: Any) -> None:
    assert found["still connected"] is False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_comparison_and_the_cluster_that_it_started(how: signal.Signals, tmp_path: Path) -> None:
    require_installed("ray", "typer", "altair", "vl_convert")
    words = [small.named(small.endless), "--rules", "sgd", "--rates", "0.1", "--on", "ray", "--out", str(tmp_path)]
    pipe = subprocess.PIPE
    with interrupts_heeded():
        process = subprocess.Popen(
            [sys.executable, "-m", "steprule", "compare", *words], stdout=pipe, stderr=pipe, text=True,
            start_new_session=True, env=os.environ | {"SMALL_NOTES": str(tmp_path / "notes")},
        )  # fmt: skip
    try:
        soon(lambda: (tmp_path / "notes").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        heard = listening(process.pid)
        assert len(heard) > 3  # of Ray's own processes and of the worker
        assert set(heard) <= LOOPBACK
        started = children(process.pid)
        os.kill(process.pid, how)
        said, errors = process.communicate()
    finally:
        kill(process.pid)
        process.wait()
    assert process.returncode == 130
    assert "Stopped. What is finished is kept in" in said
    assert "SIGTERM" not in errors  # which Ray would tell with traces
    soon(lambda: gone(started))
