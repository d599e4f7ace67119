"""`steprule cluster simulate` and `study`, as they are typed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.lab import small
from typer.testing import CliRunner, Result

from steprule import simulating
from steprule.cluster import simulate
from steprule.cluster.gradients import Gradients
from steprule.clustering import app
from steprule.lab import problem
from steprule.rules import sgd

LINE = small.named(small.line)
NORMED = small.named(small.normed)
OWN = f"{Path(__file__).parents[2] / 'examples' / 'own_rule.py'}:lion"


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_a_simulation_is_written_with_a_record_of_each_push(tmp_path: Path) -> None:
    rule = ("--rule", "sgd", "--set", "lr=0.05", "--replicas", "3", "--updates", "20", "--every", "10")
    done = typed("simulate", LINE, *rule, "--compute", "1", "--push", "0", "--fetch", "0", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "after 10 pushes: loss" in done.output and "3 of 3 replicas alive" in done.output
    direct = simulate(problem.find_problem(LINE)(), sgd, {"lr": 0.05}, replicas=3, updates=20, every=10)
    pushes = np.load(tmp_path / "pushes.npy", allow_pickle=False)
    np.testing.assert_array_equal(pushes, direct.pushes)
    written = json.loads((tmp_path / "simulation.json").read_text())
    assert written["conditions"] == "compute 1, push 0, fetch 0"
    assert [each["test"] for each in written["measured"]] == [each.test for each in direct.measured]
    assert written["updates"] == 20


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (
            ("lr=0.05", "--failures", "5"),
            "Ended before 300 pushes, since every replica has died, and none comes back:",
            0,
        ),
        (
            ("lr=0.05", "--failures", "0.001"),
            "Ended before 300 pushes, since every replica has died, and none comes back: 0 pushes",
            1,
        ),
        (("lr=1e30",), "Ended before 300 pushes, since the loss is infinite or NaN:", 0),
    ],
)
def test_a_simulation_that_ends_early_says_why(tmp_path: Path, words: tuple[str, ...], told: str, status: int) -> None:
    usual = ("--rule", "sgd", "--replicas", "3", "--updates", "300", "--every", "10", "--compute", "1")
    done = typed("simulate", LINE, *usual, "--set", *words, "--out", str(tmp_path))
    assert (done.exit_code, told in done.output) == (status, True), done.output


def test_a_simulation_that_is_stopped_says_when_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, calls = Gradients.at, itertools.count(1)

    def interrupted(self: Gradients, *arguments: Any) -> float:
        if next(calls) == 16:
            raise KeyboardInterrupt
        return at(self, *arguments)

    monkeypatch.setattr(Gradients, "at", interrupted)
    usual = ("--rule", "sgd", "--set", "lr=0.05", "--replicas", "1", "--every", "10", "--out", str(tmp_path))
    done = typed("simulate", LINE, *usual)
    assert done.exit_code == 130
    last = done.output.splitlines()[-1]
    assert last.startswith("Stopped after 15 pushes")
    (measured,) = json.loads((tmp_path / "simulation.json").read_text())["measured"]
    assert f"squared error {measured['test']:.4g} after 10." in last


def test_a_simulation_that_is_killed_has_written_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, calls = Gradients.at, itertools.count(1)

    def killed(self: Gradients, *arguments: Any) -> float:
        if next(calls) == 16:
            raise SystemExit(9)  # nothing is written after it
        return at(self, *arguments)

    monkeypatch.setattr(Gradients, "at", killed)
    monkeypatch.setattr(simulating, "_SECONDS_BETWEEN_FILES", 0.0)
    usual = ("--rule", "sgd", "--set", "lr=0.05", "--replicas", "1", "--every", "10", "--out", str(tmp_path))
    assert typed("simulate", LINE, *usual).exit_code == 9
    written = json.loads((tmp_path / "simulation.json").read_text())
    assert [each["updates"] for each in written["measured"]] == [10]
    assert written["updates"] == len(np.load(tmp_path / "pushes.npy", allow_pickle=False)) == 10


def test_one_push_is_one(tmp_path: Path) -> None:
    done = typed("simulate", LINE, "--replicas", "1", "--updates", "1", "--out", str(tmp_path))
    assert "after 1 push: loss" in done.output
    assert "Done: 1 push in " in done.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("simulate", LINE, "--compute", "fast"), "distribution 'fast' holds 'fast'"),
        (("simulate", LINE, "--set", "lr"), "--set is 'lr'"),
        (("study", LINE, "--replicas", "1,2.5"), "--replicas is '1,2.5'"),
        (("simulate", f"{LINE}@3"), "line@3 is trained in a way of its own, which this cluster does not follow"),
        (("simulate", LINE, "--device", "tpu"), "device is 'tpu'; allowed "),
        (("study", LINE, "--rules", "mine"), "there is no rule 'mine'"),
        (("study", LINE, "--rules", OWN), "--rules names 'lion', which has no grid"),
        (
            ("study", LINE, "--rules", "sgd", "--grid", "sgd.lr=0.1", "--grid", "adgrad.lr=1"),
            "--grid names the rule 'adgrad'; --rules has sgd",
        ),
        (("study", LINE, "--seeds", "0"), "seeds is 0; allowed is a whole number from 1"),
        (("run", f"{LINE}@3"), "line@3 is trained in a way of its own, which a cluster does not follow"),
        (
            ("run", LINE, "--device", "tpu"),
            'device is \'tpu\'; allowed is "cpu", or "cuda": Ray gives each shard a GPU',
        ),
        (("run", LINE, "--on-nonfinite", "ignore"), "on_nonfinite is 'ignore'; allowed"),
        (("run", LINE, "--rule", "mine"), "there is no rule 'mine'"),
        (("run", LINE, "--shards", "3"), "shards is 3; allowed is a whole number from 1 to 2, one for each row"),
        (("run", NORMED), "the model of normed has the buffer 0.running_mean; allowed are models without"),
        (("run", LINE, "--seed", "-1"), "seed is -1; allowed is a whole number from 0"),
        (("run", LINE, "--dashboard", "--address", "auto"), "dashboard is True and address is 'auto'"),
        (("run", LINE, "--set", "rho=2"), "rho is 2.0; allowed is a number in [0, 1)"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = typed(*words)
    assert done.exit_code == 1
    assert told in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_study_writes_its_page_and_tables(tmp_path: Path) -> None:
    small_one = ("--replicas", "1,3", "--epochs", "1", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path))
    grids = ("--grid", "sgd.lr=0.1", "--grid", "lion.lr=0.01")
    done = typed("study", LINE, "--rules", f"sgd, {OWN}", *grids, *small_one)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "index.html").is_file()
    assert "lr=0.1" in (tmp_path / "table.txt").read_text()
    assert "lion" in (tmp_path / "table.txt").read_text()
