"""A call that is valid for a class of `torch.optim` is valid for ours, with torch's meaning, or refused in a sentence."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from tests.conformance import users_rules
from tests.requirements import require_release
from tests.torch.checks import checked_step, parameter, paths
from tests.torch.twins import TWINS, Apart, gradients, start, train
from torch.optim import lr_scheduler

import torch
from steprule import Decay, rule
from steprule import torch as ours
from steprule.torch import optimizer

# Beside the values of the table, what changes no step.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"foreach": True},
    {"foreach": False},
    {"fused": True},
    {"capturable": False},
    {"differentiable": False},
    {"maximize": True},
    {"maximize": True, "foreach": True},
    {"lr": torch.tensor(0.125, dtype=torch.float64)},
    {"lr": torch.tensor([0.125], dtype=torch.float64)},
    {"weight_decay": 0},
]


def _takes(cls: Any, options: dict[str, Any]) -> bool:
    return set(options) <= set(inspect.signature(cls).parameters)


CALLS = [
    pytest.param(name, options, id=f"{name}-{options}")
    for name, twin in TWINS.items()
    for options in OPTIONS
    if _takes(twin.theirs, options) and not (options.get("foreach") and isinstance(options.get("lr"), torch.Tensor))
]


@pytest.mark.parametrize(("name", "options"), CALLS)
def test_a_call_makes_the_steps_that_torch_makes(name: str, options: dict[str, Any]):
    if isinstance(options.get("lr"), torch.Tensor) and options["lr"].ndim:
        require_release("torch", "2.8", "its optimizers take no rate with a dimension")
    twin, grads = TWINS[name], gradients(torch.float64, 12)
    mine = twin.ours(start(torch.float64), **{**twin.values, **options})
    theirs = twin.theirs(start(torch.float64), **{**twin.values, **options})
    apart = Apart()
    train(theirs, grads, lambda: apart.keep(theirs))
    train(mine, grads, lambda: None)
    apart.check(mine, torch.float64)


@pytest.mark.parametrize("name", TWINS)
def test_every_argument_may_stand_in_torchs_place(name: str):
    twin = TWINS[name]
    parameters = list(inspect.signature(twin.theirs).parameters.values())[1:]
    positional = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    values = [twin.values.get(each.name, each.default) for each in positional]
    mine, theirs = twin.ours([parameter(3)], *values), twin.theirs([parameter(3)], *values)
    for each in positional:
        assert mine.param_groups[0][each.name] == theirs.param_groups[0][each.name], each.name
    assert {each.name for each in parameters} <= set(inspect.signature(twin.ours).parameters)


@pytest.mark.parametrize("name", TWINS)
def test_without_a_value_there_is_a_default(name: str):
    twin = TWINS[name]
    opt = twin.ours([parameter(3)])
    checked_step(opt)
    for key, entry in inspect.signature(twin.theirs).parameters.items():
        if key == "params" or entry.default == opt.defaults[key]:
            continue
        said = next(line for line in twin.ours.__doc__.splitlines() if line.startswith(f"- `{key}`: "))
        assert f"default {opt.defaults[key]:g} (torch: {entry.default:g})" in said


def test_the_papers_defaults_are_kept():
    assert (ours.Adadelta.keywords.defaults["rho"], torch.optim.Adadelta([parameter(2)]).defaults["rho"]) == (0.95, 0.9)
    assert "- `rho`: in [0, 1), default 0.95 (torch: 0.9)\n" in ours.Adadelta.__doc__
    assert "(torch:" not in ours.Adam.__doc__


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("option", ["foreach", "fused", "capturable"])
def test_an_option_that_chooses_nothing_is_kept_and_changes_no_bit(name: str, option: str):
    twin = TWINS[name]
    found = []
    for value in (None, False, True):
        each = parameter(40)
        opt = twin.ours([each], **twin.values, **{option: value})
        assert opt.param_groups[0][option] is value
        for _ in range(3):
            opt.step()
        assert paths(opt) == (1, 0)
        found.append(each.detach())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_dampening_without_momentum_has_no_effect():
    expected, found = (cls([parameter(3)], 0.1, 0, 0.5) for cls in (torch.optim.SGD, ours.SGD))
    apart = Apart()
    expected.step()
    apart.keep(expected)
    found.step()
    apart.check(found, torch.float64)


# --- Pairs -------------------------------------------------------------------------------------------------------------


def test_a_pair_may_be_given_by_its_parts():
    for values in ({"betas": [0.5, 0.75]}, {"beta1": 0.5, "beta2": 0.75}, {"betas": (torch.tensor(0.5), 0.75)}):
        opt = ours.Adam([parameter(3)], **values)
        assert tuple(map(float, opt.param_groups[0]["betas"])) == (0.5, 0.75)
        assert not {"beta1", "beta2"} & set(opt.param_groups[0])
        checked_step(opt)
    opt = ours.Adam([{"params": [parameter(3)], "beta2": 0.5}, {"params": [parameter(4)]}], beta1=0.25)
    assert [group["betas"] for group in opt.param_groups] == [(0.25, 0.5), (0.25, 0.999)]
    assert optimizer(users_rules.lion)([parameter(3)], beta2=0.5).param_groups[0]["betas"] == (0.9, 0.5)


def test_a_group_stays_the_dict_that_it_was_given_as():
    group = {"params": [parameter(3)], "beta1": 0.5}
    opt = ours.Adam([group])
    assert opt.param_groups[0] is group
    group["lr"] = 0.25
    checked_step(opt)


def test_a_pair_and_its_part_are_not_both_taken():
    with pytest.raises(TypeError, match=r"^betas and beta1 are both given; allowed is one of them, since betas holds"):
        ours.Adam([parameter(3)], betas=(0.9, 0.9), beta1=0.5)


def test_a_pairs_part_that_is_set_in_a_running_group_is_refused_and_not_ignored():
    opt = ours.Adam([parameter(3)])
    checked_step(opt)
    opt.param_groups[0]["beta1"] = 0.5
    with pytest.raises(
        TypeError, match="^a parameter group has beta1; it holds betas, of which beta1 is a part: set betas"
    ):
        opt.step()
    del opt.param_groups[0]["beta1"]
    opt.param_groups[0]["betas"] = (0.5, 0.75)
    checked_step(opt)


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.99, 0.999), "ab"])
def test_what_is_no_pair_is_refused(betas: object):
    with pytest.raises(TypeError, match=r"^betas is .*; allowed is a pair of numbers: beta1, beta2$"):
        ours.Adam([parameter(3)], betas=betas)


def test_a_pair_without_default_is_needed():
    @rule
    def needs(g, *, beta1: Decay, beta2: Decay = 0.5):
        return -beta1 * beta2 * g

    cls = optimizer(needs)
    with pytest.raises(TypeError, match=r"^needs needs beta1, a number in \[0, 1\); it has no default$"):
        cls([parameter(3)])
    checked_step(cls([parameter(3)], betas=(0.5, 0.5)))


@pytest.mark.parametrize("cls", ["Adam", "AdamW", "Lion"])
@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_a_scheduler_turns_the_momentum_as_it_turns_torchs(name: str, cls: str):
    mine = optimizer(users_rules.lion) if cls == "Lion" else getattr(ours, cls)
    pair = mine([parameter(3)], lr=0.01), torch.optim.Adam([parameter(3)], lr=0.01)
    schedules = [
        lr_scheduler.OneCycleLR(each, 0.1, total_steps=12)
        if name == "OneCycleLR"
        else lr_scheduler.CyclicLR(each, 0.01, 0.1, step_size_up=3, cycle_momentum=True)
        for each in pair
    ]
    seen = set()
    for _ in range(8):
        checked_step(pair[0])
        pair[1].step()
        for schedule in schedules:
            schedule.step()
        first = [each.param_groups[0]["betas"][0] for each in pair]
        assert first[0] == first[1]
        seen.add(first[0])
    assert len(seen) > 3


def test_a_scheduler_that_gives_gradient_descent_a_momentum_is_told_of():
    opt = ours.SGD([parameter(3)], lr=0.1)
    lr_scheduler.OneCycleLR(opt, 0.1, total_steps=8)
    with pytest.raises(
        ValueError, match=r"^momentum is 0\.95; allowed for SGD is 0: Momentum\(lr=\.\.\., rho=\.\.\.\)"
    ):
        opt.step()


# --- What cannot be had ------------------------------------------------------------------------------------------------

REFUSED = [
    (
        ours.Adam,
        {"amsgrad": True},
        r"^amsgrad is True; allowed for Adam is False: .*torch\.optim\.Adam\(amsgrad=True\)",
    ),
    (ours.AdamW, {"amsgrad": True}, r"^amsgrad is True; allowed for AdamW is False"),
    (ours.SGD, {"momentum": 0.9}, r"^momentum is 0\.9; allowed for SGD is 0: Momentum\(lr=\.\.\., rho=\.\.\.\) keeps"),
    (ours.SGD, {"nesterov": True}, r"^nesterov is True; allowed for SGD is False: Nesterov\(lr=\.\.\., rho=\.\.\.\)"),
    (ours.Momentum, {"momentum": 0.9}, "^Momentum has no momentum: here `rho` keeps past steps, each with the rate"),
    (ours.Nesterov, {"nesterov": True}, "^Nesterov has no nesterov: here `rho` keeps past steps"),
    (
        ours.RMSProp,
        {"alpha": 0.9},
        "^RMSProp has no alpha: here `rho` is the decay and `eps` is inside the root, in torch",
    ),
    (ours.RMSProp, {"centered": True}, "^RMSProp has no centered: here"),
    (
        ours.Adagrad,
        {"initial_accumulator_value": -0.5},
        r"^initial_accumulator_value is -0\.5; allowed is a number in \[0",
    ),
    (ours.Adagrad, {"lr_decay": -0.5}, r"^lr_decay is -0\.5; allowed is a number in \[0"),
]


@pytest.mark.parametrize(("cls", "values", "message"), REFUSED)
def test_what_cannot_be_had_is_refused_with_what_to_use(cls: Any, values: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        cls([parameter(3)], lr=0.1, **values)
    with pytest.raises((TypeError, ValueError), match=message):
        cls([{"params": [parameter(3)], **values}], lr=0.1)
    opt = cls([parameter(3)], lr=0.1)
    checked_step(opt)
    opt.param_groups[0].update(values)
    # What starts a slot has done so; every other value counts at the next step.
    if "initial_accumulator_value" not in values:
        with pytest.raises((TypeError, ValueError), match=message):
            opt.step()


# --- What a slot starts with, and what decays --------------------------------------------------------------------------


def test_adagrads_sum_is_there_from_the_beginning_and_starts_at_each_groups_value():
    first, second = parameter(3), parameter(4, grad=False)
    opt = ours.Adagrad(
        [{"params": [first]}, {"params": [second], "initial_accumulator_value": 2.0}], initial_accumulator_value=0.5
    )
    assert opt.state[first]["sum"].tolist() == [0.5] * 3
    assert opt.state[second]["sum"].tolist() == [2.0] * 4
    opt.add_param_group({"params": [third := parameter(2)]})
    assert opt.state[third]["sum"].tolist() == [0.5] * 2
    opt.state.clear()
    checked_step(opt)


def test_a_rate_that_decays_does_so_for_every_rule_and_by_each_parameters_own_count():
    for cls in (ours.SGD, ours.Adadelta, ours.Adam, optimizer(users_rules.lion)):
        early, late = parameter(3), parameter(4, grad=False)
        opt = cls([early, late, parameter(5, dtype=torch.bfloat16)], lr=0.5, lr_decay=0.25)
        for _ in range(2):
            checked_step(opt)
        late.grad = torch.ones(4, dtype=torch.float64)
        for _ in range(2):
            checked_step(opt)
        assert [int(opt.state[each]["step"]) for each in (early, late)] == [4, 2]


def test_a_rate_may_begin_to_decay():
    opt = ours.SGD([parameter(3)], lr=0.5)
    checked_step(opt)
    opt.param_groups[0]["lr_decay"] = 0.5
    for _ in range(2):
        checked_step(opt)
    opt.param_groups[0]["lr_decay"] = 0.0
    checked_step(opt)


def test_groups_of_names_have_their_own_values():
    model = torch.nn.Linear(3, 2)
    named = dict(model.named_parameters())
    opt = ours.AdamW(
        [
            {"params": [("weight", named["weight"])]},
            {"params": [("bias", named["bias"])], "weight_decay": 0.0, "betas": (0.5, 0.5)},
        ],
        lr=torch.tensor(0.5),
    )
    assert [group["param_names"] for group in opt.param_groups] == [["weight"], ["bias"]]
    model(torch.ones(3)).sum().backward()
    checked_step(opt)
    opt.param_groups[0]["lr"].fill_(0.25)
    checked_step(opt)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("maximize", "no"),
        ("decoupled_weight_decay", "no"),
        ("capturable", 2),
        ("differentiable", ""),
        ("master_copies", torch.tensor(True)),
        ("foreach", "yes"),
        ("fused", 2),
    ],
)
def test_a_switch_of_another_value_is_refused_in_a_call_in_a_group_and_in_a_loaded_state(option: str, value: Any):
    told = f"{re.escape(f'{option} is {value!r}; allowed is None, False or True')}$"
    with pytest.raises(ValueError, match=told):
        ours.Adadelta([parameter(2)], **{option: value})
    opt = ours.Adadelta([parameter(2)])
    with pytest.raises(ValueError, match=told):
        opt.add_param_group({"params": [parameter(2)], option: value})
    state = opt.state_dict()
    state["param_groups"][0][option] = value
    with pytest.raises(ValueError, match=told):
        opt.load_state_dict(state)


def test_a_number_that_is_none_is_told_of_as_such():
    with pytest.raises(TypeError, match=r"^adadelta needs lr, a number in \[0, inf\); None was given$"):
        ours.Adadelta([parameter(2)], lr=None)


def test_an_argument_that_there_is_not_is_named_beside_those_that_there_are():
    with pytest.raises(
        TypeError, match=r"^Adadelta: got an unexpected keyword argument 'rh0'; it takes: params, lr, rho, eps, "
    ):
        ours.Adadelta([parameter(2)], rh0=0.9)
