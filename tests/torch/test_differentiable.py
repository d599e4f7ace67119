"""Gradients flow through a step: of parameter and slots, by parameter, gradient, slots and hyperparameters before it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.cases import OF_THE_GRADIENT, RULES, hyper
from tests.requirements import require_release
from tests.torch.checks import parameter, paths
from tests.torch.twins import TWINS

import torch
from steprule import NonNegative, Rule, rule
from steprule import torch as ours
from steprule.torch import optimizer

Tensor = torch.Tensor
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "coupled": {"weight_decay": 0.125, "maximize": True},
    "decoupled": {"weight_decay": 0.125, "decoupled_weight_decay": True},
    "decaying rate": {"lr_decay": 0.5},
}


def _operands(each: Rule, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A parameter, its gradients at two steps, and slots, all away from where a root or a sign has a kink."""
    generator = torch.Generator().manual_seed(1)
    made = [1.0 + torch.rand(3, dtype=dtype, generator=generator) for _ in range(3 + len(each.slots))]
    return [tensor.requires_grad_() for tensor in made]


def _stepped(each: Rule, values: dict[str, Any], steps: int, *operands: Tensor) -> tuple[Tensor, ...]:
    start, *rest = operands
    x = start.clone()
    opt = optimizer(each)([x], **values, differentiable=True)
    slots = {name: slot.clone() for name, slot in zip(each.slots, rest[2:], strict=True)}
    if slots:
        opt.state[x].update({"step": torch.tensor(3.0), **slots})
    for g in rest[:steps]:
        x.grad = g
        opt.step()
    assert paths(opt) == (0, 1)
    return (x, *(opt.state[x][name] for name in each.slots))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_gradients_flow_through_two_steps(name: str, form: str):
    each = RULES[name]
    values = {**hyper(name), **FORMS[form]}
    operands = _operands(each)
    assert torch.autograd.gradcheck(lambda *given: _stepped(each, values, 2, *given), operands)


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_gradients_flow_through_two_steps_of_complex_numbers(name: str):
    each = RULES[name]
    operands = _operands(each, torch.complex128)
    # A gradient with no imaginary part would be at the edge of a sign.
    assert torch.autograd.gradcheck(lambda *given: _stepped(each, hyper(name), 2, *given), operands)


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_gradients_of_gradients_flow(name: str):
    each = RULES[name]
    operands = _operands(each)
    assert torch.autograd.gradgradcheck(lambda *given: _stepped(each, hyper(name), 1, *given)[0], operands)


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_gradients_flow_to_hyperparameters_that_are_tensors(name: str):
    each = RULES[name]
    constant = [tensor.detach() for tensor in _operands(each)]
    # Inside every range, where a difference to both sides is to be had.
    values = dict.fromkeys([*hyper(name), "weight_decay", "lr_decay"], 0.25)
    given = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values.values()]

    def stepped(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(values, tensors, strict=True))
        return _stepped(each, {**named, "decoupled_weight_decay": True}, 2, *constant)

    assert torch.autograd.gradcheck(stepped, given)


@pytest.mark.parametrize("key", ["weight_decay", "lr_decay"])
def test_a_decay_of_zero_has_a_gradient_too(key: str):
    each = RULES["adam"]
    zero = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    moved = _stepped(each, {key: zero, "decoupled_weight_decay": True}, 2, *_operands(each))[0]
    (slope,) = torch.autograd.grad(moved.sum(), zero)
    above = torch.tensor(1e-6, dtype=torch.float64)
    further = _stepped(each, {key: above, "decoupled_weight_decay": True}, 2, *_operands(each))[0]
    assert float(slope) == pytest.approx(float((further - moved).sum().detach()) / 1e-6, rel=1e-4)


def test_a_rule_that_multiplies_by_its_slot_is_not_disturbed_by_the_write():
    @rule
    def squares(g, x, seen=0.5, *, lr: NonNegative = 0.5):
        seen = seen * seen * g
        return -lr * seen * x * x, seen

    assert torch.autograd.gradcheck(lambda *given: _stepped(squares, {}, 2, *given), _operands(squares))


@pytest.mark.parametrize("name", TWINS)
def test_the_gradients_are_those_of_torch(name: str):
    if name in {"Adam", "AdamW"}:
        require_release("torch", "2.7", f"its {name} writes over what the gradient of a second step needs")
    twin = TWINS[name]
    found = []
    for cls in twin.classes().values():
        x = parameter(3, grad=False)
        g = parameter(3, grad=False, seed=1)
        stepping = x.clone()
        opt = cls([stepping], **twin.values, differentiable=True)
        for _ in range(2):
            stepping.grad = g * stepping.detach().exp()
            opt.step()
        found.append(torch.autograd.grad(stepping.square().sum(), (x, g)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_learned_rate():
    # Hyper-gradient descent: the rate learns from the loss after a step.
    rate = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    losses = []
    for _ in range(20):
        x = parameter(3, grad=False).clone()
        opt = ours.SGD([x], lr=rate, differentiable=True)
        x.grad = torch.autograd.grad(x.square().sum(), x, create_graph=True)[0]
        opt.step()
        loss = x.square().sum()
        losses.append(float(loss.detach()))
        (slope,) = torch.autograd.grad(loss, rate)
        with torch.no_grad():
            rate -= 0.01 * slope
    assert losses[-1] < 0.1 * losses[0]


def test_a_tensor_of_the_same_value_may_take_the_place_of_another():
    x = parameter(3, grad=False).clone()
    rates = [torch.tensor(0.5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    opt = ours.SGD([x], lr=rates[0], differentiable=True)
    for rate in rates:
        opt.param_groups[0]["lr"] = rate
        x.grad = torch.ones(3, dtype=torch.float64)
        opt.step()
    assert [float(slope) for slope in torch.autograd.grad(x.sum(), rates)] == [-3.0, -3.0]


def test_a_leaf_is_refused_before_anything_moves():
    first, second = parameter(3).detach(), parameter(3)
    first.grad = torch.ones(3, dtype=torch.float64)
    opt = ours.Adam([first, second], differentiable=True)
    before = first.clone()
    with pytest.raises(
        ValueError, match=r"^a parameter of shape \(3,\) is a leaf of autograd's graph.*differentiable=True"
    ):
        opt.step()
    assert torch.equal(first, before)


def test_without_the_option_no_gradient_flows_and_a_part_of_the_graph_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        ours.Adam([parameter(3).clone()])
