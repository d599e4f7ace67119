"""Steps in the backward pass: the same as those of an ordinary loop, and no gradient outlives its step."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
from tests.conformance.cases import OF_THE_GRADIENT, RULES, hyper
from torch.utils.checkpoint import checkpoint

import torch
from steprule import rules
from steprule import torch as ours
from steprule.torch import BackwardSteps, optimizer, step_in_backward
from torch import nn

STEPS = 4


class Tied(nn.Module):
    """A net that uses one matrix in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(inputs)))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), Tied())


def batch(number: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(number))


def loss(model: nn.Module, number: int) -> torch.Tensor:
    return model(batch(number)).square().mean()


def in_backward(model: nn.Module, numbers: range = range(STEPS)) -> None:
    for number in numbers:
        loss(model, number).backward()
        assert all(each.grad is None for each in model.parameters())


def in_a_loop(model: nn.Module, stepper: torch.optim.Optimizer, numbers: range = range(STEPS)) -> None:
    for number in numbers:
        stepper.zero_grad()
        loss(model, number).backward()
        stepper.step()


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_steps_are_those_of_a_loop(rule: str):
    values = {**hyper(rule), "weight_decay": 0.01, "decoupled_weight_decay": True, "maximize": True}
    one, other = net(), net()
    handle = step_in_backward(one, RULES[rule], **values)
    stepper = optimizer(RULES[rule])(other.parameters(), **values)
    in_backward(one)
    in_a_loop(other, stepper)
    assert_equal(one, other)
    mine, theirs = handle.state_dict(), stepper.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert list(mine["state"][number]) == list(state)
        assert all(torch.equal(mine["state"][number][name], value) for name, value in state.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_steps_are_those_of_a_loop_in_other_types(dtype: torch.dtype):
    one, other = nn.Linear(3, 2).to(dtype), nn.Linear(3, 2).to(dtype)
    other.load_state_dict(one.state_dict())
    step_in_backward(one, rules.adadelta)
    stepper = ours.Adadelta(other.parameters())
    for _ in range(3):
        for model in (one, other):
            model(torch.ones(2, 3, dtype=dtype)).sum().backward()
        stepper.step()
        stepper.zero_grad()
    assert_equal(one, other)


def test_no_two_gradients_are_there_at_a_time():
    model = nn.Sequential(*(nn.Linear(5, 5, bias=False) for _ in range(6)))
    seen = []
    for each in model.parameters():
        each.register_post_accumulate_grad_hook(
            lambda _: seen.append(sum(other.grad is not None for other in model.parameters()))
        )
    step_in_backward(model, rules.adam)
    loss(model, 0).backward()
    assert seen == [1] * 6


def groups(model: nn.Module) -> list[dict[str, Any]]:
    params = list(model.parameters())
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.5, "weight_decay": 0.1}]


def test_groups_have_values_of_their_own_which_schedulers_change():
    one, other = net(), net()
    handle = step_in_backward(groups(one), ours.Adadelta, rho=0.8)
    stepper = ours.Adadelta(groups(other), rho=0.8)
    mine, theirs = (torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in (handle.optimizer, stepper))
    for number in range(STEPS):
        in_backward(one, range(number, number + 1))
        mine.step()
        in_a_loop(other, stepper, range(number, number + 1))
        theirs.step()
    assert [group["lr"] for group in handle.optimizer.param_groups] == [0.5**STEPS, 0.5 ** (STEPS + 1)]
    assert_equal(one, other)


def test_named_parameters():
    model = net()
    handle = step_in_backward(model.named_parameters(), ours.Adam)
    in_backward(model)
    assert handle.state_dict()["param_groups"][0]["param_names"] == [name for name, _ in model.named_parameters()]


def test_gradients_may_be_accumulated():
    one, other = net(), net()
    handle = step_in_backward(one, rules.adam)
    stepper = ours.Adam(other.parameters())
    for _ in range(2):
        with handle.accumulate():
            loss(one, 0).backward()
            loss(one, 1).backward()
        loss(one, 2).backward()
        stepper.zero_grad()
        for number in range(3):
            loss(other, number).backward()
        stepper.step()
    assert_equal(one, other)
    assert {int(state["step"]) for state in handle.optimizer.state.values()} == {2}


def test_what_an_accumulation_has_left_steps_when_asked():
    one, other = net(), net()
    handle = step_in_backward(one, rules.adam)
    with handle.accumulate():
        loss(one, 0).backward()
    handle.optimizer.step()
    handle.optimizer.zero_grad()
    in_backward(one, range(1, 3))
    in_a_loop(other, ours.Adam(other.parameters()), range(3))
    assert_equal(one, other)


def test_frozen_parameters_stand_still_until_they_are_trained():
    one, other = net(), net()
    for model in (one, other):
        model[0].requires_grad_(False)
    handle = step_in_backward(one, rules.adam)
    assert not one[0].weight.requires_grad
    stepper = ours.Adam(other.parameters())
    in_backward(one)
    in_a_loop(other, stepper)
    assert_equal(one, other)
    assert one[0].weight not in handle.optimizer.state
    for model in (one, other):
        model[0].requires_grad_(True)
        model[2].requires_grad_(False)
    in_backward(one)
    stepper.zero_grad()
    in_a_loop(other, stepper)
    assert_equal(one, other)
    assert int(handle.optimizer.state[one[0].weight]["step"]) == STEPS
    assert int(handle.optimizer.state[one[2].weight]["step"]) == STEPS


def test_hooks_can_be_removed_and_an_ordinary_loop_goes_on():
    one, other = net(), net()
    handle = step_in_backward(one, rules.adadelta)
    in_backward(one, range(2))
    handle.remove()
    handle.remove()
    in_a_loop(one, handle.optimizer, range(2, 4))
    in_a_loop(other, ours.Adadelta(other.parameters()))
    assert_equal(one, other)
    assert not any(each._post_accumulate_grad_hooks for each in one.parameters())


@pytest.mark.parametrize("rule", OF_THE_GRADIENT)
def test_state_moves_between_both_kinds_of_loop(rule: str):
    one, other = net(), net()
    cls, values = optimizer(RULES[rule]), hyper(rule)
    handle = step_in_backward(one, cls, **values)
    in_backward(one, range(2))
    stepper = cls(other.parameters(), **values | {"lr": 9.0})
    other.load_state_dict(one.state_dict())
    stepper.load_state_dict(copy.deepcopy(handle.state_dict()))
    in_a_loop(other, stepper, range(2, 4))
    again = net()
    again.load_state_dict(other.state_dict())
    handle_again = step_in_backward(again, cls, **values | {"lr": 9.0})
    handle_again.load_state_dict(copy.deepcopy(stepper.state_dict()))
    in_backward(again, range(4, 6))

    in_backward(one, range(2, 6))
    assert_equal(one, again)


def test_a_running_handle_may_load_a_state():
    model = net()
    handle = step_in_backward(model, rules.adam)
    in_backward(model, range(1))
    early, start = copy.deepcopy(handle.state_dict()), copy.deepcopy(model.state_dict())
    in_backward(model, range(1, 4))
    expected = copy.deepcopy(model)
    handle.load_state_dict(early)
    model.load_state_dict(start)
    in_backward(model, range(1, 4))
    assert_equal(model, expected)


def test_copies_of_the_model_do_not_step():
    model = net()
    step_in_backward(model, rules.adam)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_equal(model, other)
        before = copy.deepcopy(other)
        loss(other, 0).backward()
        assert_equal(other, before)
        assert all(each.grad is not None for each in other.parameters())


def test_a_parameter_cannot_step_twice():
    model = net()
    first = step_in_backward(model[0], rules.sgd, lr=0.1)
    with pytest.raises(ValueError, match=r"a parameter of shape \(4, 5\) that steps in the backward pass already"):
        step_in_backward([*model[2].parameters(), model[0].weight], rules.sgd, lr=0.1)
    # Nothing of the refused call stays.
    step_in_backward(model[2], rules.sgd, lr=0.1)
    first.remove()
    step_in_backward(model[0], rules.sgd, lr=0.1)


class Shared(nn.Module):
    """A net that uses one layer several times, each within a checkpoint, between two others."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.shared, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.times, self._use_reentrant = 1, use_reentrant

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.first(inputs)
        for _ in range(self.times):
            inputs = checkpoint(lambda given: self.shared(given).tanh(), inputs, use_reentrant=self._use_reentrant)
        return self.last(inputs)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_gradient_that_comes_in_parts_is_told(use_reentrant: bool):
    one, other = Shared(use_reentrant=use_reentrant), Shared(use_reentrant=use_reentrant)
    step_in_backward(one, rules.adadelta)
    in_backward(one)
    in_a_loop(other, ours.Adadelta(other.parameters()))
    assert_equal(one, other)
    one.times = 3
    if use_reentrant:
        with pytest.raises(
            RuntimeError, match=r"^a parameter of shape \(5,\) has stepped .*use_reentrant=False$"
        ) as kept:
            loss(one, 0).backward()
        assert kept.value.__traceback__ is not None
        one.zero_grad()
        one.times = 1
    in_backward(one)


def test_the_hooks_live_and_die_with_the_parameters():
    model = net()
    handle = weakref.ref(step_in_backward(model, rules.adam))
    gc.collect()
    in_backward(model)
    parameter = weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert handle() is None
    assert parameter() is None


@pytest.mark.parametrize("given", ["adam", 3, torch.optim.Adam, ours.Adam([torch.ones(1, requires_grad=True)])])
def test_what_is_no_rule_and_no_class_is_refused(given: Any):
    with pytest.raises(TypeError, match=r"(?s)rule_or_class is .*; allowed is a rule, or a class of steprule.torch"):
        step_in_backward(net(), given)


def test_wrong_hyperparameters_are_refused_and_leave_no_hook():
    model = net()
    with pytest.raises(ValueError, match="rho is 2"):
        step_in_backward(model, rules.adadelta, rho=2)
    with pytest.raises(TypeError, match="momentum"):
        step_in_backward(model, rules.adadelta, momentum=0.9)
    assert not any(each._post_accumulate_grad_hooks for each in model.parameters())


def test_a_value_out_of_range_is_told_in_the_backward_pass():
    model = net()
    handle = step_in_backward(model, rules.adam)
    handle.optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr is -1.0"):
        loss(model, 0).backward()


def test_the_handle_is_of_the_public_class():
    assert isinstance(step_in_backward(net(), rules.adam), BackwardSteps)


def embedded(number: int, table: nn.Embedding) -> torch.Tensor:
    rows = torch.randint(0, 20, (4,), generator=torch.Generator().manual_seed(number))
    return table(rows).square().sum()


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}])
def test_rows_that_a_sparse_gradient_left_behind_are_caught_up_in_the_whole_state(options: dict[str, Any]):
    torch.manual_seed(0)
    one = nn.Embedding(20, 3, sparse=True)
    two = copy.deepcopy(one)
    steps, stepper = step_in_backward(one, rules.adadelta, **options), ours.Adadelta(two.parameters(), **options)
    if options:
        steps.optimizer.watch(one)
        stepper.watch(two)
    for number in range(STEPS):
        embedded(number, one).backward()
        stepper.zero_grad()
        embedded(number, two).backward()
        stepper.step()
    found, wanted = steps.state_dict()["state"][0], stepper.state_dict()["state"][0]
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("state_dtype", [torch.bfloat16, "int8"])
def test_random_rounding_draws_the_same_bits_as_in_a_loop(state_dtype: Any):
    one, two = net(), net()
    step_in_backward(one, rules.adadelta, state_dtype=state_dtype, seed=3)
    in_backward(one)
    in_a_loop(two, ours.Adadelta(two.parameters(), state_dtype=state_dtype, seed=3))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_that_is_not_finite_is_freed_when_it_is_told_of():
    x = nn.Parameter(torch.zeros(2))
    steps = step_in_backward([x], ours.SGD, lr=1.0, on_nonfinite="raise")
    with pytest.raises(FloatingPointError):
        (x * torch.tensor([1.0, float("inf")])).sum().backward()
    assert x.tolist() == [-1.0, 0.0] and x.grad is None
    x.sum().backward()
    assert x.tolist() == [-2.0, -1.0] and steps.optimizer.param_groups


def test_groups_may_change_places_and_go():
    x, y = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    steps = step_in_backward([{"params": [x], "lr": 0.5}, {"params": [y], "lr": 0.25}], ours.SGD)
    steps.optimizer.param_groups.reverse()
    (x.sum() + y.sum()).backward()
    assert x.tolist() == [-0.5] * 2 and y.tolist() == [-0.25] * 3
    del steps.optimizer.param_groups[1]  # that of x
    (x.sum() + y.sum()).backward()
    assert x.tolist() == [-0.5] * 2 and y.tolist() == [-0.5] * 3


def test_a_group_that_is_added_steps_too():
    mine, twin = net(), net()
    steps = step_in_backward(mine[0], ours.Adam, lr=0.1)
    ordinary = ours.Adam(twin[0].parameters(), lr=0.1)
    in_a_loop(twin, ordinary, range(2))
    for number in range(2):
        loss(mine, number).backward()
        mine[2:].zero_grad()
    for model, optimizer_ in ((mine, steps.optimizer), (twin, ordinary)):
        optimizer_.add_param_group({"params": list(model[2:].parameters()), "lr": 0.01})
    in_backward(mine)
    in_a_loop(twin, ordinary)
    assert all(map(torch.equal, mine.parameters(), twin.parameters()))
    steps.remove()
    late = nn.Parameter(torch.zeros(2))
    steps.optimizer.add_param_group({"params": [late]})
    late.sum().backward()
    assert late.tolist() == [0.0, 0.0]


def test_a_group_that_steps_elsewhere_is_not_added():
    model = net()
    step_in_backward(model[0], ours.Adagrad, lr=0.1)
    steps = step_in_backward(model[2], ours.Adagrad, lr=0.1)
    with pytest.raises(ValueError, match=r"a parameter of shape \(4, 5\) that steps in the backward pass already"):
        steps.optimizer.add_param_group({"params": [model[0].weight]})
    assert len(steps.optimizer.param_groups) == 1 and set(steps.optimizer.state) == set(model[2].parameters())
    loss(model, 0).backward()
