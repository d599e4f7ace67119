"""One trial, against the same loop written by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.lab import small

import steprule.torch as ours
import torch
from steprule import Rule, rules
from steprule.cluster import simulate
from steprule.curvature import Curvature
from steprule.lab import Epoch, Metric, Problem
from steprule.lab.cluster.gradients import ProblemGradient
from steprule.lab.stacked import Stack, bytes_per_trial
from steprule.lab.training import train
from steprule.lab.workers import Task
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def timeless(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(each, seconds=0.0) for each in epochs]


def trained(problem: Problem, rule: Rule = rules.sgd, seed: int = 0, epochs: int = 3, **values: float) -> list[Epoch]:
    return timeless(list(train(problem, rule, values or {"lr": 0.1}, seed, epochs)))


def in_doubles(problem: Problem) -> Problem:
    """The same problem in float64, in which a mean is as exact however it is summed."""

    def double(data: Any) -> Any:
        return None if data is None else (data[0].double(), data[1].double())

    return replace(
        problem,
        model=lambda seed: problem.model(seed).double(),
        train=double(problem.train),
        validation=double(problem.validation),
        test=double(problem.test),
    )


def deep(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))


DEEP = replace(small.line(), model=deep)


def by_hand(problem: Problem, optimizer: type[torch.optim.Optimizer], seed: int, epochs: int, **values: float) -> Any:
    model = problem.model(seed)
    stepper = optimizer(model.parameters(), **values)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    inputs, targets = problem.train
    found = []
    for number in range(1, epochs + 1):
        model.train()
        permutation = torch.randperm(len(inputs), generator=order)
        total = 0.0
        for first in range(0, len(inputs), problem.batch_size):
            rows = permutation[first : first + problem.batch_size]
            stepper.zero_grad()
            loss = problem.loss(model(inputs[rows]), targets[rows])
            loss.backward()
            stepper.step()
            total += loss.item() * len(rows)
        model.eval()
        with torch.no_grad():
            test = problem.measure(model(problem.test[0]), problem.test[1])
            held_out = problem.validation and problem.measure(model(problem.validation[0]), problem.validation[1])
        found.append(Epoch(number, total / len(inputs), test, held_out, 0.0))
    return found


@pytest.mark.parametrize("problem", [small.line(), DEEP], ids=["line", "batch normalisation and dropout"])
@pytest.mark.parametrize(
    ("rule", "optimizer", "values"),
    [
        (rules.sgd, ours.SGD, {"lr": 0.1}),
        (rules.adadelta, ours.Adadelta, {"rho": 0.9, "eps": 1e-4}),
        (rules.adam, ours.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    ],
)
def test_a_trial_is_the_loop_written_by_hand(
    problem: Problem, rule: Rule, optimizer: type[torch.optim.Optimizer], values: dict[str, float]
) -> None:
    problem = in_doubles(problem)
    assert trained(problem, rule, seed=5, **values) == by_hand(problem, optimizer, 5, 3, **values)


def test_a_rule_that_uses_curvature_gets_it_and_the_size_of_a_batch() -> None:
    problem = in_doubles(small.line())
    model = problem.model(5)
    stepper = ours.VSGD(model.parameters(), batch_size=8, slow_start=3)
    curvature = Curvature(model, problem.loss, h="bbprop", g2=True)
    order = torch.Generator().manual_seed(5)
    inputs, targets = problem.train
    losses = []
    for _ in range(3):
        permutation = torch.randperm(len(inputs), generator=order)
        total = 0.0
        for rows in torch.split(permutation, 8):
            stepper.param_groups[0]["batch_size"] = len(rows)  # the last has 2
            total += curvature(inputs[rows], targets[rows]).item() * len(rows)
            stepper.step()
        losses.append(total / len(inputs))
    assert [each.loss for each in trained(problem, rules.vsgd, seed=5, slow_start=3)] == losses
    assert losses[-1] < losses[0]
    other = trained(problem, rules.vsgd, seed=5, slow_start=3, batch_size=1)
    assert [each.loss for each in other] != losses


@pytest.mark.parametrize("problem", [small.line(), DEEP], ids=["line", "batch normalisation and dropout"])
def test_equal_seeds_give_equal_numbers_and_others_others(problem: Problem) -> None:
    first = trained(problem, seed=1)
    other = trained(problem, seed=2)
    assert trained(problem, seed=1) == first
    assert all(one.loss != two.loss and one.test != two.test for one, two in zip(first, other, strict=True))


def test_more_epochs_begin_like_fewer() -> None:
    assert trained(DEEP, epochs=5)[:2] == trained(DEEP, epochs=2)


def test_epochs_are_numbered_from_1_and_timed() -> None:
    found = list(train(small.line(), rules.sgd, {"lr": 0.1}, 0, 3))
    assert [each.number for each in found] == [1, 2, 3]
    assert all(each.seconds > 0 for each in found)


def test_nothing_is_held_out_where_the_problem_holds_nothing_out() -> None:
    assert {each.validation for each in trained(replace(small.line(), validation=None))} == {None}
    assert None not in {each.validation for each in trained(small.line())}


class Watched(nn.Module):
    """Outputs its inputs; notes what it was given, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[bool, bool, list[float]]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), inputs.flatten().tolist()))
        return inputs * self.weight


def watched(examples: int, batch: int, tested: int = 3) -> tuple[Problem, Watched]:
    model = Watched()
    numbers = torch.arange(float(examples))[:, None]
    problem = Problem(
        name="watched",
        description="",
        model=lambda seed: model,
        train=(numbers, numbers),
        test=(torch.arange(float(tested))[:, None], torch.zeros(tested)),
        loss=lambda outputs, targets: (0 * outputs + targets).mean(),
        metric=Metric("sum"),
        measure=lambda outputs, targets: outputs.sum().item(),
        batch_size=batch,
    )
    return problem, model


def test_an_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    problem, model = watched(10, batch=4)
    trained(problem, epochs=2)
    batches = [values for training, _, values in model.seen if training]
    assert list(map(len, batches)) == [4, 4, 2] * 2
    first, second = sum(batches[:3], []), sum(batches[3:], [])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != sorted(first)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 100])
def test_the_loss_is_the_mean_over_examples_however_short_the_last_batch(batch: int) -> None:
    problem, _ = watched(5, batch)
    # One example has all of the loss: the mean of the batches' means depends on which batch it falls into.
    problem = replace(problem, train=(problem.train[0], torch.tensor([[0.0], [0.0], [0.0], [0.0], [60.0]])))
    assert {each.loss for each in trained(problem, seed=3, epochs=6)} == {12.0}


def test_training_is_in_training_mode_and_measuring_is_not_and_needs_no_gradient() -> None:
    problem, model = watched(6, batch=3)
    trained(problem, epochs=2)
    assert [(training, gradient) for training, gradient, _ in model.seen] == [
        (True, True),
        (True, True),
        (False, False),
    ] * 2


def test_many_examples_are_measured_in_parts_and_as_a_whole() -> None:
    problem, model = watched(2, batch=2, tested=4001)
    (only,) = trained(problem, epochs=1, lr=0.0)
    parts = [values for training, _, values in model.seen if not training]
    assert len(parts) > 1 and sum(parts, []) == list(range(4001))
    assert only.test == 4001 * 2000


def test_a_trial_ends_with_the_first_loss_that_is_no_number() -> None:
    found = trained(small.line(), epochs=50, lr=3.0)
    assert 1 < len(found) < 50
    assert all(math.isfinite(each.loss) for each in found[:-1])
    assert not math.isfinite(found[-1].loss)


def test_a_test_metric_that_is_no_number_does_not_end_it() -> None:
    problem = replace(small.line(), measure=lambda outputs, targets: math.nan)
    found = trained(problem)
    assert len(found) == 3 and all(math.isnan(each.test) for each in found)


def test_one_trial_leaves_nothing_to_the_next() -> None:
    alone = trained(DEEP, seed=1)
    trained(DEEP, rules.adadelta, seed=0, rho=0.9)
    torch.rand(7)
    assert trained(DEEP, seed=1) == alone


def test_a_hyperparameter_that_cannot_be_is_told_before_training() -> None:
    problem, model = watched(4, batch=2)
    with pytest.raises(ValueError, match="lr is -1"):
        trained(problem, lr=-1.0)
    assert model.seen == []


NO_SCALARS = [
    (lambda outputs, targets: 0.5, "the loss of line is of type float; allowed is a tensor without dimensions"),
    (
        lambda outputs, targets: (outputs - targets).abs().mean(dim=0),
        "the loss of line has the shape (1,); allowed is a tensor without dimensions, the mean over the examples of a batch",
    ),
]


@pytest.mark.parametrize(("loss", "says"), NO_SCALARS)
def test_a_loss_that_is_no_scalar_is_told_wherever_it_is_trained(loss: Any, says: str) -> None:
    problem = replace(small.line(), loss=loss)
    task = Task(0, "sgd", {"lr": 0.1}, 0, 1)
    stack = Stack(problem, [task], torch.device("cpu"))
    for trains in (
        lambda: trained(problem),
        stack.train_epoch,
        lambda: simulate(problem, rules.sgd, {"lr": 0.1}, replicas=1),
        lambda: ProblemGradient(problem, 0, 0, 0)(
            {"weight": np.ones((1, 3), np.float32), "bias": np.ones(1, np.float32)}, {}
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            trains()


def test_outputs_that_are_no_tensor_are_told_wherever_they_are_measured() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return self.line(inputs), inputs

    problem = replace(
        small.line(),
        model=lambda seed: Two(),
        loss=lambda outputs, targets: (outputs[0] - targets).square().mean(),
    )
    task = Task(0, "sgd", {"lr": 0.1}, 0, 1)
    stack = Stack(problem, [task], torch.device("cpu"))
    for measures in (
        lambda: trained(problem),
        lambda: stack.measured(problem.test),
        lambda: bytes_per_trial(problem, [task]),
        lambda: simulate(problem, rules.sgd, {"lr": 0.1}, replicas=1),
    ):
        with pytest.raises(TypeError, match="problem line: the model returned a tuple; allowed is one tensor, with"):
            measures()


def test_a_model_that_squeezes_a_batch_of_one_example_is_told() -> None:
    problem = replace(
        small.line(),
        model=lambda seed: nn.Sequential(nn.Linear(3, 1), Squeezed()),
        loss=lambda outputs, targets: (outputs - targets.squeeze()).square().mean(),
        test=(torch.zeros(2001, 3), torch.zeros(2001, 1)),
        validation=None,
    )
    with pytest.raises(TypeError, match="line: the model returned a tensor without dimensions; allowed is one tensor"):
        trained(problem)


class Squeezed(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.squeeze()


def by_trainer(*epochs: Any) -> list[Epoch]:
    return list(train(replace(small.line(), trainer=lambda *_: iter(epochs)), rules.sgd, {"lr": 0.1}, 0, 1))


def test_numbers_of_a_problems_own_trainer_are_floats() -> None:
    given = Epoch(1, torch.tensor(0.5), np.float32(0.25), torch.tensor([0.125]), np.float64(1.0))  # type: ignore[arg-type]
    (found,) = by_trainer(given)
    assert found == Epoch(1, 0.5, 0.25, 0.125, 1.0)
    assert {type(each) for each in (found.loss, found.test, found.validation, found.seconds)} == {float}
    assert by_trainer(replace(given, validation=None))[0].validation is None


@pytest.mark.parametrize(
    ("epochs", "says"),
    [
        ((), "problem line: its trainer yielded nothing; allowed is at least one epoch"),
        ((0.5,), "problem line: its trainer yielded 0.5; allowed is a steprule.lab.Epoch"),
        (
            (Epoch(1, 0.5, None, None, 1.0),),  # type: ignore[arg-type]
            "problem line: its trainer yielded an epoch whose test is None; allowed is a number",
        ),
    ],
)
def test_what_a_problems_own_trainer_may_not_yield_is_told(epochs: tuple[Any, ...], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        by_trainer(*epochs)
