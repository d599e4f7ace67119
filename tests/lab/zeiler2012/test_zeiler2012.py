"""The paper's experiments: what they are, that they are run as compare runs them, and that the protocol is what is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lab import small
from tests.lab.zeiler2012.made import experiment
from tests.requirements import require_data_set

from steprule.lab import compare
from steprule.lab.places import Processes
from steprule.lab.problem import find_problem
from steprule.lab.results import Setting
from steprule.lab.zeiler2012 import Cell, Experiment, Options, Printed, Run, parts, protocol, reproduce, reproduction
from steprule.lab.zeiler2012.estimate import estimate
from torch import nn

ADADELTA = Setting("adadelta", {"eps": 1e-6, "rho": 0.95})


def test_the_papers_tables_are_whole() -> None:
    assert list(parts()) == ["table1", "table2", "fig1", "tanh", "schaul", "fig2"]
    for name, size in (("table1", 15), ("table2", 12)):
        (run,), cells = experiment(name).runs, experiment(name).printed.cells
        assert (run.problem, run.epochs, len(cells)) == ("mnist", 6, size)
        # Each combination of the grid is a cell, and no other.
        tried = {rule: len(grid["lr"]) if "lr" in grid else 12 for rule, grid in run.grids.items()}
        assert sum(tried.values()) == len(cells) == len({cell.setting for cell in cells})
    assert experiment("table1").printed.error(Setting("adagrad", {"lr": 1e-2})) == 1.79
    assert experiment("table2").printed.error(ADADELTA) == 1.83
    assert experiment("table2").printed.error(Setting("adadelta", {"rho": 0.5, "eps": 1e-6})) is None


def test_fig_1_has_the_best_settings_of_the_papers_tables() -> None:
    (run,) = experiment("fig1").runs
    assert run.epochs == 50
    cells = [*experiment("table1").printed.cells, *experiment("table2").printed.cells]
    for rule, grid in run.grids.items():
        best = min((cell for cell in cells if cell.setting.rule == rule), key=lambda cell: cell.error)
        assert best.setting == Setting(rule, {name: value for name, (value,) in grid.items()})


def test_the_methods_that_use_curvature_are_beside_the_papers_figures() -> None:
    part = experiment("schaul")
    assert set(part.runs[0].grids) == {"adadelta", "vsgd", "diagonal_newton"}
    assert part.printed.error(ADADELTA) == 2.00
    for overestimate in part.runs[1].grids["vsgd"]["overestimate"]:
        assert part.printed.error(Setting("vsgd", {"overestimate": overestimate}), 2) == 2.10
        assert part.printed.error(Setting("vsgd", {"overestimate": overestimate}), 1) is None


def test_the_problems_are_those_of_the_protocol() -> None:
    require_data_set("mnist")
    told = protocol.read("protocol.toml")
    net = told["net"]
    assert {run.problem for part in parts().values() if isinstance(part, Experiment) for run in part.runs} == set(
        told["problems"]
    )
    for name, own in told["problems"].items():
        problem = find_problem(name)()
        assert problem.batch_size == own["batch"]
        assert problem.loss.__name__ == net["loss"].replace("-", "_")
        inputs = problem.train[0]
        assert [inputs.min(), inputs.max()] == net["inputs"]
        assert (len(inputs), len(problem.test[0])) == (net["training_images"], net["test_images"])
        layers = list(problem.model(0))
        assert {type(layer).__name__ for layer in layers[1::2]} == {own["hidden"]}
        assert [layers[0].in_features, *(layer.out_features for layer in layers[::2])] == net["units"]
        for layer in layers[::2]:
            assert isinstance(layer, nn.Linear)
            assert float(layer.bias.detach().abs().max()) == net["biases"]
            many = layer.weight.numel()
            # Five standard errors of a normal sample's mean and deviation.
            assert abs(float(layer.weight.detach().mean())) < 5 * own["deviation"] / many**0.5
            assert float(layer.weight.detach().std()) == pytest.approx(own["deviation"], rel=5 / (2 * many) ** 0.5)


@pytest.fixture
def small_part(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    runs = (
        Run(small.named(small.line), 30, {"sgd": {"lr": (0.1, 100.0)}, "vsgd": {}}),
        Run(small.named(small.line), 2, {"adadelta": {"eps": (1e-4,)}}),
    )
    cells = (Cell(Setting("sgd", {"lr": 0.1}), 0.5), Cell(Setting("sgd", {"lr": 100.0}), 90.0))
    part = Experiment("lines", "a title", "lines", runs, Printed(cells))
    monkeypatch.setattr(reproduction, "parts", lambda: {"lines": part})
    return part


def test_a_part_is_run_as_compare_does_and_kept(tmp_path: Path, small_part: Experiment) -> None:
    (made,) = reproduce(["lines"], seeds=2, on=Processes(1), out=tmp_path)
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
    again = reproduce(["lines"], seeds=2, on=Processes(1), out=tmp_path)
    assert repr(again[0].comparisons[0].outcomes) == repr(made.comparisons[0].outcomes), "run again, with other times"
    assert (tmp_path / "lines" / "2" / "results.sqlite").is_file()


def test_without_training_what_is_there_is_read_and_nothing_is_written(tmp_path: Path, small_part: Experiment) -> None:
    (nothing,) = reproduce(seeds=2, on=Processes(1), out=tmp_path, train=False)
    assert nothing.is_empty
    assert nothing.missing == "8 of 8 trials are not finished"
    assert list(tmp_path.iterdir()) == []
    (one,) = reproduce(seeds=1, on=Processes(1), out=tmp_path)
    assert (one.is_empty, one.missing) == (False, "")
    for fresh in (False, True):
        (two,) = reproduce(seeds=2, on=Processes(1), out=tmp_path, train=False, fresh=fresh)
        assert two.missing == "4 of 8 trials are not finished"
        first = [outcome for made in two.comparisons for outcome in made.outcomes if outcome.trial.seed == 0]
        assert repr(first) == repr([outcome for made in one.comparisons for outcome in made.outcomes])


def test_the_work_that_is_left_is_told_and_estimated(tmp_path: Path, small_part: Experiment) -> None:
    reproduce(seeds=1, on=Processes(1), out=tmp_path)
    work = list(small_part.work(Options(2, on=Processes(1), out=tmp_path)))
    assert [(str(each.setting), each.epochs) for each in work] == [
        ("sgd(lr=0.1)", 30),
        ("sgd(lr=100)", 30),
        ("vsgd()", 30),
        ("adadelta(eps=0.0001)", 2),
    ]
    assert len(list(small_part.work(Options(2, epochs=1, on=Processes(1), out=tmp_path)))) == 8
    assert len(list(small_part.work(Options(2, on=Processes(1), out=tmp_path, fresh=True)))) == 8
    found, four = estimate(work, jobs=1), estimate(work * 4, jobs=4)
    assert (found.trials, found.epochs, four.epochs) == (4, 92, 368)
    assert found.seconds > 0
    assert estimate([], 1).seconds == 0


def test_a_part_that_there_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="there is no part 'table3' of the paper; allowed are table1, table2, fig1, tanh, schaul, fig2"
    ):
        reproduce(["table3"])
    with pytest.raises(ValueError, match="seeds is 0; allowed is a whole number from 1"):
        reproduce(["tanh"], seeds=0)
