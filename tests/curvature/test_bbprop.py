"""`bbprop` against numbers worked by hand, against its definition, and against the exact diagonal where they must agree."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.tolerances import ULPS, ulps
from tests.curvature.truths import assert_near, chain, diagonal, propagated
from torch.nn.functional import cross_entropy, mse_loss

import torch
from steprule.curvature import bbprop, half_squared_error
from torch import Tensor, nn

ACTIVATIONS = [
    nn.Tanh(),
    nn.Sigmoid(),
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.ELU(0.7),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Softplus(),
    nn.Softplus(2.0, 1.0),
    nn.Identity(),
]
LOSSES: dict[str, Any] = {
    "cross_entropy": cross_entropy,
    "nn.CrossEntropyLoss": nn.CrossEntropyLoss(),
    "nn.CrossEntropyLoss, smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "nn.CrossEntropyLoss, sum": nn.CrossEntropyLoss(reduction="sum"),
    "mse_loss": mse_loss,
    "nn.MSELoss, sum": nn.MSELoss(reduction="sum"),
    "half_squared_error": half_squared_error,
    "a lambda": lambda outputs, targets: 0.5 * (outputs - targets).square().sum(1).mean(),
    "nn.HuberLoss": nn.HuberLoss(),
    "linear": lambda outputs, targets: (outputs * targets).sum(1).mean(),
}


def batch(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def targets_of(name: str, examples: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    if "ross" in name.lower():
        return torch.randint(classes, (examples,), generator=torch.Generator().manual_seed(2))
    return batch(examples, classes, dtype=dtype, seed=2)


class TestByHand:
    """A net of 2-1-1 units: a = 0.5 x1 - x2 + 0.2, y = tanh(a), o = 3 y - 1, E = (o - t)²/2, at x = (1, 0.3), t = 1."""

    A, Y = 0.4, math.tanh(0.4)
    SLOPE, BEND = 1 - Y**2, -2 * Y * (1 - Y**2)
    ERROR = 3 * Y - 1 - 1
    # E'' for o is 1, for y 3², and E' for y is 3 (o - t).
    H_A = SLOPE**2 * 9 + BEND * 3 * ERROR
    H_A_WITHOUT = SLOPE**2 * 9

    def net(self) -> nn.Sequential:
        net = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 1)).double()
        for each, values in zip(net.parameters(), ([[0.5, -1.0]], [0.2], [[3.0]], [-1.0]), strict=True):
            each.data = torch.tensor(values, dtype=torch.float64)
        return net

    @pytest.mark.parametrize(("levenberg_marquardt", "h"), [(False, H_A), (True, H_A_WITHOUT)])
    def test_each_parameter(self, levenberg_marquardt: bool, h: float) -> None:
        x, t = torch.tensor([[1.0, 0.3]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        found = bbprop(self.net(), half_squared_error, x, t, levenberg_marquardt=levenberg_marquardt)
        expected = {"0.weight": [[h, h * 0.09]], "0.bias": [h], "2.weight": [[self.Y**2]], "2.bias": [1.0]}
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert ulps(found[name], values, "float64").max() <= ULPS["equation"].amount

    def test_the_terms_differ_in_sign(self) -> None:
        # Or the test above could not tell one from the other.
        assert self.ERROR < 0 < self.BEND * self.ERROR < self.H_A_WITHOUT < self.H_A


class TestByDefinition:
    @pytest.mark.parametrize("levenberg_marquardt", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_activations(self, activation: nn.Module, dtype: torch.dtype, levenberg_marquardt: bool) -> None:
        layers = [nn.Linear(4, 5), activation, nn.Linear(5, 3), activation, nn.Linear(3, 2)]
        net, x, t = chain(layers, dtype), batch(6, 4, dtype=dtype), targets_of("cross", 6, 2)
        found = bbprop(net, cross_entropy, x, t, levenberg_marquardt=levenberg_marquardt)
        assert_near(found, propagated(net, cross_entropy, x, t, second_term=not levenberg_marquardt))
        if levenberg_marquardt:
            assert all((each >= 0).all() for each in found.values())

    @pytest.mark.parametrize("examples", [1, 5])
    @pytest.mark.parametrize("name", LOSSES)
    def test_losses(self, name: str, examples: int) -> None:
        net, x, t = (
            chain([nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)]),
            batch(examples, 4),
            targets_of(name, examples, 3),
        )
        assert_near(bbprop(net, LOSSES[name], x, t), propagated(net, LOSSES[name], x, t))

    def test_cross_entropy_of_places_and_of_probabilities(self) -> None:
        net = chain([nn.Conv1d(2, 3, 2)])
        places = torch.randint(3, (4, 5), generator=torch.Generator().manual_seed(3))
        assert_near(
            bbprop(net, cross_entropy, batch(4, 2, 6), places), diagonal(net, cross_entropy, batch(4, 2, 6), places)
        )
        net, shares = chain([nn.Linear(4, 3)]), torch.softmax(batch(6, 3), 1)
        assert_near(bbprop(net, cross_entropy, batch(6, 4), shares), diagonal(net, cross_entropy, batch(6, 4), shares))

    @pytest.mark.parametrize("smoothing", [0.0, 0.3])
    def test_cross_entropy_of_shares_that_do_not_add_up_to_one(self, smoothing: float) -> None:
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
        net, shares = chain([nn.Conv1d(2, 3, 2)]), batch(4, 3, 5).abs()
        assert_near(bbprop(net, loss, batch(4, 2, 6), shares), diagonal(net, loss, batch(4, 2, 6), shares))

    def test_cross_entropy_of_many_places(self) -> None:
        # All products of so many outputs at once would take 55 GiB.
        net, x = chain([nn.Conv2d(1, 21, 1)], torch.float32), batch(2, 1, 64, 64, dtype=torch.float32)
        places = torch.randint(21, (2, 64, 64), generator=torch.Generator().manual_seed(3))
        p = torch.softmax(net(x), 1).detach()
        expected = (p * (1 - p)).mean((0, 2, 3))
        assert_near({"b": bbprop(net, cross_entropy, x, places)["0.bias"]}, {"b": expected})

    @pytest.mark.parametrize("outputs", [63, 64, 65, 130])
    def test_more_outputs_than_are_differentiated_at_a_time(self, outputs: int) -> None:
        net, x, t, loss = (
            chain([nn.Linear(1, outputs)]),
            batch(3, 1),
            batch(3, outputs).sigmoid(),
            nn.BCEWithLogitsLoss(),
        )
        assert_near(bbprop(net, loss, x, t), diagonal(net, loss, x, t))

    @pytest.mark.filterwarnings("ignore:Using padding='same'")
    @settings(max_examples=40)
    @given(st.data())
    def test_convolutions(self, data: st.DataObject) -> None:
        dimensions, groups = data.draw(st.sampled_from([1, 2])), data.draw(st.integers(1, 2))
        channels, filters = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
        sizes = st.tuples(*[st.integers(1, 3)] * dimensions)
        kernel, dilation = data.draw(sizes), data.draw(sizes)
        padding = data.draw(st.one_of(st.tuples(*[st.integers(0, 2)] * dimensions), st.sampled_from(["same", "valid"])))
        stride = (1,) * dimensions if padding == "same" else data.draw(sizes)
        lengths = [d * (k - 1) + data.draw(st.integers(1, 4)) for d, k in zip(dilation, kernel, strict=True)]
        kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
        first = kind(channels, filters, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
        net = chain([first, nn.Tanh(), kind(filters, 2, 1), nn.Flatten()])
        x = batch(2, channels, *lengths)
        t = batch(2, net(x).shape[1], seed=3)
        assert_near(bbprop(net, mse_loss, x, t), propagated(net, mse_loss, x, t))

    @pytest.mark.parametrize(
        "layers",
        [
            [nn.AvgPool2d(2)],
            [nn.AvgPool2d(3, 2, 1)],
            [nn.AvgPool2d((1, 2), divisor_override=3)],
            [nn.AdaptiveAvgPool2d((2, 3))],
            [nn.MaxPool2d(2)],
            [nn.MaxPool2d(3, 2, 1, ceil_mode=True)],
            [nn.Flatten(2), nn.AvgPool1d(3, 2)],
            [nn.Flatten(2), nn.AdaptiveAvgPool1d(4)],
            [nn.Flatten(2), nn.MaxPool1d(3, 2)],
            [nn.Flatten(1), nn.Unflatten(1, (4, 3, 6)), nn.Dropout(0.0), nn.Dropout2d(0.0)],
            [nn.Linear(6, 2), nn.Tanh()],
        ],
        ids=str,
    )
    def test_layers_between(self, layers: list[nn.Module]) -> None:
        start = [nn.Conv2d(1, 2, 1), nn.Tanh(), *layers, nn.Flatten()]
        x = batch(3, 1, 6, 6)
        net = chain([*start, nn.Linear(nn.Sequential(*start).double()(x).shape[1], 2)])
        assert_near(bbprop(net, mse_loss, x, batch(3, 2)), propagated(net, mse_loss, x, batch(3, 2)))

    def test_dropout_by_the_mask_of_the_pass(self) -> None:
        net, x, t = chain([nn.Linear(4, 50), nn.Dropout(0.4), nn.Linear(50, 1)]), batch(1, 4), batch(1, 1)
        found = bbprop(net, half_squared_error, x, t)
        # The last layer's second derivative is its squared input: 0 where a unit was dropped.
        kept = (found["2.weight"][0] > 0).double()
        assert 0 < kept.sum() < 50
        expected = net[2].weight[0] ** 2 * kept / 0.6**2
        assert_near({"b": found["0.bias"]}, {"b": expected.detach()})


class TestWhereNothingIsDropped:
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_one_unit_a_layer_gives_the_exact_diagonal(self, activation: nn.Module) -> None:
        net = chain([nn.Linear(1, 1), activation, nn.Linear(1, 1), activation, nn.Linear(1, 1)])
        x, t = batch(5, 1), batch(5, 1, seed=2)
        assert_near(bbprop(net, mse_loss, x, t), diagonal(net, mse_loss, x, t))

    @pytest.mark.parametrize("name", LOSSES)
    def test_the_last_layer_is_exact(self, name: str) -> None:
        net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), targets_of(name, 6, 3)
        assert_near(bbprop(net, LOSSES[name], x, t), diagonal(net, LOSSES[name], x, t))

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_squared_loss_behind_one_hidden_layer_gives_the_exact_diagonal(self, activation: nn.Module) -> None:
        net, x, t = chain([nn.Linear(4, 3), activation, nn.Linear(3, 3)]), batch(6, 4), batch(6, 3, seed=2)
        assert_near(bbprop(net, mse_loss, x, t), diagonal(net, mse_loss, x, t))

    def test_elsewhere_it_is_not_the_diagonal(self) -> None:
        net = chain([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)])
        x, t = batch(6, 4), batch(6, 3, seed=2)
        apart = bbprop(net, mse_loss, x, t)["0.weight"] - diagonal(net, mse_loss, x, t)["0.weight"]
        assert apart.abs().max() > 0.001


class TestModels:
    class Nested(nn.Module):
        """Layers that are called by name, one activation in two places, and a new shape on the way."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.activation = nn.Conv1d(1, 2, 2), nn.Tanh()
            self.rest = nn.Sequential(nn.Linear(8, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))

        def forward(self, x: Tensor) -> Tensor:
            x = self.activation(self.first((2 * x).unsqueeze(1)))
            return self.rest(self.activation(x).view(len(x), -1))

    def test_nested_modules_and_new_shapes(self) -> None:
        model = self.Nested().double()
        first, activation, rest = model.children()
        flat = nn.Sequential(first, activation, activation, nn.Flatten(), *rest[:1], *rest[1])
        x, t = batch(3, 5), batch(3, 2)
        expected = propagated(flat, mse_loss, (2 * x).unsqueeze(1), t)
        found = bbprop(model, mse_loss, x, t)
        assert list(found) == [name for name, _ in model.named_parameters()]
        assert_near(dict(zip(expected, found.values(), strict=True)), expected)

    def test_frozen_parameters_are_left_out(self) -> None:
        net, x, t = (
            chain([nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)]),
            batch(3, 4),
            batch(3, 2),
        )
        whole = bbprop(net, mse_loss, x, t)
        net[0].requires_grad_(False)
        net[2].bias.requires_grad_(False)
        assert_near(bbprop(net, mse_loss, x, t), {name: whole[name] for name in ("2.weight", "4.weight", "4.bias")})

    def test_what_is_not_used_is_left_out(self) -> None:
        net = chain([nn.Linear(4, 3)])
        net[0].add_module("unused", nn.LayerNorm(3))
        assert list(bbprop(net, mse_loss, batch(2, 4), batch(2, 3))) == ["0.weight", "0.bias"]


class TestNoNaN:
    ACTIVATIONS = {
        "dead units": (nn.ReLU(), -1e3),
        "saturated, tanh": (nn.Tanh(), 1e3),
        "saturated, silu": (nn.SiLU(), -1e3),
        "saturated, gelu": (nn.GELU(), -1e3),
        "saturated, gelu by tanh": (nn.GELU("tanh"), -1e3),
        "saturated, softplus": (nn.Softplus(), 1e3),
        "saturated, elu": (nn.ELU(), 1e3),
        "nearly linear": (nn.ELU(), -1e3),
    }

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.ones(5, 3)], ids=["zeros", "ones"])
    @pytest.mark.parametrize("case", ACTIVATIONS)
    def test_of_units_without_slope_and_of_constant_inputs(self, case: str, x: Tensor, dtype: torch.dtype) -> None:
        activation, bias = self.ACTIVATIONS[case]
        net = chain([nn.Linear(3, 4), activation, nn.Linear(4, 2)], dtype)
        net[0].bias.data.fill_(bias)
        self.check(net, x.to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_of_a_sure_class_and_of_weights_of_0(self, dtype: torch.dtype) -> None:
        net, x = chain([nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)], dtype), batch(5, 3, dtype=dtype)
        net[2].bias.data.copy_(torch.tensor([1e4, -1e4]))
        self.check(net, x)
        for each in net.parameters():
            each.data.zero_()
        self.check(net, x)

    def check(self, net: nn.Sequential, x: Tensor) -> None:
        found = bbprop(net, cross_entropy, x, torch.tensor([0, 1, 0, 1, 0]))
        assert all(each.isfinite().all() for each in found.values())
        assert_near(found, propagated(net, cross_entropy, x, torch.tensor([0, 1, 0, 1, 0])))
