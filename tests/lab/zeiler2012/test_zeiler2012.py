"""The paper's experiments: what they are, that they are run as compare runs them, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from tests.lab import small
from tests.requirements import require_data_set

import steprule.lab.zeiler2012.experiments as experiments
from steprule.lab import compare
from steprule.lab.problem import find_problem
from steprule.lab.results import Setting
from steprule.lab.zeiler2012 import Cell, Part, Run, parts, reproduce
from steprule.report.zeiler2012.page import write_comparisons, write_reproduction
from steprule.report.zeiler2012.table import terminal_table
from torch import nn


def test_the_papers_tables_are_whole() -> None:
    assert list(parts()) == ["tanh", "schaul", "table1", "table2"]
    (table1,), (table2,) = parts()["table1"].runs, parts()["table2"].runs
    assert (len(table1.cells), len(table2.cells)) == (15, 12)
    for run in (table1, table2):
        assert (run.problem, run.epochs) == ("mnist", 6)
        assert {cell.setting.rule for cell in run.cells} == set(run.grids)
        # Each combination of the grid is a cell, and no other.
        tried = {rule: len(grid["lr"]) if "lr" in grid else 12 for rule, grid in run.grids.items()}
        assert sum(tried.values()) == len(run.cells) == len({cell.setting for cell in run.cells})
    assert table1.expected(Setting("adagrad", {"lr": 1e-2})) == 1.79
    assert table2.expected(Setting("adadelta", {"rho": 0.95, "eps": 1e-6})) == 1.83
    assert table2.expected(Setting("adadelta", {"rho": 0.5, "eps": 1e-6})) is None


def test_the_methods_that_use_curvature_are_beside_the_papers_figures() -> None:
    by_batch, one_by_one = parts()["schaul"].runs
    assert set(by_batch.grids) == {"adadelta", "vsgd", "diagonal_newton"}
    assert by_batch.expected(Setting("adadelta", {"eps": 1e-6, "rho": 0.95})) == 2.00
    assert one_by_one.expected(Setting("vsgd", {})) == 2.10


def test_the_problems_are_the_papers_net() -> None:
    require_data_set("mnist")
    sizes = {}
    for run in parts()["schaul"].runs:
        problem = find_problem(run.problem)()
        net = problem.model(0)
        assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
        assert [tuple(each.weight.shape) for each in net if isinstance(each, nn.Linear)] == [
            (500, 784),
            (300, 500),
            (10, 300),
        ]
        assert abs(float(net[0].weight.detach().std()) - 0.1) < 1e-3
        assert len(problem.train[0]) == 60_000
        sizes[problem.name] = problem.batch_size
    assert sizes == {"mnist, tanh": 100, "mnist, tanh, one by one": 1}


@pytest.fixture
def small_part(monkeypatch: pytest.MonkeyPatch) -> Part:
    cells = (Cell(Setting("sgd", {"lr": 0.1}), 0.5), Cell(Setting("sgd", {"lr": 100.0}), 90.0))
    runs = (
        Run(small.named(small.line), 30, {"sgd": {"lr": (0.1, 100.0)}, "vsgd": {}}, cells),
        Run(small.named(small.line), 2, {"adadelta": {"eps": (1e-4,)}}, ()),
    )
    part = Part("lines", "a title", runs)
    monkeypatch.setattr(experiments, "parts", lambda: {"lines": part})
    return part


def test_a_part_is_run_as_compare_does_and_kept(tmp_path: Path, small_part: Part) -> None:
    (made,) = reproduce(["lines"], seeds=2, jobs=1, out=tmp_path)
    alone = compare(
        small.named(small.line),
        rules=["sgd", "vsgd"],
        grid=small_part.runs[0].grids,
        epochs=30,
        seeds=2,
        jobs=1,
        out=tmp_path / "alone",
    )
    ours = [[(e.loss, e.test) for e in outcome.epochs] for outcome in made.comparisons[0].outcomes]
    theirs = [[(e.loss, e.test) for e in outcome.epochs] for outcome in alone.outcomes]
    assert repr(ours) == repr(theirs)
    again = reproduce(["lines"], seeds=2, jobs=1, out=tmp_path)
    assert repr(again[0].comparisons[0].outcomes) == repr(made.comparisons[0].outcomes), "run again, with other times"
    assert (tmp_path / "lines" / "2" / "results.sqlite").is_file()


def test_the_table_and_the_page_have_the_papers_figure_beside_ours(tmp_path: Path, small_part: Part) -> None:
    made = reproduce(seeds=2, jobs=1, out=tmp_path)
    rows = {str(row.measured.setting): row for row in made[0].rows()}
    assert {name: row.expected for name, row in rows.items()} == {
        "sgd(lr=0.1)": 0.5,
        "sgd(lr=100)": 90.0,
        "vsgd()": None,
        "adadelta(eps=0.0001)": None,
    }
    console = Console(width=100)
    with console.capture() as captured:
        console.print(terminal_table(made))
    text = captured.get()
    mean = rows["sgd(lr=0.1)"].measured.test.mean
    assert f"{mean:.2f} ± " in text
    assert f"{mean - 0.5:+.2f}" in text
    assert "diverged (2 of 2)" in text
    assert f"1 setting with a figure in the paper: on average {abs(mean - 0.5):.2f} points from it." in text
    write_comparisons(made[0], tmp_path)
    page = write_reproduction(made, tmp_path).read_text()
    assert f"{mean - 0.5:+.2f}" in page
    for number in (1, 2):
        assert f'href="lines/{number}/index.html"' in page
        assert (tmp_path / "lines" / str(number) / "index.html").is_file()


def test_a_part_that_there_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="there is no part 'table3' of the paper; allowed are tanh, schaul, table1, table2"
    ):
        reproduce(["table3"])
