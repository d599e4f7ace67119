"""`steprule cluster run`: what it writes, and that it goes on after it was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.lab.processes import alive, soon

from steprule.lab.grids import parse_values

pytestmark = [pytest.mark.cluster, pytest.mark.serial]


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


def test_a_training_whose_command_is_killed_goes_on(tmp_path: Path):
    more = ("--snapshot-every", "20", "--rule", "momentum", "--set", "lr=0.01", "--journal")
    first = command(tmp_path, "--updates", "1000000", *more)
    soon(lambda: updates(tmp_path) >= 100 or first.poll() is not None)
    os.kill(first.pid, signal.SIGKILL)
    output, errors = first.communicate()
    assert first.returncode == -signal.SIGKILL, output + errors
    reached = updates(tmp_path)
    # Ray ends what the command had started.
    soon(lambda: not any(alive(process) for process in _processes_of(tmp_path)))
    assert not (tmp_path / "results.json").exists()

    refused = command(tmp_path, "--updates", "10", *more)
    assert "has snapshots of a training; allowed is to resume it, or another folder" in refused.communicate()[1]
    assert refused.returncode == 2

    second = command(tmp_path, "--updates", str(reached + 500), *more, "--resume")
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["measured"][-1]["updates"] == reached + 500
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


@pytest.mark.parametrize("text", ["lr", "=1", "lr=fast"])
def test_a_hyperparameter_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=re.escape(f"--set is {text!r}; allowed is name=value with a number")):
        parse_values([text])


def test_a_hyperparameter_that_is_given_twice_is_refused():
    with pytest.raises(ValueError, match="--set lr is given twice"):
        parse_values(["lr=0.1", "lr=0.2"])
