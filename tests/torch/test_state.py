"""What an optimizer remembers: kept, loaded, copied, pickled, and changed by hand."""

from __future__ import annotations

import collections
import copy
import io
import pickle
import subprocess
import sys
from typing import Any

import pytest
from tests.conformance import users_rules
from tests.torch.checks import checked_step, parameter

import torch
from steprule import rule, rules
from steprule import torch as ours
from steprule.torch import RuleOptimizer, optimizer

STATE = {
    "SGD": [],
    "Momentum": ["step", "velocity"],
    "Nesterov": ["step", "velocity"],
    "Adagrad": ["step", "sum"],
    "RMSProp": ["step", "square_avg"],
    "RMSPropNesterov": ["step", "square_avg", "velocity"],
    "Adadelta": ["step", "square_avg", "acc_delta"],
    "Adam": ["step", "exp_avg", "exp_avg_sq"],
    "AdamW": ["step", "exp_avg", "exp_avg_sq"],
}
NAMES = [*STATE, "Yogi"]


def made(name: str, params: Any, **values: Any) -> RuleOptimizer:
    cls = optimizer(users_rules.yogi) if name == "Yogi" else getattr(ours, name)
    return cls(params, **({"lr": 0.1} if name in ("SGD", "Momentum", "Nesterov") else {}) | values)


def some() -> list[torch.nn.Parameter]:
    """Parameters of both paths and of several types; the last has no gradient yet."""
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float32]
    params = [parameter(3, 4, dtype=dtype, seed=seed) for seed, dtype in enumerate(kinds)]
    params[-1].grad = None
    return params


def train(opt: RuleOptimizer, steps: int, seed: int) -> None:
    """Take some steps with gradients of their own, the first of them without one for the last parameter."""
    generator = torch.Generator().manual_seed(seed)
    params = [each for group in opt.param_groups for each in group["params"]]
    for number in range(steps):
        for place, each in enumerate(params):
            g = torch.randn(each.shape, generator=generator).to(each.dtype)
            each.grad = None if number == 0 and place == len(params) - 1 else g
        opt.step()


def bits(opt: RuleOptimizer) -> list[Any]:
    params = [each for group in opt.param_groups for each in group["params"]]
    states = [opt.state.get(each, {}) for each in params]
    tensors = [each.detach() for each in params] + [value for state in states for value in state.values()]
    return [(str(each.dtype), each.to(torch.float64).tolist()) for each in tensors]


@pytest.mark.parametrize("name", STATE)
def test_state_has_the_names_and_kinds_that_torch_gives_it(name: str):
    each = parameter(3, 2, dtype=torch.float32)
    opt = made(name, [each])
    opt.step()
    opt.step()
    if name == "SGD":
        assert each not in opt.state
        return
    state = opt.state[each]
    assert list(state) == STATE[name]
    assert (state["step"].dtype, state["step"].shape, float(state["step"])) == (torch.float32, (), 2.0)
    for slot in STATE[name][1:]:
        assert (state[slot].dtype, state[slot].shape, state[slot].stride()) == (each.dtype, each.shape, each.stride())


def test_a_slot_begins_with_its_number():
    each = parameter(3)
    opt = made("Yogi", [each])
    each.grad.zero_()
    opt.step()
    assert opt.state[each]["exp_avg_sq"].tolist() == [1e-6] * 3


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(name: str):
    params = some()
    opt = made(name, [{"params": params[:2]}, {"params": params[2:], "lr": 0.25, "weight_decay": 0.125}])
    train(opt, 3, seed=1)
    buffer = io.BytesIO()
    torch.save({"parameters": params, "optimizer": opt.state_dict()}, buffer)
    train(opt, 3, seed=2)

    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    again = loaded["parameters"]
    other = made(name, [{"params": again[:2], "lr": 9.0}, {"params": again[2:]}])
    other.load_state_dict(loaded["optimizer"])
    train(other, 3, seed=2)
    assert bits(other) == bits(opt)
    assert [group["lr"] for group in other.param_groups] == [group["lr"] for group in opt.param_groups]


def test_a_state_dict_is_as_torchs_is():
    each = parameter(3, dtype=torch.float32)
    mine, theirs = ours.Adadelta([each]), torch.optim.Adadelta([each])
    mine.step()
    theirs.step()
    a, b = mine.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    assert a["state"].keys() == b["state"].keys()
    assert set(a["state"][0]) == set(b["state"][0])
    assert a["param_groups"][0]["params"] == [0]


def test_a_running_optimizer_may_load_a_state():
    params = [parameter(3), parameter(4, dtype=torch.bfloat16)]
    opt = ours.Adam(params)
    checked_step(opt)
    early = copy.deepcopy(opt.state_dict())
    for _ in range(3):
        checked_step(opt)
    opt.load_state_dict(early)
    assert [int(opt.state[each]["step"]) for each in params] == [1, 1]
    checked_step(opt)


@pytest.mark.parametrize("options", [{}, {"state_dtype": torch.bfloat16}, {"state_dtype": "int8"}], ids=str)
def test_one_state_may_be_loaded_again_and_by_several(options: dict[str, Any]):
    params = [parameter(3, 4, dtype=torch.float32), parameter(4, dtype=torch.float32, seed=1)]
    opt, other = ours.Adam(params, **options), ours.Adam([torch.nn.Parameter(each.detach().clone()) for each in params])
    train(opt, 2, seed=0)
    saved = copy.deepcopy(opt.state_dict())
    kept = copy.deepcopy(saved)
    for again in (opt, other, opt):
        again.load_state_dict(saved)
        train(again, 2, seed=1)
    for number, state in kept["state"].items():
        assert all(torch.equal(saved["state"][number][name], value) for name, value in state.items())


def test_a_state_of_another_shape_of_groups_is_refused_as_torch_does():
    opt = ours.Adam([parameter(3)])
    other = ours.Adam([parameter(3), parameter(3)])
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(other.state_dict())


# --- Copies ------------------------------------------------------------------------------------------------------------


class Mine(ours.Adadelta):
    """A subclass as a user writes it."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        return "mine"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_by_itself(name: str, copied: Any):
    params = some()
    opt = made(name, params, weight_decay=0.125)
    train(opt, 2, seed=1)
    before = bits(opt)
    other_params, other = copied((params, opt))
    assert type(other) is type(opt)
    assert [id(each) for each in other.param_groups[0]["params"]] == [id(each) for each in other_params]
    assert bits(other) == before
    train(other, 3, seed=2)
    assert bits(opt) == before
    train(opt, 3, seed=2)
    assert bits(other) == bits(opt)


def test_a_copy_of_an_optimizer_that_has_not_stepped_may_step():
    opt = copy.deepcopy(ours.Adam([parameter(3)]))
    (each,) = opt.param_groups[0]["params"]
    each.grad = torch.ones(3, dtype=torch.float64)
    checked_step(opt)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_a_copy_of_a_subclass_is_of_the_subclass(copied: Any):
    other = copied(Mine([parameter(3)], rho=0.5))
    assert type(other) is Mine
    assert other.step() == "mine"
    assert other.param_groups[0]["rho"] == 0.5


def test_a_copy_of_a_local_subclass_is_of_the_subclass():
    class Local(ours.Adadelta):
        """A subclass that has no name in any module."""

    assert type(copy.deepcopy(Local([parameter(3)]))) is Local


def test_a_copy_with_defaults_and_a_name_of_its_own():
    cls = optimizer(users_rules.lion, name="MyLion", lr=0.5)
    other = pickle.loads(pickle.dumps(cls([parameter(3)])))
    assert type(other) is cls
    assert other.defaults["lr"] == 0.5


def test_hooks_and_schedulers_do_not_hinder_a_copy():
    opt = ours.Adam([parameter(3)])
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1)
    checked_step(opt)
    scheduler.step()
    assert copy.deepcopy(opt).param_groups[0]["lr"] == opt.param_groups[0]["lr"]
    assert pickle.loads(pickle.dumps(opt)).param_groups[0]["lr"] == opt.param_groups[0]["lr"]


def test_a_pickle_grows_with_the_number_of_parameters_and_no_faster():
    def size(number: int) -> int:
        opt = ours.Adam([parameter(1) for _ in range(number)])
        opt.step()
        return len(pickle.dumps(opt))

    assert size(800) < 8.5 * size(100)


# --- By hand -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def running() -> tuple[list[torch.nn.Parameter], RuleOptimizer]:
    """An optimizer that has taken two steps, on both paths."""
    params = [parameter(3), parameter(4, dtype=torch.bfloat16), parameter(5, seed=1)]
    opt = ours.Adam(params)
    for _ in range(2):
        checked_step(opt)
    return params, opt


def test_a_state_may_be_replaced(running):
    (first, second, _), opt = running
    for each in (first, second):
        opt.state[each] = {
            "step": torch.tensor(7.0),
            "exp_avg": torch.full_like(each, 0.5),
            "exp_avg_sq": torch.full_like(each, 0.25),
        }
    for count in (8, 9):
        checked_step(opt)
        assert [int(opt.state[each]["step"]) for each in (first, second)] == [count, count]


def test_all_state_may_be_replaced(running):
    params, opt = running
    opt.state = collections.defaultdict(dict)
    checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in params] == [1, 1, 1]


def test_all_state_may_be_cleared(running):
    params, opt = running
    opt.state.clear()
    checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in params] == [1, 1, 1]


def test_one_parameters_state_may_be_cleared(running):
    (first, *_), opt = running
    opt.state[first].clear()
    checked_step(opt)
    assert int(opt.state[first]["step"]) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("handed_over", [True, False])
def test_a_parameter_may_be_replaced_by_another(dtype: torch.dtype, handed_over: bool):
    old, new = parameter(3, dtype=dtype), parameter(3, dtype=dtype, seed=1)
    opt = ours.Adam([old])
    for _ in range(2):
        checked_step(opt)
    opt.param_groups[0]["params"][0] = new
    if handed_over:
        opt.state[new] = opt.state.pop(old)
    kept = old.detach().clone()
    checked_step(opt)
    assert torch.equal(old.detach(), kept)
    assert int(opt.state[new]["step"]) == (3 if handed_over else 1)


def test_a_parameter_without_rule_state_may_be_replaced_by_another():
    old, new = parameter(3), parameter(3, seed=1)
    opt = ours.SGD([old], lr=0.5)
    checked_step(opt)
    opt.param_groups[0]["params"][0] = new
    checked_step(opt)


def test_a_state_may_be_handed_to_a_parameter_that_stands_still():
    first, second = parameter(3), parameter(3, grad=False)
    opt = ours.Adam([first, second])
    for _ in range(2):
        checked_step(opt)
    opt.state[second] = opt.state.pop(first)
    checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in (first, second)] == [1, 2]


def test_one_parameters_state_may_be_taken_out(running):
    (first, *_), opt = running
    del opt.state[first]
    checked_step(opt)
    assert int(opt.state[first]["step"]) == 1


def test_a_slot_may_be_taken_out(running):
    (first, *_), opt = running
    del opt.state[first]["exp_avg"]
    checked_step(opt)


def test_a_slot_may_be_replaced_or_filled(running):
    params, opt = running
    for each in params:
        opt.state[each]["exp_avg"] = torch.full_like(each, 0.5)
    checked_step(opt)
    for each in params:
        opt.state[each]["exp_avg_sq"].fill_(2.0)
    checked_step(opt)


def test_a_slots_data_may_be_replaced(running):
    params, opt = running
    for each in params:
        opt.state[each]["exp_avg"].data = torch.full_like(each, 0.5)
    checked_step(opt)


@pytest.mark.parametrize(
    "fresh", [lambda: torch.tensor(40.0), lambda: torch.tensor(40), lambda: 40], ids=["float", "int", "number"]
)
def test_a_count_may_be_replaced(running, fresh: Any):
    (first, second, _), opt = running
    opt.state[first]["step"] = fresh()
    opt.state[second]["step"] = fresh()
    for _ in range(2):
        checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in opt.param_groups[0]["params"]] == [42, 42, 4]


def test_a_count_that_is_a_plain_number_does_not_hinder_a_copy(running):
    (first, *_), opt = running
    opt.state[first]["step"] = 40
    other = copy.deepcopy(opt)
    each = other.param_groups[0]["params"][0]
    assert int(other.state[each]["step"]) == 40
    each.grad = first.grad.clone()
    checked_step(other)


def test_a_state_that_lacks_a_slot_and_a_spoiled_value_do_not_hinder_a_copy(running):
    (first, *_), opt = running
    del opt.state[first]["exp_avg"]
    opt.param_groups[0]["eps"] = -1.0
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        each = other.param_groups[0]["params"][0]
        assert set(other.state[each]) == {"step", "exp_avg_sq"}
        for copied, source in zip(other.param_groups[0]["params"], opt.param_groups[0]["params"], strict=True):
            copied.grad = source.grad.clone()
        other.param_groups[0]["eps"] = 0.5
        checked_step(other)


def test_a_copy_that_an_older_version_has_written_gets_what_came_later(running):
    _, opt = running
    reduced = opt.__reduce__()
    kept = copy.deepcopy(reduced[2])
    del kept["defaults"]["foreach"]
    (group,) = kept["param_groups"]
    del group["foreach"], group["lr_decay"]
    for each in (group, kept["defaults"]):
        each["beta1"], each["beta2"] = each.pop("betas")
    again = reduced[0](*reduced[1])
    again.__setstate__(kept)
    assert again.param_groups[0]["betas"] == opt.param_groups[0]["betas"]
    again.add_param_group({"params": [parameter(2)]})
    for copied, source in zip(again.param_groups[0]["params"], opt.param_groups[0]["params"], strict=True):
        copied.grad = source.grad.clone()
    checked_step(again)


def test_an_entry_of_any_kind_does_not_hinder_a_copy(running):
    _, opt = running
    opt.state["epoch"] = 5
    assert copy.deepcopy(opt).state["epoch"] == 5


def test_a_count_may_be_changed_in_place(running):
    (first, second, _), opt = running
    opt.state[first]["step"].fill_(40)
    opt.state[second]["step"] += 10
    for _ in range(2):
        checked_step(opt)
    assert [int(opt.state[each]["step"]) for each in opt.param_groups[0]["params"]] == [42, 14, 4]


def test_an_entry_that_is_no_parameters_is_left_alone(running):
    _, opt = running
    opt.state["note"] = {"text": "mine"}
    checked_step(opt)
    assert opt.state["note"] == {"text": "mine"}


def test_a_slot_of_a_wrong_shape_is_refused_before_anything_moves(running):
    (first, *_), opt = running
    opt.state[first]["exp_avg"] = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"the slot exp_avg of parameter 0, of shape .*, has the shape \(2,\); allowed is"
    ):
        opt.step()


@pytest.mark.parametrize("options", [{}, {"state_dtype": "int8"}, {"master_copies": True}])
def test_a_parameter_that_changes_its_shape_needs_another_state(options: dict[str, Any]):
    dtype = torch.bfloat16 if "master_copies" in options else torch.float32
    first, second = (parameter(3, dtype=dtype, seed=seed) for seed in range(2))
    opt = ours.Adam([first, second], **options)
    opt.step()
    second.grad = None
    second.data = torch.ones(600, dtype=dtype)
    second.grad = torch.ones(600, dtype=dtype)
    before = first.detach().clone()
    with pytest.raises(ValueError, match=r"of parameter 1, of shape \(600,\), has the shape \(3,\); allowed is"):
        opt.step()
    assert torch.equal(first, before)
    assert [int(opt.state[each]["step"]) for each in (first, second)] == [1, 1]
    del opt.state[second]
    opt.step()
    assert [int(opt.state[each]["step"]) for each in (first, second)] == [2, 1]


def test_memory_may_be_moved_to_other_processes_reach(running):
    params, opt = running
    for each in params:
        each.share_memory_()
        for slot in ("exp_avg", "exp_avg_sq"):
            opt.state[each][slot].share_memory_()
    checked_step(opt)
    assert all(each.is_shared() and opt.state[each]["exp_avg"].is_shared() for each in params)


_SHARED_COUNT = """
import torch
import steprule.torch as ours

parameter = torch.nn.Parameter(torch.ones(3))
parameter.grad = torch.ones(3)
optimizer = ours.Adam([parameter])
optimizer.step()
optimizer.state[parameter]["step"].share_memory_()
spoiled = [torch.full((1,), 7.0) for _ in range(50)]
optimizer.step()
print(float(optimizer.state[parameter]["step"]))
"""


_HANDED_ON = """
import torch
import steprule.torch as ours

def step(parameter, optimizer):
    parameter.grad = torch.ones(3)
    optimizer.step()

if __name__ == "__main__":
    parameter = torch.nn.Parameter(torch.ones(3).share_memory_())
    optimizer = ours.Adam([parameter], lr=0.5)
    step(parameter, optimizer)
    optimizer.share_memory()
    process = torch.multiprocessing.get_context("spawn").Process(target=step, args=(parameter, optimizer))
    process.start()
    process.join()
    print(process.exitcode, *(round(each, 4) for each in parameter.tolist()))
"""


def test_an_optimizer_may_be_handed_to_a_process_that_is_spawned(tmp_path):
    (tmp_path / "program.py").write_text(_HANDED_ON, encoding="utf-8")
    run = subprocess.run([sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split()) == (0, ["0", "0.0", "0.0", "0.0"]), run.stderr


def test_a_count_may_be_moved_to_other_processes_reach():
    run = subprocess.run([sys.executable, "-c", _SHARED_COUNT], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "2.0"), run.stderr


def test_another_default_device_is_no_matter():
    each = parameter(3)
    opt = ours.Adam([each])
    with torch.device("meta"):
        checked_step(opt)


def test_a_rules_own_step_count_is_not_needed_where_it_has_slots():
    @rule
    def mean(g, average=0.0):
        average = 0.5 * average + g
        return -average, average

    each = parameter(3)
    opt = optimizer(mean)([each])
    checked_step(opt)
    del opt.state[each]
    checked_step(opt)
    assert list(opt.state[each]) == ["step", "average"]


def test_state_appears_where_torch_has_it(running):
    assert set(rules.adam.slots) == {"exp_avg", "exp_avg_sq"}
    params, opt = running
    theirs = torch.optim.Adam([parameter(3)])
    theirs.step()
    assert set(opt.state[params[0]]) == set(next(iter(theirs.state.values())))
