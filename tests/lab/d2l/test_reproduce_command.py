"""`steprule reproduce d2l`: what it writes and says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.lab.processes import kill, soon
from tests.requirements import interrupts_heeded, require_data_set, require_installed, require_release
from typer.testing import CliRunner

from steprule import reproducing
from steprule.lab.d2l.exercises import Exercise


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "steprule", "reproduce", *words]
    return subprocess.run(whole, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    require_data_set("airfoil")
    require_installed("typer", "altair", "vl_convert")
    folder = tmp_path_factory.mktemp("d2l")
    words = ("d2l", "--engines", "numpy,mxnet", "--python", f"mxnet={sys.executable}", "--seeds", "2", "--out", "here")
    return command(*words, cwd=folder), folder / "here"


def test_prints_a_table_and_the_command_that_installs_what_is_missing(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ended, _ = done
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "numpy, from scratch" in ended.stdout
    assert "mxnet: mxnet is not installed. Install:" in " ".join(ended.stdout.split())
    assert "The page: here/index.html" in ended.stdout


def test_writes_the_results_and_the_page_and_nothing_else(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, out = done
    assert {path.name for path in out.iterdir()} == {"index.html", "results.json", "table.txt", "figures"}
    assert (out / "table.txt").read_text().splitlines()[2].startswith("numpy, from scratch")
    results = json.loads((out / "results.json").read_text())
    assert results["missing"][0]["engine"] == "mxnet"
    assert [plan["engine"] for plan in results["plans"]] == ["numpy", "mxnet", "mxnet"]
    assert len(results["plans"][0]["traces"]) == 2
    assert results["exercises"] == []
    assert "steprule reproduce d2l --engines numpy,mxnet" in results["run"]["command"]


def test_where_no_training_came_out_the_status_says_so(tmp_path: Path) -> None:
    require_data_set("airfoil")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"absent": "mxnet"}\'\n')
    python.chmod(0o755)
    ended = command("d2l", "--engines", "mxnet", "--python", f"mxnet={python}", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "mxnet: mxnet is not installed. Install:" in " ".join(ended.stdout.split())
    assert (tmp_path / "d2l" / "results.json").is_file()


def interrupted(tmp_path: Path, engines: str) -> tuple[int, str, str]:
    """Status, output and errors of the command that is interrupted, as by a terminal, while torch trains."""
    require_data_set("airfoil")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 60\n")
    python.chmod(0o755)
    words = ["d2l", "--engines", engines, "--python", f"torch={python}", "--seeds", "1", "--out", str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with interrupts_heeded():
        process = subprocess.Popen(
            [sys.executable, "-m", "steprule", "reproduce", *words],
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )
    try:
        soon(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate()
    finally:
        kill(process.pid)
    return process.returncode, " ".join(said.split()), errors


def test_ctrl_c_writes_what_is_finished_and_says_so(tmp_path: Path) -> None:
    status, said, errors = interrupted(tmp_path, "numpy,torch,jax")
    out = tmp_path / "out"
    assert (status, errors) == (130, "")
    assert "Stopped. What is finished is kept in" in said and said.endswith("the same command begins anew.")
    assert {path.name for path in out.iterdir()} == {"index.html", "results.json", "table.txt", "figures"}
    results = json.loads((out / "results.json").read_text())
    assert [len(plan["traces"]) for plan in results["plans"] if plan["engine"] == "numpy"] == [1]
    assert [each["engine"] for each in results["missing"]] == ["torch", "jax"]
    table = (out / "table.txt").read_text()
    assert "numpy, from scratch" in table and "torch: stopped before it had ended.\n" in table


def test_ctrl_c_before_anything_is_finished_writes_nothing(tmp_path: Path) -> None:
    status, said, errors = interrupted(tmp_path, "torch,numpy")
    assert (status, errors) == (130, "")
    assert said.endswith("Stopped before any plan had all its seeds; nothing is written.")
    assert list((tmp_path / "out").iterdir()) == []


def test_exercises_that_are_interrupted_leave_those_that_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_data_set("airfoil")
    out = tmp_path / "out"

    def interrupt(seeds: int) -> Exercise:
        assert {path.name for path in out.iterdir()} == {"index.html", "results.json", "table.txt", "figures"}
        raise KeyboardInterrupt

    answered = Exercise("rho", "What happens?", ("This does.",), ())
    monkeypatch.setattr("steprule.lab.d2l.exercises.EXERCISES", {"rho": lambda seeds: answered, "rescaled": interrupt})
    words = ["d2l", "--engines", "numpy", "--seeds", "1", "--epochs", "1", "--exercises", "--out", str(out)]
    ended = CliRunner().invoke(reproducing.app, words)
    assert ended.exit_code == 130
    assert "the same command begins anew." in " ".join(ended.output.split())
    assert [each["name"] for each in json.loads((out / "results.json").read_text())["exercises"]] == ["rho"]
    assert "What happens?" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engines", "caffe"), "there is no engine 'caffe'"),
        (("--engines", ""), "there is no engine ''"),
        (("--python", "mxnet"), "--python is 'mxnet'; allowed is engine=path/to/python"),
        (("--seeds", "0"), "seeds is 0"),
    ],
)
def test_words_that_cannot_be_are_told_in_one_sentence(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    require_release("rich", "14.3", "a bar that is not shown leaves an empty line")
    ended = command("d2l", *words, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"steprule: {said}")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
