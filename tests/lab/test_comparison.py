"""A whole comparison: what it runs, what it keeps, and that no interruption changes a number."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.users_rules import lion, yogi
from tests.lab import small
from tests.lab.processes import children, gone, kill, soon
from tests.requirements import interrupts_heeded, require_installed

import steprule
from steprule import rules
from steprule.lab import Comparison, Epoch, Outcome, Problem, Setting, Trial, compare, workers
from steprule.lab.comparison import RULES
from steprule.lab.machine import available_cores
from steprule.lab.store import Store
from steprule.lab.training import train
from steprule.named import from_here

ROOT = Path(__file__).parents[2]


class Notes:
    """What a comparison tells while it runs, and each trial that a worker has begun."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.begun: list[tuple[int, int, int, int]] = []
        self.told: list[Any] = []

    def begin(self, problem: Problem, trials: int, epochs: int, kept: int, jobs: int) -> None:
        self.begun.append((trials, epochs, kept, jobs))

    def started(self, trial: Trial) -> None:
        self.told.append(trial)

    def measured(self, trial: Trial, epoch: Epoch) -> None:
        self.told.append((trial, epoch))

    def ended(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    def trained(self) -> int:
        """Return how many trials have begun in a worker, over all calls."""
        return len(self.file.read_text(encoding="utf-8").splitlines()) if self.file.exists() else 0


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setenv("SMALL_NOTES", str(tmp_path / "notes"))
    return Notes(tmp_path / "notes")


def compared(out: Path, problem: Callable[[], Any] = small.line, **changes: Any) -> Comparison:
    usual: dict[str, Any] = {"rules": ["sgd"], "rates": [0.1, 0.01], "seeds": 2, "jobs": 1}
    return compare(small.named(problem), out=out, **usual | changes)


def timeless(comparison: Comparison) -> str:
    """All outcomes without the seconds; as text, so that NaN equals NaN."""
    return repr(
        [
            replace(outcome, epochs=tuple(replace(epoch, seconds=0.0) for epoch in outcome.epochs))
            for outcome in comparison.outcomes
        ]
    )


class TestAWholeComparison:
    def test_has_the_numbers_of_each_trial_trained_alone(self, tmp_path: Path) -> None:
        made = compared(tmp_path, rules=["sgd", "adadelta"], grid={"adadelta": {"rho": [0.9], "eps": [1e-4]}})
        assert dict(made.grids) == {"sgd": {"lr": (0.1, 0.01)}, "adadelta": {"rho": (0.9,), "eps": (1e-4,)}}
        settings = [
            Setting("sgd", {"lr": 0.1}),
            Setting("sgd", {"lr": 0.01}),
            Setting("adadelta", {"rho": 0.9, "eps": 1e-4}),
        ]
        # The first seed of every setting comes before the second of any, so that an early look is a fair one.
        assert [outcome.trial for outcome in made.outcomes] == [
            Trial(setting, seed) for seed in (0, 1) for setting in settings
        ]
        for outcome in made.outcomes:
            setting = outcome.trial.setting
            alone = train(small.line(), rules.ALL[setting.rule], setting.hyperparameters, outcome.trial.seed, 3)
            assert [replace(epoch, seconds=0.0) for epoch in outcome.epochs] == [
                replace(epoch, seconds=0.0) for epoch in alone
            ]
            assert (outcome.status, outcome.cause) == ("finished", "")

    def test_says_what_was_compared_and_how(self, tmp_path: Path) -> None:
        made = compared(tmp_path, epochs=1, seeds=1, rates=[0.1])
        problem = small.line()
        assert (made.problem, made.description, made.metric) == (problem.name, problem.description, problem.metric)
        assert (made.epochs, made.seeds) == (1, 1)
        assert datetime.fromisoformat(made.run.started).tzinfo is not None
        assert made.run.seconds > 0
        assert made.run.versions["steprule"] == steprule.__version__
        assert {"Python", "numpy", "numba", "torch"} <= set(made.run.versions)
        assert made.run.machine["cores"] == str(available_cores())
        assert made.run.machine["processes"].startswith("1")

    def test_tells_of_its_progress(self, tmp_path: Path, notes: Notes) -> None:
        made = compared(tmp_path / "out", progress=notes)
        assert notes.begun == [(4, small.EPOCHS, 0, 1)]
        expected: list[Any] = []
        for outcome in made.outcomes:
            expected += [outcome.trial, *((outcome.trial, epoch) for epoch in outcome.epochs), outcome]
        assert notes.told == expected

    def test_shows_divergence_as_a_result(self, tmp_path: Path, notes: Notes) -> None:
        for _ in range(2):
            made = compared(tmp_path / "out", rates=[100.0, 0.1], seeds=1, epochs=40, progress=notes)
            diverged, finished = made.outcomes
            assert (diverged.status, diverged.cause, finished.status) == ("diverged", "", "finished")
            assert 1 <= len(diverged.epochs) < 40
            assert not diverged.epochs[-1].loss < float("inf")
        assert notes.trained() == 2

    def test_takes_every_rule_of_the_gradient_of_a_mini_batch_unless_told_otherwise(self) -> None:
        others = {rules.delta_bar_delta, *(each for each in rules.ALL.values() if each.curvature)}
        assert set(RULES) == {name for name, each in rules.ALL.items() if each not in others}
        assert len(others) == 4

    def test_takes_rules_that_use_curvature(self, tmp_path: Path) -> None:
        made = compared(tmp_path, rules=["vsgd", "vsgd_fd", "diagonal_newton"], seeds=1)
        assert {outcome.status for outcome in made.outcomes} == {"finished"}
        assert made.grids["diagonal_newton"] == {"mu": (10.0, 1.0, 0.1, 0.01, 0.001)}
        assert all(outcome.epochs[-1].loss < outcome.epochs[0].loss for outcome in made.outcomes)

    def test_names_the_layer_that_curvature_cannot_be_had_of(self, tmp_path: Path) -> None:
        made = compared(tmp_path, problem=small.own_layer, rules=["vsgd"], seeds=1)
        (outcome,) = made.outcomes
        assert outcome.status == "failed"
        assert "0 (_Own)" in outcome.cause, outcome.cause

    def test_warns_of_delta_bar_delta_on_mini_batches(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="delta_bar_delta needs the gradient of the full batch, and line has"):
            made = compared(tmp_path, rules=["delta_bar_delta"], seeds=1, epochs=1)
        assert len(made.outcomes) == 9


MINE = """
import torch
from steprule import NonNegative, Decay, rule
from steprule.lab import Metric, Problem
from steprule.notation import sign, sqrt


def problem():
    inputs = torch.linspace(-1, 1, 20)[:, None]
    return Problem(
        name="mine", description="", model=model, train=(inputs, 2 * inputs), test=(inputs, 2 * inputs),
        loss=torch.nn.functional.mse_loss, metric=Metric("error"), measure=error, batch_size=5, epochs=2,
    )


def model(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(1, 1)


def error(outputs, targets):
    return (outputs - targets).abs().max().item()


@rule(source="Zaheer et al. 2018")
def yogi(g, exp_avg=0.0, exp_avg_sq=1e-6, *, lr: NonNegative, beta1: Decay = 0.9, beta2: Decay = 0.999, eps=1e-3):
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = exp_avg_sq - (1 - beta2) * sign(exp_avg_sq - g * g) * (g * g)
    return -lr * exp_avg / (sqrt(exp_avg_sq) + eps), exp_avg, exp_avg_sq


@rule(source="Chen et al. 2023")
def lion(g, exp_avg=0.0, *, lr: NonNegative, beta1: Decay = 0.9, beta2: Decay = 0.99):
    return -lr * sign(beta1 * exp_avg + (1 - beta1) * g), beta2 * exp_avg + (1 - beta2) * g
"""


class TestTheUsersOwn:
    def test_problem_and_rules_in_a_file_run_with_no_other_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_installed("typer", "altair", "vl_convert")
        (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
        words = ["mine.py:problem", "--rules", "sgd,mine.py:yogi,mine.py:lion", "--rates", "0.1,0.01", "--seeds", "2"]
        done = steprule_compare(*words, "--out", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "index.html").exists()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(workers, "run", lambda *_: pytest.fail("something was left to do"))
        rules = ["sgd", "mine.py:yogi", "mine.py:lion"]
        made = compare("mine.py:problem", rules=rules, rates=[0.1, 0.01], seeds=2, out="out")
        assert {outcome.status for outcome in made.outcomes} == {"finished"}
        assert [outcome.trial.setting.rule for outcome in made.outcomes] == 2 * (
            2 * ["sgd"] + 2 * ["yogi"] + 2 * ["lion"]
        )

    def test_objects_do_as_well_as_their_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        usual: Any = {"rates": [0.1], "seeds": 1, "out": tmp_path, "jobs": 1}
        by_name = compare(
            "tests.lab.small:line",
            rules=["tests.conformance.users_rules:yogi", "tests.conformance.users_rules:lion"],
            **usual,
        )
        monkeypatch.setattr(workers, "run", lambda *_: pytest.fail("something was left to do"))
        by_object = compare(small.line, rules=[yogi, lion], **usual)
        assert timeless(by_object) == timeless(by_name)
        assert [outcome.status for outcome in by_object.outcomes] == ["finished", "finished"]

    def test_a_rule_by_another_name_runs(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(
            "from steprule import rule\ndef _plain(g, *, lr: float): return -lr * g\nplain = rule(_plain)\n",
            encoding="utf-8",
        )
        made = compared(tmp_path, rules=[f"{tmp_path}/mine.py:plain"], seeds=1, rates=[0.1], epochs=1)
        assert [(outcome.status, outcome.cause) for outcome in made.outcomes] == [("finished", "")]

    def test_a_script_s_neighbour_may_define_it(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
        (tmp_path / "script.py").write_text(
            "import mine\nfrom steprule.lab import compare\n"
            "if __name__ == '__main__':\n"
            "    compare(mine.problem, rules=[mine.lion], rates=[0.1], seeds=1, out=__file__ + '.out')\n",
            encoding="utf-8",
        )
        done = subprocess.run([sys.executable, tmp_path / "script.py"], cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_a_script_that_is_not_guarded_is_told_how(self, tmp_path: Path) -> None:
        (tmp_path / "script.py").write_text(
            MINE + "\n\nfrom steprule.lab import compare\n"
            "compare(problem, rules=[lion], rates=[0.1], seeds=1, jobs=1, out=__file__ + '.out')\n",
            encoding="utf-8",
        )
        done = subprocess.run([sys.executable, tmp_path / "script.py"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.rstrip().endswith("put it under `if __name__ == '__main__':`")


class TestWhatIsKept:
    def test_nothing_is_run_twice(self, tmp_path: Path, notes: Notes) -> None:
        first = compared(tmp_path / "out", progress=notes)
        assert notes.trained() == 4
        second = compared(tmp_path / "out", progress=notes)
        assert second.outcomes == first.outcomes
        assert notes.trained() == 4
        assert notes.begun[1] == (0, small.EPOCHS, 4, 1)

    def test_what_is_new_is_run_and_no_more(self, tmp_path: Path, notes: Notes) -> None:
        assert compared(tmp_path / "out", progress=notes).run.taken_over == 0
        assert compared(tmp_path / "out", seeds=3, progress=notes).run.taken_over == 4
        assert notes.trained() == 6
        compared(tmp_path / "out", rules=["sgd", "adam"], progress=notes)
        assert notes.trained() == 10
        compared(tmp_path / "out", epochs=1, progress=notes)
        assert notes.trained() == 14
        assert [(trials, kept) for trials, _, kept, _ in notes.begun] == [(4, 0), (2, 4), (4, 4), (4, 0)]

    def test_fresh_runs_all_again_to_the_same_numbers(self, tmp_path: Path, notes: Notes) -> None:
        first = compared(tmp_path / "out", progress=notes)
        second = compared(tmp_path / "out", fresh=True, progress=notes)
        assert notes.trained() == 8
        assert timeless(second) == timeless(first)
        assert second.outcomes != first.outcomes  # in their seconds: they were measured anew

    @pytest.mark.parametrize("kept_bytes", [0, 8192])
    def test_fresh_makes_way_for_a_new_file_where_one_is_damaged(self, tmp_path: Path, kept_bytes: int) -> None:
        kept = tmp_path / "results.sqlite"
        compared(tmp_path, seeds=1, rates=[0.1])
        text = kept.read_bytes()
        # A sound beginning opens as a file of results, and what is behind it shows when it is read.
        kept.write_bytes(text[:kept_bytes] + b"no database" * (len(text) // 11))
        with pytest.raises(ValueError, match="use --fresh"):
            compared(tmp_path, seeds=1, rates=[0.1])
        (only,) = compared(tmp_path, seeds=1, rates=[0.1], fresh=True).outcomes
        assert only.status == "finished"

    def test_fresh_leaves_alone_what_another_process_is_writing(self, tmp_path: Path) -> None:
        writing = Store(tmp_path / "results.sqlite")
        try:
            with pytest.raises(ValueError, match="is open in another process"):
                compared(tmp_path, seeds=1, rates=[0.1], epochs=1, fresh=True)
        finally:
            writing.close()

    def test_of_two_that_begin_anew_at_once_one_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compared(tmp_path, seeds=1, rates=[0.1], epochs=1)
        unlink, told = Path.unlink, []

        def second_comes(path: Path, **how: Any) -> None:
            if path.name == "results.sqlite" and not told:  # the first has let go of the old file
                code = f"from tests.lab.test_comparison import *\ncompared(Path({str(tmp_path)!r}), fresh=True)"
                told.append(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True))
            unlink(path, **how)

        monkeypatch.setattr(Path, "unlink", second_comes)
        (only,) = compared(tmp_path, seeds=1, rates=[0.1], epochs=1, fresh=True).outcomes
        assert only.status == "finished"
        assert f"{tmp_path} is in use by another process; wait for it" in told[0].stderr

    def test_fresh_leaves_alone_what_cannot_be_written(self, tmp_path: Path, small_disk: Path) -> None:
        kept = tmp_path / "results.sqlite"
        compared(tmp_path, seeds=1, rates=[0.1], epochs=1)
        shutil.copy(kept, small_disk / kept.name)
        with contextlib.suppress(OSError):
            (small_disk / "filling").write_bytes(bytes(2 << 20))
        before = (small_disk / kept.name).read_bytes()
        with pytest.raises(ValueError, match="disk is full"):
            compared(small_disk, seeds=1, rates=[0.1], epochs=1, fresh=True)
        assert (small_disk / kept.name).read_bytes() == before

    def test_fresh_removes_nothing_that_is_not_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "of-my-thesis.png").touch()
        compared(tmp_path, seeds=1, rates=[0.1], epochs=1, fresh=True)
        assert (tmp_path / "figures" / "of-my-thesis.png").exists()

    @pytest.mark.parametrize("changed", ["problem", "rule"])
    def test_a_changed_text_of_the_users_is_run_anew(self, tmp_path: Path, notes: Notes, changed: str) -> None:
        texts = {name: tmp_path / f"{name}.py" for name in ("problem", "rule")}
        for text in texts.values():
            text.write_text(MINE, encoding="utf-8")

        def again() -> None:
            compare(
                f"{texts['problem']}:problem",
                rules=["sgd", f"{texts['rule']}:lion"],
                rates=[0.1],
                seeds=1,
                jobs=1,
                out=tmp_path / "out",
                progress=notes,
            )

        again()
        again()
        texts[changed].write_text(MINE + "# a change\n", encoding="utf-8")
        again()
        texts[changed].write_text(MINE, encoding="utf-8")
        again()
        anew = 2 if changed == "problem" else 1
        assert [(trials, kept) for trials, _, kept, _ in notes.begun] == [(2, 0), (0, 2), (anew, 2 - anew), (0, 2)]

    def test_a_file_is_one_however_its_path_is_spelt(
        self, tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def again(folder: Path, spelt: str) -> None:
            monkeypatch.chdir(folder)
            compare(
                f"{spelt}:problem",
                rules=[f"{spelt}:lion"],
                rates=[0.1],
                seeds=1,
                jobs=1,
                out="compare",
                progress=notes,
            )

        for name in ("here", "there"):
            (tmp_path / name).mkdir()
        (tmp_path / "here" / "mine.py").write_text(MINE, encoding="utf-8")
        for spelt in ("mine.py", "./mine.py", "../here/mine.py", f"{tmp_path}/here/mine.py"):
            again(tmp_path / "here", spelt)
        shutil.copytree(tmp_path / "here", tmp_path / "moved")
        again(tmp_path / "moved", "mine.py")
        again(tmp_path / "there", "../here/mine.py")
        assert [trials for trials, *_ in notes.begun] == [1, 0, 0, 0, 0, 1]

    def test_changed_data_are_trained_on_anew(self, tmp_path: Path, notes: Notes) -> None:
        text, numbers = tmp_path / "problem.py", tmp_path / "numbers.txt"
        read = f"torch.tensor([float(each) for each in Path({str(numbers)!r}).read_text().split()])[:, None]"
        mine = MINE.replace("torch.linspace(-1, 1, 20)[:, None]", read)
        text.write_text(f"from pathlib import Path\n{mine}", encoding="utf-8")

        def again(last: float) -> Comparison:
            numbers.write_text("".join(f"{each}\n" for each in (-1.0, 0.5, 0.25, last)), encoding="utf-8")
            return compare(
                f"{text}:problem", rules=["sgd"], rates=[0.1], seeds=1, jobs=1, out=tmp_path / "out", progress=notes
            )

        first, other, third = again(1.0), again(2.0), again(1.0)
        assert [(trials, kept) for trials, _, kept, _ in notes.begun] == [(1, 0), (1, 0), (0, 1)]
        assert timeless(first) == timeless(third) != timeless(other)

    def test_failed_trials_are_tried_again(self, tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = tmp_path / "broken"
        monkeypatch.setenv("SMALL_BROKEN", str(broken))
        broken.touch()
        first = compared(tmp_path / "out", small.repairable, progress=notes)
        assert {(outcome.status, outcome.cause.partition(" (")[0]) for outcome in first.outcomes} == {
            ("failed", "LookupError: something is broken")
        }
        broken.unlink()
        second = compared(tmp_path / "out", small.repairable, progress=notes)
        assert {(outcome.status, outcome.cause, len(outcome.epochs)) for outcome in second.outcomes} == {
            ("finished", "", small.EPOCHS)
        }
        assert notes.trained() == 8

    def test_a_worker_that_dies_costs_its_trial_alone(self, tmp_path: Path) -> None:
        made = compared(tmp_path, small.killed, seeds=3, rates=[0.1], jobs=2)
        assert [
            (outcome.trial.seed, outcome.status, outcome.cause, len(outcome.epochs)) for outcome in made.outcomes
        ] == [
            (0, "finished", "", small.EPOCHS),
            (1, "failed", "its process ended with SIGKILL", 1),
            (2, "finished", "", small.EPOCHS),
        ]


class TestTheNumberOfProcesses:
    def test_changes_no_number_of_a_small_problem(self, tmp_path: Path) -> None:
        one, two = (compared(tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
        assert timeless(one) == timeless(two)


def steprule_compare(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steprule", "compare", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def integrity(out: Path) -> list[Any]:
    database = sqlite3.connect(out / "results.sqlite")
    try:
        return database.execute("PRAGMA integrity_check").fetchall()
    finally:
        database.close()


class TestInterruption:
    """Of `steprule compare` as a user types it, in a session of its own, with two workers."""

    SEEDS = 20
    ARGUMENTS = ("--rules", "sgd,adadelta", "--rates", "0.1,100", "--grid", "adadelta.rho=0.9,0.95", "--jobs", "2")

    def started(self, out: Path) -> subprocess.Popen[str]:
        words = [small.named(small.slow), *self.ARGUMENTS, "--seeds", str(self.SEEDS), "--out", str(out)]
        command = [sys.executable, "-m", "steprule", "compare", *words]
        pipe = subprocess.PIPE
        with interrupts_heeded():
            return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def whole(self, out: Path, **changes: Any) -> Comparison:
        grid = {"adadelta": {"rho": [0.9, 0.95]}}
        usual: Any = {"rules": ["sgd", "adadelta"], "rates": [0.1, 100.0], "grid": grid, "seeds": self.SEEDS, "jobs": 2}
        return compare(small.named(small.slow), out=out, **usual | changes)

    def test_twenty_kills_at_random_moments_change_no_number(self, tmp_path: Path, notes: Notes) -> None:
        require_installed("typer", "altair", "vl_convert")
        draw = random.Random(2012)
        trials = 4 * self.SEEDS
        processes: list[int] = []
        for attempt in range(20):
            process = self.started(tmp_path / "out")
            before = notes.trained()
            try:
                if attempt % 4 == 0:
                    time.sleep(draw.uniform(0, 2))  # while it starts and reads the file
                elif attempt % 4 == 2:
                    soon(lambda process=process: children(process.pid) or process.poll() is not None)  # type: ignore[misc]
                    time.sleep(draw.uniform(0, 1))  # while its workers start
                else:
                    more = before + draw.randint(1, 4)
                    soon(lambda more=more, process=process: notes.trained() >= more or process.poll() is not None)  # type: ignore[misc]
                    time.sleep(draw.uniform(0, 0.05))  # in the midst of a trial
                processes += children(process.pid)
                assert process.poll() is None, "it was over before it was killed: give it more to do"
            finally:
                kill(process.pid)
                process.communicate()
        soon(lambda: gone(processes))
        assert not {"index.html"} & {each.name for each in (tmp_path / "out").iterdir()}
        last = self.started(tmp_path / "out")
        said, errors = last.communicate()
        assert last.returncode == 0, errors
        assert "are finished already" in said
        # Some were killed in their midst, and what was finished was not run again: a kill costs two workers' trials.
        assert trials < notes.trained() <= trials + 20 * 2

        found = self.whole(tmp_path / "out", progress=notes)
        assert notes.begun == [(0, small.EPOCHS, trials, 2)]
        uninterrupted = self.whole(tmp_path / "uninterrupted")
        assert timeless(found) == timeless(uninterrupted)
        assert {outcome.status for outcome in found.outcomes} == {"finished", "diverged"}
        assert integrity(tmp_path / "out") == [("ok",)]

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_ends_it_quietly_and_keeps_what_is_finished(
        self, how: signal.Signals, tmp_path: Path, notes: Notes
    ) -> None:
        require_installed("typer", "altair", "vl_convert")
        process = self.started(tmp_path / "out")
        try:
            soon(lambda: notes.trained() >= 6 or process.poll() is not None)
            processes = children(process.pid)
            os.killpg(process.pid, how)  # as a terminal does
            said, errors = process.communicate()
        finally:
            kill(process.pid)
        assert (process.returncode, errors) == (130, "")
        assert "Stopped. What is finished is kept in" in said
        assert gone(processes)
        assert integrity(tmp_path / "out") == [("ok",)]

        self.whole(tmp_path / "out", seeds=2, progress=notes)
        ((left, _, kept, _),) = notes.begun
        assert left + kept == 8
        assert kept >= 4


class TestArgumentsThatCannotBe:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"rules": []}, "rules is 0; allowed is a whole number from 1"),
            ({"rules": (each for each in ["sgd"])}, "allowed is a list of rules and names of rules"),
            ({"rules": ["sgd", "adamw"]}, "there is no rule 'adamw'; allowed are sgd, momentum"),
            ({"rules": ["json:dumps"]}, "json:dumps is of type function; allowed is a rule"),
            ({"rules": ["sgd", "sgd"]}, "two of the rules have one name: sgd, sgd"),
            ({"epochs": 0}, "epochs is 0; allowed is a whole number from 1"),
            ({"seeds": 0}, "seeds is 0; allowed is a whole number from 1"),
            ({"seeds": -3}, "seeds is -3; allowed is a whole number from 1"),
            ({"jobs": 0}, "jobs is 0; allowed is a whole number from 1"),
            ({"rates": [-0.1]}, "lr is -0.1; allowed is a number in [0, inf)"),
            ({"rates": ["fast"]}, "lr is 'fast', a str; allowed is a number in [0, inf)"),
            ({"grid": {"adam": {"lr": [0.1]}}}, "the grid names the rule 'adam'; the comparison has sgd"),
            (
                {"grid": {"sgd": {"rho": [0.1]}}},
                "sgd has no hyperparameter 'rho'; it has: lr, weight_decay, lr_decay, decoupled_weight_decay",
            ),
            (
                {"problem": "cifar"},
                "there is no problem 'cifar'; allowed are digits, mnist, airfoil, speech, speech_logistic",
            ),
            ({"problem": "json:dumps.absent"}, "'json:dumps.absent' names no object"),
            ({"problem": small.named(small.no_problem)}, "returned a int; allowed is a steprule.lab.Problem"),
            ({"problem": small.line()}, "problem is of type Problem; allowed is a name, or a function that returns"),
            ({"problem": small.no_problem}, "returned a int; allowed is a steprule.lab.Problem"),
        ],
    )
    def test_are_told_in_one_sentence_before_anything_is_written(
        self, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        usual: dict[str, Any] = {"problem": small.named(small.line), "rules": ["sgd"], "seeds": 1}
        with pytest.raises((ValueError, TypeError)) as caught:
            compare(**usual | changes, out=tmp_path / "out")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"epochs": 1.5},
            {"seeds": 1.5},
            {"jobs": 1.5},
            {"epochs": "3"},
            {"rules": "sgd"},
            {"grid": {"sgd": {"lr": 0.1}}},
            {"problem": 3},
            {"rules": [None]},
        ],
        ids=repr,
    )
    def test_of_another_type_are_told_by_name(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        usual: dict[str, Any] = {"problem": small.named(small.line), "rules": ["sgd"], "seeds": 1, "epochs": 1}
        (argument,) = changes
        with pytest.raises((ValueError, TypeError), match=rf"{argument}.*allowed"):
            compare(**usual | changes, out=tmp_path / "out")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("@rule\ndef bad(g, a=0.0, *, lr: float = 1.0): return -lr * g\n", "returned 1 values"),
            ("@rule\ndef bad(g, *, lr: float = 1.0): return -lr * g if g > 0 else g\n", "must not branch"),
        ],
    )
    def test_a_rule_that_no_trial_can_use_is_told_before_any_starts(self, tmp_path: Path, text: str, says: str) -> None:
        (tmp_path / "bad.py").write_text(f"from steprule import rule\n\n\n{text}", encoding="utf-8")
        with pytest.raises(TypeError, match=says):
            compared(tmp_path / "out", rules=[f"{tmp_path}/bad.py:bad"], rates=[0.1], seeds=1, epochs=1)

    def test_data_that_each_process_splits_anew_are_told(self, tmp_path: Path) -> None:
        mine = MINE.replace("torch.linspace(-1, 1, 20)", "torch.tensor(numpy.random.rand(20), dtype=torch.float32)")
        (tmp_path / "mine.py").write_text(f"import numpy\n{mine}", encoding="utf-8")
        made = compare(f"{tmp_path}/mine.py:problem", rules=["sgd"], rates=[0.1], seeds=1, jobs=1, out=tmp_path / "out")
        (only,) = made.outcomes
        assert only.status == "failed"
        assert only.cause.startswith(
            "ValueError: problem mine has other data in each process; allowed are the same: seed"
        )

    def test_a_problem_that_only_a_worker_cannot_make_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError) as caught:
            compared(tmp_path, small.unmakeable_elsewhere)
        assert str(caught.value) == (
            f"the problem {from_here(small.named(small.unmakeable_elsewhere))} could not be made: its process ended with "
            "exit status 1, saying last: LookupError: there are no data here"
        )
