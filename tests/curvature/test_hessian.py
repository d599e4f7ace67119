"""The exact diagonal against the whole Hessian, and Hutchinson's estimate against the diagonal by its mean."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.tolerances import STANDARD_ERRORS
from tests.curvature.test_bbprop import LOSSES, batch, targets_of
from tests.curvature.truths import assert_near, chain, diagonal
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, mse_loss

import torch
from steprule.curvature import exact, hutchinson
from torch import Tensor, nn


class Residual(nn.Module):
    """What `bbprop` refuses: a sum, a normalisation, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.last = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + torch.tanh(self.inner(x)))
        return self.last(x + torch.tanh(self.inner(x)))


class TestExact:
    @pytest.mark.parametrize("rows", [1, 7, 1000])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_any_model(self, dtype: torch.dtype, rows: int) -> None:
        torch.manual_seed(0)
        net, x, t = Residual().to(dtype), batch(6, 4, dtype=dtype), targets_of("cross", 6, 3)
        assert_near(exact(net, cross_entropy, x, t, rows=rows), diagonal(net, cross_entropy, x, t))

    @pytest.mark.parametrize("name", LOSSES)
    def test_losses(self, name: str) -> None:
        net, x, t = chain([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)]), batch(5, 4), targets_of(name, 5, 3)
        assert_near(exact(net, LOSSES[name], x, t), diagonal(net, LOSSES[name], x, t))

    def test_convolutions_and_pools(self) -> None:
        layers = [nn.Conv2d(1, 2, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)]
        net, x, t = chain(layers), batch(3, 1, 4, 4), batch(3, 2)
        assert_near(exact(net, mse_loss, x, t), diagonal(net, mse_loss, x, t))

    def test_rows_that_pytorch_makes_one_at_a_time(self) -> None:
        net = chain([nn.Conv2d(1, 2, 2), nn.GroupNorm(2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)])
        x, t = batch(4, 1, 3, 3), targets_of("cross", 4, 3)
        with pytest.raises(RuntimeError, match=r"^PyTorch cannot make 41 rows .* at once \(.*\); allowed is rows=1$"):
            exact(net, cross_entropy, x, t)
        assert_near(exact(net, cross_entropy, x, t, rows=1), diagonal(net, cross_entropy, x, t))

    def test_what_has_no_second_derivative(self) -> None:
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.last = nn.Linear(4, 4), nn.Linear(12, 3)

            def forward(self, x: Tensor) -> Tensor:
                x = self.inner(x).unsqueeze(1)
                return self.last(nn.functional.scaled_dot_product_attention(x, x, x).flatten(1))

        net, x, t = Attention().double(), batch(5, 3, 4), targets_of("cross", 5, 3)
        with pytest.raises(RuntimeError, match="^derivative for .* is not implemented"):
            exact(net, cross_entropy, x, t)
        with sdpa_kernel(SDPBackend.MATH):
            assert_near(exact(net, cross_entropy, x, t), diagonal(net, cross_entropy, x, t))

    def test_a_sparse_gradient(self) -> None:
        net = chain([nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 3)])
        x, t = torch.tensor([[0, 1], [1, 4]]), targets_of("cross", 2, 3)
        with pytest.raises(ValueError, match="^exact: 0.weight has a sparse gradient; allowed are dense ones"):
            exact(net, cross_entropy, x, t)
        found = hutchinson(net, cross_entropy, x, t, generator=torch.Generator().manual_seed(1))
        net[0].sparse = False
        assert_near(found, hutchinson(net, cross_entropy, x, t, generator=torch.Generator().manual_seed(1)))

    def test_by_the_mask_of_the_pass(self) -> None:
        net = chain([nn.Linear(1, 200, bias=False), nn.Dropout(0.5), nn.Linear(200, 1, bias=False)])
        net[0].weight.data.fill_(1)
        net[2].weight.data.fill_(1)
        x, t = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        found = exact(net, mse_loss, x, t, rows=3)
        assert set(found["0.weight"].flatten().tolist()) == set(found["2.weight"].flatten().tolist()) == {0.0, 8.0}
        assert torch.equal(found["0.weight"].flatten(), found["2.weight"].flatten())

    def test_no_rows(self) -> None:
        with pytest.raises(ValueError, match=r"rows is 0; allowed is a whole number from 1"):
            exact(chain([nn.Linear(1, 1)]), mse_loss, batch(1, 1), batch(1, 1), rows=0)


@pytest.mark.parametrize("way", [exact, hutchinson])
def test_a_parameter_with_a_hook_is_refused(way: Any) -> None:
    net, x, t = chain([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)]), batch(5, 4), batch(5, 3)
    handle = net[0].weight.register_hook(lambda grad: 2 * grad)
    with pytest.raises(ValueError, match=r"^a parameter of shape \(3, 4\) has a hook that may change its gradient"):
        way(net, mse_loss, x, t)
    handle.remove()
    way(net, mse_loss, x, t)


class TestHutchinson:
    def test_its_mean(self) -> None:
        torch.manual_seed(0)
        net, x, t = Residual().double(), batch(6, 4), targets_of("cross", 6, 3)
        generator, samples = torch.Generator().manual_seed(0), 400
        runs = [hutchinson(net, cross_entropy, x, t, generator=generator) for _ in range(samples)]
        for name, expected in diagonal(net, cross_entropy, x, t).items():
            found = torch.stack([run[name] for run in runs])
            error = found.std(0) / samples**0.5
            assert error.max() > 0
            assert ((found.mean(0) - expected).abs() <= STANDARD_ERRORS.amount * error + 1e-15).all()

    def test_samples_are_averaged(self) -> None:
        net, x, t = chain([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)]), batch(5, 4), batch(5, 3)
        one, other = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
        apart = [hutchinson(net, mse_loss, x, t, generator=one) for _ in range(3)]
        together = hutchinson(net, mse_loss, x, t, samples=3, generator=other)
        assert_near(together, {name: sum(run[name] for run in apart) / 3 for name in together})
        assert any(not torch.equal(apart[0][name], apart[1][name]) for name in together)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_one_sample_is_exact_where_the_hessian_is_diagonal(self, dtype: torch.dtype) -> None:
        class Bowl(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.x = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=dtype))

            def forward(self, scales: Tensor) -> Tensor:
                return (scales * self.x**4).sum()

        scales = torch.tensor([1.0, 2.0, 0.0], dtype=dtype)
        found = hutchinson(Bowl(), lambda outputs, _: outputs, scales, None)
        assert found["x"].tolist() == [12.0, 96.0, 0.0]

    def test_no_samples(self) -> None:
        with pytest.raises(ValueError, match=r"samples is 0; allowed is a whole number from 1"):
            hutchinson(chain([nn.Linear(1, 1)]), mse_loss, batch(1, 1), batch(1, 1), samples=0)


@pytest.mark.parametrize("estimate", [exact, hutchinson])
class TestBoth:
    def test_gradients_that_do_not_vary(self, estimate: Any) -> None:
        net = chain([nn.Linear(4, 3)])
        found = estimate(net, lambda outputs, _: outputs.mean(), batch(5, 4), None)
        assert_near(found, {name: torch.zeros_like(each).detach() for name, each in net.named_parameters()})

    def test_frozen_and_unused_parameters_are_left_out(self, estimate: Any) -> None:
        net = chain([nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)])
        net[0].weight.requires_grad_(False)
        net[1].register_parameter("unused", nn.Parameter(torch.ones(2)))
        found = estimate(net, mse_loss, batch(5, 4), batch(5, 3))
        assert list(found) == ["0.bias", "2.weight", "2.bias"]

    def test_dead_units(self, estimate: Any) -> None:
        net = chain([nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)])
        net[0].bias.data.fill_(-1e3)
        found = estimate(net, mse_loss, batch(5, 4), batch(5, 3))
        assert all(each.isfinite().all() for each in found.values())
        assert (found["0.weight"] == 0).all()
