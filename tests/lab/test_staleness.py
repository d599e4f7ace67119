"""Problems that simulated replicas train, and the study of what staleness does."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.lab import small

from steprule import rules
from steprule.cluster import simulate
from steprule.lab import Epoch, Metric
from steprule.lab.cluster.simulated import CONDITIONS, on_replicas
from steprule.lab.problem import find_problem
from steprule.lab.staleness import GRIDS, Study, study
from steprule.lab.staleness.study import staleness
from steprule.lab.training import train
from torch import Tensor

LINE = small.named(small.line)
GRID = {"sgd": {"lr": (0.2, 0.02)}, "adadelta": {"eps": (1e-4, 1e-6)}}


def timeless(epochs: Any) -> list[Epoch]:
    return [replace(each, seconds=0.0) for each in epochs]


def trained(name: str, epochs: int = 3) -> list[Epoch]:
    return timeless(train(find_problem(name)(), rules.adadelta, {"eps": 1e-4}, 1, epochs))


def test_a_problem_on_one_replica_is_trained_as_without() -> None:
    assert trained(f"{LINE}@1") == trained(LINE)


def test_a_problem_on_many_replicas_is_trained_by_the_simulation() -> None:
    found = trained(f"{LINE}@5", 4)
    direct = simulate(
        small.line(),
        rules.adadelta,
        {"eps": 1e-4},
        replicas=5,
        seed=1,
        updates=4 * small.STEPS,
        every=small.STEPS,
        conditions=CONDITIONS,
    )
    assert [each.number for each in found] == [1, 2, 3, 4]
    assert [(e.loss, e.test, e.validation) for e in found] == [(m.loss, m.test, m.validation) for m in direct.measured]
    assert found != trained(LINE, 4)


def test_the_seconds_of_an_epoch_are_without_its_evaluation() -> None:
    def slow(outputs: Tensor, targets: Tensor) -> float:
        time.sleep(0.5)
        return 0.0

    problem = on_replicas(lambda: replace(small.line(), measure=slow), 2)()
    list(train(problem, rules.sgd, {"lr": 0.1}, 0, 1))  # compiles
    assert all(0 < each.seconds < 0.5 for each in train(problem, rules.sgd, {"lr": 0.1}, 0, 2))


def test_it_says_what_it_is() -> None:
    made = find_problem(f"{LINE}@5")()
    assert made.name == "line@5"
    assert made.description.startswith(
        "a line through 60 points; trained by 5 simulated replicas (compute gamma:10,0.1"
    )


@pytest.mark.parametrize("name", ["digits@0", "digits@x", "nothing@5"])
def test_what_is_no_problem_on_replicas_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="replicas is 0|there is no problem"):
        find_problem(name)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    out = tmp_path_factory.mktemp("study")
    return study(LINE, grids=GRID, replicas=(1, 6), epochs=3, seeds=2, jobs=1, out=out), out


def test_a_setting_is_kept_from_one_replica_and_another_chosen_at_each(found: tuple[Study, Path]) -> None:
    made, _ = found
    assert made.chosen_on == "validation"
    assert list(made.staleness) == [1, 6]
    for rule in GRID:
        one, many = made.row(rule, 1), made.row(rule, 6)
        assert one.kept and one.own and many.kept and many.own
        assert one.kept == one.own
        assert many.kept.setting == one.kept.setting
        assert many.kept.finished == many.own.finished == 2
        assert many.own.setting.hyperparameters in ({name: v} for name, vs in GRID[rule].items() for v in vs)


def test_the_chosen_ones_are_those_of_the_trainings(found: tuple[Study, Path]) -> None:
    made, _ = found
    problem = find_problem(f"{LINE}@6")()
    for number, row in enumerate(map(made.row, GRID, (6, 6))):
        rule = rules.ALL[list(GRID)[number]]
        (name,) = GRID[rule.name]
        ends = {v: list(train(problem, rule, {name: v}, 0, 3))[-1] for v in GRID[rule.name][name]}
        best = min(ends, key=lambda value: ends[value].validation)
        assert row.own and dict(row.own.setting.hyperparameters) == {name: best}
        tests = [list(train(problem, rule, {name: best}, seed, 3))[-1].test for seed in range(2)]
        assert row.own.score.mean == pytest.approx(sum(tests) / 2)


def test_what_is_finished_is_not_run_again(
    found: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = found
    monkeypatch.setenv("SMALL_NOTES", str(tmp_path / "notes"))
    again = study(LINE, grids=GRID, replicas=(1, 6), epochs=3, seeds=2, jobs=1, out=out)
    assert again.rows == made.rows
    assert not (tmp_path / "notes").exists()


def test_a_rule_stands_what_hardly_changes_its_error(found: tuple[Study, Path]) -> None:
    made, _ = found
    one = made.row("sgd", 1).kept
    assert one and one.test

    def worse(times: float) -> Study:
        test = replace(one.test, mean=one.test.mean * times)
        rows = tuple(
            replace(row, kept=replace(one, test=test)) if (row.rule, row.replicas) == ("sgd", 6) else row
            for row in made.rows
        )
        return replace(made, rows=rows)

    assert worse(1.4).stands("sgd", "kept") == 6
    assert worse(1.6).stands("sgd", "kept") == 1
    gone = replace(made, rows=tuple(replace(row, kept=None) for row in made.rows))
    assert gone.stands("sgd", "kept") == 0


@pytest.mark.parametrize(
    ("metric", "scores", "stands"),
    [
        (Metric("likelihood"), (-50.0, -26.0), 6),
        (Metric("likelihood"), (-50.0, -24.0), 1),
        (Metric("accuracy", "%", lower_is_better=False), (90.0, 86.0), 6),
        (Metric("accuracy", "%", lower_is_better=False), (90.0, 84.0), 1),
        (Metric("R2", lower_is_better=False), (0.9, 0.5), 6),
        (Metric("R2", lower_is_better=False), (0.9, 0.4), 1),
    ],
)
def test_what_a_rule_stands_goes_by_the_metric(
    found: tuple[Study, Path], metric: Metric, scores: tuple[float, float], stands: int
) -> None:
    made, _ = found
    rows = []
    for row in made.rows:
        assert row.kept
        assert row.kept.test
        mean = scores[0 if row.replicas == 1 else 1]
        rows.append(replace(row, kept=replace(row.kept, test=replace(row.kept.test, mean=mean))))
    assert replace(made, metric=metric, rows=tuple(rows)).stands("sgd", "kept") == stands


def test_the_staleness_is_that_of_every_training() -> None:
    pushes = simulate(small.line(), rules.adam, {}, replicas=7, updates=40, every=40, conditions=CONDITIONS).pushes[
        "staleness"
    ]
    told = staleness(7, 40)
    assert (told.mean, told.largest) == (pushes.mean(), pushes.max())
    assert 4 < told.mean < 7


@pytest.mark.parametrize("replicas", [(), (10, 100), (1, 10, 10), (1, 100, 10)])
def test_replicas_rise_from_one(replicas: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed are numbers that rise from 1"):
        study(LINE, grids=GRID, replicas=replicas, out=tmp_path)


def test_each_rule_has_its_grid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="grids is of sgd, adadelta; allowed is one of each of rules, sgd"):
        study(LINE, rules=["sgd"], grids=GRID, out=tmp_path)


def test_the_study_has_the_rules_that_it_is_about() -> None:
    assert list(GRIDS) == ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adadelta"]
    assert 1e-6 in GRIDS["adadelta"]["eps"]
