"""`steprule cluster run`: what it writes, and that it goes on after it was killed."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file
from tests.lab.processes import alive, soon
from tests.lab.small import line, named

from steprule import Rule, rules
from steprule.cluster import Plan, Version, Work
from steprule.cluster.reports import Progress, ShardReport
from steprule.cluster.training import Trained
from steprule.folders import held
from steprule.lab.cluster import run
from steprule.lab.cluster.run import Measured, Run, updates_of
from steprule.lab.grids import parse_values


def command(folder: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ["cluster", "run", "digits", "--replicas", "2", "--shards", "2", "--out", str(folder), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "steprule", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ray's workers give way to everything else, and then never get ready on a busy machine.
        env={**os.environ, "RAY_worker_niceness": "0"},
    )


def updates(folder: Path) -> int:
    """Return how many updates the snapshots have."""
    from steprule.cluster.snapshot import read

    found = sorted((folder / "snapshots").glob("*.safetensors"))
    return min(read(each)[1]["updates"] for each in found) if len(found) == 2 else -1


def measured(folder: Path) -> list[dict[str, float]]:
    results = folder / "results.json"
    return json.loads(results.read_text())["measured"] if results.exists() else []


@pytest.mark.cluster
@pytest.mark.serial
def test_a_training_whose_command_is_killed_goes_on(tmp_path: Path):
    more = ("--snapshot-every", "20", "--rule", "momentum", "--set", "lr=0.01", "--journal")
    first = command(tmp_path, "--updates", "1000000", *more, "--resume")
    soon(lambda: (updates(tmp_path) >= 100 and measured(tmp_path)) or first.poll() is not None)
    os.kill(first.pid, signal.SIGKILL)
    output, errors = first.communicate()
    assert first.returncode == -signal.SIGKILL, output + errors
    assert f"{tmp_path} has no snapshots, so that there is nothing to resume: training begins." in output
    reached = updates(tmp_path)
    # Ray ends what the command had started.
    soon(lambda: not any(alive(process) for process in _processes_of(tmp_path)))
    before = [each for each in measured(tmp_path) if each["updates"] <= reached]

    refused = command(tmp_path, "--updates", "10", *more)
    assert "has snapshots of a training; allowed is to resume it, or another folder" in refused.communicate()[1]
    assert refused.returncode == 2

    second = command(tmp_path, "--updates", str(reached + 500), *more, "--resume")
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    assert "no snapshots" not in output
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["measured"][-1]["updates"] == reached + 500
    assert results["measured"][: len(before)] == before
    counted = [each["updates"] for each in results["measured"]]
    assert counted == sorted(set(counted))
    assert [shard["lost"] for shard in results["progress"]["shards"]] == [0, 0]
    assert results["measured"][-1]["test"] < 10
    assert f"{reached + 500} updates: test error" in output
    assert {name: array.shape for name, array in load_file(tmp_path / "model.safetensors").items()} == {
        "0.weight": (64, 64),
        "0.bias": (64,),
        "2.weight": (10, 64),
        "2.bias": (10,),
    }
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def _processes_of(folder: Path) -> list[int]:
    """Return the processes that have files of the folder open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                files = [str(each.readlink()) for each in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(str(folder) in each for each in files):
                found.append(int(process.name))
    return found


def trains(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *reached: int, updates: int = 20, killed: bool = False, **more: Any
) -> list[Measured]:
    """Train with no Ray: each progress has so many updates, and is so many of them `behind` the shards."""
    options = {name: more.pop(name) for name in ("seed", "resume") if name in more}
    watchers, behind = more.pop("watchers", ()), more.pop("behind", 0)
    name, rule = more.pop("name", named(line)), more.pop("rule", rules.adam)
    problem, plan = more.pop("problem", line()), Plan(updates=updates, **more)

    def train(work: Work, _rule: Rule, plan: Plan, snapshots: Path, *, progress: Any, **_: object) -> Trained:
        snapshots.mkdir(exist_ok=True)
        (snapshots / "shard-0.safetensors").touch()

        def at(updates: int) -> Progress:
            report = ShardReport(1, "", Version(0, updates), 0, {}, {}, {}, 0, 0, 0.0, 0)
            return Progress(plan.updates, 1, 1, 0, 0.5, 1.0, [report], {}, {})

        for each in reached:
            fetched = each + behind, work.parameters
            progress(SimpleNamespace(progress=functools.partial(at, each), fetch=lambda fetched=fetched: fetched))
        if killed:
            raise KeyboardInterrupt
        return Trained(dict(work.parameters), at(plan.updates))

    ready = Run(name, problem, rule, plan, folder, **options)
    monkeypatch.setattr("steprule.cluster.training.train", train)
    return ready.train(watchers)


def test_measurements_are_kept_as_they_are_made_and_none_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyboardInterrupt):
        trains(monkeypatch, tmp_path, 0, 3, 8, 9, 15, killed=True)
    assert [each["updates"] for each in measured(tmp_path)] == [8, 15]
    # It goes on from a snapshot of update 10, and is killed again before it has measured anything.
    with pytest.raises(KeyboardInterrupt):
        trains(monkeypatch, tmp_path, 10, resume=True, killed=True)
    assert [each["updates"] for each in measured(tmp_path)] == [8]
    found = trains(monkeypatch, tmp_path, 12, 16, 20, resume=True)
    assert [each.updates for each in found] == [8, 16, 20]
    assert measured(tmp_path) == [dataclasses.asdict(each) for each in found]
    for more in (20, 21):
        found = trains(monkeypatch, tmp_path, 20, updates=more, resume=True)
    assert [each.updates for each in found] == [8, 16, 20, 21]


def test_what_is_measured_is_told_with_the_updates_that_it_has_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = trains(monkeypatch, tmp_path, 0, 8, 16, behind=3)
    assert [each.updates for each in found] == [11, 19, 20]


def test_a_measurement_that_cannot_be_written_yet_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = run.write_json

    def write(path: Path, content: Any) -> None:
        if content["progress"] is not None and len(content["measured"]) == 1:
            raise OSError(28, "No space left on device")
        written(path, content)

    monkeypatch.setattr(run, "write_json", write)
    with pytest.warns(RuntimeWarning, match="training goes on, and its measurements up to update 8 .*No space left"):
        found = trains(monkeypatch, tmp_path, 0, 8)
    assert measured(tmp_path) == [dataclasses.asdict(each) for each in found]


def test_who_cannot_show_a_training_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    good = SimpleNamespace(progressed=lambda progress: seen.append(progress.done), measured=seen.append)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    bad = SimpleNamespace(progressed=full, measured=full)
    with pytest.warns(RuntimeWarning, match="training goes on, and not all of it is shown .*No space left") as warned:
        found = trains(monkeypatch, tmp_path, 0, 8, watchers=(bad, good))
    assert len(warned) == 1
    assert seen == [0, 8, *found]
    assert measured(tmp_path) == [dataclasses.asdict(each) for each in found]


def test_a_folder_that_another_process_trains_into_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trains(monkeypatch, tmp_path, 0, 8)
    shutil.rmtree(tmp_path / "snapshots")  # the other has none yet
    before = (tmp_path / "results.json").read_bytes()
    with held(tmp_path), pytest.raises(ValueError, match=f"{tmp_path} is in use by another process"):
        trains(monkeypatch, tmp_path, 0, 8, seed=4)
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"seed": 4}, "seed is 4; allowed with resume is 3"),
        ({"name": "digits"}, "problem is 'digits'; allowed with resume is '"),
        ({"rule": rules.sgd}, "rule is 'sgd'; allowed with resume is 'adam'"),
        ({"shards": 2}, "shards is 2; allowed with resume is 1"),
        ({"n_push": 2}, "n_push is 2; allowed with resume is 1"),
        ({"n_fetch": 2, "local_lr": 0.1}, "n_fetch is 2; allowed with resume is 1"),
        ({"local_lr": 0.1}, "local_lr is 0.1; allowed with resume is None"),
        ({"overlap": False}, "overlap is False; allowed with resume is True"),
        ({"warm_start": 5}, "warm_start is 5; allowed with resume is 0"),
    ],
)
def test_a_training_goes_on_as_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], told: str
):
    one = {"seed": 3, "replicas": 2}
    with pytest.raises(KeyboardInterrupt):
        trains(monkeypatch, tmp_path, **one, killed=True)
    results = tmp_path / "results.json"
    before = results.read_bytes()
    with pytest.raises(ValueError, match=re.escape(told)):
        trains(monkeypatch, tmp_path, 0, **{**one, **other}, resume=True)
    assert results.read_bytes() == before
    trains(monkeypatch, tmp_path, 0, **one, updates=30, snapshot_every=5, journal=True, resume=True)
    results.unlink()  # as a version wrote none before the end
    trains(monkeypatch, tmp_path, 0, **{**one, **other}, resume=True)
    results.write_text("{}")
    with pytest.raises(ValueError, match=r"results.json is no results of a training .*; remove it"):
        trains(monkeypatch, tmp_path, 0, **one, resume=True)


def test_a_training_goes_on_with_the_data_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyboardInterrupt):
        trains(monkeypatch, tmp_path, 0, killed=True)
    inputs, targets = line().train
    other = dataclasses.replace(line(), train=(inputs, targets + 1))
    with pytest.raises(
        ValueError, match=r"the data of .*:line are others than those that .*results.json is of; allowed"
    ):
        trains(monkeypatch, tmp_path, 0, problem=other, resume=True)
    trains(monkeypatch, tmp_path, 0, resume=True)
    results = json.loads((tmp_path / "results.json").read_text())
    del results["data"]  # as a version noted none
    (tmp_path / "results.json").write_text(json.dumps(results))
    trains(monkeypatch, tmp_path, 20, problem=other, updates=21, resume=True)


@pytest.mark.parametrize("epochs", [-1.0, 0.0, math.inf, math.nan, 1e308])
def test_epochs_that_cannot_be_are_refused(epochs: float):
    with pytest.raises(ValueError, match=re.escape(f"epochs is {epochs!r}; allowed is a finite number above 0")):
        updates_of(line(), epochs, 1)
    assert (updates_of(line(), 1e-9, 1), updates_of(line(), 3, 2)) == (1, 10)


@pytest.mark.parametrize("text", ["lr", "=1", "lr=fast"])
def test_a_hyperparameter_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=re.escape(f"--set is {text!r}; allowed is name=value with a number")):
        parse_values([text])


def test_a_hyperparameter_that_is_given_twice_is_refused():
    with pytest.raises(ValueError, match="--set lr is given twice"):
        parse_values(["lr=0.1", "lr=0.2"])
