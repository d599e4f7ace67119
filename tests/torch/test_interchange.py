"""A run changes from `torch.optim` to us and back in the middle, through a checkpoint; what does not fit is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.torch.checks import checked_step, parameter
from tests.torch.twins import TWINS, Apart, gradients, start, train

import torch
from steprule import rules
from steprule import torch as ours
from steprule.torch import optimizer

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def through_a_file(kept: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def _made(cls: Callable[..., Any], params: list[torch.nn.Parameter], values: Mapping[str, Any], second: Any) -> Any:
    return cls([{"params": params[:2]}, {"params": params[2:], **second}], **values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("first", "then"), [("ours", "theirs"), ("theirs", "ours"), ("ours", "ours")])
@pytest.mark.parametrize("name", TWINS)
def test_ten_steps_with_one_and_ten_with_the_other_are_twenty_with_either(
    name: str, first: str, then: str, dtype: torch.dtype
):
    twin, grads = TWINS[name], gradients(dtype, 20)
    # The last parameter steps for the first time after the change.
    early = [[*step[:-2], None, step[-1]] for step in grads[:10]]
    whole = _made(twin.theirs, start(dtype), twin.values, twin.second)
    apart = Apart()
    train(whole, early + grads[10:], lambda: apart.keep(whole))

    begun = _made(twin.classes()[first], start(dtype), twin.values, twin.second)
    train(begun, early, lambda: None)
    kept = through_a_file({"optimizer": begun.state_dict(), "parameters": _parameters(begun)})
    # What the second was made with is replaced by what the first has saved.
    finished = _made(twin.classes()[then], kept["parameters"], {"lr": 9.0}, {})
    finished.load_state_dict(kept["optimizer"])
    train(finished, grads[10:], lambda: None)
    apart.check(finished, dtype)


def _parameters(opt: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [each for group in opt.param_groups for each in group["params"]]


@pytest.mark.parametrize("name", TWINS)
def test_a_group_and_a_state_have_every_key_that_torch_gives_them(name: str):
    mine = TWINS[name].ours([parameter(3)], **TWINS[name].values)
    theirs = TWINS[name].theirs([parameter(3)], **TWINS[name].values)
    for opt in (mine, theirs):
        opt.step()
    a, b = mine.state_dict(), theirs.state_dict()
    for key, value in b["param_groups"][0].items():
        assert a["param_groups"][0][key] == value, key
    states = [{key for key, value in each["state"].get(0, {}).items() if value is not None} for each in (a, b)]
    assert states[0] == states[1]


def test_a_state_before_the_first_step_goes_both_ways():
    for name, twin in TWINS.items():
        for first, then in ((twin.ours, twin.theirs), (twin.theirs, twin.ours)):
            kept = first([parameter(3, seed=1)], **twin.values).state_dict()
            each = parameter(3)
            opt = then([each])
            opt.load_state_dict(through_a_file(kept))
            expected = twin.theirs([parameter(3)], **twin.values)
            apart = Apart()
            for one in (expected, opt):
                one.step()
            apart.keep(expected)
            apart.check(opt, torch.float64)
            assert opt.param_groups[0]["lr"] == twin.values["lr"], name


def test_names_of_parameters_go_along():
    model = torch.nn.Linear(3, 2)
    theirs = torch.optim.Adam(model.named_parameters())
    mine = ours.Adam(model.named_parameters())
    mine.load_state_dict(theirs.state_dict())
    assert mine.param_groups[0]["param_names"] == ["weight", "bias"]
    theirs.load_state_dict(mine.state_dict())
    assert theirs.param_groups[0]["param_names"] == ["weight", "bias"]


# --- Older files -------------------------------------------------------------------------------------------------------

# What a group of each class has had from the first; all other keys came later.
FIRST_KEYS = {
    "SGD": {"lr", "params", "weight_decay"},
    "Adagrad": {"lr", "params", "weight_decay", "eps", "lr_decay", "initial_accumulator_value"},
    "Adadelta": {"lr", "params", "weight_decay", "rho", "eps"},
    "Adam": {"lr", "params", "weight_decay", "betas", "eps"},
    "AdamW": {"lr", "params", "weight_decay", "betas", "eps"},
}


@pytest.mark.parametrize("cls", ["ours", "theirs"])
@pytest.mark.parametrize("name", TWINS)
def test_an_older_file_has_fewer_keys_and_step_counts_that_are_plain_numbers(name: str, cls: str):
    twin = TWINS[name]
    opt = twin.classes()[cls]([parameter(3)], **twin.values)
    for _ in range(3):
        opt.step()
    kept = through_a_file(opt.state_dict())
    for group in kept["param_groups"]:
        for key in set(group) - FIRST_KEYS[name]:
            del group[key]
    for state in kept["state"].values():
        if "step" in state:
            state["step"] = int(state["step"])
    each = parameter(3)
    again = twin.ours([each])
    again.load_state_dict(kept)
    assert {key: again.param_groups[0][key] for key in twin.values} == twin.values
    if again.state:
        assert (again.state[each]["step"].dtype, float(again.state[each]["step"])) == (torch.float32, 3.0)
    checked_step(again)
    again.load_state_dict(again.state_dict())
    checked_step(again)


def test_what_torch_does_not_say_stays_as_the_optimizer_has_it():
    one, two = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), torch.nn.Parameter(torch.ones(4))
    theirs = torch.optim.Adam([{"params": [one]}, {"params": [two], "lr": 0.5}])
    for each in (one, two):
        each.grad = torch.ones_like(each)
    theirs.step()
    groups = [{"params": [one], "master_copies": True}, {"params": [two], "state_dtype": {"exp_avg": torch.bfloat16}}]
    mine = ours.Adam(groups, lr=9.0, maximize=True, lr_decay=0.125, on_nonfinite="skip", seed=7, sparse="lazy")
    mine.load_state_dict(through_a_file(theirs.state_dict()))
    assert [(group["lr"], group["maximize"]) for group in mine.param_groups] == [(0.001, False), (0.5, False)]
    for group in mine.param_groups:
        assert [group[name] for name in ("lr_decay", "on_nonfinite", "seed", "sparse")] == [0.125, "skip", 7, "lazy"]
    mine.step()
    assert [mine.state[one][name].dtype for name in ("master", "exp_avg")] == [torch.float32, torch.float32]
    assert [mine.state[two][name].dtype for name in ("exp_avg", "exp_avg_sq")] == [torch.bfloat16, torch.float32]


def test_a_file_that_has_the_parts_of_a_pair_has_the_pair():
    opt = ours.Adam([parameter(3)], betas=(0.5, 0.75))
    kept = opt.state_dict()
    group = kept["param_groups"][0]
    group["beta1"], group["beta2"] = group.pop("betas")
    again = ours.Adam([parameter(3)])
    again.load_state_dict(kept)
    assert again.param_groups[0]["betas"] == (0.5, 0.75)
    assert not {"beta1", "beta2"} & set(again.param_groups[0])
    checked_step(again)


def test_what_torchs_sgd_says_of_a_momentum_that_it_has_not_is_nothing():
    opt = ours.SGD([parameter(3)], lr=0.5)
    kept = opt.state_dict()
    kept["state"] = {0: {"momentum_buffer": None}}
    opt.load_state_dict(kept)
    checked_step(opt)


# --- Another type, another device --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Adagrad", "Adadelta", "Adam"])
def test_state_takes_the_parameters_type_and_the_count_keeps_its_own(name: str):
    twin = TWINS[name]
    for cls in twin.classes().values():
        source = cls([parameter(3)], **twin.values)
        source.step()
        for dtype in (torch.float32, torch.bfloat16):
            each = parameter(3, dtype=dtype)
            opt = twin.ours([each])
            opt.load_state_dict(through_a_file(source.state_dict()))
            state = opt.state[each]
            assert {value.dtype for key, value in state.items() if key != "step"} == {dtype}
            assert (state["step"].dtype, state["step"].device.type) == (torch.float32, "cpu")
            checked_step(opt)


def test_state_takes_the_parameters_device():
    source = ours.Adam([parameter(3)], fused=False)
    source.step()
    each = torch.nn.Parameter(torch.ones(3, device="meta"))
    opt = ours.Adam([each])
    opt.load_state_dict(source.state_dict())
    assert opt.state[each]["exp_avg"].device.type == "meta"
    assert opt.state[each]["step"].device.type == "cpu"


# --- What does not fit -------------------------------------------------------------------------------------------------


def _stepped(cls: Callable[..., Any], *shapes: tuple[int, ...], **values: Any) -> dict[str, Any]:
    opt = cls([parameter(*shape) for shape in shapes], **values)
    opt.step()
    return opt.state_dict()


def _with(kept: dict[str, Any], **changed: Any) -> dict[str, Any]:
    kept["param_groups"][0].update(changed)
    return kept


def _state_with(kept: dict[str, Any], **changed: Any) -> dict[str, Any]:
    kept["state"][0].update(changed)
    return kept


def _without(kept: dict[str, Any], key: str) -> dict[str, Any]:
    del kept["param_groups"][0][key]
    return kept


TWO = ((3, 2), (4,))
UNFIT: dict[str, tuple[type, Callable[[], dict[str, Any]], str]] = {
    "another shape": (
        ours.Adam,
        lambda: _stepped(torch.optim.Adam, (2, 3), (4,)),
        r"of parameter 0, of shape \(3, 2\), has the slot exp_avg of shape \(2, 3\); allowed is the parameter's shape",
    ),
    "another order": (ours.Adam, lambda: _stepped(ours.Adam, (4,), (3, 2)), r"has the slot exp_avg of shape \(4,\)"),
    "another rule": (
        ours.Adadelta,
        lambda: _stepped(torch.optim.Adam, *TWO),
        "parameter group 0 of the state to load has no rho; allowed is a group of Adadelta, which has: lr, rho, eps",
    ),
    "another rule's slots": (
        ours.Adadelta,
        lambda: _with(_stepped(torch.optim.Adagrad, *TWO), rho=0.5),
        r"has step, sum; allowed for Adadelta is step, square_avg, acc_delta$",
    ),
    "too few slots": (ours.Adadelta, lambda: _stepped(ours.RMSProp, *TWO), "has step, square_avg; allowed"),
    "too many slots": (ours.RMSProp, lambda: _stepped(ours.Adadelta, *TWO), "has step, square_avg, acc_delta; allowed"),
    "slots of a rule that has none": (
        ours.SGD,
        lambda: _stepped(ours.Adam, *TWO),
        "has step, exp_avg, exp_avg_sq; allowed for SGD is nothing",
    ),
    "a maximum of averages": (
        ours.Adam,
        lambda: _stepped(torch.optim.Adam, *TWO, amsgrad=True),
        r"amsgrad is True; allowed for Adam is False: .*torch\.optim\.Adam\(amsgrad=True\)",
    ),
    "torch's momentum in gradient descent": (
        ours.SGD,
        lambda: _stepped(torch.optim.SGD, *TWO, lr=0.1, momentum=0.9),
        r"momentum is 0\.9; allowed for SGD is 0: Momentum",
    ),
    "torch's momentum in ours": (
        ours.Momentum,
        lambda: _stepped(torch.optim.SGD, *TWO, lr=0.1, momentum=0.9),
        "has no rho",
    ),
    "torch's momentum, with our decay": (
        ours.Momentum,
        lambda: _with(_stepped(torch.optim.SGD, *TWO, lr=0.1, momentum=0.9), rho=0.9),
        "Momentum has no momentum: here `rho` keeps past steps",
    ),
    "torch's RMSprop": (ours.RMSProp, lambda: _stepped(torch.optim.RMSprop, *TWO), "has no rho"),
    "torch's RMSprop, with our decay": (
        ours.RMSProp,
        lambda: _with(_stepped(torch.optim.RMSprop, *TWO), rho=0.9),
        "RMSProp has no alpha: here `rho` is the decay and `eps` is inside the root",
    ),
    "more groups": (
        ours.Adam,
        lambda: ours.Adam([{"params": [parameter(3, 2)]}, {"params": [parameter(4)]}]).state_dict(),
        "different number of parameter groups",
    ),
    "more parameters": (ours.Adam, lambda: _stepped(ours.Adam, *TWO, (5,)), "doesn't match the size"),
    "a value out of range": (
        ours.Adam,
        lambda: _with(_stepped(ours.Adam, *TWO), betas=(0.9, 1.5)),
        r"parameter group 0 of the state to load: beta2 is 1\.5; allowed is a number in \[0, 1\)$",
    ),
    "a value that is none": (
        ours.Adam,
        lambda: _with(_stepped(ours.Adam, *TWO), lr="fast"),
        "parameter group 0 of the state to load: lr is 'fast'",
    ),
    "a pair of three": (
        ours.Adam,
        lambda: _with(_stepped(ours.Adam, *TWO), betas=(0.9, 0.9, 0.9)),
        r"betas is \(0\.9, 0\.9, 0\.9\); allowed is a pair of numbers: beta1, beta2",
    ),
    "no rate": (ours.Adam, lambda: _without(_stepped(ours.Adam, *TWO), "lr"), "has no lr; allowed is a group of Adam"),
    "a slot that is a number": (
        ours.Adam,
        lambda: _state_with(_stepped(ours.Adam, *TWO), exp_avg=0.5),
        "has the slot exp_avg, a float; allowed is a tensor of the parameter's shape",
    ),
    "a negative count": (
        ours.Adam,
        lambda: _state_with(_stepped(ours.Adam, *TWO), step=torch.tensor(-1.0)),
        r"has the step -1\.0; allowed is a whole number from 0",
    ),
    "half a count": (
        ours.Adam,
        lambda: _state_with(_stepped(ours.Adam, *TWO), step=1.5),
        r"has the step 1\.5; allowed",
    ),
    "no count": (
        ours.Adam,
        lambda: _state_with(_stepped(ours.Adam, *TWO), step=None),
        "has exp_avg, exp_avg_sq; allowed",
    ),
    "counts in a vector": (
        ours.Adam,
        lambda: _state_with(_stepped(ours.Adam, *TWO), step=torch.ones(2)),
        "has the step tensor.*; allowed is a whole number",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("running", [False, True], ids=["new", "running"])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(kind: str, running: bool):
    cls, unfit, message = UNFIT[kind]
    opt = cls([parameter(*shape, seed=5) for shape in TWO], lr=0.25)
    if running:
        checked_step(opt)
    before, groups, states = copy.deepcopy(opt.state_dict()), opt.param_groups, dict(opt.state)
    kept = unfit()
    whole = copy.deepcopy(kept)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        opt.load_state_dict(kept)
    assert "\n" not in str(caught.value)
    _same(opt.state_dict(), before)
    assert opt.param_groups is groups
    assert all(opt.state[each] is state for each, state in states.items())
    _same(kept, whole)  # nor what was to be loaded
    checked_step(opt)


def _same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert found["state"][number].keys() == state.keys()
        for key, value in state.items():
            held = found["state"][number][key]
            assert held is None if value is None else torch.equal(torch.as_tensor(held), torch.as_tensor(value))


def test_a_hook_may_make_a_state_fit():
    kept = _stepped(torch.optim.RMSprop, *TWO)
    opt = ours.RMSProp([parameter(*shape) for shape in TWO])

    def translated(opt: Any, kept: dict[str, Any]) -> dict[str, Any]:
        known = opt.keywords.defaults
        groups = [
            {key: value for key, value in {**group, "rho": group["alpha"]}.items() if key in known or key == "params"}
            for group in kept["param_groups"]
        ]
        return {**kept, "param_groups": groups}

    opt.register_load_state_dict_pre_hook(translated)
    opt.load_state_dict(kept)
    assert opt.param_groups[0]["rho"] == 0.99
    checked_step(opt)


@pytest.mark.parametrize("options", [{}, {"state_dtype": torch.bfloat16}, {"state_dtype": "int8"}], ids=str)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_hook_may_take_away_and_change_places(options: dict[str, Any], in_place: bool):
    saved = ours.Adam([parameter(3, dtype=torch.float32), parameter(4, dtype=torch.float32, seed=1)], **options)
    for each in saved.param_groups[0]["params"]:
        each.grad = torch.ones_like(each)
    saved.step()
    opt = ours.Adam([parameter(4, dtype=torch.float32, seed=1)], **options)

    def the_second_alone(_: Any, kept: dict[str, Any]) -> dict[str, Any] | None:
        made = {"state": {0: kept["state"][1]}, "param_groups": [{**kept["param_groups"][0], "params": [0]}]}
        if in_place:
            kept.update(made)
        return None if in_place else made

    opt.register_load_state_dict_pre_hook(the_second_alone)
    opt.load_state_dict(through_a_file(saved.state_dict()))
    [found], expected = opt.state.values(), saved.state[saved.param_groups[0]["params"][1]]
    assert found.keys() == expected.keys()
    assert all(found[name].dtype is each.dtype and torch.equal(found[name], each) for name, each in expected.items())


@pytest.mark.parametrize("options", [{}, {"state_dtype": torch.bfloat16}, {"state_dtype": "int8"}], ids=str)
def test_what_a_hook_does_after_loading_stays(options: dict[str, Any]):
    saved = ours.Adam([parameter(3, dtype=torch.float32)], **options)
    for each in saved.param_groups[0]["params"]:
        each.grad = torch.ones_like(each)
    saved.step()
    opt = ours.Adam([parameter(3, dtype=torch.float32)], **options)

    def emptied(opt: Any) -> None:
        for state in opt.state.values():
            state["exp_avg"].zero_()

    emptying = opt.register_load_state_dict_post_hook(emptied)
    opt.load_state_dict(saved.state_dict())
    [state] = opt.state.values()
    [kept] = saved.state.values()
    assert state["exp_avg"].dtype is kept["exp_avg"].dtype and not state["exp_avg"].any()
    emptying.remove()
    opt.register_load_state_dict_post_hook(lambda opt: opt.state.clear())
    opt.load_state_dict(saved.state_dict())
    assert not opt.state


def test_a_rate_that_decays_counts_where_the_rule_does_not():
    opt = ours.SGD([parameter(3)], lr=0.5, lr_decay=0.5)
    for _ in range(3):
        checked_step(opt)
    again = optimizer(rules.sgd)([parameter(3)], lr=0.5)
    again.load_state_dict(through_a_file(opt.state_dict()))
    assert int(again.state[again.param_groups[0]["params"][0]]["step"]) == 3
    checked_step(again)
    again.param_groups[0]["lr_decay"] = 0.0
    again.load_state_dict(through_a_file(again.state_dict()))
    checked_step(again)
