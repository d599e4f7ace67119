"""State and parameters in fewer bits than they are computed with."""

from __future__ import annotations

import copy
import io
import pickle
from collections import UserDict
from typing import Any

import pytest
from tests.conformance.cases import OF_THE_GRADIENT, RULES, hyper
from tests.torch.checks import parameter, paths

import torch
from steprule import NonNegative, around, rule
from steprule import torch as ours
from steprule.kernels.codecs import STORAGES
from steprule.notation import abs, minimum
from steprule.signs import never_negative
from steprule.torch import codecs, optimizer
from steprule.torch.storing import load, random_bits

FORMS: dict[str, Any] = {"bfloat16": torch.bfloat16, "int8": "int8"}
BYTES = {"bfloat16": 2.0, "int8": 1 + 4 / 256}


def made(name: str, params: Any, **options: Any) -> Any:
    return optimizer(RULES[name])(params, **hyper(name), **options)


def gradient(each: torch.Tensor, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(each.shape, generator=generator).to(each.dtype)


def numbers(opt: Any, each: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the slots of a parameter as numbers."""
    return {name: load(opt.state[each], name, opt.rule).clone() for name in opt.rule.slots}


@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name, rule in OF_THE_GRADIENT.items() if rule.slots])
def test_a_step_is_the_rules_and_its_slots_are_rounded(name: str, form: str, gaps: bool):
    """Parameter and slots, from the numbers that the codes stood for, are the rule's; the codes are the rounded slots."""
    each = parameter(37, 41 * (2 if gaps else 1), dtype=torch.float32)
    each.data, each.grad = each.data[:, :: 2 if gaps else 1], None
    opt = made(name, [each], state_dtype=FORMS[form], seed=7)
    for t in range(1, 6):
        g = each.grad = gradient(each, t)
        x, slots = each.detach().clone(), {} if t == 1 else numbers(opt, each)
        slots = slots or {slot: torch.full_like(x, start) for slot, start in opt.rule.slots.items()}
        if t == 1 and any(opt.rule.slots.values()):
            opt.step()  # what a slot starts with is rounded as well
            continue
        values = around.validated(opt.rule, hyper(name))
        expected, new, _ = around.step(opt.rule, around.PLAIN, {"x": x, "g": g, "t": t}, slots, values)
        opt.step()
        assert torch.allclose(each, expected, rtol=1e-6, atol=1e-6)
        for (slot, value), random in zip(new.items(), random_bits(7, 0, t, each), strict=False):
            storage = opt._plan._groups[0].storing.storage(slot, each)
            ordered = torch.empty_like(opt.state[each][slot], dtype=torch.float32).copy_(value)
            code, scale = codecs.encode(ordered.flatten(), storage, random)
            # One ulp of the number can be one code further on, for a few.
            apart = numbers(opt, each)[slot].flatten() != codecs.decode(code, storage, scale)
            assert apart.float().mean() < 0.01
    assert paths(opt) == ((0, 1) if gaps else (1, 0))


@rule
def four_averages(g, a=0.0, only_written=0.0, only_read=0.25, b=0.0, c=0.0, kept=0.5, *, lr: NonNegative = 0.01):
    a = 0.9 * a + 0.1 * g
    b = 0.8 * b + 0.2 * (g * g)
    c = 0.7 * c + 0.3 * abs(g)
    return -lr * a / (1 + b + c + only_read), a, 3 * g, only_read, b, c, kept


@pytest.mark.parametrize("form", FORMS)
def test_each_of_many_slots_has_the_same_random_bits_fused_and_plain(form: str):
    fused = parameter(37, 41, dtype=torch.float32)
    plain = torch.nn.Parameter(torch.empty(37, 82)[:, ::2].copy_(fused.detach()))
    optimizers = [ours.optimizer(four_averages)([each], state_dtype=FORMS[form]) for each in (fused, plain)]
    for t in range(3):
        fused.grad = gradient(fused, t)
        plain.grad = torch.empty(37, 82)[:, ::2].copy_(fused.grad)
        for opt in optimizers:
            opt.step()
    assert [paths(opt) for opt in optimizers] == [(1, 0), (0, 1)]
    slots = [numbers(opt, each) for opt, each in zip(optimizers, (fused, plain), strict=True)]
    for name in four_averages.slots:
        # One ulp of the number can be one code further on, for a few.
        assert (slots[0][name] != slots[1][name]).float().mean() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_memory(form: str):
    each = parameter(512, 1000, dtype=torch.float32)
    opt = ours.Adadelta([each], state_dtype=FORMS[form])
    opt.step()
    held = sum(value.nbytes for name, value in opt.state[each].items() if name != "step")
    assert held / each.numel() == pytest.approx(2 * BYTES[form], rel=1e-3)


def test_a_seed_gives_the_same_bits_again_and_another_seed_others():
    def run(seed: int, threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        mine = [parameter(300, 300, dtype=torch.float32), parameter(70_000, dtype=torch.float32)]
        opt = ours.Adam(mine, state_dtype="int8", seed=seed)
        for t in range(5):
            for each in mine:
                each.grad = gradient(each, t)
            opt.step()
        return [*mine, *(value for each in mine for value in opt.state[each].values())]

    threads = torch.get_num_threads()
    try:
        first, again, other = run(1, 2), run(1, 1), run(2, 2)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def test_a_slow_average_moves_although_its_steps_are_below_half_a_unit():
    each = parameter(20_000, dtype=torch.float32)
    opt = ours.RMSProp([each], lr=0.0, rho=0.999, state_dtype=torch.bfloat16)
    for _ in range(3000):
        each.grad = torch.ones_like(each)
        opt.step()
    expected = 1 - 0.999**3000  # 0.95; rounded to nearest it would stand still at 0.25
    assert numbers(opt, each)["square_avg"].mean().item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("mapping", [dict, UserDict])
def test_one_slot_may_be_kept_higher(mapping: type):
    each = parameter(300, dtype=torch.float32)
    opt = ours.Adam([each], state_dtype=mapping({"exp_avg": "int8", "exp_avg_sq": torch.bfloat16}))
    opt.step()
    state = opt.state[each]
    assert (state["exp_avg"].dtype, state["exp_avg_sq"].dtype) == (torch.uint8, torch.bfloat16)
    assert set(state) == {"step", "exp_avg", "exp_avg_scale", "exp_avg_sq"}
    opt.param_groups[0]["state_dtype"]["exp_avg"] = None
    opt.step()
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_slot_may_start_beyond_the_type(dtype: torch.dtype, gaps: bool):
    @rule
    def smallest(g, least=1e300):
        least = minimum(least, abs(g))
        return -0.25 * least, least

    each = torch.nn.Parameter(torch.ones(8, dtype=dtype)[::2] if gaps else torch.ones(4, dtype=dtype))
    each.grad = parameter(4, dtype=dtype).detach()
    opt = optimizer(smallest)([each])
    opt.step()
    expected, found = (torch.view_as_real(t) if dtype.is_complex else t for t in (each.grad, opt.state[each]["least"]))
    assert torch.equal(expected.abs(), found)


def test_codes_are_no_numbers_to_the_twin():
    each = parameter(300, dtype=torch.float32)
    opt = ours.Adam([each], state_dtype={"exp_avg": "int8", "exp_avg_sq": torch.bfloat16})
    each.grad = gradient(each, 1)
    opt.step()
    assert set(opt.state_dict()["state"][0]) == {"step", "exp_avg_codes", "exp_avg_scale", "exp_avg_sq"}
    other = torch.nn.Parameter(each.detach().clone())
    other.grad = each.grad
    twin = torch.optim.Adam([other])
    twin.load_state_dict(opt.state_dict())
    with pytest.raises(KeyError, match="exp_avg"):
        twin.step()


@pytest.mark.parametrize("by", ["name of the slot", "hand"])
def test_codes_are_taken_as_older_files_name_them_and_as_others_put_them_into_the_state(by: str):
    mine, others = (parameter(300, dtype=torch.float32) for _ in range(2))
    first, second = (ours.Adadelta([each], state_dtype="int8") for each in (mine, others))
    mine.grad = gradient(mine, 1)
    first.step()
    others.data.copy_(mine.detach())
    if by == "hand":  # as `ZeroRedundancyOptimizer` does
        second.state[others] = {name: value.clone() for name, value in first.state_dict()["state"][0].items()}
    else:
        own = {name: value.clone() for name, value in first.state[mine].items()}
        second.load_state_dict({**first.state_dict(), "state": {0: own}})
    mine.grad = others.grad = gradient(mine, 2)
    first.step()
    second.step()
    assert torch.equal(mine, others)
    assert all(torch.equal(value, second.state[others][name]) for name, value in first.state[mine].items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OF_THE_GRADIENT)
def test_a_master_copy_is_what_float32_training_has(name: str, dtype: torch.dtype):
    low = parameter(50, 30, dtype=torch.float32).to(dtype)
    mine = torch.nn.Parameter(low.detach().clone())
    twin = torch.nn.Parameter(low.detach().to(torch.float32))
    opt, other = made(name, [mine], master_copies=True), made(name, [twin])
    for t in range(8):
        mine.grad = gradient(mine, t)
        twin.grad = mine.grad.to(torch.float32)
        opt.step()
        other.step()
    assert torch.equal(opt.state[mine]["master"], twin)
    assert torch.equal(mine, twin.to(dtype))
    assert paths(opt) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_that_torch_has_made_is_not_undone_by_the_master_copy(dtype: torch.dtype):
    mine = parameter(5, 3, dtype=dtype)
    opt = ours.Adam([mine], lr=0.1, master_copies=True)
    twin = torch.optim.Adam([mine], lr=0.1)
    mine.grad = gradient(mine, 0)
    opt.step()
    twin.load_state_dict(opt.state_dict())
    twin.step()
    between = mine.detach().clone()
    opt.load_state_dict(twin.state_dict())
    opt.param_groups[0]["lr"] = 0.0
    opt.step()
    assert torch.equal(mine, between)
    assert opt.state[mine]["master"].dtype is torch.float32


@pytest.mark.parametrize("gaps", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("by", ["load_state_dict", "in place", "other memory", "another optimizer"])
def test_what_is_written_to_a_parameter_is_not_undone_by_the_master_copy(by: str, gaps: bool):
    net = torch.nn.Linear(6 if gaps else 3, 5, bias=False, dtype=torch.bfloat16)
    mine = net.weight
    mine.data = mine.data[:, :: 2 if gaps else 1]
    opt = ours.Adam([mine], lr=0.1, master_copies=True)
    for t in range(3):
        mine.grad = gradient(mine, t)
        opt.step()
    master = opt.state[mine]["master"].clone()
    written = mine.detach().clone()
    written[0] += 1
    if by == "load_state_dict":
        net.load_state_dict({"weight": written})
    elif by == "in place":
        with torch.no_grad():
            mine[0] += 1
    elif by == "other memory":
        mine.data = written.clone()
    else:
        mine.grad = torch.zeros_like(mine)
        mine.grad[0] = -1
        ours.SGD([mine], lr=1.0, master_copies=True).step()
    opt.param_groups[0]["lr"] = 0.0
    opt.step()
    assert torch.equal(mine, written)
    assert torch.equal(opt.state[mine]["master"][1:], master[1:])  # with all its bits


@pytest.mark.parametrize("again", ["deepcopy", "pickle", "state_dict", "file"])
@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_holds_the_codes_and_training_goes_on_the_same(form: str, again: str):
    def steps(opt: Any, each: torch.Tensor, first: int) -> None:
        for t in range(first, first + 5):
            each.grad = gradient(each, t)
            opt.step()

    one = parameter(40, 50, dtype=torch.bfloat16)
    opt = ours.Adadelta([one], state_dtype=FORMS[form], master_copies=True)
    steps(opt, one, 0)
    if again == "deepcopy":
        other = copy.deepcopy(opt)
    elif again == "pickle":
        other = pickle.loads(pickle.dumps(opt))
    else:
        fresh = torch.nn.Parameter(one.detach().clone())
        other = ours.Adadelta([fresh], state_dtype=FORMS[form], master_copies=True)
        saved = opt.state_dict()
        if again == "file":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        other.load_state_dict(saved)
    two = other.param_groups[0]["params"][0]
    assert other.state[two]["square_avg"].dtype is codecs.DTYPES[STORAGE[form]]
    steps(opt, one, 5)
    steps(other, two, 5)
    assert torch.equal(one, two)
    for name, value in opt.state[one].items():
        assert torch.equal(value, other.state[two][name])


STORAGE = {"bfloat16": "random bfloat16", "int8": "unsigned int8"}


@pytest.mark.parametrize("before", [None, *FORMS])
@pytest.mark.parametrize("after", [None, *FORMS])
def test_a_checkpoint_of_another_form_is_brought_to_this_one(before: str | None, after: str | None):
    one = parameter(64, 64, dtype=torch.float32)
    opt = ours.Adam([one], state_dtype=FORMS[before] if before else None)
    for t in range(3):
        one.grad = gradient(one, t)
        opt.step()
    two = torch.nn.Parameter(one.detach().clone())
    other = ours.Adam([two], state_dtype=FORMS[after] if after else None)
    kept = other.param_groups[0]["state_dtype"]
    other.load_state_dict(opt.state_dict())
    other.param_groups[0]["state_dtype"] = kept  # a checkpoint brings its own options along, as in torch
    expected = numbers(opt, one)
    two.grad = torch.zeros_like(two)
    other.step()
    for name, decay in (("exp_avg", 0.9), ("exp_avg_sq", 0.999)):
        value = numbers(other, two)[name]
        spacing = 2.0 ** -(3 if "int8" in (before, after) else 7)
        largest = expected[name].abs().max()
        close = (value - decay * expected[name]).abs() <= 2 * spacing * expected[name].abs() + largest * 2.0**-13
        assert close.all()


@pytest.mark.parametrize("form", FORMS)
def test_small_numbers_come_to_this_form_as_they_are_and_not_through_the_parameters_dtype(form: str):
    theirs, mine = (torch.nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in (torch.float32, torch.float16))
    twin = torch.optim.Adam([theirs])
    theirs.grad = torch.full_like(theirs, 2.0**-13)
    twin.step()
    squares = twin.state[theirs]["exp_avg_sq"].clone()
    assert squares.to(torch.float16).count_nonzero() == 0
    opt = ours.Adam([mine], state_dtype=FORMS[form])
    opt.load_state_dict(twin.state_dict())
    mine.grad = torch.zeros_like(mine)
    opt.step()
    torch.testing.assert_close(numbers(opt, mine)["exp_avg_sq"], squares, rtol=0.2, atol=0)


def test_no_slot_of_squares_has_a_sign():
    assert never_negative(RULES["adadelta"]) == {"square_avg", "acc_delta"}
    assert never_negative(RULES["adam"]) == {"exp_avg_sq"}
    assert never_negative(RULES["adagrad"]) == {"sum"}
    assert never_negative(RULES["rmsprop_nesterov"]) == {"square_avg"}
    assert not never_negative(RULES["momentum"])
    assert not never_negative(RULES["lion"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_dtype": torch.float16}, "state_dtype is torch.float16; allowed is None"),
        ({"state_dtype": "int4"}, "state_dtype is 'int4'; allowed is None"),
        (
            {"state_dtype": {"velocity": "int8"}},
            "state_dtype names the slot 'velocity'; adadelta has: square_avg, acc_delta",
        ),
        ({"seed": -1}, "seed is -1; allowed is an integer"),
        ({"seed": True}, "seed is True; allowed is an integer"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ours.Adadelta([parameter(3, dtype=torch.float32)], **options)


def test_float64_has_no_low_state():
    opt = ours.Adadelta([parameter(3)], state_dtype="int8")
    with pytest.raises(ValueError, match=r"state_dtype is 'int8' and a parameter of shape \(3,\) is torch.float64"):
        opt.step()


def test_every_storage_is_tested():
    assert set(STORAGES) == {"bfloat16", "float16", "random bfloat16", "unsigned int8", "signed int8"}
