"""Effective learning rates, measured from outside: by what the parameters and gradients say."""

from __future__ import annotations

import copy
import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.cases import RULES, hyper
from tests.requirements import require_installed

import steprule.torch as ours
import torch
from steprule import reference, rules
from steprule.rates import COLUMNS
from steprule.torch import RateMonitor
from torch import nn


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def backward(model: nn.Module, seed: int = 0) -> None:
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(8, 20, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(inputs).square().mean().backward()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        backward(model, step)
        optimizer.step()


def of_layer(monitor: RateMonitor, layer: str) -> dict[str, np.ndarray]:
    table = monitor.table()
    return {name: column[table["layer"] == layer] for name, column in table.items()}


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (torch.optim.SGD, {"foreach": False}),
        (torch.optim.SGD, {"foreach": True}),
        (torch.optim.SGD, {"fused": True}),
        (ours.SGD, {}),
        (ours.SGD, {"maximize": False, "capturable": False}),
    ],
)
def test_the_rate_of_sgd_is_its_learning_rate(cls: Any, options: dict[str, Any]):
    model = net()
    optimizer = cls(model.parameters(), lr=0.25, **options)
    monitor = RateMonitor(optimizer, every=2, model=model)
    train(model, optimizer, 5)
    table = monitor.table()
    assert list(table) == list(COLUMNS)
    assert sorted(set(table["step"])) == [1, 3, 5]
    assert list(dict.fromkeys(table["layer"])) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    error = table["rounding"] / np.abs(table["gradient"])
    assert (np.abs(table["rate"] - 0.25) <= error * 1.001 + 0.25e-6).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("name", [name for name, each in RULES.items() if not each.curvature])
def test_the_rate_of_every_rule_is_what_the_rule_makes_of_the_gradient(name: str):
    rule, model = RULES[name], net(torch.float64)
    optimizer = ours.optimizer(rule)(model.parameters(), **hyper(name))
    monitor = RateMonitor(optimizer, every=1, sample=7, model=model)
    xs = {key: each.detach().numpy().copy() for key, each in model.named_parameters()}
    states = {key: reference.init(rule, x) for key, x in xs.items()}
    for step in range(1, 4):
        backward(model, step)
        grads = {key: each.grad.numpy().copy() for key, each in model.named_parameters()}
        optimizer.step()
        for key, x in list(xs.items()):
            xs[key], states[key] = reference.step(rule, x, grads[key], states[key], **hyper(name))
            found = of_layer(monitor, key)
            now = found["step"] == step
            places = found["dimension"][now]
            expected = -(xs[key] - x).flat[places] / grads[key].flat[places]
            slack = 1e-9 + 4 * found["rounding"][now] / np.abs(found["gradient"][now])
            assert (np.abs(found["rate"][now] - expected) <= slack).all()


def test_the_dimensions_are_random_and_the_same_at_each_step_and_in_each_run():
    def dimensions(seed: int, *, grow: bool = False) -> np.ndarray:
        model = net()
        optimizer = ours.SGD(model.parameters(), lr=0.1)
        monitor = RateMonitor(optimizer, every=1, model=model, seed=seed)
        train(model, optimizer, 1)
        if grow:
            optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(50))]})
        train(model, optimizer, 2)
        found = of_layer(monitor, "0.weight")["dimension"].reshape(3, 10)
        assert (found == found[0]).all()
        assert len(set(found[0])) == 10
        np.testing.assert_array_equal(monitor.dimensions()["0.weight"], found[0])
        return found[0]

    assert (dimensions(0) == dimensions(0, grow=True)).all()
    assert (dimensions(0) != dimensions(1)).any()


def test_a_group_that_is_added_is_recorded_from_then_on():
    model = net()
    optimizer = ours.SGD(model.parameters(), lr=0.1)
    monitor = RateMonitor(optimizer, every=1, model=model)
    train(model, optimizer, 1)
    more = nn.Parameter(torch.ones(4))
    optimizer.add_param_group({"params": [more], "lr": 0.5})
    more.grad = torch.ones(4)
    optimizer.step()
    found = of_layer(monitor, "parameter 4")
    np.testing.assert_allclose(found["rate"], 0.5)
    assert set(found["step"]) == {2}


def test_a_parameter_without_gradient_is_left_out_and_a_dimension_without_is_told():
    with_zero, without = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([with_zero, without], lr=0.5)
    monitor = RateMonitor(optimizer)
    with_zero.grad = torch.tensor([1.0, 0.0, 2.0, 0.0])
    optimizer.step()
    table = monitor.table()
    assert set(table["layer"]) == {"parameter 0"}
    np.testing.assert_array_equal(table["rate"], [0.5, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(table["update"], [-0.5, 0.0, -1.0, 0.0])
    (layer,) = monitor.summary()
    assert (layer.measured, layer.without_gradient, layer.coarse, layer.median) == (2, 2, 0, 0.5)
    assert "2 of 4 (2 without gradient)" in str(monitor)


def test_a_dimension_that_is_no_number_is_told_and_does_not_vanish():
    weight = nn.Parameter(torch.ones(5))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    monitor = RateMonitor(optimizer)
    weight.grad = torch.tensor([1.0, torch.nan, 2.0, torch.inf, 0.0])
    optimizer.step()
    (layer,) = monitor.summary()
    assert (layer.measured, layer.without_gradient, layer.not_finite, layer.median) == (2, 1, 2, 0.5)
    assert "2 of 5 (1 without gradient, 2 infinite or NaN)" in str(monitor)


def test_an_infinite_gradient_that_is_skipped_has_no_rate():
    weight = nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([weight], lr=0.5, on_nonfinite="skip")
    monitor = RateMonitor(optimizer)
    weight.grad = torch.tensor([1.0, torch.inf, -torch.inf])
    optimizer.step()
    np.testing.assert_array_equal(monitor.table()["rate"], [0.5, np.nan, np.nan])
    (layer,) = monitor.summary()
    assert (layer.measured, layer.not_finite, layer.median) == (1, 2, 0.5)


@pytest.mark.parametrize("cls", [torch.optim.SGD, ours.SGD])
def test_a_sparse_gradient_is_read_as_the_dense_one(cls: Any):
    def table(sparse: bool) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        embedding = nn.Embedding(30, 4, sparse=sparse)
        optimizer = cls(embedding.parameters(), lr=0.1)
        monitor = RateMonitor(optimizer, every=1, sample=60)
        for rows in ([3, 3, 7, 29, 0], [11, 3, 0, 0, 1]):
            optimizer.zero_grad()
            embedding(torch.tensor(rows)).pow(2).sum().backward()
            optimizer.step()
        return monitor.table()

    dense, sparse = table(False), table(True)
    assert 0 < np.isfinite(sparse["rate"]).sum() < 120
    for name in COLUMNS:
        if dense[name].dtype.kind == "f":
            np.testing.assert_allclose(sparse[name], dense[name], rtol=1e-5)
        else:
            np.testing.assert_array_equal(sparse[name], dense[name])


def test_the_update_of_a_row_that_was_behind_is_that_of_one_step():
    embedding = nn.Embedding(6, 2, sparse=True)
    start = embedding.weight.detach().double().numpy()
    optimizer = ours.SGD(embedding.parameters(), lr=0.5, weight_decay=0.1)
    optimizer.watch(embedding)
    monitor = RateMonitor(optimizer, every=3, sample=12)
    for rows in ([0], [0], [1], [5]):
        optimizer.zero_grad()
        embedding(torch.tensor(rows)).sum().backward()
        optimizer.step()
    # Step 4 is recorded; rows 2 to 5 have missed three decays, which are no part of it.
    update = monitor.table()["update"][-12:].reshape(6, 2)
    behind = start * 0.95**3
    np.testing.assert_allclose(update[2:5], -0.05 * behind[2:5], rtol=1e-4)
    np.testing.assert_allclose(update[5], -0.5 - 0.05 * behind[5], rtol=1e-4)
    optimizer.catch_up()
    np.testing.assert_allclose(embedding.weight.detach()[2:5], start[2:5] * 0.95**4, rtol=1e-5)


def test_with_a_closure_the_gradient_is_that_of_its_last_call():
    x = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))

    def closure() -> torch.Tensor:
        x.grad = None
        loss = (x * x).sum()
        loss.backward()
        return loss

    for given in ((closure,), {"closure": closure}):
        optimizer = torch.optim.SGD([x], lr=0.25)
        with RateMonitor(optimizer, every=1) as monitor:
            optimizer.step(*given) if isinstance(given, tuple) else optimizer.step(**given)
        np.testing.assert_allclose(monitor.table()["rate"], 0.25)
    solver = torch.optim.LBFGS([x], lr=0.1, max_iter=3)
    before = x.detach().clone()
    with RateMonitor(solver, every=1) as monitor:
        solver.step(closure)
    found = monitor.table()
    np.testing.assert_allclose(found["update"], (x - before).detach().numpy())
    np.testing.assert_array_equal(found["gradient"], x.grad.numpy())


@pytest.mark.parametrize(
    ("cls", "options"), [(torch.optim.SGD, {}), (torch.optim.SGD, {"fused": True}), (ours.SGD, {})]
)
def test_a_scaled_gradient_is_unscaled_and_a_step_left_out_gives_way_to_the_next(cls: Any, options: dict[str, Any]):
    x = nn.Parameter(torch.ones(3))
    optimizer = cls([x], lr=0.125, **options)
    monitor = RateMonitor(optimizer, every=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
    for factor in (float("inf"), 3.0, 5.0):
        x.grad = None
        scaler.scale((factor * x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    table = monitor.table()
    assert len(table["step"]) == 3
    np.testing.assert_allclose(table["gradient"], 3.0)
    np.testing.assert_allclose(table["rate"], 0.125)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_bounds_what_the_dtype_has_cost(dtype: torch.dtype):
    torch.manual_seed(0)
    x = nn.Parameter(torch.randn(500).to(dtype))
    optimizer = torch.optim.SGD([x], lr=1e-3)
    monitor = RateMonitor(optimizer, sample=500)
    x.grad = torch.randn(500).to(dtype)
    optimizer.step()
    table = monitor.table()
    exact = -1e-3 * x.grad.double().numpy()
    assert (np.abs(table["update"] - exact) <= table["rounding"] + torch.finfo(dtype).eps * np.abs(exact)).all()
    (layer,) = monitor.summary()
    assert (layer.coarse > 250) == (dtype is not torch.float32)
    assert ("rounded by more than a tenth" in str(monitor)) == (dtype is not torch.float32)


def test_complex_numbers_are_pairs_and_any_strides_are_read():
    both = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    turned = nn.Parameter(torch.randn(4, 5).t())
    optimizer = torch.optim.SGD([both, turned], lr=0.5)
    monitor = RateMonitor(optimizer, sample=20)
    both.grad = torch.tensor([1 + 2j, 3 - 1j, 0.5j]).conj()
    turned.grad = torch.arange(20.0).reshape(5, 4)
    optimizer.step()
    np.testing.assert_allclose(of_layer(monitor, "parameter 0")["gradient"], [1, -2, 3, 1, 0, -0.5])
    np.testing.assert_allclose(of_layer(monitor, "parameter 1")["gradient"], range(20))
    rates = monitor.table()["rate"]
    np.testing.assert_allclose(rates[np.isfinite(rates)], 0.5, rtol=1e-5)


def test_names_are_those_of_the_model_or_of_the_optimizer_or_numbers():
    model = net()
    named = ours.SGD(model.named_parameters(), lr=0.1)
    assert list(RateMonitor(named).dimensions()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    bare = ours.SGD(model.parameters(), lr=0.1)
    assert list(RateMonitor(bare, model=model[2]).dimensions()) == ["parameter 0", "parameter 1", "weight", "bias"]


def test_several_monitors_look_at_one_optimizer_until_they_are_removed():
    model = net()
    optimizer = ours.Adadelta(model.parameters())
    with RateMonitor(optimizer, every=1, sample=3) as one, RateMonitor(optimizer, every=2, sample=30) as other:
        train(model, optimizer, 3)
    train(model, optimizer, 3)
    assert sorted(set(one.table()["step"])) == [1, 2, 3]
    assert sorted(set(other.table()["step"])) == [1, 3]
    assert len(other.table()["step"]) == 2 * (30 + 6 + 18 + 3)


@pytest.mark.parametrize("cls", [torch.optim.Adadelta, ours.Adadelta])
def test_copies_of_an_optimizer_are_not_monitored_and_step_alike(cls: Any):
    model = net()
    optimizer = cls(model.parameters())
    monitor = RateMonitor(optimizer, every=1)
    train(model, optimizer, 1)
    recorded = len(monitor.table()["step"])
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        for group in other.param_groups:
            for each in group["params"]:
                each.grad = torch.ones_like(each)
        other.step()
    assert len(monitor.table()["step"]) == recorded
    plain = net()
    train(plain, cls(plain.parameters()), 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_a_model_that_changes_its_dtype_or_shape_is_looked_at_anew():
    x = nn.Parameter(torch.ones(50))
    optimizer = torch.optim.SGD([x], lr=0.5)
    monitor = RateMonitor(optimizer, every=1)
    for made in (torch.ones(50), torch.ones(50, dtype=torch.float64), torch.ones(4, dtype=torch.float64)):
        x.data, x.grad = made, None
        x.grad = torch.ones_like(x)
        optimizer.step()
    np.testing.assert_array_equal(np.bincount(monitor.table()["step"]), [0, 10, 10, 4])


@pytest.mark.parametrize("cls", [torch.optim.Adam, ours.Adam])
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_module_is_recorded_from_its_first_run_on(cls: Any):
    head = nn.LazyLinear(3, bias=False)
    model = nn.Sequential(nn.Linear(20, 6, bias=False), head, nn.Linear(3, 2, bias=False))
    optimizer = cls(model.parameters())
    monitor = RateMonitor(optimizer, every=1, sample=4, model=model)
    assert list(monitor.dimensions()) == ["0.weight", "2.weight"]
    model[0](torch.ones(20)).sum().backward()
    optimizer.step()
    train(model, optimizer, 1)
    assert list(monitor.table()["layer"]) == [each for each in ("0.weight", *monitor.dimensions()) for _ in range(4)]
    assert list(monitor.dimensions()) == ["0.weight", "1.weight", "2.weight"]


# What the compiler itself warns of.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_step_is_recorded():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    monitor = RateMonitor(optimizer, every=1)

    @torch.compile(backend="eager")
    def step() -> None:
        optimizer.step()

    for number in range(2):
        backward(model, number)
        step()
    assert sorted(set(monitor.table()["step"])) == [1, 2]
    assert abs(np.nanmedian(monitor.table()["rate"]) - 0.25) < 1e-4


def test_tables_are_kept_as_csv_and_in_checkpoints(tmp_path: Path):
    model = net()
    optimizer = ours.Adadelta(model.parameters())
    monitor = RateMonitor(optimizer, every=2, model=model)
    assert str(monitor) == "no step was recorded yet"
    assert monitor.summary() == []
    assert len(monitor.table()["rate"]) == 0
    train(model, optimizer, 3)
    monitor.save(tmp_path / "rates.csv")
    rows = list(csv.reader((tmp_path / "rates.csv").read_text().splitlines()))
    assert rows[0] == list(COLUMNS)
    assert [float(row[3]) for row in rows[1:]] == monitor.table()["rate"].tolist()
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    again = RateMonitor(optimizer, every=2, model=model)
    again.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    assert again.step == 3
    assert again.summary() == monitor.summary()
    for name, column in monitor.table().items():
        np.testing.assert_array_equal(again.table()[name], column)
    assert [each.step for each in monitor.summary(1)] == [1] * 4
    with pytest.raises(ValueError, match="step is 2; recorded are 1, 3"):
        monitor.summary(2)
    with pytest.raises(ValueError, match="state has no rate"):
        again.load_state_dict({"steps": 1, "table": {name: [] for name in COLUMNS if name != "rate"}})
    with pytest.raises(ValueError, match=r"state has no steps, table; allowed is what state_dict\(\) returned"):
        again.load_state_dict({})


def test_a_checkpoint_from_before_the_first_step_is_taken_over():
    model = net()
    optimizer = ours.Adadelta(model.parameters())
    state = RateMonitor(optimizer, model=model).state_dict()
    again = RateMonitor(optimizer, model=model)
    train(model, optimizer, 1)
    again.load_state_dict(state)
    assert (again.step, again.summary()) == (0, [])


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.histograms: list[tuple[str, int, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        self.histograms.append((tag, len(values), step))


def test_a_writer_is_told_at_once_or_afterwards_the_same():
    model, at_once, afterwards = net(), Writer(), Writer()
    optimizer = ours.Adadelta(model.parameters())
    monitor = RateMonitor(optimizer, every=2, model=model, writer=at_once)
    train(model, optimizer, 1)
    medians = {tag: value for tag, value, _ in at_once.scalars if tag.endswith("median")}
    assert medians == {f"rate/{each.layer}/median": each.median for each in monitor.summary()}
    train(model, optimizer, 2)
    monitor.to_tensorboard(afterwards)
    assert vars(at_once) == vars(afterwards)
    assert ("rates/2.bias", 3, 3) in at_once.histograms


@pytest.mark.filterwarnings("ignore")  # what TensorBoard's own imports warn of
def test_tensorboard_itself_takes_it(tmp_path: Path):
    require_installed("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    model = net()
    optimizer = ours.Adadelta(model.parameters())
    with SummaryWriter(str(tmp_path)) as writer:
        RateMonitor(optimizer, model=model, writer=writer)
        train(model, optimizer, 1)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert "rate/0.weight/median" in found.Tags()["scalars"]
    assert "rates/0.weight" in found.Tags()["histograms"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": 0}, "every is 0; allowed is a whole number from 1"),
        ({"every": np.int64(5)}, r"every is (np\.int64\()?5\)?; allowed is a whole number from 1, an int"),
        ({"sample": 2.5}, "sample is 2.5; allowed is a whole number from 1"),
        ({"seed": -1}, "seed is -1; allowed is a whole number from 0"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        RateMonitor(ours.Adadelta(net().parameters()), **options)


def test_what_is_no_optimizer_is_refused():
    steps = ours.step_in_backward(net(), rules.adadelta)
    with pytest.raises(TypeError, match=r"optimizer is a BackwardSteps; allowed is a torch.optim.Optimizer"):
        RateMonitor(steps)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"^model is a int; allowed is a torch.nn.Module$"):
        RateMonitor(ours.Adadelta(net().parameters()), model=3)  # type: ignore[arg-type]
