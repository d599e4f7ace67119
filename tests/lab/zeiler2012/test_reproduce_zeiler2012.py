"""`steprule reproduce zeiler2012`: what its words do."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lab import small
from typer.testing import CliRunner

from steprule import reproducing
from steprule.lab import zeiler2012
from steprule.lab.data import DataError
from steprule.lab.results import Setting
from steprule.lab.zeiler2012 import Cell, Experiment, Printed, Run, published, reproduction
from steprule.reproducing import apart

PART = Experiment(
    "lines",
    "Lines",
    "lines",
    (Run(small.named(small.line), 3, {"sgd": {"lr": (0.1,)}}),),
    Printed((Cell(Setting("sgd", {"lr": 0.1}), 0.5),)),
)


@pytest.fixture
def steprule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """The command with one small part, whose committed results lie in the test's folder."""
    for module in (zeiler2012, reproduction, published):
        monkeypatch.setattr(module, "parts", lambda: {"lines": PART})
    monkeypatch.setattr("steprule.report.zeiler2012.words.parts", lambda: {"lines": PART})
    monkeypatch.setattr("steprule.lab.zeiler2012.claims.claims", lambda: ())
    monkeypatch.setattr(published.read, "__defaults__", (tmp_path / "committed.json",))
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def run(runner: CliRunner, *words: str) -> str:
    ended = runner.invoke(reproducing.app, ["zeiler2012", "lines", *words], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return " ".join(ended.output.split())


def test_runs_says_how_long_and_checks_what_was_committed(steprule: CliRunner, tmp_path: Path) -> None:
    said = run(steprule, "--seeds", "2", "--jobs", "1")
    assert "for 6 epochs of 2 trials, if each epoch takes as long as 20 of its batches" in said
    assert "The page: zeiler2012/index.html" in said
    out = tmp_path / "zeiler2012"
    assert {each.name for each in out.iterdir()} == {"lines", "figures", "index.html", "results.json", "table.txt"}
    table = (out / "table.txt").read_text()
    assert "About" not in run(steprule, "--seeds", "2", "--jobs", "1"), "nothing is left to train"

    kept = run(steprule, "--no-train", "--seeds", "3", "--jobs", "1", "--out", str(out))
    assert "1 of 3 trials are not finished" in kept

    pages = {page: page.read_bytes() for page in out.rglob("*.html")}
    with pytest.raises(ValueError, match="nothing of these parts is finished in zeiler2012"):
        run(steprule, "--no-train", "--epochs", "1", "--jobs", "1")
    assert {page: page.read_bytes() for page in out.rglob("*.html")} == pages, "what is there stays"

    with pytest.raises(ValueError, match=r"there are no committed results: committed.json"):
        run(steprule, "--published")
    committed = tmp_path / "committed.json"
    run(steprule, "--no-train", "--seeds", "2", "--jobs", "1", "--out", str(out))
    committed.write_bytes((out / "results.json").read_bytes())
    run(steprule, "--published", "--out", "elsewhere")
    assert (tmp_path / "elsewhere" / "table.txt").read_text() == table
    assert (tmp_path / "elsewhere" / "results.json").read_bytes() == committed.read_bytes()

    assert "as committed" in run(steprule, "--check", "--cells", "2", "--seed", "1", "--jobs", "1")
    changed = committed.read_text().replace('"seed": 0', '"seed": 7')
    committed.write_text(changed)
    ended = steprule.invoke(reproducing.app, ["zeiler2012", "lines", "--check", "--cells", "2", "--jobs", "1"])
    assert ended.exit_code == 1
    assert "NOT" in ended.output


def test_what_is_not_there_is_told(steprule: CliRunner) -> None:
    with pytest.raises(ValueError, match="nothing of these parts is finished in zeiler2012"):
        run(steprule, "--no-train", "--jobs", "1")
    with pytest.raises(ValueError, match="there is no part 'table3' of the paper; allowed are lines"):
        run(steprule, "table3")


def test_alone_it_runs_every_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(reproducing, "d2l", lambda: called.append("d2l"))
    monkeypatch.setattr(reproducing, "zeiler2012", lambda check: called.append(("zeiler2012", check)))
    for words in ([], ["--check"]):
        assert CliRunner().invoke(reproducing.app, words, catch_exceptions=False).exit_code == 0
    assert called == ["d2l", ("zeiler2012", False), ("zeiler2012", True)]
    with pytest.raises(ValueError, match="--check stands after the experiment's name"):
        CliRunner().invoke(reproducing.app, ["--check", "d2l"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("part", "flag"), [("fig2", "--check"), ("fig3", "--check"), ("fig3", "--published"), ("search", "--no-train")]
)
def test_a_part_is_not_passed_over(part: str, flag: str) -> None:
    with pytest.raises(ValueError, match=rf"^{part} is given with {flag}; allowed with it are table1, "):
        CliRunner().invoke(reproducing.app, ["zeiler2012", "table1", part, flag], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fig3 --epochs 1", "--epochs 1 is given with fig3; allowed with it are table1, "),
        ("alignment --seeds 2", "--seeds 2 is given with alignment; allowed with it are table1, "),
        ("alignment --jobs 2", "--jobs 2 is given with alignment; allowed with it are table1, "),
        ("alignment --device cpu", "--device cpu is given with alignment; allowed with it are table1, "),
        ("fig3 fig4 --on ray", "--on ray is given with fig3, fig4; allowed with it are table1, "),
        ("table1 fig2 --full", "--full is given with table1, fig2; allowed with it are fig3, fig4"),
        ("table1 --corpus here", "--corpus here is given with table1; allowed with it are alignment, fig3, fig4"),
        ("--no-train --full", "--full is given with table1, "),
        ("table1 --published --seeds 3", "--seeds 3 is given with --published; allowed with it are --out, --no-train"),
        ("table1 --published --seeds 0", "--seeds 0 is given with --published"),
        ("table1 --published --on ray", "--on ray is given with --published"),
        ("table1 --published --check", "--check is given with --published; allowed with it are --out, --no-train"),
        ("table1 --check --epochs 1", "--epochs 1 is given with --check; allowed with it are --jobs, --cells, --seed"),
        ("table1 --check --out here", "--out here is given with --check"),
        ("table1 --cells 3", "--cells 3 is given without --check"),
        ("table1 --seed 0", "--seed 0 is given without --check"),
    ],
)
def test_an_option_is_not_passed_over(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{said}"):
        CliRunner().invoke(reproducing.app, ["zeiler2012", *words.split()], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["", "table1 fig3"])
def test_an_option_that_one_of_the_parts_takes_is_allowed(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("steprule.reproducing.paper._run_parts", lambda *each: asked.append(each))
    for name in ("alignment", "fig3", "fig4"):
        monkeypatch.setitem(apart.PARTS, name, lambda *each: asked.append(each))
    options = ["--seeds", "1", "--epochs", "1", "--full", "--jobs", "1"]
    ended = CliRunner().invoke(reproducing.app, ["zeiler2012", *words.split(), *options], catch_exceptions=False)
    assert ended.exit_code == 0 and len(asked) == (2 if words else 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--corpus nowhere", "the corpus nowhere is not a folder"),
        ("--corpus empty", "the corpus empty has no wav file"),
        ("--out file", "out is file, where no folder can be made: File exists"),
        ("--corpus nowhere --seeds 0", "seeds is 0"),
        ("--epochs 0", "epochs is 0"),
    ],
)
def test_what_a_later_part_cannot_use_is_told_before_anything_is_trained(
    steprule: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    def part(*_: object) -> None:
        pytest.fail("a part is run")

    monkeypatch.setattr("steprule.reproducing.paper._run_parts", part)
    monkeypatch.setitem(apart.PARTS, "fig3", part)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises((ValueError, DataError), match=f"^{said}"):
        run(steprule, "fig3", "--jobs", "1", *words.split())
    assert {each.name for each in tmp_path.iterdir()} == {"empty", "file"}


@pytest.mark.parametrize("part", ["fig2", "search"])
def test_no_seeds_are_refused(part: str, tmp_path: Path) -> None:
    words = ["zeiler2012", part, "--seeds", "0", "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="seeds is 0; allowed is a whole number from 1"):
        CliRunner().invoke(reproducing.app, words, catch_exceptions=False)
