"""`steprule reproduce d2l`: what it writes and says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.requirements import require_data_set, require_installed, require_release


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engines", "caffe"), "there is no engine 'caffe'"),
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
