"""The classes: how they are made, what they accept, and what a training loop may do between two steps."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance import users_rules
from tests.requirements import require_release
from tests.torch.checks import checked_step, parameter, paths
from torch.optim.optimizer import register_optimizer_step_pre_hook

import torch
from steprule import Decay, NonNegative, Real, rule, rules
from steprule import torch as ours
from steprule.notation import where
from steprule.torch import RuleOptimizer, optimizer, plan

CLASSES = {name: getattr(ours, name) for name in ours.__all__ if hasattr(getattr(ours, name), "rule")}
CLASSES |= {"Yogi": optimizer(users_rules.yogi), "Lion": optimizer(users_rules.lion)}
NEEDED = {
    "SGD": {"lr": 0.1},
    "Momentum": {"lr": 0.1},
    "Nesterov": {"lr": 0.1},
    "DeltaBarDelta": {"initial_rate": 0.1, "kappa": 0.01, "phi": 0.1},
    "DiagonalNewton": {"mu": 0.1},
    # Else they stand still at first.
    "VSGD": {"slow_start": 0},
    "VSGDfd": {"slow_start": 0},
}


def made(name: str, params: Any, **values: Any) -> RuleOptimizer:
    return CLASSES[name](params, **NEEDED.get(name, {}) | values)


@pytest.fixture(params=CLASSES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


# --- The classes -----------------------------------------------------------------------------------------------------

# Where torch has the class, its arguments in its order; then, by name, what only we have.
# What only our classes have stands last.
_STORING = "state_dtype=None, master_copies=False, seed=0, on_nonfinite='propagate', sparse='exact'"
_OPTIONS = (
    "decoupled_weight_decay=False, maximize=False, foreach=None, fused=None, capturable=False, differentiable=False, "
    + _STORING
)
_OURS = f"weight_decay=0.0, *, lr_decay=0.0, {_OPTIONS})"
_ADAM = "(params, lr=0.001, betas=(0.9, 0.999), eps=1e-08, "
SIGNATURES = {
    "SGD": (
        "(params, lr=0.001, momentum=0, dampening=0, weight_decay=0.0, nesterov=False, *, maximize=False, foreach=None, "
        "differentiable=False, fused=None, lr_decay=0.0, decoupled_weight_decay=False, capturable=False)"
    ),
    "Momentum": f"(params, lr, rho=0.9, {_OURS}",
    "Nesterov": f"(params, lr, rho=0.9, {_OURS}",
    "Adagrad": (
        "(params, lr=0.01, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0, eps=1e-07, foreach=None, *, "
        "maximize=False, differentiable=False, fused=None, decoupled_weight_decay=False, capturable=False)"
    ),
    "RMSProp": f"(params, lr=0.001, rho=0.9, eps=1e-06, {_OURS}",
    "RMSPropNesterov": f"(params, lr=0.001, rho=0.9, alpha=0.9, eps=1e-06, {_OURS}",
    "Adadelta": (
        "(params, lr=1.0, rho=0.95, eps=1e-06, weight_decay=0.0, foreach=None, *, capturable=False, maximize=False, "
        "differentiable=False, lr_decay=0.0, decoupled_weight_decay=False, fused=None)"
    ),
    "Adam": (
        f"{_ADAM}weight_decay=0.0, amsgrad=False, *, foreach=None, maximize=False, capturable=False, "
        "differentiable=False, fused=None, decoupled_weight_decay=False, lr_decay=0.0)"
    ),
    "AdamW": (
        f"{_ADAM}weight_decay=0.01, amsgrad=False, *, maximize=False, foreach=None, capturable=False, "
        "differentiable=False, fused=None, lr_decay=0.0, decoupled_weight_decay=True)"
    ),
    "DeltaBarDelta": (
        f"(params, lr=1.0, theta=0.7, weight_decay=0.0, *, initial_rate, kappa, phi, lr_decay=0.0, {_OPTIONS})"
    ),
    "DiagonalNewton": "(params, lr=1.0, weight_decay=0.0, *, mu, lr_decay=0.0, " + f"{_OPTIONS})",
    "VSGD": f"(params, lr=1.0, batch_size=1.0, slow_start=60.0, overestimate=1.0, {_OURS}",
    "VSGDfd": f"(params, lr=1.0, batch_size=1.0, slow_start=60.0, overestimate=1.0, outlier=2.0, {_OURS}",
    "Yogi": f"(params, lr=0.01, betas=(0.9, 0.999), eps=0.001, {_OURS}",
    "Lion": f"(params, lr=0.0001, betas=(0.9, 0.99), {_OURS}",
}


def test_signature(name: str):
    if name == "Adam":
        require_release("torch", "2.7", "Adam has no decoupled_weight_decay, which stands elsewhere in ours then,")
    expected = (
        SIGNATURES[name] if _STORING in SIGNATURES[name] else SIGNATURES[name].removesuffix(")") + f", {_STORING})"
    )
    assert str(inspect.signature(CLASSES[name])) == expected


def test_a_class_is_an_optimizer_of_torch(name: str):
    assert issubclass(CLASSES[name], torch.optim.Optimizer)
    assert CLASSES[name].__name__ == name
    assert CLASSES[name].__module__ == "steprule.torch"


def test_the_docstring_has_the_rules_words_its_source_and_every_value(name: str):
    each = CLASSES[name]
    assert each.__doc__.startswith(each.rule.__doc__.splitlines()[0])
    assert each.rule.source in each.__doc__
    for value in list(inspect.signature(each).parameters)[1:]:
        assert f"- `{value}`: " in each.__doc__
    if name in ("Momentum", "Nesterov"):
        assert "- `lr`: in [0, inf), required\n" in each.__doc__


def test_values_may_be_positional():
    group = ours.Adadelta([parameter(2)], 0.5, 0.9, 1e-5, 0.1).param_groups[0]
    assert [group[key] for key in ("lr", "rho", "eps", "weight_decay")] == [0.5, 0.9, 1e-5, 0.1]
    assert ours.SGD([parameter(2)], 0.5).param_groups[0]["lr"] == 0.5
    with pytest.raises(TypeError, match="too many positional arguments"):
        ours.SGD([parameter(2)], 0.5, 0, 0, 0.0, False, True)


def test_the_same_rule_gives_the_same_class():
    assert optimizer(users_rules.yogi) is CLASSES["Yogi"]
    assert optimizer(rules.adadelta) is ours.Adadelta
    assert optimizer(rules.adam, name="AdamW", decoupled_weight_decay=True, weight_decay=1e-2) is ours.AdamW
    assert optimizer(rules.adam, lr=0.5) is not ours.Adam
    assert optimizer(rules.adam, lr=0.5)([parameter(2)]).param_groups[0]["lr"] == 0.5


def test_a_default_may_be_a_mapping_or_a_list():
    low = optimizer(rules.adam, state_dtype={"exp_avg": "int8"}, betas=[0.5, 0.75])
    assert low is optimizer(rules.adam, state_dtype={"exp_avg": "int8"}, betas=[0.5, 0.75])
    assert low is not optimizer(rules.adam, state_dtype={"exp_avg": torch.bfloat16}, betas=[0.5, 0.75])
    each = parameter(2, dtype=torch.float32)
    made = low([each])
    assert type(copy.deepcopy(made)) is type(pickle.loads(pickle.dumps(made))) is low
    made.step()
    assert made.param_groups[0]["betas"] == [0.5, 0.75]
    assert made.state[each]["exp_avg"].dtype is torch.uint8
    assert made.state[each]["exp_avg_sq"].dtype is torch.float32


def test_a_default_that_is_no_hyperparameter_is_refused():
    with pytest.raises(
        TypeError, match=r"^Adam has no hyperparameter 'beta' to give a default; it has: lr, betas, eps"
    ):
        optimizer(rules.adam, beta=0.5)


def test_a_default_out_of_range_is_refused_with_the_first_parameter():
    with pytest.raises(ValueError, match=r"^beta1 is 2\.0; allowed is a number in \[0, 1\)$"):
        optimizer(rules.adam, beta1=2.0)([parameter(2)])


@pytest.mark.parametrize(
    "taken",
    ["params", "closure", "maximize", "decoupled_weight_decay", "param_names", "betas", "foreach", "differentiable"],
)
def test_a_hyperparameter_must_not_be_called_as_an_option_of_every_optimizer_is(taken: str):
    scope: dict[str, Any] = {}
    exec(f"def odd(g, *, {taken}=0.5): return -g", scope)
    with pytest.raises(
        TypeError, match=f"^rule odd has a hyperparameter '{taken}', which has a meaning in every optimizer$"
    ):
        optimizer(rule(scope["odd"]))


def test_a_value_without_default_behind_one_with_default_is_given_by_name():
    @rule
    def late(g, *, kappa: Real):
        return -kappa * g

    assert str(inspect.signature(optimizer(late))).startswith("(params, lr=1.0, weight_decay=0.0, *, kappa, lr_decay")
    checked_step(optimizer(late)([parameter(3)], kappa=0.5))
    with pytest.raises(TypeError, match=r"^late needs kappa, a number in \(-inf, inf\); it has no default$"):
        optimizer(late)([parameter(3)])


def test_two_values_without_default_are_given_by_name():
    @rule
    def later(g, *, theta: Decay = 0.7, kappa: Real, phi: NonNegative):
        return -kappa * g * phi * theta

    checked_step(optimizer(later)([parameter(3)], kappa=0.5, phi=0.25))


def test_the_base_class_has_no_rule():
    with pytest.raises(
        TypeError, match=r"^RuleOptimizer has no rule; steprule\.torch\.optimizer\(rule\) makes a class"
    ):
        RuleOptimizer([parameter(2)])


def test_a_subclass_may_have_a_constructor_and_a_step_of_its_own():
    class Warm(ours.Adadelta):
        def __init__(self, params: Any, warm: int) -> None:
            super().__init__(params, rho=0.5)
            self.left = warm

        def step(self, closure: Any = None) -> Any:
            self.left -= 1
            return super().step(closure)

    opt = Warm([parameter(3)], 5)
    checked_step(opt)
    assert opt.left == 4
    assert opt.param_groups[0]["rho"] == 0.5


# --- Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.1, 1, -0.1, math.nan, math.inf])
def test_a_value_out_of_range_is_refused_at_once(value: float):
    message = rf"^rho is {float(value)}; allowed is a number in \[0, 1\)$"
    with pytest.raises(ValueError, match=message):
        ours.Adadelta([parameter(2)], rho=value)
    with pytest.raises(ValueError, match=message):
        ours.Adadelta([{"params": [parameter(2)], "rho": value}])
    opt = ours.Adadelta([parameter(2)])
    with pytest.raises(ValueError, match=message):
        opt.add_param_group({"params": [parameter(2)], "rho": value})
    assert len(opt.param_groups) == 1


def test_what_is_around_a_rule_is_checked_too(name: str):
    for key in ("lr", "weight_decay"):
        with pytest.raises(ValueError, match=rf"^{key} is -1\.0; allowed is a number in \[0, inf\)$"):
            made(name, [parameter(2)], **{key: -1.0})


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5]])
def test_a_value_that_is_no_number_is_refused(value: object):
    with pytest.raises(TypeError, match=r"^(rho is .*|adadelta needs rho), a .*number in \[0, 1\)"):
        ours.Adadelta([parameter(2)], rho=value)


def test_an_unknown_value_is_named():
    with pytest.raises(TypeError, match="momentum"):
        ours.Adadelta([parameter(2)], momentum=0.9)


@pytest.mark.parametrize("each", ["Momentum", "Nesterov"])
def test_a_missing_rate_is_named_and_may_come_with_the_group(each: str):
    message = rf"^{each.lower()} needs lr, a number in \[0, inf\); it has no default$"
    with pytest.raises(TypeError, match=message):
        CLASSES[each]([parameter(2)])
    with pytest.raises(TypeError, match=message):
        CLASSES[each]([{"params": [parameter(2)], "lr": 0.5}, {"params": [parameter(2)]}])
    checked_step(CLASSES[each]([{"params": [parameter(2)], "lr": 0.5}, {"params": [parameter(2)], "lr": 0.25}]))


@pytest.mark.parametrize("value", [1.1, math.nan, "0.3", (0.3,), np.ones(2), torch.ones(2)], ids=repr)
def test_a_value_that_is_spoiled_afterwards_stops_the_next_step_before_anything_moves(value: object):
    params = [parameter(3), parameter(2)]
    opt = ours.Adadelta([{"params": params[:1]}, {"params": params[1:], "rho": 0.5}])
    checked_step(opt)
    before = [each.detach().clone() for each in params]
    opt.param_groups[0]["lr"] = 0.25
    opt.param_groups[1]["rho"] = value
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match=r"^rho is .*allowed is a number in \[0, 1\)$"):
            opt.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert [int(opt.state[each]["step"]) for each in params] == [1, 1]
    opt.param_groups[1]["rho"] = 0.75
    checked_step(opt)


def test_groups_have_their_own_values(name: str):
    groups = [
        {"params": [parameter(3), parameter(2, 2)]},
        {"params": [parameter(5)], "lr": 0.5, "weight_decay": 0.25},
        {"params": [parameter(4)], "maximize": True, "weight_decay": 0.5, "decoupled_weight_decay": True},
    ]
    opt = made(name, groups)
    for _ in range(3):
        checked_step(opt)
    assert [group["lr"] for group in opt.param_groups][1] == 0.5


def test_a_group_may_be_added_between_steps(name: str):
    opt = made(name, [parameter(3)])
    checked_step(opt)
    opt.add_param_group({"params": parameter(4), "lr": 0.5})
    checked_step(opt)
    assert opt.param_groups[1]["weight_decay"] == opt.defaults["weight_decay"]
    if opt.rule.slots:
        assert [int(opt.state[each]["step"]) for group in opt.param_groups for each in group["params"]] == [2, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.5},
        {"weight_decay": 0.3},
        {"weight_decay": 0.3, "decoupled_weight_decay": True},
        {"maximize": True},
        {"maximize": 1, "lr": 2},
        {"lr": torch.tensor(0.25, dtype=torch.float64)},
        {"initial_lr": "a scheduler's own"},
    ],
    ids=str,
)
def test_a_changed_value_counts_from_the_next_step_on(name: str, change: dict[str, Any]):
    opt = made(name, [{"params": [parameter(3)]}, {"params": [parameter(4, dtype=torch.float32)]}])
    checked_step(opt)
    opt.param_groups[0].update(change)
    checked_step(opt)
    opt.param_groups[1].update(change)
    checked_step(opt)
    opt.param_groups[0].update({"lr": 0.125, "weight_decay": 0.0, "maximize": False})
    checked_step(opt)


_ANY_CHANGE = st.one_of(
    st.tuples(
        st.just("lr"),
        st.sampled_from([0.5, 0.25, 1, np.float64(0.25), np.float32(0.5), torch.tensor(0.5, dtype=torch.float64)]),
    ),
    st.tuples(st.just("betas"), st.sampled_from([(0.9, 0.999), (0.5, 0.999), (0, np.float64(0.9)), [0.9, 0.999]])),
    st.tuples(st.just("weight_decay"), st.sampled_from([0.0, 0.3, 0.2])),
    st.tuples(st.just("maximize"), st.booleans()),
    st.tuples(st.just("grad_scale"), st.sampled_from([None, 1.0, 1024.0])),
)


@given(changes=st.lists(_ANY_CHANGE, max_size=8))
@settings(derandomize=True)
def test_values_count_in_whatever_order_and_form_they_change(changes: list[tuple[str, Any]]):
    watching, forgetful = ours.Adam([parameter(3)], lr=0.5), ours.Adam([parameter(3)], lr=0.5)
    for name, value in [("lr", 0.5), *changes]:
        for each in (watching, forgetful):
            each.grad_scale = value if name == "grad_scale" else getattr(each, "grad_scale", None)
            if name != "grad_scale":
                each.param_groups[0][name] = value
        forgetful._plan = None
        watching.step()
        forgetful.step()
        assert torch.equal(watching.param_groups[0]["params"][0], forgetful.param_groups[0]["params"][0])


@pytest.mark.parametrize("option", ["maximize", "decoupled_weight_decay"])
def test_an_option_of_none_is_false_and_hides_no_change(option: str):
    opt = ours.Adadelta([parameter(3)], **{option: None})
    checked_step(opt)
    opt.param_groups[0]["lr"] = 0.5
    checked_step(opt)


def test_a_rate_may_be_a_tensor_that_changes_in_place():
    rate = torch.tensor(0.5, dtype=torch.float64)
    opt = ours.Adam([parameter(3), parameter(4)], lr=rate)
    for value in (0.5, 0.25, 0.0):
        rate.fill_(value)
        checked_step(opt)


def test_betas_in_a_list_may_change_in_place():
    opt = ours.Adam([parameter(3), parameter(4)], betas=[0.9, 0.999])
    for value in (0.9, 0.5, 0.5):
        opt.param_groups[0]["betas"][0] = value
        checked_step(opt)


def test_a_value_that_was_spoiled_is_refused_until_it_is_mended():
    opt = ours.Adadelta([parameter(3)], rho=0.5)
    checked_step(opt)
    for mended in (0.5, 0.7):
        opt.param_groups[0]["rho"] = 1.5
        for _ in range(2):
            with pytest.raises(ValueError, match="rho is 1.5"):
                opt.step()
        opt.param_groups[0]["rho"] = mended
        checked_step(opt)


def test_a_parameter_may_leave_a_group():
    params = [parameter(3), parameter(4)]
    opt = ours.Adadelta(params)
    checked_step(opt)
    kept = params[1].detach().clone()
    opt.param_groups[0]["params"].pop()
    checked_step(opt)
    assert torch.equal(params[1], kept)


def test_a_parameter_may_change_its_group():
    params = [parameter(3), parameter(4), parameter(5)]
    opt = ours.SGD([{"params": params[:2], "lr": 0.5}, {"params": params[2:], "lr": 0.125}])
    checked_step(opt)
    opt.param_groups[1]["params"].insert(0, opt.param_groups[0]["params"].pop())
    checked_step(opt)


# --- Steps -------------------------------------------------------------------------------------------------------------


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(name: str):
    each = parameter(3, grad=False)
    opt = made(name, [each])
    calls = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        opt.zero_grad()
        loss = (each**2).sum()
        loss.backward()
        return loss

    expected = float((each.detach() ** 2).sum())
    with torch.no_grad():
        assert float(opt.step(closure)) == expected
    assert calls == [True]
    assert not torch.equal(each.detach(), parameter(3).detach())
    assert opt.step() is None


def test_a_step_leaves_no_graph_and_no_gradient_mode_behind(name: str):
    each, strided = parameter(3), torch.nn.Parameter(torch.ones(6, dtype=torch.float64)[::2])
    strided.grad = strided.h = strided.g2 = torch.ones(3, dtype=torch.float64)
    grad = each.grad.clone()
    opt = made(name, [each, strided])
    assert torch.is_grad_enabled()
    opt.step()
    assert torch.is_grad_enabled()
    assert paths(opt) == (1, 1)
    for tensor in (each, strided):
        assert tensor.is_leaf
        assert tensor.requires_grad
        assert tensor.grad_fn is None
        assert not any(value.requires_grad for value in opt.state[tensor].values())
    assert torch.equal(each.grad, grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_backward_pass_over_values_that_a_step_has_changed_fails(name: str, dtype: torch.dtype):
    each = parameter(3, dtype=dtype)
    opt = made(name, [each])
    loss = (each * each).sum()
    for _ in range(2):
        opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(name: str, set_to_none: bool):
    each = parameter(3)
    opt = made(name, [each])
    for _ in range(3):
        opt.zero_grad(set_to_none=set_to_none)
        (each**2).sum().backward()
        checked_step(opt)
    opt.zero_grad(set_to_none=set_to_none)
    assert each.grad is None if set_to_none else torch.equal(each.grad, torch.zeros(3, dtype=torch.float64))
    checked_step(opt)


def test_gradients_that_were_set_to_none_free_their_memory():
    each = parameter(3)
    opt = ours.Adadelta([each])
    opt.step()
    grad = weakref.ref(each.grad)
    opt.zero_grad()
    assert grad() is None


def test_hooks_run_around_a_step():
    each = parameter(3)
    opt = ours.Adadelta([each])
    seen = []
    pre = opt.register_step_pre_hook(lambda hooked, *_: seen.append(("pre", hooked is opt, each.detach().clone())))
    post = opt.register_step_post_hook(lambda hooked, *_: seen.append(("post", hooked is opt, each.detach().clone())))
    start = each.detach().clone()
    opt.step()
    assert [what[:2] for what in seen] == [("pre", True), ("post", True)]
    assert torch.equal(seen[0][2], start)
    assert torch.equal(seen[1][2], each)
    pre.remove()
    post.remove()
    opt.step()
    assert len(seen) == 2


def test_a_hook_that_the_closure_registers_runs_in_its_step():
    each = parameter(3)
    opt = ours.Adadelta([each])
    seen: list[Any] = []

    def closure() -> float:
        opt.register_step_post_hook(lambda *_: seen.append(each.detach().clone()))
        return 0.5

    assert opt.step(closure) == 0.5
    assert len(seen) == 1


def test_a_profiler_sees_a_step():
    opt = ours.Adadelta([parameter(3)])
    opt.step()
    with torch.profiler.profile() as profiled:
        opt.step()
    assert [event.name for event in profiled.events()].count("Optimizer.step#Adadelta.step") == 1


def test_hooks_of_all_optimizers_run_too():
    seen = []
    handle = register_optimizer_step_pre_hook(lambda *hooked: seen.append(hooked[0]))
    try:
        opt = optimizer(users_rules.lion)([parameter(3)])
        opt.step()
    finally:
        handle.remove()
    assert seen == [opt]


def test_a_hook_may_take_a_gradient_away():
    each = parameter(3)
    opt = ours.SGD([each], lr=1.0)
    opt.register_step_pre_hook(lambda *_: setattr(each, "grad", None))
    before = each.detach().clone()
    opt.step()
    assert torch.equal(each, before)


def test_parameters_without_gradient_are_skipped(name: str):
    params = [parameter(3), parameter(4, grad=False), parameter(5)]
    opt = made(name, params, weight_decay=0.5)
    for _ in range(2):
        checked_step(opt)
    assert (params[1] in opt.state) == (name == "Adagrad")  # whose state is there from the beginning, as in torch


def test_a_step_without_any_gradient_does_nothing(name: str):
    opt = made(name, [parameter(3, grad=False)], weight_decay=0.5)
    checked_step(opt)
    assert len(opt.state) == (name == "Adagrad")


def test_a_gradient_that_comes_late_counts_from_its_own_first_step(name: str):
    early, late = parameter(3), parameter(3, grad=False)
    late.data.copy_(early.data)
    opt = made(name, [early, late])
    first = early.detach().clone(), early.grad.clone()
    for _ in range(3):
        checked_step(opt)
    moved = early.detach().clone()
    late.grad = early.grad.clone()
    early.grad = None
    for _ in range(3):
        checked_step(opt)
    # What the late one has gone through is what the early one had.
    assert torch.equal(first[0], parameter(3).detach())
    assert torch.equal(late.detach(), moved)
    early.grad = late.grad.clone()
    checked_step(opt)
    assert torch.equal(early.detach(), late.detach())


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("cls", [ours.SGD, ours.Adam])
def test_a_lazy_module_stands_still_until_it_has_run(cls: type[RuleOptimizer]):
    first, lazy = parameter(4), torch.nn.LazyLinear(2, dtype=torch.float64)
    opt = cls([first, *lazy.parameters()])
    for _ in range(2):
        opt.step()
    lazy(first).sum().backward()
    for _ in range(2):
        checked_step(opt)
    assert [int(each["step"]) for each in opt.state.values()] == ([4, 2, 2] if cls is ours.Adam else [])


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_module_that_has_not_run_has_no_state_to_begin_with():
    # Adagrad's is there at once, and PyTorch says what to do, as with its own Adagrad.
    for cls in (torch.optim.Adagrad, ours.Adagrad):
        with pytest.raises(ValueError, match=r"uninitialized parameter .* Call `forward`"):
            cls(torch.nn.LazyLinear(2).parameters())


def test_a_gradient_may_come_and_go():
    params = [parameter(3, seed=seed) for seed in range(3)]
    grads = [each.grad for each in params]
    opt = ours.Adam(params)
    for number in range(8):
        for place, each in enumerate(params):
            each.grad = grads[place].clone() if number >> place & 1 else None
        checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in params] == [4, 4, 4]


@pytest.mark.parametrize("cls", [ours.SGD, ours.Adam])
@pytest.mark.parametrize("begins_with", [0b1111, 0b0001])
def test_nothing_is_planned_anew_where_gradients_come_and_go(
    cls: type[RuleOptimizer], begins_with: int, monkeypatch: pytest.MonkeyPatch
):
    params = [parameter(3, dtype=dtype, seed=seed) for seed, dtype in enumerate([torch.float64, torch.float32] * 2)]
    grads = [each.grad for each in params]
    opt = cls(params, lr=0.1)

    def step(those: int) -> None:
        for place, each in enumerate(params):
            each.grad = grads[place].clone() if those >> place & 1 else None
        versions = [each._version for each in params]
        checked_step(opt)
        assert [each._version > before for each, before in zip(params, versions, strict=True)] == [
            bool(those >> place & 1) for place in range(4)
        ]

    for those in (begins_with, 0b0110, 0b1000):
        step(those)
    monkeypatch.setattr(plan.Plan, "__init__", None)
    for those in (0b0110, 0b0101, 0b1111, 0b1111, 0b0000, 0b0000, 0b1010, 0b1010):
        step(those)


def test_nor_where_a_parameter_steps_through_torchs_operations(monkeypatch: pytest.MonkeyPatch):
    params = [torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64)[:, ::2]) for _ in range(2)]
    grads = [torch.randn(4, 3, dtype=torch.float64) for _ in params]
    opt = ours.Adam(params)
    for those in (0b11, 0b01, 0b01, 0b10, 0b00, 0b11):
        for place, each in enumerate(params):
            each.grad = grads[place].clone() if those >> place & 1 else None
        checked_step(opt)
        assert paths(opt) == (0, those.bit_count())
        monkeypatch.setattr(plan.Plan, "__init__", None)


def test_a_parameter_that_rests_may_be_taken_hold_of():
    params = [parameter(3, seed=seed) for seed in range(2)]
    opt = ours.Adam(params, on_nonfinite="raise")
    for each in params:
        each.grad.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="parameter 0"):
        opt.step()
    params[0].grad = None
    with pytest.raises(FloatingPointError, match="parameter 1"):
        opt.step()
    params[0].data = torch.ones(3, dtype=torch.float64)
    params[1].grad = torch.ones(3, dtype=torch.float64)
    checked_step(opt)
    opt.state[params[0]]["exp_avg"] = torch.full((3,), 2.0, dtype=torch.float64)
    checked_step(opt)
    params[0].grad = torch.ones(3, dtype=torch.float64)
    checked_step(opt)
    params[0].grad = None
    del opt.state[params[0]]
    checked_step(opt)
    assert params[0] not in opt.state


def test_a_parameter_without_gradient_stays_where_another_comes_to_lie_in_its_memory():
    first = parameter(3)
    second = torch.nn.Parameter(first.detach())
    opt = ours.Adam([first, second])
    opt.step()
    first.grad, second.grad = None, torch.ones(3, dtype=torch.float64)
    opt.step()
    assert [int(opt.state[each]["step"]) for each in (first, second)] == [1, 1]
    assert not opt.state[second]["exp_avg"].equal(opt.state[first]["exp_avg"])


def test_what_curvature_feeds_may_be_taken_away():
    params = [parameter(3), parameter(3)]
    opt = ours.VSGD(params, slow_start=0)
    checked_step(opt)
    params[0].grad = params[0].h = params[0].g2 = None
    checked_step(opt)


def test_parameters_may_come_by_name_and_from_a_generator():
    model = torch.nn.Linear(3, 2)
    opt = ours.Adadelta(model.named_parameters())
    model(torch.ones(3)).sum().backward()
    checked_step(opt)
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    checked_step(ours.Adadelta(each for each in model.parameters()))


def test_no_parameters_are_refused_as_torch_does():
    with pytest.raises(ValueError, match="empty parameter list"):
        ours.Adadelta([])


def test_one_tensor_instead_of_a_list_is_refused_as_torch_does():
    with pytest.raises(TypeError, match="params argument given to the optimizer should be an iterable"):
        ours.Adadelta(parameter(3))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (torch.nn.Linear(2, 2), "params is a Linear; allowed are tensors, named or not, or groups of them"),
        (None, "params is a NoneType; allowed are tensors, named or not, or groups of them"),
        ([{"lr": 0.5}], "a parameter group has lr; params is missing"),
    ],
)
def test_what_is_neither_parameters_nor_groups_is_refused(params: Any, message: str):
    for cls in (ours.Adadelta, ours.VSGD):  # the latter looks at its parameters first
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            cls(params)


@pytest.mark.parametrize("each", ["adadelta", rules.adadelta.__wrapped__])
def test_only_a_rule_makes_a_class(each: Any):
    with pytest.raises(TypeError, match=f"^rule is {re.escape(repr(each))}; allowed is a rule, such as"):
        optimizer(each)


def test_two_optimizers_may_share_parameters():
    each = parameter(3)
    first, second = ours.SGD([each], lr=0.5), ours.Adadelta([each])
    for _ in range(3):
        checked_step(first)
        checked_step(second)


# --- What is refused -----------------------------------------------------------------------------------------------------


def _refused(each: torch.nn.Parameter) -> str:
    before = each.detach().clone()
    opt = ours.SGD([each], lr=0.5)
    with pytest.raises(TypeError) as caught:
        opt.step()
    assert torch.equal(each.detach(), before)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_integers_are_refused():
    each = torch.nn.Parameter(torch.ones(2, dtype=torch.int32), requires_grad=False)
    each.grad = torch.ones(2, dtype=torch.int32)
    assert _refused(each) == "a parameter of shape (2,) is torch.int32; allowed are floating-point and complex types"


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_parameters_of_other_layouts_are_refused(layout: torch.layout):
    each = torch.nn.Parameter(torch.eye(3).to_sparse(layout=layout))
    each.grad = torch.eye(3).to_sparse(layout=layout)
    with pytest.raises(TypeError) as caught:
        ours.SGD([each], lr=0.5).step()
    assert str(caught.value) == f"a parameter of shape (3, 3) has the layout {layout}; allowed is torch.strided"


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (2, 6), (600, 1)])
def test_a_gradient_of_before_the_parameter_changed_its_shape_is_refused(shape: tuple[int, ...]):
    first, second = parameter(2), parameter(*shape)
    opt = ours.SGD([first, second], lr=0.1)
    second.data = torch.ones(4, 3, dtype=torch.float64)
    before = first.detach().clone()
    with pytest.raises(ValueError, match=r"of shape \(4, 3\) has the shape \(.*\), as of before .*; allowed is"):
        opt.step()
    assert torch.equal(first, before)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_rule_that_writes_to_its_operands_is_refused_before_it_does(gaps: bool):
    @rule
    def writes(g, last=0.0):
        last += g
        g *= 0.5
        return -g, last

    # With gaps between its elements a parameter is stepped by torch's operations, on the tensors themselves.
    each = torch.nn.Parameter(torch.ones(8)[::2] if gaps else torch.ones(4))
    each.grad = torch.full_like(each, 2.0)
    with pytest.raises(TypeError, match="in place"):
        ours.optimizer(writes)([each]).step()
    assert each.tolist() == [1.0] * 4
    assert each.grad.tolist() == [2.0] * 4


# --- Rules of every kind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "base"), [("fused", 7), ("rows", 7), ("plain", 2), ("plain rows", 2)])
def test_a_power_of_the_step_count_may_be_a_long_integer(kind: str, base: int):
    @rule
    def fades(g, x, t, count=0.0):
        return where(x < base**t, -g / base**t, g), count + 1

    ones = torch.ones(4, 2, dtype=torch.float64)
    each = torch.nn.Parameter(ones.repeat(1, 2)[:, ::2] if "plain" in kind else ones.clone())
    opt = ours.optimizer(fades)([{"params": [each], "sparse": "lazy"}])
    each.grad = torch.ones_like(each)
    opt.step()
    # 2**400 is beyond 64 bits, 7**400 beyond float64 too.
    opt.state[each]["step"].fill_(399)
    opt.load_state_dict(opt.state_dict())
    if "rows" in kind:
        each.grad = torch.sparse_coo_tensor(torch.arange(4)[None], ones, (4, 2), check_invariants=True)
    opt.step()
    assert torch.equal(each, ones - 1 / base)


def test_a_rule_that_only_counts_steps():
    @rule
    def annealed(g, t, *, lr: NonNegative = 0.5):
        return -lr / t * g

    first, second = parameter(3), parameter(4, dtype=torch.bfloat16)
    opt = optimizer(annealed)([first, second])
    for _ in range(4):
        checked_step(opt)
    assert set(opt.state[first]) == {"step"}


def test_a_rule_that_reads_the_parameter_and_no_gradient():
    @rule
    def shrink(g, x, *, lr: NonNegative = 0.5):
        return -lr * x

    opt = optimizer(shrink)([parameter(3), parameter(4, dtype=torch.float16)])
    for _ in range(2):
        checked_step(opt)


def test_a_rule_with_a_decay_of_its_own():
    @rule
    def pull(g, x, *, lr: NonNegative = 0.25, weight_decay: Real = -0.5):
        return -lr * (g + weight_decay * x)

    opt = optimizer(pull)([parameter(3), parameter(3, dtype=torch.bfloat16)])
    assert str(inspect.signature(type(opt))) == (f"(params, lr=0.25, weight_decay=-0.5, *, lr_decay=0.0, {_OPTIONS})")
    for _ in range(2):
        checked_step(opt)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_rule_that_writes_a_slot_without_reading_it(dtype: torch.dtype):
    @rule
    def remembers(g, last=0.0):
        return -g, g

    opt = optimizer(remembers)([parameter(3, dtype=dtype)])
    for _ in range(2):
        checked_step(opt)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_rule_may_return_numbers(dtype: torch.dtype):
    @rule
    def ticks(g, seen=0.0, *, lr: NonNegative = 0.25):
        return -lr, 3.0

    opt = optimizer(ticks)([parameter(3, dtype=dtype), parameter(2, 2, dtype=dtype)])
    for _ in range(2):
        checked_step(opt)


def test_a_rule_that_needs_no_scalar():
    @rule
    def bare(g, *, lr: NonNegative = 0.25):
        return -g

    checked_step(optimizer(bare)([parameter(3), parameter(2, dtype=torch.float32)]))


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_a_slot_may_have_the_name_of_what_is_around(name: str):
    scope: dict[str, Any] = {}
    exec(f"def own(g, {name}=0.5): return -{name} * g, {name} * 0.5 + g", scope)
    opt = optimizer(rule(scope["own"]))([parameter(3), parameter(3, dtype=torch.bfloat16)], lr=0.25, weight_decay=0.125)
    for _ in range(2):
        checked_step(opt)


def test_a_rule_of_many_words_is_called_in_camel_case():
    @rule
    def very_own_rule2(g):
        return -g

    assert optimizer(very_own_rule2).__name__ == "VeryOwnRule2"
    assert optimizer(very_own_rule2, name="Mine").__name__ == "Mine"


def test_slots_may_be_in_shared_memory():
    opt, alone = (ours.Adagrad([parameter(3), parameter(4, seed=1)], lr=0.5) for _ in range(2))
    theirs = torch.optim.Adagrad([parameter(3), parameter(4, seed=1)], lr=0.5)
    for each in (opt, theirs):
        each.share_memory()
        assert all(state["sum"].is_shared() for state in each.state.values())
    for each in (opt, alone):
        checked_step(each)
        checked_step(each)
    for mine, other in zip(opt.param_groups[0]["params"], alone.param_groups[0]["params"], strict=True):
        assert torch.equal(mine, other) and torch.equal(opt.state[mine]["sum"], alone.state[other]["sum"])
        assert opt.state[mine]["sum"].is_shared()
