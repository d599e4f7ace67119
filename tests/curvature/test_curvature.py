"""`Curvature`: what it sets beside `.grad`, in a training loop, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.curvature.test_bbprop import batch, targets_of
from tests.curvature.test_hessian import Residual
from tests.curvature.truths import assert_near, chain, gradients_one_by_one
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import parametrizations, prune

import steprule.torch
import torch
from steprule.curvature import Curvature, bbprop, exact, hutchinson, mean_square_gradients
from torch import Tensor, nn


def attributes(net: nn.Module, name: str) -> dict[str, Tensor]:
    return {own: getattr(each, name) for own, each in net.named_parameters() if getattr(each, name, None) is not None}


def gradients(net: nn.Module, loss: Any, x: Tensor, t: Tensor) -> dict[str, Tensor]:
    grads = torch.autograd.grad(loss(net(x), t), list(net.parameters()))
    return {name: grad for (name, _), grad in zip(net.named_parameters(), grads, strict=True)}


def small() -> nn.Sequential:
    return chain([nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)])


class TestWhatItSets:
    @pytest.mark.parametrize("g2", ["layers", "vmap", True, False])
    @pytest.mark.parametrize("h", ["bbprop", "exact", "hutchinson", None])
    def test_every_pair_of_estimators(self, h: str | None, g2: bool | str) -> None:
        net, x, t = small(), batch(6, 4), targets_of("cross", 6, 3)
        options: dict[str, Any] = {"generator": torch.Generator().manual_seed(3)} if h == "hutchinson" else {}
        curvature = Curvature(net, cross_entropy, h=h, g2=g2, **options)
        expected_h = {
            "bbprop": lambda: bbprop(net, cross_entropy, x, t),
            "exact": lambda: exact(net, cross_entropy, x, t),
            "hutchinson": lambda: hutchinson(net, cross_entropy, x, t, generator=torch.Generator().manual_seed(3)),
            None: dict,
        }[h]()
        loss = curvature(x, t)
        assert_near({"loss": loss}, {"loss": cross_entropy(net(x), t).detach()})
        assert_near(attributes(net, "grad"), gradients(net, cross_entropy, x, t))
        assert_near(attributes(net, "h"), expected_h)
        assert_near(attributes(net, "g2"), gradients_one_by_one(net, cross_entropy, x, t) if g2 else {})

    @pytest.mark.parametrize("h", ["hutchinson", None])
    def test_gradients_that_are_scaled_in_place_as_by_clipping(self, h: str | None) -> None:
        class Summed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.other, self.all = (nn.Parameter(torch.zeros(3)) for _ in range(3))

            def forward(self, x: Tensor) -> Tensor:
                return x + (self.one + self.other) + self.all.sum()

        net, x, t = Summed().double(), batch(6, 3), batch(6, 3, seed=2)
        Curvature(net, lambda outputs, targets: (outputs * targets).mean(), h=h)(x, t)
        found = attributes(net, "grad")
        expected = {name: 2 * each for name, each in found.items()}
        for each in net.parameters():
            each.grad.mul_(2)
        assert_near(found, expected)

    def test_options_reach_their_estimators(self) -> None:
        net, x, t = small(), batch(6, 4), targets_of("cross", 6, 3)
        Curvature(net, cross_entropy, levenberg_marquardt=True)(x, t)
        assert_near(attributes(net, "h"), bbprop(net, cross_entropy, x, t, levenberg_marquardt=True))
        generators = [torch.Generator().manual_seed(7) for _ in range(2)]
        Curvature(net, cross_entropy, h="hutchinson", g2="vmap", samples=4, generator=generators[0], examples=2)(x, t)
        assert_near(attributes(net, "h"), hutchinson(net, cross_entropy, x, t, samples=4, generator=generators[1]))

    def test_each_call_sets_them_anew(self) -> None:
        net, t = small(), targets_of("cross", 6, 3)
        curvature = Curvature(net, cross_entropy, g2=True)
        for seed in (1, 2):
            x = batch(6, 4, seed=seed)
            curvature(x, t)
            assert_near(attributes(net, "grad"), gradients(net, cross_entropy, x, t))
            assert_near(attributes(net, "h"), bbprop(net, cross_entropy, x, t))
            assert_near(attributes(net, "g2"), gradients_one_by_one(net, cross_entropy, x, t))

    def test_batches_of_other_sizes_and_nets_of_another_dtype(self) -> None:
        net = small()
        curvature = Curvature(net, cross_entropy, g2=True)
        for examples, dtype in ((6, torch.float64), (1, torch.float64), (3, torch.float32)):
            net.to(dtype)
            x, t = batch(examples, 4, dtype=dtype), targets_of("cross", examples, 3)
            curvature(x, t)
            assert_near(attributes(net, "h"), bbprop(net, cross_entropy, x, t))
            assert_near(attributes(net, "g2"), gradients_one_by_one(net, cross_entropy, x, t))

    def test_a_parameter_that_the_loss_ceases_to_read(self) -> None:
        net, x, t = small(), batch(6, 4), batch(6, 5)
        curvature = Curvature(net, mse_loss, g2=True)
        curvature(x, batch(6, 3))
        net[2] = nn.Identity()
        net.register_parameter("idle", nn.Parameter(torch.ones(3)))
        curvature(x, t)
        assert [list(attributes(net, name)) for name in ("grad", "h", "g2")] == [["0.weight", "0.bias"]] * 3

    def test_without_gradients_around(self) -> None:
        net = small()
        with torch.no_grad():
            Curvature(net, mse_loss, g2=True)(batch(6, 4), batch(6, 3))
        assert len(attributes(net, "h")) == len(attributes(net, "g2")) == 4

    def test_clear(self) -> None:
        net = small()
        curvature = Curvature(net, mse_loss, g2=True)
        curvature.clear()
        curvature(batch(6, 4), batch(6, 3))
        curvature.clear()
        for each in net.parameters():
            assert each.grad is None and not hasattr(each, "h") and not hasattr(each, "g2")

    def test_it_leaves_the_model_as_it_was(self) -> None:
        net, x = small(), batch(6, 4)
        before = copy.deepcopy(net.state_dict())
        Curvature(net, mse_loss, g2=True)(x, batch(6, 3))
        assert all(not each._forward_hooks for each in net.modules())
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))

    def test_its_hooks_go_where_the_model_raises(self) -> None:
        net = small()
        with pytest.raises(RuntimeError):
            Curvature(net, mse_loss)(batch(6, 3), batch(6, 3))
        assert all(not each._forward_hooks for each in net.modules())


def test_a_loop_trains() -> None:
    net, x, t = small(), batch(20, 4), targets_of("cross", 20, 3)
    curvature = Curvature(net, cross_entropy, levenberg_marquardt=True)
    optimizer = steprule.torch.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        losses.append(float(curvature(x, t)))
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


class Functional(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.change, self.last = nn.Linear(4, 4), change, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(self.first(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


class Twice(Tied):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.act(self.first(x)))


class Subclass(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Added(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def overridden() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    net[0].forward = lambda x: nn.functional.linear(x, net[0].weight)  # type: ignore[method-assign]
    return net


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    net[0].register_forward_hook(lambda module, arguments, y: 2 * y)
    return net


class Shaped(nn.Module):
    """A layer whose own last node changes a shape, and then a change of shape outside any layer."""

    def __init__(self, layers: list[nn.Module], change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.change, self.last = chain(layers), change, chain([nn.Linear(4, 3)], seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(self.first(x)))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Linear(5, 2)], (6, 2, 5)),
        ([nn.Linear(5, 2, bias=False)], (6, 2, 5)),
        ([nn.Conv1d(3, 2, 1), nn.MaxPool1d(2)], (6, 3, 4)),
        ([nn.Conv1d(3, 2, 1), nn.AvgPool1d(2)], (6, 3, 4)),
        ([nn.Conv1d(3, 2, 1), nn.AdaptiveAvgPool1d(2)], (6, 3, 4)),
        ([nn.Linear(5, 2), nn.Flatten()], (6, 2, 5)),
        ([nn.Conv2d(3, 2, 1), nn.Flatten(2)], (6, 3, 2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "change",
    [lambda x: x.view(-1, 4), lambda x: x.reshape(len(x), -1), lambda x: x.flatten(1).unsqueeze(1).squeeze(1)],
    ids=["view", "reshape", "flatten"],
)
def test_a_change_of_shape_behind_a_layer_that_ends_in_one(
    layers: list[nn.Module], shape: tuple[int, ...], change: Callable[[Tensor], Tensor]
) -> None:
    net, x, t = Shaped(layers, change), batch(*shape), batch(6, 3)
    alike = nn.Sequential(*net.first, nn.Flatten(), *net.last)
    found = bbprop(net, mse_loss, x, t)
    expected = bbprop(alike, mse_loss, x, t)
    assert [each.tolist() for each in found.values()] == [each.tolist() for each in expected.values()]
    assert_near(mean_square_gradients(net, mse_loss, x, t, by="layers"), gradients_one_by_one(net, mse_loss, x, t))


def pruned() -> nn.Linear:
    """Return a layer whose bias is computed, as `torch.nn.utils.prune` leaves it."""
    layer = nn.Linear(3, 3)
    prune.l1_unstructured(layer, "bias", amount=1)
    return layer


REFUSED = {
    "a normalisation": (
        nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
        "2 (Linear) is made by 1 (LayerNorm)",
    ),
    "at the end": (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), "the model's output is made by 1 (LogSoftmax)"),
    "a residual block": (
        nn.Sequential(nn.Linear(4, 4), Added(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)),
        "2 (Linear) is made by 1 (Added)",
    ),
    "a residual sum": (Residual(), "the input of last (Linear) is made outside a layer, by AddBackward0"),
    "a function": (Functional(torch.tanh), "the input of last (Linear) is made outside a layer, by TanhBackward0"),
    "a function in place": (Functional(torch.relu_), "last (Linear) is made outside a layer, by ReluBackward0"),
    "a product": (Functional(lambda x: 2 * x), "last (Linear) is made outside a layer, by MulBackward0"),
    "places exchanged": (Functional(lambda x: x.flip(1)), "last (Linear) is made outside a layer, by FlipBackward0"),
    "a hook's result": (hooked(), "the input of 1 (Linear) is made outside a layer, by MulBackward0"),
    "an activation in place": (nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True)), "1 (ReLU) overwrites its input"),
    "dropout in place": (nn.Sequential(nn.Linear(4, 3), nn.Dropout(inplace=True)), "1 (Dropout) overwrites its input"),
    "a subclass": (nn.Sequential(nn.Linear(4, 3), Subclass(3, 3)), "the model's output is made by 1 (Subclass)"),
    "a forward of its own": (overridden(), "the input of 1 (Linear) is made by 0 (Linear)"),
    "a computed weight": (
        nn.Sequential(nn.Linear(4, 3), parametrizations.weight_norm(nn.Linear(3, 3))),
        "the model's output is made by 1 (ParametrizedLinear)",
    ),
    "a computed bias": (
        nn.Sequential(nn.Linear(4, 3), pruned()),
        "1 (Linear) has a weight that is computed from others; allowed is one that is a parameter",
    ),
    "tied weights": (Tied(), "the parameter weight of last (Linear) is used by first (Linear) too"),
    "a layer twice": (Twice(), "the parameter weight of first (Linear) is used by first (Linear) too"),
    "examples folded": (
        nn.Sequential(
            nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(0, 1), nn.Linear(2, 2), nn.Unflatten(0, (6, 2))
        ),
        "4 (Unflatten) has an input of shape (12, 2) for outputs of shape (6, 2, 2)",
    ),
}
GRIDS = {
    "circular padding": (
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        "padding_mode='circular'; allowed is 'zeros'",
    ),
    "a ceiling": (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode=True; allowed is False"),
    "padding not counted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "padding with count_include_pad=False"),
    "uneven windows": (nn.AdaptiveAvgPool2d(3), "windows of several sizes, from (4, 4) to (3, 3)"),
}


def test_layers_that_are_compiled_as_one_are_no_chain() -> None:
    net, x, t = small(), batch(6, 4), targets_of("cross", 6, 3)
    compiled = torch.compile(net, backend="aot_eager")
    said = r"made outside a layer, by CompiledFunctionBackward; .*; exact and hutchinson take any model$"
    try:
        found, refusal = bbprop(compiled, cross_entropy, x, t), ""
    except ValueError as error:
        found, refusal = None, str(error)
    if found is None:
        assert re.search(said, refusal)
    else:  # PyTorch 2.6 runs each layer by itself where they have hooks
        assert_near(_of_the_compiled(found), bbprop(net, cross_entropy, x, t))
    found = mean_square_gradients(compiled, cross_entropy, x, t)
    assert_near(_of_the_compiled(found), mean_square_gradients(net, cross_entropy, x, t))


def _of_the_compiled(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("_orig_mod."): each for name, each in found.items()}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_what_is_no_chain_of_layers(self, case: str) -> None:
        net, said = REFUSED[case]
        net, x = net.double(), batch(6, 4)
        t = torch.zeros_like(net(x))
        with pytest.raises(ValueError, match=rf"^bbprop: .*{re.escape(said)}.*; exact and hutchinson take any model$"):
            bbprop(net, mse_loss, x, t)
        # And they do.
        grads = torch.autograd.grad(mse_loss(net(x), t + 1), list(net.parameters()), allow_unused=True)
        names = [name for (name, _), grad in zip(net.named_parameters(), grads, strict=True) if grad is not None]
        assert list(exact(net, mse_loss, x, t)) == list(hutchinson(net, mse_loss, x, t)) == names

    @pytest.mark.parametrize("case", GRIDS)
    def test_settings_of_layers(self, case: str) -> None:
        layer, said = GRIDS[case]
        net = nn.Sequential(nn.Conv2d(1, 1, 1), layer, nn.Flatten()).double()
        x = batch(6, 1, 4, 4)
        with pytest.raises(ValueError, match=rf"^bbprop: 1 \({type(layer).__name__}\) has {re.escape(said)}"):
            bbprop(net, mse_loss, x, torch.zeros_like(net(x)))

    def test_inputs_without_a_dimension_of_examples(self) -> None:
        with pytest.raises(ValueError, match=re.escape("0 (Linear) has an input of shape (4,); allowed is")):
            bbprop(chain([nn.Linear(4, 4)]), mse_loss, batch(4), batch(4))
        with pytest.raises(ValueError, match=re.escape("0 (Conv1d) has an input of shape (2, 5); allowed is")):
            bbprop(chain([nn.Conv1d(2, 2, 1)]), mse_loss, batch(2, 5), batch(2, 5))

    @pytest.mark.parametrize("h", ["bbprop", "exact", "hutchinson", "differences", None])
    @pytest.mark.parametrize("g2", ["layers", "vmap", True])
    def test_a_batch_of_no_example(self, h: str | None, g2: bool | str) -> None:
        net = small()
        options = {"optimizer": steprule.torch.VSGDfd(net.parameters())} if h == "differences" else {}
        curvature = Curvature(net, cross_entropy, h=h, g2=g2, **options)
        with pytest.raises(ValueError, match=r"^inputs has no example; allowed is a batch of at least one$"):
            curvature(batch(0, 4), targets_of("cross", 0, 3))

    @pytest.mark.parametrize("h", ["bbprop", "exact", None])
    def test_inference_mode(self, h: str | None) -> None:
        curvature = Curvature(small(), cross_entropy, h=h)
        said = "model runs under torch.inference_mode, which has no gradients; allowed is torch.no_grad"
        with torch.inference_mode(), pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            curvature(batch(6, 4), targets_of("cross", 6, 3))
        with torch.no_grad():
            curvature(batch(6, 4), targets_of("cross", 6, 3))

    @pytest.mark.parametrize(
        ("loss", "said"), [(nn.MSELoss, "the class MSELoss"), (None, "None"), ("mse_loss", "'mse_loss'")]
    )
    def test_what_is_no_loss(self, loss: Any, said: str) -> None:
        with pytest.raises(TypeError, match=f"^loss is {said}; allowed is a function of outputs and targets, or a"):
            Curvature(small(), loss)

    @pytest.mark.parametrize("model", [None, nn.Linear, lambda x: x])
    def test_what_is_no_model(self, model: Any) -> None:
        said = f"^model is a {type(model).__name__}; allowed is a torch.nn.Module$"
        with pytest.raises(TypeError, match=said):
            Curvature(model, mse_loss)
        with pytest.raises(TypeError, match=said):
            mean_square_gradients(model, mse_loss, batch(6, 4), batch(6, 3))

    @pytest.mark.parametrize(
        ("targets", "found"),
        [
            (None, "a NoneType"),
            ({"y": 1}, "a dict"),
            ((1, 2), "a tuple"),
            (torch.ones(()), "a Tensor"),
            ([1], "a list of 1 entries"),
        ],
        ids=["none", "a dictionary", "a tuple", "a number", "too few"],
    )
    def test_targets_that_are_not_one_for_each_example(self, targets: Any, found: str) -> None:
        with pytest.raises(
            ValueError, match=rf"^targets is {found}; allowed is a tensor, an array or a list of 6, one"
        ):
            bbprop(small(), lambda outputs, _: outputs.square().mean(), batch(6, 4), targets)

    def test_a_loss_may_be_an_object_without_a_hash(self) -> None:
        @dataclass
        class Scaled:
            by: float

            def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
                return self.by * mse_loss(outputs, targets)

        net, x, t = small(), batch(6, 4), batch(6, 3)
        assert_near(bbprop(net, Scaled(1.0), x, t), bbprop(net, mse_loss, x, t))

    @pytest.mark.filterwarnings("ignore:Using a target size")
    def test_it_leaves_nothing_behind(self) -> None:
        net = chain([nn.Linear(4, 3)])
        curvature = Curvature(net, mse_loss, g2=True)
        curvature(batch(6, 4), batch(6, 3))
        with pytest.raises(ValueError, match="targets has the shape"):
            curvature(batch(6, 4), batch(6, 1))
        assert attributes(net, "grad") == attributes(net, "h") == attributes(net, "g2") == {}

    @pytest.mark.filterwarnings("ignore:Using a target size")
    def test_targets(self) -> None:
        net = chain([nn.Linear(4, 3)])
        for loss in (mse_loss, nn.MSELoss(reduction="sum")):
            with pytest.raises(
                ValueError, match=re.escape("targets has the shape (6, 1); allowed is the outputs' shape, (6, 3)")
            ):
                bbprop(net, loss, batch(6, 4), batch(6, 1))
        with pytest.raises(ValueError, match="targets has the class -100, whose example is ignored"):
            bbprop(net, cross_entropy, batch(2, 4), torch.tensor([1, -100]))

        with pytest.raises(ValueError, match="targets requires a gradient; allowed are targets that do not depend on"):
            bbprop(net, mse_loss, batch(6, 4), net(batch(6, 4, seed=2)))
        with pytest.raises(
            ValueError, match=re.escape("outputs has the shape (6,); allowed is (examples, classes, ...)")
        ):
            bbprop(chain([nn.Linear(4, 1), nn.Flatten(0)]), cross_entropy, batch(6, 4), torch.tensor(1))

    def test_losses(self) -> None:
        net, x, t = chain([nn.Linear(4, 3)]), batch(6, 4), batch(6, 3)
        with pytest.raises(
            ValueError, match=re.escape("loss returns a tensor of shape (6, 3); allowed is one real number")
        ):
            bbprop(net, nn.MSELoss(reduction="none"), x, t)
        with pytest.raises(ValueError, match="loss returns a float; allowed is one real number"):
            bbprop(net, lambda outputs, targets: 1.0, x, t)  # type: ignore[arg-type, return-value]
        with pytest.raises(ValueError, match="loss is neither the mean nor the sum"):
            bbprop(net, lambda outputs, targets: outputs.sum() ** 2, x, t)
        net.requires_grad_(False)
        with pytest.raises(
            ValueError, match="loss does not depend on a parameter of the model that requires a gradient"
        ):
            bbprop(net, mse_loss, x, t)
        # Such as inputs that are trained, or a net that `fully_shard` has made others of for the pass.
        net.requires_grad_()
        with pytest.raises(ValueError, match="loss does not depend on a parameter of the model that requires a grad"):
            Curvature(net, lambda outputs, targets: targets.square().mean(), h=None)(x, t.requires_grad_())

    def test_parameters(self) -> None:
        net = nn.Linear(4, 3, dtype=torch.complex64)
        with pytest.raises(
            TypeError, match="model has the parameter weight of torch.complex64; allowed are floating-point"
        ):
            bbprop(net, mse_loss, batch(6, 4), batch(6, 3))
        with torch.autocast("cpu"), pytest.raises(ValueError, match="model runs under torch.autocast on cpu"):
            bbprop(small(), mse_loss, batch(6, 4), batch(6, 3))

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match="h is 'newton'; allowed is one of 'bbprop', 'exact', 'hutchinson'"):
            Curvature(small(), mse_loss, h="newton")
        with pytest.raises(ValueError, match="g2 is 'bbprop'; allowed is one of 'layers', 'vmap', True"):
            Curvature(small(), mse_loss, g2="bbprop")
        with pytest.raises(TypeError, match="samples is no option of h='bbprop', g2=True"):
            Curvature(small(), mse_loss, g2=True, samples=3)
        with pytest.raises(TypeError, match="samples is no option of h=None, g2=False"):
            Curvature(small(), mse_loss, h=None, samples=3)
