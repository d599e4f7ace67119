"""How parameters, gradients and slots may lie in memory, and may come to lie between two steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.torch.checks import checked_step, parameter, paths
from torch._subclasses.fake_tensor import FakeTensorMode

import torch
from steprule import NonNegative, rule
from steprule import torch as ours
from steprule.notation import sqrt, where
from steprule.torch import identity
from steprule.torch.storing import load

Tensor = torch.Tensor


def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(shape, dtype=dtype, generator=generator)


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


# What a parameter and its gradient look like, and whether one loop over memory can step them.
LAYOUTS: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], bool]] = {
    "no dimension": (lambda: numbers(), lambda: numbers(), True),
    "no element": (lambda: numbers(0, 3), lambda: numbers(0, 3), True),
    "one element": (lambda: numbers(1, 1, 1), lambda: numbers(1, 1, 1), True),
    "contiguous": (lambda: numbers(3, 4), lambda: numbers(3, 4), True),
    "at an odd address": (lambda: numbers(13)[1:], lambda: numbers(14)[2:], True),
    "both channels last": (
        lambda: channels_last(numbers(2, 3, 4, 5)),
        lambda: channels_last(numbers(2, 3, 4, 5)),
        True,
    ),
    "channels last, gradient contiguous": (
        lambda: channels_last(numbers(2, 3, 4, 5)),
        lambda: numbers(2, 3, 4, 5),
        False,
    ),
    "gradient channels last": (lambda: numbers(2, 3, 4, 5), lambda: channels_last(numbers(2, 3, 4, 5)), False),
    "both transposed": (lambda: numbers(4, 3).t(), lambda: numbers(4, 3).t(), True),
    "square, both transposed": (lambda: numbers(4, 4).t(), lambda: numbers(4, 4).t(), True),
    "square, gradient transposed": (lambda: numbers(4, 4), lambda: numbers(4, 4).t(), False),
    "both permuted": (lambda: numbers(2, 3, 4).permute(2, 0, 1), lambda: numbers(2, 3, 4).permute(2, 0, 1), True),
    "every other element": (lambda: numbers(12)[::2], lambda: numbers(6), False),
    "gradient of every other element": (lambda: numbers(6), lambda: numbers(12)[::2], False),
    "both every other element": (lambda: numbers(12)[::2], lambda: numbers(12)[::2], False),
    "columns of a matrix": (lambda: numbers(4, 6)[:, :3], lambda: numbers(4, 6)[:, :3], False),
    "rows of a matrix": (lambda: numbers(6, 4)[1:4], lambda: numbers(3, 4), True),
    "expanded gradient": (lambda: numbers(3, 4), lambda: numbers(4).expand(3, 4), False),
    "gradient is one number": (lambda: numbers(3, 4), lambda: numbers(1).expand(3, 4), False),
    "dimensions of one, other strides": (
        lambda: numbers(4, 1),
        lambda: torch.as_strided(numbers(4), (4, 1), (1, 4)),
        True,
    ),
    "dimension of one, far apart": (lambda: numbers(2, 6)[:1], lambda: numbers(1, 6), True),
}


def put(x: Tensor, g: Tensor) -> torch.nn.Parameter:
    made = torch.nn.Parameter(x)
    made.grad = g
    assert made.stride() == x.stride()
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, dtype: torch.dtype):
    x, g, dense = LAYOUTS[name]

    def cast(tensor: Tensor) -> Tensor:
        # Of the same strides, gaps and overlaps too.
        return torch.as_strided(
            torch.as_strided(tensor, (tensor.untyped_storage().nbytes() // 8,), (1,), 0).to(dtype),
            tensor.shape,
            tensor.stride(),
            tensor.storage_offset(),
        )

    each = put(cast(x()), cast(g()))
    storage = torch.as_strided(each.detach(), (each.untyped_storage().nbytes() // each.element_size(),), (1,), 0)
    before = storage.clone()
    # The slots of the first lie as it does or without gaps; the second has none.
    for opt in (ours.Adadelta([each], weight_decay=0.125), ours.SGD([each], lr=0.5)):
        for _ in range(2):
            checked_step(opt)
            assert paths(opt) == ((1, 0) if dense else (0, 1))
    # What lies between and beside the parameter's elements is not its own.
    mine = torch.zeros_like(storage, dtype=torch.bool)
    torch.as_strided(mine, each.shape, each.stride(), each.storage_offset()).fill_(True)
    assert torch.equal(storage[~mine], before[~mine])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slots_lie_as_the_parameter_does(dtype: torch.dtype):
    each = put(channels_last(numbers(2, 3, 4, 5, dtype=dtype)), channels_last(numbers(2, 3, 4, 5, dtype=dtype)))
    opt = ours.Adam([each])
    opt.step()
    assert opt.state[each]["exp_avg"].stride() == each.stride()


def test_a_convolution_in_channels_last_keeps_to_the_fused_loop():
    net = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    opt = ours.Adadelta(net.parameters())
    for _ in range(2):
        opt.zero_grad()
        net(channels_last(numbers(2, 3, 8, 8, dtype=torch.float32))).square().sum().backward()
        checked_step(opt)
        assert paths(opt) == (2, 0)


def test_the_gradient_may_be_the_parameters_own_memory():
    for dtype in (torch.float64, torch.bfloat16):
        each = torch.nn.Parameter(numbers(5, dtype=dtype))
        each.grad = each.detach()
        checked_step(ours.SGD([each], lr=0.5))


@rule
def remembers(g, x, older=2.0, last=1.0, place=0.0):
    return -0.1 * g * older * last - place, last, g, x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64])
def test_slots_may_change_places_and_take_what_the_parameter_was(dtype: torch.dtype):
    x, g = numbers(8, dtype=dtype), numbers(8, dtype=dtype)
    for step, path in ((1, (1, 0)), (2, (0, 1))):  # with gaps between the elements, no loop walks them
        each = put(x[::step], g[::step])
        opt = ours.optimizer(remembers)([each])
        for _ in range(3):
            each.grad = each.grad + 1
            checked_step(opt)
            assert paths(opt) == path


class Own(torch.Tensor):
    """What other libraries make of torch's tensors."""


@pytest.mark.parametrize(
    "scalar",
    [
        lambda a, _: 1 / a,
        lambda a, _: 1 / where(a > 0, 1.0, 0.0),
        lambda a, _: sqrt(1 + a) / sqrt(a),
        lambda a, _: (a - 1) ** 0.5,
        lambda _, t: 2 ** (2000 * t),
    ],
    ids=["over zero", "over a choice", "over a root", "a root of what is negative", "beyond float64"],
)
def test_torchs_operations_make_of_a_scalar_what_the_fused_loop_does(scalar: Callable[[Any, Any], Any]):
    @rule
    def scaled(g, t, *, a: NonNegative = 0.0):
        return -g * scalar(a, t)

    fused, plain, sparse = parameter(3, 1), parameter(3, 1), parameter(3, 1)
    plain.grad = torch.stack([fused.grad, fused.grad], 1)[:, 0]
    sparse.grad = torch.sparse_coo_tensor(torch.arange(3)[None], fused.grad, (3, 1), check_invariants=True)
    sparse.data = torch.stack([fused.detach(), fused.detach()], 1)[:, 0]
    opt = ours.optimizer(scaled)([fused, plain, sparse], sparse="lazy")
    opt.step()
    assert paths(opt) == (1, 1)
    assert not fused.isfinite().any()
    torch.testing.assert_close(plain, fused, equal_nan=True)
    torch.testing.assert_close(sparse, fused, equal_nan=True)


def test_torchs_threads_have_subnormal_numbers_after_a_step():
    parameter = torch.nn.Parameter(torch.zeros(100_000))
    parameter.grad = torch.ones(100_000)
    ours.Adadelta([parameter]).step()
    assert (torch.full((1_000_000,), 1e-39) * 0.5).all()


def test_a_tensor_of_a_class_of_its_own_steps_through_torchs_operations():
    each = torch.nn.Parameter(numbers(5))
    each.grad = numbers(5).as_subclass(Own)
    opt = ours.Adadelta([each])
    checked_step(opt)
    assert paths(opt) == (0, 1)


def test_a_lazily_negated_gradient_is_read_as_what_it_is():
    each = put(numbers(5), torch._neg_view(numbers(5)))
    checked_step(ours.SGD([each], lr=0.5))


def test_a_gradient_without_memory_is_zero():
    code = (
        "import torch; import steprule.torch as ours; p = torch.nn.Parameter(torch.ones(3));"
        "p.grad = torch._efficientzerotensor((3,)); ours.SGD([p], lr=1.0).step(); print(p.tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[1.0, 1.0, 1.0]")


def test_a_device_without_memory():
    each = torch.nn.Parameter(torch.ones(3, device="meta"))
    each.grad = torch.ones(3, device="meta")
    opt = ours.Adam([each])
    opt.step()
    assert opt.state[each]["exp_avg"].device.type == "meta"


@pytest.mark.parametrize(
    ("cls", "options", "bytes_of_state"),
    [(ours.Adadelta, {}, 24), (ours.Adadelta, {"state_dtype": torch.bfloat16}, 12), (ours.SGD, {"lr": 0.1}, 0)],
)
def test_of_fake_tensors_a_step_makes_the_state_and_no_more(cls: Any, options: dict[str, Any], bytes_of_state: int):
    with FakeTensorMode():
        each, without = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        opt = cls([each, without], **options)
        for _ in range(2):
            (each * each).sum().backward()
            opt.step()
        state = opt.state_dict()["state"]
    assert without not in opt.state
    assert len(state) == bool(bytes_of_state)
    slots = [slot for kept in state.values() for name, slot in kept.items() if name != "step"]
    assert sum(slot.nbytes for slot in slots) == bytes_of_state


# --- Between two steps -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fused", "fused, Python looks", "plain"])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Parameter, Any]:
    if request.param == "fused, Python looks":
        monkeypatch.setattr(identity, "natives", lambda: None)
    each = parameter(4, 8 if request.param == "plain" else 4)
    if request.param == "plain":  # with gaps
        each.data, each.grad = each.data[:, ::2], None
        each.grad = parameter(4, 4).grad
    opt = ours.Adadelta([each, parameter(3)])
    for _ in range(2):
        checked_step(opt)
    return each, opt


GRADS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "in new memory": lambda g: g.clone(),
    "transposed": lambda g: g.t(),
    "expanded": lambda g: g[:1].expand(4, 4),
    "with gaps": lambda g: torch.cat([g, g], 1)[:, ::2],
    "negated when read": lambda g: torch._neg_view(g),
    "of another class": lambda g: g.as_subclass(Own),
    "none": lambda g: None,
}


@pytest.mark.parametrize("first", GRADS)
@pytest.mark.parametrize("second", GRADS)
def test_a_gradient_may_come_to_lie_otherwise(running, first: str, second: str):
    each, opt = running
    g = each.grad
    for kind in (first, second, first):
        each.grad = GRADS[kind](g)
        for _ in range(2):
            checked_step(opt)


def test_a_gradient_may_change_in_place(running):
    each, opt = running
    for value in (0.5, -2.0):
        each.grad.fill_(value)
        checked_step(opt)


def test_a_gradients_data_may_be_replaced(running):
    each, opt = running
    each.grad.data = torch.ones_like(each)
    checked_step(opt)


@pytest.mark.parametrize("kind", ["transposed", "expanded", "with gaps"])
def test_a_gradients_data_may_come_to_lie_otherwise(running, kind: str):
    each, opt = running
    each.grad.data = GRADS[kind](each.grad.detach())
    checked_step(opt)


def test_a_gradient_may_be_turned_in_its_memory(running):
    each, opt = running
    each.grad.t_()
    checked_step(opt)


def test_a_slot_may_be_turned_in_its_memory(running):
    each, opt = running
    slot = opt.state[each]["square_avg"]
    slot.data = slot.data.t()
    checked_step(opt)


def test_a_slot_that_shrinks_in_its_memory_is_told_of(running):
    each, opt = running
    opt.state[each]["square_avg"].resize_(2)
    # Torch's operations, for which nothing need lie as before, say so themselves.
    with pytest.raises((ValueError, RuntimeError), match=r"square_avg of .* has the shape \(2,\); allowed is|size"):
        opt.step()


@pytest.mark.skipif(not hasattr(torch.utils, "swap_tensors"), reason="PyTorch swaps no tensors")
def test_a_slot_that_becomes_a_sparse_tensor_is_told_of(running):
    each, opt = running
    torch.utils.swap_tensors(opt.state[each]["square_avg"], torch.zeros_like(each.detach()).to_sparse())
    with pytest.raises((RuntimeError, NotImplementedError)):
        opt.step()


@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_gradient_that_has_left_vmap_is_told_of(steps_before: int):
    each = parameter(3)
    opt = ours.Adadelta([each])
    for _ in range(steps_before):
        opt.step()
    leaked: list[Tensor] = []
    torch.vmap(lambda g: leaked.append(each.detach() * g) or g)(torch.ones(2, dtype=each.dtype))
    each.grad = leaked[0]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="data pointer"):
            opt.step()


def test_a_parameters_data_may_be_replaced(running):
    each, opt = running
    old = each.data
    kept = old.clone()
    each.data = torch.full_like(each, 3.0)
    checked_step(opt)
    checked_step(opt)
    assert torch.equal(old, kept)


def test_a_parameters_data_may_be_replaced_by_a_view_of_other_strides(running):
    each, opt = running
    each.data = torch.full((4, 8), 3.0, dtype=each.dtype)[:, ::2]
    for _ in range(2):
        checked_step(opt)


def test_a_parameter_may_be_turned_in_its_memory(running):
    each, opt = running
    each.data = each.data.t()
    checked_step(opt)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("options", "dtype", "error"),
    [
        ({}, torch.float32, 0.0),
        ({}, torch.complex64, 0.0),
        ({"master_copies": True}, torch.bfloat16, 0.0),
        # What is rounded at random has other bits elsewhere in memory.
        ({"state_dtype": torch.bfloat16}, torch.float32, 2**-5),
        ({"state_dtype": "int8"}, torch.float32, 0.5),
    ],
)
def test_slots_follow_a_parameter_that_becomes_channels_last(
    options: dict[str, Any], dtype: torch.dtype, error: float, loaded: bool
):
    params = [parameter(20, 5, 3, 3, dtype=dtype) for _ in range(2)]
    opts = [ours.Adam([each], **options) for each in params]
    for opt in opts:
        opt.step()
    params[1].grad = None
    params[1].data = channels_last(params[1].data)
    if loaded:
        opts[1] = ours.Adam([params[1]], **options)
        opts[1].load_state_dict(opts[0].state_dict())
    params[1].grad = channels_last(params[0].grad)
    for opt in opts:
        opt.step()
        assert paths(opt) == (1, 0)
    for slot in ours.Adam.rule.slots:
        found, expected = (
            load(opt.state[each], slot, opt.rule) for each, opt in zip(reversed(params), reversed(opts), strict=True)
        )
        assert ((found - expected).abs() <= error * expected.abs()).all()
    assert (params[0] - params[1]).abs().max() <= 0.01 * error


def test_a_parameter_that_shrinks_in_its_memory_is_told_of(running):
    each, opt = running
    whole = each.data
    kept = whole.clone()
    each.data = whole[:2]
    each.grad = None
    each.grad = torch.ones_like(each)
    with pytest.raises(ValueError, match=r"square_avg of .* has the shape \(4, 4\); allowed is the parameter's shape"):
        opt.step()
    assert torch.equal(whole, kept)


@pytest.mark.parametrize("to", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_may_change_its_type_between_steps(to: torch.dtype):
    # Halves and quarters are exact in every type.
    net = torch.nn.Linear(3, 2, bias=False)
    net.weight.data.fill_(1.0)
    opt = ours.Momentum(net.parameters(), lr=0.5, rho=0.5)
    for dtype, velocity, weight in ((torch.float32, -0.5, 0.5), (to, -0.75, -0.25), (to, -0.875, -1.125)):
        net.to(dtype)
        opt.zero_grad()
        net(torch.ones(3, dtype=dtype)).sum().backward()
        opt.step()
        assert net.weight.dtype is dtype
        assert torch.equal(net.weight.detach(), torch.full((2, 3), weight, dtype=dtype))
        assert set(opt.state[net.weight]["velocity"].flatten().tolist()) == {velocity}


def test_parameters_of_several_types_step_together():
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float32]
    opt = ours.Adam([parameter(5, dtype=dtype, seed=seed) for seed, dtype in enumerate(kinds)])
    for _ in range(3):
        checked_step(opt)
    assert paths(opt) == (5, 0)


def test_a_net_of_many_tensors():
    opt = ours.Adadelta([parameter(size % 7, size, dtype=torch.float32, seed=size) for size in range(1, 60)])
    for _ in range(2):
        checked_step(opt)
    assert paths(opt) == (59, 0)
