"""What the engines have in common: the book's figures, the data, the start, the order, and what the clock counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.requirements import require_data_set

from steprule.lab import data
from steprule.lab.d2l import protocol
from steprule.lab.d2l.engines.numpy import FromScratch
from steprule.lab.d2l.protocol import ROWS, Examples, Model, Plan, start, train
from steprule.lab.d2l.reproduction import ENGINES, expected

SCRATCH = Plan("numpy", "scratch", 2, {"rho": 0.9, "eps": 1e-5})
LIBRARY = Plan("numpy", "scratch", 4, {"rho": 0.9, "eps": 1e-6}, "whole", "uniform")


@pytest.fixture(scope="module")
def examples() -> Examples:
    require_data_set("airfoil")
    return Examples.of(data.airfoil())


def test_the_books_figures_are_those_that_it_prints() -> None:
    printed = {(plan.engine, plan.way): (plan.loss, plan.seconds) for plan in expected() if plan.loss is not None}
    assert printed == {
        ("torch", "scratch"): (0.245, 0.160),
        ("mxnet", "scratch"): (0.243, 0.813),
        ("tensorflow", "scratch"): (0.243, 1.599),
        ("torch", "library"): (0.243, 0.119),
        ("mxnet", "library"): (0.248, 0.886),
        ("tensorflow", "library"): (0.246, 1.551),
    }


def test_every_engine_has_plans_and_our_class_runs_as_the_librarys() -> None:
    plans = {(plan.engine, plan.way): plan for plan in expected()}
    assert {engine for engine, _ in plans} == set(ENGINES)
    for engine in ("torch", "tensorflow", "jax"):
        ours, theirs = plans[engine, "steprule"], plans[engine, "library"]
        assert ours.hyperparameters == theirs.hyperparameters
        assert (ours.epochs, ours.factor, ours.bias) == (theirs.epochs, theirs.factor, theirs.bias)


def test_from_scratch_is_rho_09_and_eps_1e5_on_half_the_squared_error_for_two_epochs() -> None:
    for plan in expected():
        if plan.way == "scratch":
            assert (plan.hyperparameters, plan.epochs, plan.factor) == ({"rho": 0.9, "eps": 1e-5}, 2, 0.5)


def test_the_rows_are_standardised_over_the_whole_table_and_then_cut(examples: Examples) -> None:
    assert (examples.features.shape, examples.labels.shape) == ((ROWS, 5), (ROWS, 1))
    assert examples.features.dtype == examples.labels.dtype == np.float32
    table = data.airfoil()
    restored = examples.features * table.std(axis=0)[:-1] + table.mean(axis=0)[:-1]
    np.testing.assert_allclose(restored, table[:ROWS, :-1], rtol=1e-5, atol=1e-5)


def test_the_start_is_the_seeds(examples: Examples) -> None:
    weights, bias = start(SCRATCH, 3)
    again, other = start(SCRATCH, 3), start(SCRATCH, 4)
    assert np.array_equal(weights, again[0])
    assert not np.array_equal(weights, other[0])
    assert np.array_equal(bias, [0])
    drawn = np.concatenate([start(LIBRARY, seed)[0].ravel() for seed in range(200)])
    assert drawn.std() == pytest.approx(0.01, rel=0.1)
    biases = np.concatenate([start(LIBRARY, seed)[1] for seed in range(200)])
    assert 0.4 < np.abs(biases).max() <= 5**-0.5


class _Recorder(Model):
    """Notes what is asked of it, and is the clock: a batch takes 1 to load and 10 to step by, evaluating 1000."""

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.steps = 0
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def batches(self, order: Any) -> Iterator[tuple[Any, Any]]:
        self.orders.append(order)
        for _ in range(len(order) // 10):
            self.now += 1
            yield None, None

    def step(self, features: Any, labels: Any) -> None:
        self.steps += 1
        self.now += 10

    def loss(self) -> float:
        self.now += 1000
        return float(self.steps)


def test_each_epoch_passes_over_all_rows_in_a_new_order_and_the_clock_stands_while_the_loss_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _Recorder()
    monkeypatch.setattr(protocol, "time", model)
    trace = train(model, 3, seed=1)
    *epochs, _ = model.orders
    assert all(sorted(order) == list(range(ROWS)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3
    assert [seen for seen, _ in trace.losses] == [*range(200, 4401, 200), 4500]
    assert trace.final == model.steps == 450
    assert (trace.seconds, trace.loading) == (150 * 11, 150)


@pytest.mark.parametrize(
    ("plan", "printed"), [(SCRATCH, (0.245, 0.243, 0.243)), (LIBRARY, (0.243,))], ids=["scratch", "library"]
)
def test_numpy_reaches_the_books_losses(examples: Examples, plan: Plan, printed: tuple[float, ...]) -> None:
    finals = np.array([train(FromScratch(plan, examples, seed), plan.epochs, seed).final for seed in range(20)])
    assert finals.std(ddof=1) < 0.002
    for loss in printed:
        # The book rounds to three digits.
        assert abs(loss - finals.mean()) < 2 * finals.std(ddof=1) + 0.0005
