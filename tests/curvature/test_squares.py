"""Mean-square gradients against a loop over the examples."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.test_bbprop import ACTIVATIONS, LOSSES, batch, targets_of
from tests.curvature.test_hessian import Residual
from tests.curvature.truths import assert_near, chain, gradients_one_by_one
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import parametrizations

import torch
from steprule.curvature import Curvature, mean_square_gradients
from torch import Tensor, nn

WAYS = ["layers", "vmap", True]


@pytest.mark.parametrize("by", WAYS)
class TestEachWay:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    @pytest.mark.parametrize("examples", [1, 5, 20])
    def test_linear_layers(self, by: bool | str, examples: int, dtype: torch.dtype) -> None:
        net = chain([nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)], dtype)
        x, t = batch(examples, 4, dtype=dtype), targets_of("cross", examples, 3)
        found = mean_square_gradients(net, cross_entropy, x, t, by=by)
        assert_near(found, gradients_one_by_one(net, cross_entropy, x, t))

    @pytest.mark.parametrize("name", LOSSES)
    def test_losses(self, by: bool | str, name: str) -> None:
        net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), targets_of(name, 6, 3)
        found = mean_square_gradients(net, LOSSES[name], x, t, by=by)
        assert_near(found, gradients_one_by_one(net, LOSSES[name], x, t))

    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_activations(self, by: bool | str, activation: nn.Module) -> None:
        net, x, t = chain([nn.Linear(4, 3), activation, nn.Linear(3, 2)]), batch(6, 4), batch(6, 2)
        assert_near(mean_square_gradients(net, mse_loss, x, t, by=by), gradients_one_by_one(net, mse_loss, x, t))

    @pytest.mark.filterwarnings("ignore:Using padding='same'")
    @settings(max_examples=25)
    @given(st.data())
    def test_convolutions(self, by: bool | str, data: st.DataObject) -> None:
        dimensions, groups = data.draw(st.sampled_from([1, 2])), data.draw(st.integers(1, 2))
        sizes = st.tuples(*[st.integers(1, 3)] * dimensions)
        kernel, dilation = data.draw(sizes), data.draw(sizes)
        padding = data.draw(st.one_of(st.tuples(*[st.integers(0, 2)] * dimensions), st.sampled_from(["same", "valid"])))
        stride = (1,) * dimensions if padding == "same" else data.draw(sizes)
        lengths = [d * (k - 1) + data.draw(st.integers(1, 4)) for d, k in zip(dilation, kernel, strict=True)]
        kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
        first = kind(2 * groups, groups, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
        net = chain([first, nn.Tanh(), kind(groups, 2, 1), nn.Flatten()])
        x = batch(3, 2 * groups, *lengths)
        t = batch(3, net(x).shape[1], seed=3)
        assert_near(mean_square_gradients(net, mse_loss, x, t, by=by), gradients_one_by_one(net, mse_loss, x, t))

    def test_linear_layers_over_several_places(self, by: bool | str) -> None:
        net, x, t = chain([nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)]), batch(6, 5, 2, 4), batch(6, 5, 2, 2)
        assert_near(mean_square_gradients(net, mse_loss, x, t, by=by), gradients_one_by_one(net, mse_loss, x, t))

    def test_frozen_and_unused_parameters_are_left_out(self, by: bool | str) -> None:
        net = chain([nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)])
        net[0].weight.requires_grad_(False)
        net[1].register_parameter("unused", nn.Parameter(torch.ones(2)))
        found = mean_square_gradients(net, mse_loss, batch(5, 4), batch(5, 3), by=by)
        assert list(found) == ["0.bias", "2.weight", "2.bias"]

    def test_dead_units_and_constant_inputs(self, by: bool | str) -> None:
        net = chain([nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)])
        net[0].bias.data.fill_(-1e3)
        found = mean_square_gradients(net, mse_loss, torch.ones(5, 4, dtype=torch.float64), batch(5, 3), by=by)
        assert all(each.isfinite().all() for each in found.values())
        assert (found["0.weight"] == 0).all()


@pytest.mark.parametrize("by", ["vmap", True])
def test_any_model(by: bool | str) -> None:
    torch.manual_seed(0)
    net, x, t = Residual().double(), batch(7, 4), targets_of("cross", 7, 3)
    found = mean_square_gradients(net, cross_entropy, x, t, by=by, examples=3)
    assert_near(found, gradients_one_by_one(net, cross_entropy, x, t))


@pytest.mark.parametrize("examples", [1, 16])
def test_a_layer_that_is_in_several_places_stays_what_it_is(examples: int) -> None:
    shared, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.bias = shared.bias
    net, x, t = chain([shared, nn.Tanh(), shared, nn.BatchNorm1d(4), tied]).eval(), batch(6, 4), batch(6, 4)
    before = dict(net.named_parameters())
    for _ in range(2):
        found = mean_square_gradients(net, mse_loss, x, t, by="vmap", examples=examples)
        assert_near(found, gradients_one_by_one(net, mse_loss, x, t))
    assert all(each is before[name] for name, each in net.named_parameters())


@pytest.mark.parametrize("examples", [1, 16])
def test_a_penalty_in_the_loss_is_refused(examples: int) -> None:
    net, x, t = Residual().double(), batch(6, 4), targets_of("cross", 6, 3)

    def penalised(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets) + net.last.weight.square().sum()

    with pytest.raises(ValueError, match=r"^vmap: loss depends on last\.weight in another way than by what its module"):
        mean_square_gradients(net, penalised, x, t, examples=examples)


def test_several_outputs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = chain([nn.Linear(4, 3)]), chain([nn.Linear(4, 3)], seed=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.other(x)

    def summed(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        return cross_entropy(outputs[0], targets) + cross_entropy(outputs[1], targets)

    net, x, t = Both(), batch(6, 4), targets_of("cross", 6, 3)
    assert_near(mean_square_gradients(net, summed, x, t), gradients_one_by_one(net, summed, x, t))


class Averaging(nn.Linear):
    """A layer that counts its passes, and keeps the average of its inputs."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.passes.add_(1)
        self.average.lerp_(x.detach().mean(0), 0.5)
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "examples"),
    # Of several examples at a time, PyTorch cannot write what is of one into what is of all.
    [(Averaging(), 1), *((parametrizations.spectral_norm(nn.Linear(4, 3)), number) for number in (1, 16))],
    ids=["averages", "spectral norm, one by one", "spectral norm"],
)
def test_buffers_change_as_in_one_forward_pass(layer: nn.Module, examples: int) -> None:
    net, x, t = copy.deepcopy(layer).double(), batch(6, 4), targets_of("cross", 6, 3)
    once = copy.deepcopy(net)
    once(x)
    mean_square_gradients(net, cross_entropy, x, t, by="vmap", examples=examples)
    for mine, other in zip(net.buffers(), once.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_a_batchs_square_is_another_number() -> None:
    net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), batch(6, 3)
    (gradient,) = torch.autograd.grad(mse_loss(net(x), t), net[0].bias)
    assert (mean_square_gradients(net, mse_loss, x, t)["0.bias"] > 1.1 * gradient**2).all()


def test_a_sum_of_which_the_first_batch_has_no_gradient() -> None:
    # From zeros it cannot be told from a mean, and must not be taken for one for good.
    net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), batch(6, 3)
    curvature = Curvature(net, lambda outputs, targets: (outputs - targets).square().sum(), h=None, g2="layers")
    curvature(x, net(x).detach())
    curvature(x, t)
    expected = gradients_one_by_one(net, nn.MSELoss(reduction="sum"), x, t)
    assert_near({name: each.g2 for name, each in net.named_parameters()}, expected)


def test_a_loss_that_is_the_mean_in_one_batch_alone() -> None:
    weight = torch.tensor([1.0, 2.0, 30.0], dtype=torch.float64)
    net, x = chain([nn.Linear(4, 3)]), batch(6, 4)

    def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets, weight)

    curvature = Curvature(net, weighted, h=None, g2="layers")
    one_class = torch.full((6,), 2)
    curvature(x, one_class)
    found = {name: each.g2 for name, each in net.named_parameters()}
    assert_near(found, gradients_one_by_one(net, weighted, x, one_class))
    with pytest.raises(ValueError, match="loss is neither the mean nor the sum"):
        curvature(x, torch.tensor([0, 1, 2, 0, 1, 2]))


@pytest.mark.parametrize("by", ["layers", True])
def test_a_loss_that_cannot_be_mapped(by: bool | str) -> None:
    net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), batch(6, 3)

    def chosen(outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, targets) if float(outputs.detach().abs().max()) < 1e9 else outputs.mean()

    for _ in range(2):
        assert_near(mean_square_gradients(net, chosen, x, t, by=by), gradients_one_by_one(net, chosen, x, t))


@pytest.mark.parametrize("scale", [0.0, 1e-318, float("nan")])
def test_gradients_that_tell_nothing_of_the_loss(scale: float) -> None:
    net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), batch(6, 3)
    found = mean_square_gradients(net, lambda outputs, targets: scale * (outputs * targets).mean(), x, t, by="layers")
    assert all((each.isnan() if scale != scale else each == 0).all() for each in found.values())


@pytest.mark.parametrize("ignored", [0, 255])
def test_a_class_to_ignore_that_a_batch_does_not_hold(ignored: int) -> None:
    net, x, loss = chain([nn.Linear(4, 3)]), batch(6, 4), nn.CrossEntropyLoss(ignore_index=ignored)
    curvature = Curvature(net, loss, h="bbprop", g2="layers")
    t = torch.tensor([1, 2, 1, 2, 2, 1])
    curvature(x, t)
    found = {name: each.g2 for name, each in net.named_parameters()}
    assert_near(found, gradients_one_by_one(net, cross_entropy, x, t))
    t[2:] = ignored
    with pytest.raises(ValueError, match=f"targets has the class {ignored}, whose example is ignored; allowed is a"):
        curvature(x, t)


def test_a_sum_leaves_out_what_it_ignores() -> None:
    net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), torch.tensor([1, 2, -100, 2, 0, -100])
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), reduction="sum")
    assert_near(mean_square_gradients(net, loss, x, t, by="layers"), gradients_one_by_one(net, loss, x, t))


class TestRefusals:
    def test_a_weighted_mean_at_the_first_batch_though_that_is_of_one_class(self) -> None:
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), torch.ones(6, dtype=torch.int64)
        with pytest.raises(ValueError, match="loss is neither the mean nor the sum"):
            mean_square_gradients(net, loss, x, t, by="layers")
        # One weight for all is none, and a batch of one example is its own mean.
        alike = nn.CrossEntropyLoss(weight=torch.full((3,), 2.0, dtype=torch.float64))
        assert_near(mean_square_gradients(net, alike, x, t, by="layers"), gradients_one_by_one(net, alike, x, t))
        one = gradients_one_by_one(net, loss, x[:1], t[:1])
        assert_near(mean_square_gradients(net, loss, x[:1], t[:1], by="layers"), one)

    def test_running_averages_of_a_batch(self) -> None:
        net = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten())
        net = nn.Sequential(*net, nn.Linear(4, 2)).double()
        said = "vmap: 1 (InstanceNorm1d) keeps averages of whole batches; allowed is model.eval()"
        with pytest.raises(ValueError, match=re.escape(said)):
            mean_square_gradients(net, mse_loss, batch(6, 4), batch(6, 2), by="vmap")
        net.eval()
        found = mean_square_gradients(net, mse_loss, batch(6, 4), batch(6, 2), by="vmap")
        assert_near(found, gradients_one_by_one(net, mse_loss, batch(6, 4), batch(6, 2)))

    def test_a_normalisation_over_the_batch(self) -> None:
        net = chain([nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)])
        said = "vmap: 1 (BatchNorm1d) makes an example's loss depend on the others; allowed is model.eval()"
        for by in ("vmap", True):
            with pytest.raises(ValueError, match=re.escape(said)):
                mean_square_gradients(net, mse_loss, batch(6, 4), batch(6, 2), by=by)
        net.eval()
        found = mean_square_gradients(net, mse_loss, batch(6, 4), batch(6, 2))
        assert_near(found, gradients_one_by_one(net, mse_loss, batch(6, 4), batch(6, 2)))

    def test_a_model_that_is_no_chain_of_layers(self) -> None:
        with pytest.raises(ValueError, match=r"^layers: .*; vmap takes any model$"):
            mean_square_gradients(
                Residual().double(), cross_entropy, batch(6, 4), targets_of("cross", 6, 3), by="layers"
            )

    @pytest.mark.parametrize(
        "loss",
        [
            lambda outputs, targets: (outputs - targets).square().mean() ** 2,
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        ],
        ids=["squared mean", "weighted mean"],
    )
    def test_a_loss_in_which_examples_meet(self, loss: object) -> None:
        t = targets_of("cross", 6, 3) if isinstance(loss, nn.Module) else batch(6, 3)
        with pytest.raises(
            ValueError, match="loss is neither the mean nor the sum of what it is for each example alone"
        ):
            mean_square_gradients(chain([nn.Linear(4, 3)]), loss, batch(6, 4), t, by="layers")  # type: ignore[arg-type]

    def test_a_loss_that_reads_parameters(self) -> None:
        net = chain([nn.Linear(4, 3)])

        def penalised(outputs: Tensor, targets: Tensor) -> Tensor:
            return mse_loss(outputs, targets) + net[0].weight.square().sum()

        for examples in (1, 6):
            with pytest.raises(ValueError, match="loss depends on more that requires a gradient than the outputs"):
                mean_square_gradients(net, penalised, batch(examples, 4), batch(examples, 3), by="layers")

    @pytest.mark.parametrize("by", WAYS)
    def test_examples_that_the_loss_ignores(self, by: bool | str) -> None:
        net, t = chain([nn.Conv1d(4, 3, 1)]), torch.tensor([[1, 0], [-100, 2]])
        if by == "vmap":
            assert mean_square_gradients(net, cross_entropy, batch(2, 4, 2), t, by=by)["0.bias"].isfinite().all()
            return
        with pytest.raises(ValueError, match="targets has the class -100, whose example is ignored"):
            mean_square_gradients(net, cross_entropy, batch(2, 4, 2), t, by=by)

    def test_a_sparse_gradient(self) -> None:
        net = chain([nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 3)])
        x, t = torch.tensor([[0, 1], [1, 4]]), targets_of("cross", 2, 3)
        with pytest.raises(ValueError, match="^vmap: 0.weight has a sparse gradient; allowed are dense ones"):
            mean_square_gradients(net, cross_entropy, x, t)

    @pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
    def test_a_model_that_cannot_be_mapped_over_its_examples(self, kind: type[nn.Module]) -> None:
        class Last(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.last = kind(2, 3, batch_first=True), nn.Linear(3, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.last(self.inner(x)[0][:, -1])

        net, x, t = Last().double(), batch(5, 4, 2), targets_of("cross", 5, 3)
        said = r"^vmap: PyTorch cannot map this model over its examples \(.*\); allowed is examples=1, which"
        with pytest.raises(RuntimeError, match=said):
            mean_square_gradients(net, cross_entropy, x, t)
        found = mean_square_gradients(net, cross_entropy, x, t, examples=1)
        assert_near(found, gradients_one_by_one(net, cross_entropy, x, t))

    def test_inputs_that_are_no_examples(self) -> None:
        net = chain([nn.Linear(4, 3)])
        for x, t in ((batch(6, 4), None), (batch(6, 4), torch.ones(()))):
            with pytest.raises(ValueError, match="vmap: inputs or targets is no tensor with the outputs' examples"):
                mean_square_gradients(net, lambda outputs, targets: outputs.mean(), x, t, by="vmap")  # type: ignore[arg-type]

    def test_no_examples(self) -> None:
        with pytest.raises(ValueError, match=r"examples is 0; allowed is a whole number from 1"):
            mean_square_gradients(chain([nn.Linear(1, 1)]), mse_loss, batch(1, 1), batch(1, 1), by="vmap", examples=0)

    @pytest.mark.parametrize("by", ["loop", None, False])
    def test_another_way(self, by: Any) -> None:
        with pytest.raises(ValueError, match=rf"g2 is {by!r}; allowed is one of 'layers', 'vmap', True"):
            mean_square_gradients(chain([nn.Linear(1, 1)]), mse_loss, batch(1, 1), batch(1, 1), by=by)
