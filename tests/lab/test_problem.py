"""What a problem may be, and what is said of one that cannot."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.lab import small

import torch
from steprule.lab.problem import BUILT_IN, error_rate, find_problem
from steprule.lab.stacked import Stack, bytes_per_trial
from steprule.lab.workers import Task
from torch import nn


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_problems_go_by_their_names(name: str) -> None:
    assert find_problem(name).__name__ == name


def test_a_users_problem_goes_by_its_file() -> None:
    assert find_problem(small.named(small.line))().name == "line"


def test_an_unknown_problem_lists_those_that_are_known() -> None:
    with pytest.raises(ValueError) as caught:
        find_problem("cifar")
    assert str(caught.value) == (
        "there is no problem 'cifar'; allowed are digits, mnist, airfoil, speech, speech_logistic, "
        "speech_full, speech_full_logistic, and your own as package.module:function or "
        "path/to/file.py:function"
    )


def test_what_cannot_be_called_is_told() -> None:
    name = f"{small.__file__}:no_function"
    with pytest.raises(TypeError) as caught:
        find_problem(name)
    assert str(caught.value) == f"{name} is of type int; allowed is a function that returns a Problem"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"train": (torch.zeros(3, 1), torch.zeros(2, 1))},
            "train has 3 inputs and 2 targets; allowed is the same number",
        ),
        (
            {"test": (torch.zeros(0, 1), torch.zeros(0, 1))},
            "test has 0 inputs and 0 targets; allowed is the same number",
        ),
        ({"validation": (torch.zeros(1), torch.zeros(4))}, "validation has 1 inputs and 4 targets"),
        ({"model": nn.Linear(3, 1)}, "model is of type Linear; allowed is a function that makes a module of a seed"),
        (
            {"train": (torch.eye(3).to_sparse(), torch.zeros(3))},
            "the inputs of train are of the layout torch.sparse_coo; allowed is a dense tensor with the",
        ),
        ({"test": (torch.zeros(3), torch.tensor(1.0))}, "the targets of test are a single number; allowed is a dense"),
        ({"train": None}, "train is NoneType; allowed is the pair of inputs and targets"),
        ({"test": (torch.zeros(2),) * 3}, "test is 3 things; allowed is the pair of inputs and targets"),
        (
            {"test": (torch.zeros(2, 1).numpy(), torch.zeros(2, 1))},
            "the inputs of test are of type ndarray; allowed is a te",
        ),
        ({"train": (torch.zeros(2, 1), [0.0, 1.0])}, "the targets of train are of type list; allowed is a tensor"),
        ({"metric": "error"}, "metric is 'error'; allowed is a steprule.lab.Metric"),
        ({"batch_size": 0}, "batch_size is 0; allowed is a whole number from 1"),
        ({"epochs": -1}, "epochs is -1; allowed is a whole number from 1"),
    ],
)
def test_a_problem_that_cannot_be_is_told(changes: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        replace(small.line(), **changes)
    assert str(caught.value).startswith(f"problem line: {says}")


@pytest.mark.parametrize("changes", [{"batch_size": 2.5}, {"epochs": 2.5}])
def test_halves_are_no_whole_numbers(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="allowed is a whole number from 1"):
        replace(small.line(), **changes)


def test_validation_data_are_no_must() -> None:
    assert replace(small.line(), validation=None).validation is None


def test_the_error_rate_is_the_share_of_wrong_classes() -> None:
    outputs = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.1, 0.2], [5.0, 7.0, 6.0], [1.0, 0.0, 0.0]])
    assert error_rate(outputs, torch.tensor([0, 2, 1, 0])) == 0.0
    assert error_rate(outputs, torch.tensor([0, 2, 1, 2])) == 25.0
    assert error_rate(outputs, torch.tensor([1, 0, 0, 2])) == 100.0


def test_a_function_that_needs_arguments_is_refused():
    name = f"{__name__}:needy"
    with pytest.raises(
        TypeError, match=f"^{name} needs folder; allowed is a function without arguments that returns a"
    ):
        find_problem(name)


def needy(folder: str, seed: int = 0) -> None:
    """No problem of the lab's: it asks for something."""


class _Tenth(nn.Linear):
    """A layer that writes to what it is given."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.div_(10.0))


def test_a_model_that_writes_to_its_input_leaves_the_data() -> None:
    problem = replace(small.line(), model=lambda seed: _Tenth(3, 1))
    before = [each.clone() for each in (*problem.train, *problem.test)]
    model = problem.model(0)
    with torch.no_grad():
        assert problem.measured(model, problem.test) == problem.measured(model, problem.test)
    tasks = [Task(0, "sgd", {"lr": 0.1}, 0, 1)]
    stack = Stack(problem, tasks, torch.device("cpu"))
    assert stack.measured(problem.test) == stack.measured(problem.test)
    assert bytes_per_trial(problem, tasks) > 0
    assert all(map(torch.equal, before, (*problem.train, *problem.test)))


def test_a_metric_may_refuse_what_has_diverged_and_nothing_else() -> None:
    def strict(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        raise ValueError("Input contains NaN.")

    problem = replace(small.line(), measure=strict)
    assert math.isnan(problem.value(torch.tensor([1.0, math.nan]), torch.zeros(2)))
    assert math.isnan(problem.value(torch.tensor([1.0, math.inf]), torch.zeros(2)))
    with pytest.raises(ValueError, match="contains NaN"):
        problem.value(torch.ones(2), torch.zeros(2))


def test_the_error_of_outputs_that_are_all_nan_is_nan() -> None:
    problem = replace(small.line(), measure=error_rate)
    assert math.isnan(problem.value(torch.full((4, 3), math.nan), torch.zeros(4, dtype=torch.long)))
    assert problem.value(torch.tensor([[1.0, 0.0], [math.nan, 0.0]]), torch.zeros(2, dtype=torch.long)) == 0.0


@pytest.mark.parametrize("found", [None, "good", torch.zeros(2)])
def test_a_metric_that_is_no_number_is_told(found: Any) -> None:
    problem = replace(small.line(), measure=lambda outputs, targets: found)
    with pytest.raises(TypeError, match=re.escape(f"line: measure returned {found!r}; allowed is a number")):
        problem.value(torch.ones(2), torch.zeros(2))


@pytest.mark.parametrize("part", ["train", "test", "validation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_a_change_of_one_number_is_another_digest(part: str, dtype: torch.dtype) -> None:
    inputs = torch.zeros(4, 6, dtype=dtype)[:, ::2]
    problem = replace(small.line(), **{part: (inputs, torch.zeros(4))})
    assert problem.data_digest() == replace(problem, **{part: (inputs.clone(), torch.zeros(4))}).data_digest()
    changed = inputs.clone()
    changed[3, 2] = 1
    assert problem.data_digest() != replace(problem, **{part: (changed, torch.zeros(4))}).data_digest()
    assert problem.data_digest() != replace(problem, **{part: (inputs.t()[:, :3].t(), torch.zeros(3))}).data_digest()


def test_a_conjugate_has_a_digest() -> None:
    inputs = torch.randn(3, 2, dtype=torch.complex64)
    digests = [replace(small.line(), test=(each, torch.zeros(3))).data_digest() for each in (inputs, inputs.conj())]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("part", ["train", "test", "validation"])
def test_data_that_are_split_anew_are_told_and_a_rounding_is_not(part: str) -> None:
    inputs = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    inputs[0, 0], inputs[3, 1] = math.nan, math.inf
    problem = replace(small.line(), **{part: (inputs, torch.arange(100))})
    sample = json.loads(json.dumps(problem.data_sample()))
    problem.check_data(sample)
    replace(problem, **{part: (inputs * (1 + 1e-6), torch.arange(100))}).check_data(sample)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    for other in (
        (inputs[order], torch.arange(100)),
        (inputs, order),
        (inputs[:99], torch.arange(99)),
        (inputs[:2],) * 2,
    ):
        with pytest.raises(
            ValueError, match="problem line has other data in each process; allowed are the same: seed what"
        ):
            replace(problem, **{part: other}).check_data(sample)


def test_a_model_is_that_of_its_seed_though_its_author_seeds_nothing() -> None:
    problem = replace(small.line(), model=lambda seed: nn.Linear(3, 1))
    first, other, again = (problem.model(seed) for seed in (0, 1, 0))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]
    torch.manual_seed(0)
    assert torch.equal(first.weight, nn.Linear(3, 1).weight)  # type: ignore[arg-type]


def test_a_model_is_a_new_module_each_time() -> None:
    net = nn.Linear(3, 1)
    problem = replace(small.line(), model=lambda seed: net)
    assert problem.model(0) is net
    with pytest.raises(
        ValueError, match=r"line: model\(1\) is the module of an earlier call, which may be trained by now"
    ):
        replace(problem, epochs=2).model(1)
    with pytest.raises(TypeError, match=r"line: model\(0\) is of type NoneType; allowed is a module"):
        replace(small.line(), model=lambda seed: None).model(0)
