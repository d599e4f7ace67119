"""The curvature from two gradients."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch.nn.functional import cross_entropy

import torch
from steprule.curvature import Curvature, exact, half_squared_error
from steprule.torch import SGD, VSGDfd
from torch import nn


class Scales(nn.Module):
    """One output for each weight: a quadratic whose Hessian is diagonal."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights


def test_on_a_diagonal_quadratic_it_is_the_curvature() -> None:
    net, x = Scales(1.0, -2.0, 0.5), torch.tensor([[3.0, 0.1, 20.0]], dtype=torch.float64)
    made = VSGDfd(net.parameters(), slow_start=2)
    curvature = Curvature(net, half_squared_error, h="differences", g2=True, optimizer=made)
    expected = exact(net, half_squared_error, x, torch.zeros_like(x))["weights"]
    for _ in range(5):
        before = net.weights.detach().clone()
        curvature(x, torch.zeros_like(x))
        assert torch.equal(net.weights.detach(), before)
        torch.testing.assert_close(net.weights.h, expected, rtol=1e-9, atol=0)
        made.step()
    assert not torch.equal(net.weights.detach(), before)


def test_the_second_point_is_the_average_gradient_away_and_the_gradient_where_there_is_none() -> None:
    net = nn.Linear(3, 2).double()
    x, t = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    made = VSGDfd(net.parameters(), slow_start=10)
    curvature = Curvature(net, cross_entropy, h="differences", g2=True, optimizer=made)
    for step in range(3):
        curvature(x, t)
        for each in net.parameters():
            shift = made.state[each]["grad_avg"].clone() if step else each.grad.clone()
            moved = {name: p.detach().clone() for name, p in net.named_parameters()}
            found = each.h.clone()
            # All dimensions of all parameters move at once.
            for name, p in net.named_parameters():
                moved[name] += made.state[p]["grad_avg"] if step else p.grad
                moved[name].requires_grad_()
            loss = cross_entropy(torch.func.functional_call(net, moved, (x,)), t)
            names = [name for name, _ in net.named_parameters()]
            grads = dict(zip(names, torch.autograd.grad(loss, [moved[name] for name in names]), strict=True))
            (name,) = (name for name, p in net.named_parameters() if p is each)
            torch.testing.assert_close(found, ((each.grad - grads[name]) / shift).abs(), rtol=1e-6, atol=1e-9)
        made.step()


def test_what_does_not_move_has_none() -> None:
    net = Scales(1.0, 2.0)
    made = SGD(net.parameters(), lr=0.1)
    Curvature(net, half_squared_error, h="differences", optimizer=made)(
        torch.tensor([[0.0, 1.0]]).double(), torch.zeros(1, 2).double()
    )
    assert net.weights.h.tolist() == [0.0, pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("layer", "words"),
    [(nn.Dropout(0.5), "Dropout"), (nn.BatchNorm1d(3), "BatchNorm1d")],
)
def test_layers_that_differ_from_pass_to_pass_are_refused(layer: nn.Module, words: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), layer)
    curvature = Curvature(net, half_squared_error, h="differences", optimizer=SGD(net.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=rf"^differences: .*{words}.* allowed is model\.eval\(\)$"):
        curvature(torch.randn(4, 3), torch.randn(4, 3))
    net.eval()
    curvature(torch.randn(4, 3), torch.randn(4, 3))
    assert net[0].weight.h is not None


@pytest.mark.parametrize("optimizer", [None, {"grad_avg": 1}])
def test_what_is_no_optimizer_is_refused(optimizer: Any) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"optimizer is of type {type(optimizer).__name__}; allowed is a torch")
    ):
        Curvature(Scales(1.0), half_squared_error, h="differences", optimizer=optimizer)
