"""Complex parameters step as pairs of real numbers, in the fused loop too, as those of `torch.optim` do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.conformance.cases import FORMS, OF_THE_GRADIENT, RULES, hyper
from tests.torch.checks import checked_step, parameter, paths
from tests.torch.twins import TWINS, Apart, gradients, start, train

import torch
from steprule import torch as ours
from steprule.torch import optimizer

DTYPES = [torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWINS)
def test_the_steps_are_those_of_torch(name: str, dtype: torch.dtype):
    twin, grads = TWINS[name], gradients(dtype, 12)
    mine, theirs = (cls(start(dtype), **twin.values) for cls in (twin.ours, twin.theirs))
    apart = Apart()
    train(theirs, grads, lambda: apart.keep(theirs))
    train(mine, grads, lambda: None)
    apart.check(mine, dtype)
    assert paths(mine) == (4, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_every_rule_in_the_fused_loop_and_in_torchs_operations(name: str, dtype: torch.dtype):
    for form in FORMS.values():
        dense = parameter(3, 4, dtype=dtype)
        gaps = torch.nn.Parameter(parameter(3, 8, dtype=dtype).detach()[:, ::2])
        gaps.grad = dense.grad.clone()
        values = {**hyper(name), **form.values}
        opt = optimizer(RULES[name])(
            [dense, gaps], **values, decoupled_weight_decay=form.decoupled, maximize=form.maximize
        )
        for _ in range(2):
            checked_step(opt)
        assert paths(opt) == (1, 1)
        assert all(opt.state[each][slot].dtype is dtype for each in (dense, gaps) for slot in opt.rule.slots)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slot_starts_alike_in_both_numbers_of_a_pair(dtype: torch.dtype):
    each = parameter(3, dtype=dtype)
    opt = optimizer(RULES["yogi"])([each])
    each.grad.zero_()
    checked_step(opt)
    expected = torch.full((3, 2), 1e-6, dtype=dtype.to_real())
    assert torch.equal(torch.view_as_real(opt.state[each]["exp_avg_sq"]), expected)


LAZY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "conjugate": lambda g: g.conj(),
    "conjugate of a transpose": lambda g: g.t().conj(),
    "negative": torch._neg_view,
    "both": lambda g: torch._neg_view(g.conj()),
}


@pytest.mark.parametrize("kind", LAZY)
def test_a_gradient_may_be_conjugate_when_it_is_read(kind: str):
    each = parameter(3, 3, dtype=torch.complex128)
    g, opt = each.grad, ours.Adadelta([each])
    for _ in range(2):
        each.grad = g
        checked_step(opt)
        assert paths(opt) == (1, 0)
        each.grad = LAZY[kind](g)
        checked_step(opt)
        assert paths(opt) == (0, 1)


def test_a_parameter_may_be_conjugate_when_it_is_read():
    stored = parameter(3, dtype=torch.complex128).detach()
    each = torch.nn.Parameter(stored.conj())
    each.grad = parameter(3, dtype=torch.complex128, seed=1).detach()
    opt = ours.Adam([each])
    for _ in range(2):
        checked_step(opt)
    assert torch.equal(stored, each.detach().conj())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
def test_half_of_a_complex_number_is_stepped_in_float32():
    whole = parameter(3, dtype=torch.complex64)
    each = torch.nn.Parameter(whole.detach().to(torch.complex32))
    each.grad = whole.grad.to(torch.complex32)
    opt = ours.SGD([each], lr=0.5)
    expected = torch.view_as_real(each.detach()).float() - 0.5 * torch.view_as_real(each.grad).float()
    opt.step()
    assert torch.equal(torch.view_as_real(each.detach()), expected.half())


def test_a_net_of_complex_numbers_learns():
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 2, dtype=torch.complex64)
    inputs = torch.randn(50, 4, dtype=torch.complex64)
    target = torch.nn.Linear(4, 2, dtype=torch.complex64)(inputs).detach()
    opt = ours.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        opt.zero_grad()
        loss = (net(inputs) - target).abs().square().mean()
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0]
