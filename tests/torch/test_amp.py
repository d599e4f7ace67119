"""Gradients that are scaled, and gradients that are no numbers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.cases import RULES, hyper
from tests.torch.checks import checked_step, parameter, paths

import torch
from steprule import rules
from steprule import torch as ours
from steprule.torch import optimizer

SHAPES = ((17, 5), (3,), (128, 200))


def params(gaps: bool, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Return parameters that step in the fused loop or, where `gaps`, through torch's operations."""
    made = [parameter(*shape[:-1], shape[-1] * (2 if gaps else 1), dtype=dtype) for shape in SHAPES]
    for each in made if gaps else ():
        each.data, each.grad = each.data[..., ::2], None
        each.h, each.g2 = each.h[..., ::2], each.g2[..., ::2]
    return made


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def state_of(made: torch.optim.Optimizer) -> list[torch.Tensor]:
    mine = [each for group in made.param_groups for each in group["params"]]
    return [*mine, *(value for each in mine for value in made.state[each].values())]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("name", RULES)
def test_a_scaled_loss_steps_as_one_that_is_not(name: str, gaps: bool):
    mine, twin = params(gaps), params(gaps)
    opt, unscaled = (optimizer(RULES[name])(each, **hyper(name)) for each in (mine, twin))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(6):
        scale = scaler.get_scale()  # a power of two, and it grows
        for a, b, g in zip(mine, twin, gradients(step), strict=True):
            a.grad, b.grad = scale * g, g.clone()
        scaler.scale(torch.zeros(()))
        scaler.step(opt)
        scaler.update()
        unscaled.step()
    assert scaler.get_scale() > 2.0**10
    assert paths(opt) == ((0, 3) if gaps else (3, 0))
    assert equal(state_of(opt), state_of(unscaled))


def test_a_step_with_an_infinite_gradient_is_left_out_and_does_not_count():
    mine = params(gaps=False)
    opt = ours.Adadelta(mine)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    checked_step_of(mine, opt, scaler, 0)
    before = [each.clone() for each in state_of(opt)]
    for each in mine:
        each.grad = torch.full_like(each, torch.inf)
    scaler.scale(torch.zeros(()))
    assert scaler.step(opt) is None
    scaler.update()
    assert scaler.get_scale() == 2.0
    assert equal(state_of(opt), before)
    checked_step_of(mine, opt, scaler, 1)
    assert float(opt.state[mine[0]]["step"]) == 2


def checked_step_of(mine: list[torch.nn.Parameter], opt: Any, scaler: torch.amp.GradScaler, step: int) -> None:
    for each, g in zip(mine, gradients(step), strict=True):
        each.grad = scaler.get_scale() * g
    scaler.scale(torch.zeros(()))
    scaler.step(opt)
    scaler.update()


def test_unscaling_by_hand_is_not_done_twice():
    mine, twin = params(gaps=False), params(gaps=False)
    opt, other = ours.Adam(mine), ours.Adam(twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for a, b, g in zip(mine, twin, gradients(0), strict=True):
        a.grad, b.grad = 8.0 * g, g.clone()
    scaler.scale(torch.zeros(()))
    scaler.unscale_(opt)
    torch.nn.utils.clip_grad_norm_(mine, 1.0)
    torch.nn.utils.clip_grad_norm_(twin, 1.0)
    scaler.step(opt)
    other.step()
    assert equal(state_of(opt), state_of(other))


def test_the_scale_is_gone_after_the_step():
    mine = params(gaps=False)
    opt = ours.Adadelta(mine)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(2):
        checked_step_of(mine, opt, scaler, step)
        for each, g in zip(mine, gradients(5), strict=True):
            each.grad = g
        checked_step(opt)  # by the gradients as they are


# --- on_nonfinite ------------------------------------------------------------------------------------------------------


def spoiled(mine: list[torch.nn.Parameter], step: int, bad: float) -> list[torch.Tensor]:
    """Set gradients with some elements of the last that are `bad`; return where those are not."""
    for each, g in zip(mine, gradients(step), strict=True):
        each.grad = g
    last = mine[-1].grad
    assert last is not None
    last[3, ::7] = bad
    return [each.grad.isfinite() for each in mine if each.grad is not None]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("name", RULES)
def test_skip_leaves_what_has_no_number_and_steps_the_rest(name: str, gaps: bool, bad: float):
    mine, twin = params(gaps), params(gaps)
    opt = optimizer(RULES[name])(mine, on_nonfinite="skip", **hyper(name))
    other = optimizer(RULES[name])(twin, **hyper(name))
    for a, b, g in zip(mine, twin, gradients(0), strict=True):
        a.grad, b.grad = g.clone(), g.clone()
    opt.step()
    other.step()
    before = [each.clone() for each in state_of(opt)]
    assert equal(before, state_of(other))
    finite = spoiled(mine, 1, bad)
    for each, g in zip(twin, gradients(1), strict=True):
        each.grad = g
    opt.step()
    other.step()
    where = {mine[place].shape: finite[place] for place in range(3)}
    for found, old, stepped in zip(state_of(opt), before, state_of(other), strict=True):
        if found.dim() == 0:
            assert float(found) == 2
            continue
        assert torch.equal(found, torch.where(where[found.shape], stepped, old))


@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
def test_raise_names_the_parameter(gaps: bool):
    mine = params(gaps)
    opt = ours.Adadelta(mine, on_nonfinite="raise")
    spoiled(mine, 0, torch.nan)
    with pytest.raises(FloatingPointError, match=r"parameter 2, of shape \(128, 200\), is infinite or NaN"):
        opt.step()
    assert all(each.isfinite().all() for each in state_of(opt))
    for each, g in zip(mine, gradients(1), strict=True):
        each.grad = g
    opt.step()  # and once it is mended, training goes on


def test_raise_names_a_named_parameter():
    mine = params(gaps=False)
    opt = ours.Adam([(f"layers.{place}.weight", each) for place, each in enumerate(mine)], on_nonfinite="raise")
    spoiled(mine, 0, torch.inf)
    with pytest.raises(FloatingPointError, match=r"the gradient of layers\.2\.weight is infinite or NaN"):
        opt.step()


def test_propagate_is_the_default_and_does_as_torch_does():
    mine, twin = params(gaps=False), params(gaps=False)
    opt, other = ours.Adadelta(mine, rho=0.9), torch.optim.Adadelta(twin, rho=0.9)
    spoiled(mine, 0, torch.nan)
    spoiled(twin, 0, torch.nan)
    opt.step()
    other.step()
    for a, b in zip(mine, twin, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
    assert mine[2].isnan().sum() == 29


def test_groups_may_differ():
    mine = params(gaps=False)
    opt = ours.SGD([{"params": mine[:2]}, {"params": mine[2:], "on_nonfinite": "skip"}], lr=0.1)
    spoiled(mine, 0, torch.nan)
    mine[0].grad[0, 0] = torch.nan  # type: ignore[index]
    opt.step()
    assert mine[0].isnan().sum() == 1
    assert not mine[2].isnan().any()


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="on_nonfinite is 'ignore'; allowed is 'propagate', 'skip' or 'raise'"):
        ours.Adadelta(params(gaps=False), on_nonfinite="ignore")


def test_a_guard_costs_no_memory():
    from steprule.around import Around
    from steprule.program import lower

    assert lower(rules.adadelta, Around(guard=True, unscale=True)).bytes_per_element(4) == 28
