"""The stepper of parameters on a GPU, here on the CPU through Triton's interpreter: what it notices, sends and refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from tests.interpreter import interpreting
from tests.torch.checks import checked_step, parameter, paths
from torch.utils._python_dispatch import TorchDispatchMode

import steprule.torch as ours
import torch
from steprule import rule
from steprule.kernels import gpu as kernels
from steprule.torch import gpu, plan


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    with interpreting():
        yield


def new_gradients(*parameters: torch.nn.Parameter) -> None:
    """Give each parameter a gradient in memory of its own."""
    for each in parameters:
        each.grad = torch.randn_like(each)


def capturable(parameters: list[torch.nn.Parameter], **values: Any) -> list[dict[str, Any]]:
    return [{"params": parameters, "capturable": True, **values}]


def on_device(optimizer: Any) -> int:
    """Return how many parameters the last step took through the GPU's kernel."""
    return sum(len(each.parameters) for each in optimizer._plan._steppers if isinstance(each, gpu.DeviceLaunch))


class TestAStep:
    def test_takes_all_types_and_groups(self) -> None:
        dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float32]
        several = [parameter(5, 3, dtype=dtype, seed=seed) for seed, dtype in enumerate(dtypes)]
        groups = [{"params": several[:2]}, {"params": several[2:], "lr": 0.01, "weight_decay": 0.1}]
        optimizer = ours.Adam(groups, lr=0.1)
        for _ in range(3):
            checked_step(optimizer)
            assert on_device(optimizer) == 5

    def test_may_have_state_in_another_type(self) -> None:
        one = parameter(9, dtype=torch.bfloat16)
        optimizer = ours.Adadelta([one], state_dtype=torch.float32)
        optimizer.step()
        assert on_device(optimizer) == 1
        state = optimizer.state[one]
        assert (one.dtype, state["square_avg"].dtype) == (torch.bfloat16, torch.float32)
        wanted = 0.05 * one.grad.float() ** 2
        torch.testing.assert_close(state["square_avg"], wanted, rtol=1e-6, atol=0)

    def test_takes_gradients_wherever_they_lie(self) -> None:
        one, other = parameter(4, 3), parameter(5)
        optimizer = ours.Adadelta([one, other])
        kept = []
        for _ in range(4):
            checked_step(optimizer)
            kept.append((one.grad, other.grad))
            new_gradients(one, other)

    def test_waits_for_a_gradient_that_comes_late(self) -> None:
        one, late = parameter(4), parameter(5, grad=False)
        optimizer = ours.Adam([one, late])
        for number in range(4):
            if number == 2:
                new_gradients(late)
            checked_step(optimizer)
        assert [int(optimizer.state[each]["step"]) for each in (one, late)] == [4, 2]

    def test_passes_over_gradients_that_come_and_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        several = [parameter(5, seed=1), parameter(3000, seed=2), parameter(4, 3, seed=3)]
        optimizer = ours.Adam(several)
        checked_step(optimizer)
        monkeypatch.setattr(plan.Plan, "__init__", None)
        for those in (0b010, 0b010, 0b101, 0b111, 0b000, 0b100, 0b111):
            new_gradients(*several)
            for place, each in enumerate(several):
                each.grad = each.grad if those >> place & 1 else None
            checked_step(optimizer)
        assert on_device(optimizer) == 3

    def test_follows_a_scheduler(self) -> None:
        one = parameter(4)
        optimizer = ours.RMSProp([one], lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for _ in range(3):
            checked_step(optimizer)
            scheduler.step()

    def test_follows_a_parameter_that_moves(self) -> None:
        one = parameter(4)
        optimizer = ours.Adam([one])
        checked_step(optimizer)
        one.data = one.data.clone()
        checked_step(optimizer)

    def test_leaves_what_has_gaps_to_torchs_operations(self) -> None:
        one = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64)[:, ::2])
        one.grad = torch.randn(4, 3, dtype=torch.float64)
        optimizer = ours.Adam([one, parameter(3)])
        for _ in range(2):
            checked_step(optimizer)
            assert paths(optimizer) == (1, 1)

    def test_keeps_master_copies(self) -> None:
        one = parameter(9, dtype=torch.bfloat16)
        optimizer = ours.Adadelta([one], master_copies=True)
        for _ in range(3):
            optimizer.step()
            assert on_device(optimizer) == 1
            master = optimizer.state[one]["master"]
            assert master.dtype is torch.float32
            assert torch.equal(one, master.to(torch.bfloat16))
            assert not torch.equal(master, one.float())

    @pytest.mark.parametrize("capturable", [False, True])
    def test_unscales_gradients(self, capturable: bool) -> None:
        one, other = parameter(4, seed=1), parameter(4, seed=1)
        optimizer, twin = ours.Adam([{"params": [one], "capturable": capturable}]), ours.Adam([other])
        one.grad *= 8
        optimizer.grad_scale = torch.tensor(8.0)
        for _ in range(2):
            optimizer.step()
            twin.step()
        assert on_device(optimizer) == 1
        assert torch.equal(one, other)

    @pytest.mark.parametrize(
        "options", [{"state_dtype": torch.bfloat16}, {"state_dtype": "int8"}, {"on_nonfinite": "raise"}], ids=str
    )
    def test_leaves_to_others_what_its_kernel_does_not_do(self, options: dict[str, Any]) -> None:
        one = parameter(4, dtype=torch.float32)
        before = one.detach().clone()
        optimizer = ours.Adam([one], **options)
        optimizer.step()
        assert on_device(optimizer) == 0
        assert not torch.equal(one, before)

    @pytest.mark.parametrize("capturable", [False, True])
    def test_skips_elements_whose_gradient_is_not_finite(self, capturable: bool) -> None:
        one = parameter(4)
        before = one.detach().clone()
        one.grad[1], one.grad[2] = torch.inf, torch.nan
        optimizer = ours.Adam([{"params": [one], "capturable": capturable}], on_nonfinite="skip")
        optimizer.step()
        assert on_device(optimizer) == 1
        assert (one == before).tolist() == [False, True, True, False]
        assert (optimizer.state[one]["exp_avg"] != 0).tolist() == [True, False, False, True]

    def test_makes_stale_values_known_to_autograd(self) -> None:
        one = parameter(3)
        loss = (one**2).sum()
        ours.SGD([one], lr=0.1).step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def sends(optimizer: torch.optim.Optimizer) -> int:
    """Step and return how many arrays went to the device."""
    with mock.patch.object(gpu.Sent, "send", autospec=True, side_effect=gpu.Sent.send) as send:
        optimizer.step()
    return send.call_count


class TestWhatIsSent:
    def test_is_nothing_where_nothing_has_changed(self) -> None:
        optimizer = ours.Adadelta([parameter(4), parameter(3)])
        assert sends(optimizer) > 0
        assert [sends(optimizer) for _ in range(3)] == [0, 0, 0]

    def test_is_the_scalars_where_they_depend_on_the_step(self) -> None:
        optimizer = ours.Adam([parameter(4)])
        optimizer.step()
        assert [sends(optimizer) for _ in range(3)] == [1, 1, 1]

    def test_is_nothing_where_the_device_counts(self) -> None:
        optimizer = ours.Adam(capturable([parameter(4)]))
        optimizer.step()
        assert [sends(optimizer) for _ in range(3)] == [0, 0, 0]

    @pytest.mark.parametrize("counts", [False, True])
    def test_is_one_table_for_new_gradients_or_values(self, counts: bool) -> None:
        one = parameter(4)
        optimizer = ours.Adadelta([{"params": [one], "capturable": counts}])
        optimizer.step()
        old = one.grad
        new_gradients(one)
        assert sends(optimizer) == 1
        optimizer.param_groups[0]["lr"] = 0.5
        assert sends(optimizer) == 1
        assert old is not None


class TestCapturable:
    def test_counts_on_the_device(self) -> None:
        one, late = parameter(4), parameter(5, grad=False)
        optimizer = ours.Adam(capturable([one, late], weight_decay=0.1))
        checked_step(optimizer)
        count = optimizer.state[one]["step"]
        new_gradients(late)  # from here on there is another plan
        checked_step(optimizer)
        checked_step(optimizer)
        assert optimizer.state[one]["step"] is count
        assert [float(optimizer.state[each]["step"]) for each in (one, late)] == [3.0, 2.0]

    @pytest.mark.parametrize("make", [ours.SGD, ours.Momentum, ours.Adagrad, ours.AdamW, ours.RMSPropNesterov])
    def test_makes_the_same_steps(self, make: Any) -> None:
        some, others = ([parameter(4, seed=1), parameter(7, seed=2)] for _ in range(2))
        one, other = make(capturable(some), lr=0.1), make(others, lr=0.1)
        for _ in range(3):
            one.step()
            other.step()
        assert all(map(torch.equal, some, others))

    def test_takes_a_rate_from_the_device_at_each_step(self) -> None:
        (one, two), (other, another) = ([parameter(4, seed=1), parameter(7, seed=2)] for _ in range(2))
        rate = torch.tensor(0.25)
        optimizer = ours.Adam([*capturable([one], lr=rate), *capturable([two], lr=0.5)])
        twin = ours.Adam([{"params": [other], "lr": 0.25}, {"params": [another], "lr": 0.5}])
        for number in range(4):
            if number == 2:
                rate.fill_(0.125)
                twin.param_groups[0]["lr"] = 0.125
            optimizer.step()
            twin.step()
            assert torch.equal(one, other)
            assert torch.equal(two, another)

    def test_counts_only_those_that_have_a_gradient(self) -> None:
        several = [parameter(5, seed=1), parameter(3, seed=2)]
        optimizer = ours.RMSProp(capturable(several))
        for those in (0b11, 0b01, 0b10, 0b10, 0b11):
            new_gradients(*several)
            for place, each in enumerate(several):
                each.grad = each.grad if those >> place & 1 else None
            checked_step(optimizer)
        assert [optimizer.state[each]["step"] for each in several] == [3, 4]

    def test_does_not_read_a_rate_on_the_device(self) -> None:
        rate = torch.tensor(0.25)
        optimizer = ours.Adam(capturable([parameter(4)], lr=rate))
        with mock.patch.object(torch.Tensor, "__float__", side_effect=AssertionError("read")):
            optimizer.step()
            optimizer.step()

    def test_goes_for_what_has_gaps_too(self) -> None:
        one = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64)[:, ::2])
        one.grad = torch.randn(4, 3, dtype=torch.float64)
        other = torch.nn.Parameter(one.detach().clone())
        other.grad = one.grad.clone()
        rate = torch.tensor(0.25)
        optimizer, twin = ours.Adam(capturable([one], lr=rate)), ours.Adam([other], lr=0.25)
        for _ in range(3):
            optimizer.step()
            twin.step()
        assert (paths(optimizer), paths(twin)) == ((0, 1), (1, 0))
        assert optimizer.state[one]["step"] == 3
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)

    def test_may_come_and_go(self) -> None:
        one = parameter(4)
        optimizer = ours.Adam([one])
        for value in (False, True, True, False):
            optimizer.param_groups[0]["capturable"] = value
            checked_step(optimizer)
        assert optimizer.state[one]["step"] == 4

    @pytest.mark.parametrize("through", ["state_dict", "pickle", "deepcopy"])
    def test_goes_on_after_it_was_kept(self, through: str) -> None:
        one = parameter(4)
        optimizer = ours.Adam(capturable([one]))
        optimizer.step()
        if through == "state_dict":
            other = ours.Adam(capturable([one]))
            other.load_state_dict(optimizer.state_dict())
        else:
            other = pickle.loads(pickle.dumps(optimizer)) if through == "pickle" else copy.deepcopy(optimizer)
        new_gradients(*other.param_groups[0]["params"])
        checked_step(other)
        (state,) = other.state.values()
        assert state["step"] == 2

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"eps": torch.tensor(1e-8)}, r"eps is a tensor of shape \(\) on cpu; allowed is a number, and for lr"),
            (
                {"lr": torch.tensor([0.1, 0.2])},
                r"lr is a tensor of shape \(2,\) on cpu; allowed is a number, and for lr",
            ),
        ],
    )
    def test_refuses_other_tensors(self, values: dict[str, Any], says: str) -> None:
        with pytest.raises(TypeError, match=says):
            ours.Adam(capturable([parameter(4)], **values))

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (
                {"state_dtype": torch.bfloat16},
                "state_dtype is rounded at random, by bits that the host draws, and capturable",
            ),
            ({"on_nonfinite": "raise"}, 'on_nonfinite is "raise", which waits for the device, and capturable is True'),
        ],
    )
    def test_refuses_what_a_graph_cannot_repeat(self, options: dict[str, Any], says: str) -> None:
        optimizer = ours.Adam(capturable([parameter(4, dtype=torch.float32)]), **options)
        with pytest.raises(ValueError, match=says):
            optimizer.step()


class TestACapture:
    """What a graph must not hold, told before anything has changed."""

    @pytest.fixture
    def capture(self) -> Any:
        return lambda: mock.patch.object(gpu, "_capturing", return_value=True)

    def test_needs_a_step_before_it(self, capture: Any) -> None:
        optimizer = ours.Adam(capturable([parameter(4)]))
        with capture(), pytest.raises(RuntimeError, match="captures a step that is the first"):
            optimizer.step()
        assert not optimizer.state

    def test_needs_the_count_on_the_device(self, capture: Any) -> None:
        one = parameter(4)
        optimizer = ours.Adam([*capturable([one]), {"params": [parameter(3)]}])
        optimizer.step()
        before = one.detach().clone()
        with capture(), pytest.raises(RuntimeError, match="whose capturable is False; allowed is True"):
            optimizer.step()
        assert torch.equal(one, before)
        checked_step(optimizer)
        assert optimizer.state[one]["step"] == 2


class Graph(TorchDispatchMode):
    """What a step's capture hands to the device, which nothing does before `replay`: copies and launches."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self._work: list[Callable[[], Any]] = []
        with (
            mock.patch.object(gpu, "_capturing", return_value=True),
            mock.patch.object(kernels, "launch", self._later(kernels.launch)),
            mock.patch.object(kernels, "fold", self._later(kernels.fold)),
            mock.patch.object(gpu.DeviceLaunch, "_launch", self._within(gpu.DeviceLaunch._launch)),
        ):
            optimizer.step()

    def _within(self, launch: Callable[..., None]) -> Callable[..., None]:
        def recorded(*arguments: Any) -> None:
            with self:
                launch(*arguments)

        return recorded

    def _later(self, work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: self._work.append(lambda: work(*arguments))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Copies that do not wait for the device are its work, those within the host's memory are not.
        if func is torch.ops.aten.copy_.default and args[2:] == (True,):
            self._work.append(lambda: func(*args))
            return args[0]
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        for work in self._work:
            work()


class TestAGraph:
    @pytest.fixture
    def runs(self) -> Any:
        """Two alike parameters, the optimizer of each, and of the first the graph and the gradient it was captured with."""
        one, other = (parameter(4, seed=1) for _ in range(2))
        optimizer, twin = ours.Adam(capturable([one]), lr=0.25), ours.Adam([other], lr=0.25)
        optimizer.step()
        twin.step()
        optimizer.param_groups[0]["lr"] = 0.125
        one.grad = torch.full_like(one, 0.5)
        captured = one.grad
        before = one.detach().clone()
        graph = Graph(optimizer)
        assert torch.equal(one, before)
        return one, other, optimizer, twin, graph, captured

    def test_leaves_the_steps_outside_as_they_are(self, runs: Any) -> None:
        one, other, optimizer, twin, graph, captured = runs
        outside = torch.full_like(one, -2.0)
        for rate in (0.125, 0.0625, 0.0625):
            optimizer.param_groups[0]["lr"] = twin.param_groups[0]["lr"] = rate
            one.grad = other.grad = outside
            optimizer.step()
            twin.step()
            torch.testing.assert_close(one, other, rtol=1e-14, atol=0)
            graph.replay()  # by its own gradient and rate
            twin.param_groups[0]["lr"], other.grad = 0.125, captured
            twin.step()
            torch.testing.assert_close(one, other, rtol=1e-14, atol=0)

    def test_takes_no_change_from_the_steps_outside(self, runs: Any) -> None:
        one, other, optimizer, twin, _, captured = runs
        twin.param_groups[0]["lr"], other.grad = 0.125, captured
        optimizer.step()
        twin.step()
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


class TestWhereNoKernelRuns:
    def test_for_want_of_triton_a_warning_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernels, "installed", lambda: False)
        gpu._warn_once.cache_clear()
        optimizer = ours.Adam([parameter(3, dtype=torch.bfloat16)])
        with pytest.warns(RuntimeWarning, match="triton is not installed"):
            checked_step(optimizer)
        assert on_device(optimizer) == 0

    def test_the_interpreter_takes_no_address_of_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "DEVICES", {"cpu", "cuda"})
        assert [gpu._served(torch.device(name)) for name in ("cpu", "cuda")] == [True, False]
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        assert [gpu._served(torch.device(name)) for name in ("cpu", "cuda")] == [False, True]


def test_a_rule_without_state_may_be_captured() -> None:
    @rule
    def halves(g):
        return -g / 2

    one = parameter(4)
    optimizer = ours.optimizer(halves)(capturable([one]))
    for _ in range(2):
        checked_step(optimizer)
    assert on_device(optimizer) == 1
    assert not optimizer.state
