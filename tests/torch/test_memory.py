"""Parameters that overlap themselves or each other, stand still, come late, or have a gradient of another kind."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.torch.checks import checked_step, parameter, paths
from tests.torch.twins import TWINS, Apart

import torch
from steprule import torch as ours
from steprule.torch.memory import overlaps_itself, sharing

# --- Within one parameter ----------------------------------------------------------------------------------------------

OVERLAPPING = {
    "expanded": lambda: torch.ones(3).expand(2, 3),
    "a window that moves by less than it is wide": lambda: torch.as_strided(torch.ones(6), (4, 3), (1, 1)),
    "strides that meet": lambda: torch.as_strided(torch.ones(9), (2, 3), (4, 2)),
}


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_a_parameter_that_overlaps_itself_is_refused_before_anything_moves(kind: str):
    first = parameter(3)
    second = torch.nn.Parameter(OVERLAPPING[kind]())
    second.grad = torch.ones(second.shape)
    before = first.detach().clone()
    opt = ours.Adam([first, second])
    shape, strides = tuple(second.shape), second.stride()
    with pytest.raises(ValueError, match="several elements in one place of memory") as caught:
        opt.step()
    assert f"a parameter of shape {shape} and strides {strides}" in str(caught.value)
    assert torch.equal(first.detach(), before)
    second.grad = None  # one that stands still disturbs nobody
    checked_step(opt)


@given(
    sizes=st.lists(st.integers(0, 4), max_size=4),
    strides=st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
@settings(derandomize=True, max_examples=400)
def test_an_overlap_is_found_wherever_there_is_one(sizes: list[int], strides: list[int]):
    strides = strides[: len(sizes)]
    tensor = torch.as_strided(torch.zeros(200), sizes, strides)
    places = sum((stride * index for stride, index in zip(strides, np.indices(sizes), strict=True)), np.zeros(sizes))
    assert overlaps_itself(tensor) == (len(np.unique(places)) < places.size)


# --- Between parameters ------------------------------------------------------------------------------------------------


def test_who_shares_memory():
    whole = torch.zeros(10)
    apart = [(whole[:5],), (whole[5:],), (torch.zeros(10),), (torch.zeros(0),), (torch.zeros(0),)]
    assert sharing(apart) == set()
    assert sharing([(whole[:6],), (whole[5:],), (torch.zeros(3),)]) == {0, 1}
    assert sharing([(whole,), (torch.zeros(2),), (whole[2:4],), (torch.zeros(2),), (whole[8:],)]) == {0, 2, 4}
    assert sharing([(torch.zeros(2), whole[:2]), (torch.zeros(2), whole[1:3])]) == {0, 1}
    meta = torch.zeros(3, device="meta")
    assert sharing([(meta,), (meta,)]) == set()


@pytest.mark.parametrize("name", TWINS)
def test_parameters_in_the_same_memory_step_one_after_the_other_as_in_torch(name: str):
    twin, grads = TWINS[name], [parameter(40, seed=seed).detach() for seed in (1, 2, 3)]
    apart = Apart()
    for cls in (twin.theirs, twin.ours):
        whole = parameter(40, seed=4).detach()
        params = [torch.nn.Parameter(whole), torch.nn.Parameter(whole), torch.nn.Parameter(whole[10:30])]
        opt = cls([*params, alone := parameter(3)], **twin.values)
        opt.step()  # of the one that has a gradient, so that what all were before is looked at too
        for _ in range(2):
            if cls is twin.theirs:
                apart.keep(opt)
            for each, g in zip(params, grads, strict=True):
                each.grad = g[: each.numel()].clone()
            alone.grad = torch.ones(3, dtype=torch.float64)
            opt.step()
        if cls is twin.theirs:
            apart.keep(opt)
        else:
            apart.check(opt, torch.float64)
            assert paths(opt) == (1, 3)


def test_parameters_that_divide_one_memory_keep_to_the_fused_loop():
    whole = parameter(10).detach()
    params = [torch.nn.Parameter(whole[:4]), torch.nn.Parameter(whole[4:])]
    for each in params:
        each.grad = torch.ones_like(each)
    opt = ours.Adadelta(params)
    checked_step(opt)
    assert paths(opt) == (2, 0)


def test_parameters_may_come_to_share_memory():
    first, second = parameter(5), parameter(5, seed=1)
    opt = ours.SGD([first, second], lr=0.5)
    checked_step(opt)
    second.data = first.data
    expected = first.detach() - 0.5 * first.grad - 0.5 * second.grad
    opt.step()
    assert paths(opt) == (0, 2)
    torch.testing.assert_close(first.detach(), expected, rtol=1e-15, atol=1e-15)


def test_a_weight_that_two_layers_share_is_one_parameter():
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.weight = first.weight
    opt = ours.Adam(torch.nn.ModuleList([first, second]).parameters())
    second(first(torch.ones(3))).sum().backward()
    checked_step(opt)
    assert paths(opt) == (3, 0)


# --- Parameters that stand still ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWINS)
def test_a_net_that_is_frozen_and_thawed_as_in_torch(name: str):
    twin, apart = TWINS[name], Apart()
    for cls in (twin.theirs, twin.ours):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
        inputs = torch.randn(5, 4, dtype=torch.float64)
        opt = cls(net.parameters(), **twin.values)
        for number in range(9):
            frozen = 3 <= number < 6
            for each in net[0].parameters():
                each.requires_grad_(not frozen)
            opt.zero_grad()
            net(inputs).square().sum().backward()
            assert (net[0].weight.grad is None) == frozen
            opt.step()
        if cls is twin.theirs:
            apart.keep(opt)
        else:
            apart.check(opt, torch.float64)


def test_a_frozen_parameter_whose_gradient_is_kept_steps_on_as_in_torch():
    each = parameter(3)
    opt = ours.Adadelta([each])
    checked_step(opt)
    before = each.detach().clone()
    each.requires_grad_(False)
    checked_step(opt)
    assert not torch.equal(each, before)
    assert not each.requires_grad


# --- Gradients of another kind -----------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this PyTorch gives a gradient its parameter's type"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_gradient_of_another_type_is_read_as_what_it_is(dtype: torch.dtype):
    for other in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        each = parameter(3, dtype=dtype)
        g = each.grad
        each.grad = None
        each.grad_dtype = None
        each.grad = g.to(other)
        opt = ours.Adadelta([each])
        for _ in range(2):
            checked_step(opt)
        assert each.dtype is dtype
        assert opt.state[each]["square_avg"].dtype is dtype


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this PyTorch gives a gradient its parameter's type"
)
@pytest.mark.parametrize(("own", "other"), [(torch.float64, torch.complex128), (torch.complex128, torch.float64)])
def test_a_complex_gradient_of_a_real_parameter_and_the_other_way_round(own: torch.dtype, other: torch.dtype):
    each = parameter(3, dtype=own, grad=False)
    each.grad_dtype = None
    each.grad = torch.ones(3, dtype=other)
    with pytest.raises(TypeError, match=f"of shape .3,. and {own} is {other}; allowed is the parameter's kind"):
        ours.SGD([each], lr=0.5).step()


def test_a_gradient_on_another_device():
    # PyTorch itself keeps the two together; what wraps tensors may not.
    class Elsewhere(torch.Tensor):
        @property
        def grad(self) -> torch.Tensor:
            return torch.ones(3, device="meta")

    each = torch.ones(3).as_subclass(Elsewhere)
    with pytest.raises(ValueError, match=r"of shape \(3,\) on cpu is on meta; allowed is the parameter's device"):
        ours.SGD([each], lr=0.5).step()


# --- Without memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWINS)
def test_a_net_on_meta_steps_and_its_state_takes_real_memory_later(name: str):
    net = torch.nn.Linear(3, 2, device="meta")
    opt = TWINS[name].ours(net.parameters(), **TWINS[name].values)
    for _ in range(2):
        net(torch.ones(5, 3, device="meta")).sum().backward()
        opt.step()
    real = torch.nn.Linear(3, 2)
    again = TWINS[name].ours(real.parameters(), **TWINS[name].values)
    kept = copy.deepcopy(opt.state_dict())
    for state in kept["state"].values():
        state.update({slot: torch.ones(value.shape) for slot, value in state.items() if slot != "step"})
    again.load_state_dict(kept)
    real(torch.ones(5, 3)).sum().backward()
    checked_step(again)


def test_nets_with_empty_layers_step():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is nothing to initialize
        net = torch.nn.Sequential(torch.nn.Linear(3, 0), torch.nn.Linear(0, 2))
    opt = ours.Adam(net.parameters())
    for _ in range(2):
        opt.zero_grad()
        net(torch.ones(4, 3)).sum().backward()
        checked_step(opt)
    assert paths(opt) == (4, 0)
