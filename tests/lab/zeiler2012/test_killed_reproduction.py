"""`steprule reproduce zeiler2012`, killed in its midst: the same command goes on, and the numbers are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab import small
from tests.lab.processes import children, gone, kill, soon
from tests.requirements import require_installed

from steprule.lab.places import Processes
from steprule.lab.zeiler2012 import reproduction
from steprule.lab.zeiler2012.experiments import Experiment, Printed, Run

ROOT = Path(__file__).parents[3]
SEEDS = 12
TRIALS = 2 * SEEDS
PART = Experiment(
    "lines", "a part", "lines", (Run(small.named(small.slow), small.EPOCHS, {"sgd": {"lr": (0.1, 100.0)}}),), Printed()
)

# The command as it is, of a part that takes no minutes.
COMMAND = """
from tests.lab.zeiler2012.test_killed_reproduction import PART
from steprule.lab import zeiler2012
from steprule.lab.zeiler2012 import published, reproduction
from steprule.report.zeiler2012 import words
for module in (zeiler2012, published, reproduction, words):
    module.parts = lambda: {"lines": PART}
from steprule.cli import main
main()
"""


def started(out: Path) -> subprocess.Popen[str]:
    words = ["reproduce", "zeiler2012", "lines", "--seeds", str(SEEDS), "--jobs", "2", "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", COMMAND, *words], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def numbers(out: Path) -> list[Any]:
    (made,) = reproduction.reproduce(["lines"], seeds=SEEDS, on=Processes(2), out=out)
    return [
        (outcome.trial, outcome.status, repr([(e.number, e.loss, e.test, e.validation) for e in outcome.epochs]))
        for outcome in made.comparisons[0].outcomes
    ]


def test_three_kills_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed("typer", "altair", "vl_convert")
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("SMALL_NOTES", str(notes))
    monkeypatch.setattr(reproduction, "parts", lambda: {"lines": PART})

    def trained() -> int:
        return len(notes.read_text().splitlines())

    processes: list[int] = []
    for _ in range(3):
        more = trained() + 4
        process = started(tmp_path / "out")
        try:
            soon(lambda process=process, more=more: trained() >= more or process.poll() is not None)  # type: ignore[misc]
            assert process.poll() is None, process.communicate()
            processes += children(process.pid)
        finally:
            kill(process.pid)
            process.communicate()
    soon(lambda: gone(processes))
    last = started(tmp_path / "out")
    said, errors = last.communicate()
    assert last.returncode == 0, errors
    assert "finished already" in said
    # A kill costs no more than what two workers had in hand; each of the four starts measures one model for its estimate.
    assert TRIALS < trained() <= TRIALS + 3 * 2 + 4
    run = trained()
    found = numbers(tmp_path / "out")
    assert trained() == run
    assert found == numbers(tmp_path / "uninterrupted")
    assert {status for _, status, _ in found} == {"finished", "diverged"}
    assert (tmp_path / "out" / "index.html").is_file()
