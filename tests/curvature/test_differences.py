"""The curvature from two gradients."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from torch.nn.functional import cross_entropy, mse_loss

import torch
from steprule.curvature import Curvature, exact, half_squared_error
from steprule.torch import SGD, VSGDfd, storing
from torch import nn


def on_gpu(test: Any) -> Any:
    """Mark a test that needs a GPU."""
    none = not torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(none, reason="there is no GPU that PyTorch can use")(test))


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


class Sequence(nn.Module):
    """A layer that returns more than its output."""

    def __init__(self, layer: nn.Module, arguments: int) -> None:
        super().__init__()
        self.layer, self.arguments = layer, arguments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(*[x] * self.arguments)[0]


class Dropping(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.RReLU(),
        Sequence(nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True), 1),
        Sequence(nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True), 3),
        Dropping(),
    ],
    ids=["Dropout", "RReLU", "LSTM", "MultiheadAttention", "function"],
)
def test_both_gradients_are_of_one_random_function(layer: nn.Module) -> None:
    assert_one_random_function(layer, "cpu")


@on_gpu
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.RReLU(), Dropping()], ids=["Dropout", "RReLU", "function"])
def test_both_gradients_are_of_one_random_function_on_a_gpu(layer: nn.Module) -> None:
    assert_one_random_function(layer, "cuda")


def assert_one_random_function(layer: nn.Module, device: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)).double().to(device)
    x, t = torch.randn(5, 6, 3).double().to(device), torch.randn(5, 6, 2).double().to(device)
    before = {name: each.detach() for name, each in net.named_parameters()}

    def gradients(at: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(3)
        at = {name: each.clone().requires_grad_() for name, each in at.items()}
        return list(torch.autograd.grad(mse_loss(torch.func.functional_call(net, at, (x,)), t), list(at.values())))

    here = gradients(before)
    one_pass = torch.get_rng_state()
    there = gradients({name: each + grad for (name, each), grad in zip(before.items(), here, strict=True)})
    torch.manual_seed(3)
    Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))(x, t)
    assert torch.equal(torch.get_rng_state(), one_pass)
    for each, first, second in zip(net.parameters(), here, there, strict=True):
        # A gradient that is but rounding moves a parameter by less than its digits.
        moved = (each.detach() + first) - each.detach()
        expected = torch.where(moved != 0, ((second - first) / moved).abs(), 0.0)
        torch.testing.assert_close(each.h, expected, rtol=1e-6, atol=1e-9)


def test_buffers_change_as_in_one_forward_pass() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(4, 2))
    x, t = torch.randn(6, 4) + 3.0, torch.randn(6, 2)
    once = copy.deepcopy(net)
    once(x)
    Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))(x, t)
    assert net[1].running_mean.any()
    for mine, other in zip(net.buffers(), once.buffers(), strict=True):
        assert torch.equal(mine, other)


class Warming(nn.Module):
    """Multiply by the number of the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return x * self.passes.clone()


def test_both_gradients_are_of_the_same_buffers() -> None:
    torch.manual_seed(0)
    first, last, x, t = nn.Linear(3, 4), nn.Linear(4, 2), torch.randn(5, 3), torch.randn(5, 2)
    found = []
    for between in (Warming(), nn.Identity()):
        net = nn.Sequential(first, between, nn.Tanh(), last)
        Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))(x, t)
        found.append([each.h for each in net.parameters()])
    torch.testing.assert_close(*found)


def test_a_layer_that_is_in_several_places_stays_what_it_is() -> None:
    shared = nn.Linear(3, 3).double()
    net, x, t = nn.Sequential(shared, nn.Tanh(), shared), torch.randn(5, 3).double(), torch.randn(5, 3).double()
    curvature = Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))
    before = [shared.weight, shared.bias]
    curvature(x, t)
    assert all(mine is each for mine, each in zip(net.parameters(), before, strict=True))
    there = copy.deepcopy(net)
    for each, mine in zip(there.parameters(), before, strict=True):
        each.data += mine.grad
    for each, mine, grad in zip(
        there.parameters(), before, torch.autograd.grad(mse_loss(there(x), t), there.parameters()), strict=True
    ):
        torch.testing.assert_close(mine.h, ((grad - mine.grad) / (each.detach() - mine.detach())).abs())


@on_gpu
def test_dropout_of_cudnn_is_refused() -> None:
    net = Sequence(nn.LSTM(3, 2, num_layers=2, dropout=0.5), 1).to("cuda")
    curvature = Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"^differences: layer \(LSTM\) is not the same function in a second pass"):
        curvature(torch.randn(5, 3, device="cuda"), torch.randn(5, 2, device="cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state_dtype", ["int8", torch.bfloat16, torch.float32], ids=str)
def test_the_average_gradient_in_another_form(state_dtype: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    nets = [nn.Linear(3, 2, dtype=dtype) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x, t = torch.randn(4, 3, dtype=dtype), torch.randn(4, 2, dtype=dtype)
    made = VSGDfd(nets[0].parameters(), slow_start=10, state_dtype=state_dtype)
    curvature = Curvature(nets[0], mse_loss, h="differences", g2=True, optimizer=made)
    curvature(x, t)
    made.step()
    # Another optimizer that keeps the same numbers as they are.
    plain = torch.optim.SGD(nets[1].parameters())
    for mine, its in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        plain.state[its]["grad_avg"] = storing.load(made.state[mine], "grad_avg", made.rule).to(dtype)
    curvature(x, t)
    nets[1].load_state_dict(nets[0].state_dict())
    Curvature(nets[1], mse_loss, h="differences", optimizer=plain)(x, t)
    for mine, its in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(mine.h, its.h)


@pytest.mark.parametrize(("kept", "said"), [(torch.ones(1, dtype=torch.uint8), "torch.uint8"), (0.5, "a float")])
def test_an_average_gradient_in_an_unknown_form(kept: Any, said: str) -> None:
    net = Scales(1.0)
    made = torch.optim.SGD(net.parameters())
    made.state[net.weights]["grad_avg"] = kept
    curvature = Curvature(net, half_squared_error, h="differences", optimizer=made)
    words = f"differences: optimizer keeps grad_avg of weights as {said}; allowed is a floating-point tensor"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        curvature(torch.ones(1, 1).double(), torch.zeros(1, 1).double())


def test_a_layer_that_differs_from_pass_to_pass_is_refused() -> None:
    layer, words = nn.BatchNorm1d(3), "BatchNorm1d"
    net = nn.Sequential(nn.Linear(3, 3), layer)
    curvature = Curvature(net, half_squared_error, h="differences", optimizer=SGD(net.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=rf"^differences: .*{words}.* allowed is model\.eval\(\)$"):
        curvature(torch.randn(4, 3), torch.randn(4, 3))
    net.eval()
    curvature(torch.randn(4, 3), torch.randn(4, 3))
    assert net[0].weight.h is not None


def test_a_penalty_in_the_loss_is_refused() -> None:
    net, x, t = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    curvature = Curvature(
        net,
        lambda outputs, targets: mse_loss(outputs, targets) + net.weight.square().sum(),
        h="differences",
        optimizer=SGD(net.parameters(), lr=0.1),
    )
    with pytest.raises(
        ValueError, match=r"^differences: loss depends on weight in another way than by what its module"
    ):
        curvature(x, t)
    assert net.weight.grad is None


def test_a_parameter_with_a_hook_is_refused() -> None:
    net, x, t = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    curvature = Curvature(net, mse_loss, h="differences", optimizer=SGD(net.parameters(), lr=0.1))
    handle = net.weight.register_hook(lambda grad: 2 * grad)
    with pytest.raises(ValueError, match=r"^a parameter of shape \(2, 3\) has a hook that may change its gradient"):
        curvature(x, t)
    handle.remove()
    curvature(x, t)


@pytest.mark.parametrize("optimizer", [None, {"grad_avg": 1}])
def test_what_is_no_optimizer_is_refused(optimizer: Any) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"optimizer is of type {type(optimizer).__name__}; allowed is a torch")
    ):
        Curvature(Scales(1.0), half_squared_error, h="differences", optimizer=optimizer)


def test_it_needs_an_optimizer() -> None:
    with pytest.raises(TypeError, match="^optimizer is of type NoneType; allowed is a torch"):
        Curvature(Scales(1.0), half_squared_error, h="differences")
