"""Newton's method: quadratics in one step, and what it refuses."""

from __future__ import annotations

import copy
import math
import re

import pytest
from tests.conformance.tolerances import SHARES
from tests.curvature.test_bbprop import batch, targets_of
from tests.curvature.truths import assert_near, chain
from torch.nn.functional import cross_entropy, mse_loss

import torch
from steprule.curvature import Newton
from torch import Tensor, nn


def quadratic(matrix: Tensor, x: Tensor) -> Tensor:
    return 0.5 * x @ matrix @ x


class TestOneStep:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_solves_a_quadratic(self, dtype: torch.dtype) -> None:
        a = batch(6, 6, dtype=dtype)
        matrix, target = a @ a.T + torch.eye(6, dtype=dtype), batch(6, dtype=dtype, seed=2)
        first, second = nn.Parameter(torch.zeros(2, 2, dtype=dtype)), nn.Parameter(torch.zeros(2, dtype=dtype))
        optimizer = Newton([first, second])
        returned = optimizer.step(lambda: quadratic(matrix, torch.cat([first.flatten(), second]) - target))
        assert_near({"loss": returned}, {"loss": quadratic(matrix, -target)})
        assert_near({"x": torch.cat([first.flatten(), second]).detach()}, {"x": target})

    def test_solves_least_squares(self) -> None:
        net, x, t = chain([nn.Linear(3, 2)]), batch(20, 3), batch(20, 2, seed=2)
        Newton(net.parameters()).step(lambda: mse_loss(net(x), t))
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones(20, 1, dtype=x.dtype)], 1), t).solution
        assert_near({"w": net[0].weight.detach(), "b": net[0].bias.detach()}, {"w": solution[:3].T, "b": solution[3]})

    def test_rows_that_pytorch_makes_one_at_a_time(self) -> None:
        net, x, t = chain([nn.GroupNorm(2, 4), nn.Linear(4, 1)]), batch(20, 4), batch(20, 1, seed=2)
        before = mse_loss(net(x), t)
        with pytest.raises(RuntimeError, match="allowed is rows=1"):
            Newton(net.parameters(), damping=10.0).step(lambda: mse_loss(net(x), t))
        assert mse_loss(net(x), t) == before
        Newton(net.parameters(), damping=10.0, rows=1).step(lambda: mse_loss(net(x), t))
        assert mse_loss(net(x), t) < before

    def test_lr_and_damping(self) -> None:
        x = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        # dx = -lr g / (h + damping), by hand: h = 2 and 8, g = 2 and 8.
        Newton([x], lr=0.5, damping=2.0).step(lambda: x[0] ** 2 + 4 * x[1] ** 2)
        assert_near({"x": x.detach()}, {"x": torch.tensor([1 - 0.5 * 2 / 4, 1 - 0.5 * 8 / 10], dtype=torch.float64)})

    def test_values_of_a_schedule(self) -> None:
        x = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = Newton([x])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        for expected in (0.0, 0.5):
            x.data.fill_(1)
            optimizer.step(lambda: x.square().sum())
            schedule.step()
            assert x.item() == expected


def test_it_converges_quadratically() -> None:
    net, x, t = chain([nn.Linear(2, 2)]), batch(40, 2), targets_of("cross", 40, 2)
    optimizer = Newton(net.parameters(), damping=1e-3)
    for _ in range(12):
        optimizer.step(lambda: cross_entropy(net(x), t) + 0.05 * sum(w.square().sum() for w in net.parameters()))
    loss = cross_entropy(net(x), t) + 0.05 * sum(w.square().sum() for w in net.parameters())
    grads = torch.autograd.grad(loss, list(net.parameters()))
    assert max(each.abs().max().item() for each in grads) < SHARES["curvature, float64"].amount


def test_what_the_loss_does_not_read_stands_still() -> None:
    x, frozen, idle = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    frozen.requires_grad_(False)
    Newton([frozen, x, idle]).step(lambda: ((x + frozen) ** 2).sum())
    assert torch.equal(frozen, torch.ones_like(frozen)) and torch.equal(idle, torch.ones_like(idle))
    assert_near({"x": x.detach()}, {"x": -torch.ones_like(x).detach()})


def test_its_state_is_saved_and_copied() -> None:
    x = nn.Parameter(torch.ones(2))
    optimizer = Newton([x], lr=0.5, damping=2.0)
    other = Newton([x])
    other.load_state_dict(optimizer.state_dict())
    for made in (other, copy.deepcopy(optimizer)):
        assert (made.param_groups[0]["lr"], made.param_groups[0]["damping"]) == (0.5, 2.0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("loss", "said"),
        [
            (lambda x: x[0] ** 2 - x[1] ** 2, "indefinite: its eigenvalues are from -2 to 2; allowed is"),
            (lambda x: -(x[0] ** 2) - x[1] ** 2, "negative definite: its eigenvalues are from -2 to -2; allowed is"),
            (lambda x: x[0] ** 2, "singular, or nearly so: its eigenvalues are from 0 to 2; allowed is"),
            (lambda x: x.sum(), "singular, or nearly so: its eigenvalues are from 0 to 0; allowed is"),
            (lambda x: (x[0] + x[1] / 3) ** 2, "singular, or nearly so: its eigenvalues are from"),
        ],
        ids=["indefinite", "negative", "flat in one direction", "flat", "flat in a slanting direction"],
    )
    def test_a_hessian_that_is_not_positive_definite(self, loss: object, said: str) -> None:
        x = nn.Parameter(torch.ones(2, dtype=torch.float64))
        with pytest.raises(torch.linalg.LinAlgError, match=re.escape(f"the Hessian with damping=0 is {said}")):
            Newton([x]).step(lambda: loss(x))  # type: ignore[operator]
        assert torch.equal(x, torch.ones_like(x))
        Newton([x], damping=2.5).step(lambda: loss(x))  # type: ignore[operator]
        assert not torch.equal(x, torch.ones_like(x)) and x.isfinite().all()

    def test_a_loss_that_is_no_number(self) -> None:
        x = nn.Parameter(torch.ones(2))
        with pytest.raises(ValueError, match="the gradient or the Hessian is not finite"):
            Newton([x]).step(lambda: (x * math.nan).square().sum())
        assert torch.equal(x, torch.ones_like(x))

    def test_a_hook(self) -> None:
        x = nn.Parameter(torch.ones(2))
        x.register_hook(lambda grad: 2 * grad)
        with pytest.raises(ValueError, match=r"^a parameter of shape \(2,\) has a hook that may change its gradient"):
            Newton([x]).step(lambda: x.square().sum())
        assert torch.equal(x, torch.ones_like(x))

    def test_closures(self) -> None:
        x, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        optimizer = Newton([x])

        def with_backward() -> Tensor:
            loss = x.square().sum()
            loss.backward()
            return loss

        with pytest.raises(TypeError, match="closure is None; allowed is a function that returns the loss"):
            optimizer.step()
        with pytest.raises(ValueError, match="closure has called backward; allowed is one that only returns the loss"):
            optimizer.step(with_backward)
        with pytest.raises(ValueError, match="closure returns a loss that depends on none of params"):
            optimizer.step(lambda: other.square().sum())
        with pytest.raises(ValueError, match="closure returns a loss that depends on none of params"):
            Newton([torch.ones(2)]).step(lambda: other.square().sum())
        for wrong in (1.0, x.detach().sum(), x.square()):
            with pytest.raises(
                ValueError, match=r"closure returns .*; allowed is a loss of one number that depends on"
            ):
                optimizer.step(lambda wrong=wrong: wrong)

    def test_arguments(self) -> None:
        x = nn.Parameter(torch.ones(2))
        with pytest.raises(ValueError, match="damping is -1.0; allowed is a number in"):
            Newton([x], damping=-1)
        with pytest.raises(ValueError, match="lr is nan; allowed is a number in"):
            Newton([x], lr=math.nan)
        with pytest.raises(ValueError, match="params has several groups; allowed is one"):
            Newton([{"params": [x]}, {"params": [nn.Parameter(torch.ones(2))]}])
        with pytest.raises(
            TypeError, match="params has a parameter of torch.float16; allowed are torch.float32 and torch.float64"
        ):
            Newton([nn.Parameter(torch.ones(2, dtype=torch.float16))])
