"""Sparse gradients: the steps of the dense ones, at the cost of the rows that they name."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.conformance.cases import FORMS, OF_THE_GRADIENT, RULES, Form, hyper
from tests.conformance.paths import sparse_paths
from tests.conformance.tolerances import ULPS, ulps

import torch
from steprule import rule
from steprule import torch as ours
from steprule.torch import RuleOptimizer, optimizer, plan
from steprule.torch.lag import Lag, _factors, _Powers, multiplied
from torch import Tensor, nn

CAN = ["sgd", "adagrad", "rmsprop", "adadelta"]
ROWS = 7
SHAPES = [(ROWS,), (ROWS, 3), (ROWS, 2, 3)]
DTYPES = [torch.float32, torch.float64]


def made(name: str, parameters: Any, form: Form | None = None, **more: Any) -> RuleOptimizer:
    form = form or Form()
    values = {**hyper(name), **form.values, "decoupled_weight_decay": form.decoupled, "maximize": form.maximize}
    return optimizer(RULES[name])(parameters, **{**values, **more})


def table(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)))


def gradient(rows: list[int], like: Tensor, seed: int = 0) -> Tensor:
    """Return a gradient that names `rows`, not coalesced."""
    values = torch.randn(len(rows), *like.shape[1:], dtype=like.dtype, generator=torch.Generator().manual_seed(seed))
    numbers = torch.tensor(rows, dtype=torch.int64)[None]
    return torch.sparse_coo_tensor(numbers, values, like.shape, check_invariants=True)


class Pair:
    """One parameter with sparse gradients and one with the same in dense form, both steps by one rule."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, form: Form | None = None) -> None:
        self.sparse, self.dense = table(shape, dtype), table(shape, dtype)
        self.optimizers = [made(name, [each], form) for each in (self.sparse, self.dense)]
        self.steps, self.largest = 0, self.dense.detach().abs()
        self.watch()

    def watch(self) -> None:
        self.module = nn.EmbeddingBag(2, 1)
        self.module.weight = self.sparse
        self.optimizers[0].watch(self.module)

    def step(self, rows: list[int] | None, kind: str = "sparse") -> None:
        self.steps += 1
        grad = None if rows is None else gradient(rows, self.dense, seed=self.steps)
        self.dense.grad = None if grad is None else grad.to_dense()
        self.sparse.grad = self.dense.grad if kind == "dense" else grad
        if kind == "coalesced" and grad is not None:
            self.sparse.grad = grad.coalesce()
        for each in self.optimizers:
            each.step()
        self.largest = self.largest.maximum(self.dense.detach().abs())

    def agrees(self) -> None:
        first, second = (each.state_dict()["state"].get(0, {}) for each in self.optimizers)
        assert first.keys() == second.keys()
        allowed = ULPS["dense run"].amount * (self.steps + 2)
        for name in ["x", *first]:
            found = self.sparse if name == "x" else first[name]
            expected = self.dense if name == "x" else second[name]
            beside = self.largest if name == "x" else torch.zeros(())
            dtype = str(self.dense.dtype).removeprefix("torch.")
            apart = ulps(found.detach().numpy(), expected.detach().numpy(), dtype, beside.double().numpy())
            assert apart.max(initial=0) <= allowed, name


ROWS_OF_STEPS = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=5), min_size=1, max_size=12)


@given(
    name=st.sampled_from(CAN),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from([FORMS["plain"], FORMS["decoupled"], FORMS["maximize"], FORMS["decoupled, maximize"]]),
    steps=ROWS_OF_STEPS,
    kind=st.sampled_from(["sparse", "coalesced"]),
)
@example("adadelta", (ROWS, 3), torch.float32, FORMS["plain"], [[]], "sparse")
@example("adadelta", (ROWS, 3), torch.float32, FORMS["plain"], [[3, 3, 1, 3], [], [1, 0, 1]], "sparse")
@settings(derandomize=True, max_examples=150)
def test_a_run_is_that_of_dense_gradients(name: str, shape: Any, dtype: Any, form: Form, steps: Any, kind: str):
    pair = Pair(name, shape, dtype, form)
    for rows in steps:
        pair.step(rows, kind)
        assert sparse_paths(pair.optimizers[0]) == (1, 0)
    pair.agrees()


def test_coupled_decay_of_gradient_descent_too():
    pair = Pair("sgd", (ROWS, 3), torch.float64, FORMS["coupled"])
    for rows in ([1, 2], [], [2, 2, 6], [0]):
        pair.step(rows)
    pair.agrees()


@dataclasses.dataclass(frozen=True)
class Change:
    """Something that happens between two steps."""

    what: str
    value: Any = None


CHANGES = st.one_of(
    st.builds(Change, st.just("lr"), st.sampled_from([0.0, 0.25, 1.0])),
    st.builds(Change, st.just("rho"), st.sampled_from([0.0, 0.5, 0.99])),
    st.builds(Change, st.just("weight_decay"), st.sampled_from([0.0, 0.125])),
    st.builds(Change, st.sampled_from(["maximize", "pickle", "deepcopy", "state_dict", "load", "popped", "none"])),
    st.builds(Change, st.sampled_from(["sparse", "sparse", "dense"]), st.lists(st.integers(0, ROWS - 1), max_size=4)),
)


def changed(pair: Pair, change: Change) -> None:
    if change.what in ("sparse", "dense"):
        pair.step(change.value, change.what)
    elif change.what == "none":
        pair.step(None)
    for place, each in enumerate(pair.optimizers):
        group = each.param_groups[0]
        if change.what == "maximize":
            group["maximize"] = not group["maximize"]
        elif change.what in group:
            group[change.what] = change.value if change.what != "sparse" else "exact"
        elif change.what == "pickle":
            pair.optimizers[place] = pickle.loads(pickle.dumps(each))
        elif change.what == "deepcopy":
            pair.optimizers[place] = copy.deepcopy(each)
        elif change.what == "state_dict":
            each.state_dict()
        elif change.what == "load":
            each.load_state_dict(copy.deepcopy(each.state_dict()))
        elif change.what == "popped":
            each.state.clear()
    if change.what in ("pickle", "deepcopy"):
        pair.sparse, pair.dense = (each.param_groups[0]["params"][0] for each in pair.optimizers)
        pair.watch()


@given(name=st.sampled_from(CAN), decoupled=st.booleans(), changes=st.lists(CHANGES, min_size=2, max_size=16))
@example("adadelta", True, [Change("sparse", [1]), Change("lr", 0.25), Change("sparse", [2]), Change("dense", [3])])
@example("rmsprop", False, [Change("sparse", [1]), Change("rho", 0.5), Change("sparse", [2]), Change("none")])
@example("adadelta", True, [Change("sparse", [1]), Change("sparse", []), Change("popped"), Change("sparse", [2])])
@settings(derandomize=True, max_examples=150)
def test_whatever_happens_between_steps(name: str, decoupled: bool, changes: list[Change]):
    pair = Pair(name, (ROWS, 3), torch.float64, FORMS["decoupled" if decoupled else "plain"])
    if not decoupled:
        # Coupled decay is a gradient of its own, which the sparse form refuses.
        changes = [each for each in changes if each.what != "weight_decay"]
    for change in changes:
        changed(pair, change)
    pair.agrees()


def test_a_run_goes_on_with_dense_gradients_and_with_torchs_optimizer_from_its_state():
    pair = Pair("adadelta", (ROWS, 3), torch.float64)
    for rows in ([1, 2], [], [5], [2]):
        pair.step(rows)
    theirs = torch.optim.Adadelta([pair.sparse])
    theirs.load_state_dict(pair.optimizers[0].state_dict())
    pair.optimizers[0] = theirs
    for _ in range(3):
        pair.step([1, 3, 6], "dense")
    pair.agrees()


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize(("scale", "start"), [(0.9999, 1.0), (0.95, 1e30), (-0.5, 3.0), (0.0, 3.0)])
@pytest.mark.parametrize("some", [True, False])
def test_many_missed_steps_are_one_power(real: Any, scale: float, start: float, some: bool):
    scale, missed = float(real(scale)), 100_003
    checked = [1, 2, 1_000, 2_000, missed]
    expected, value = {}, real(start)
    for step in range(1, missed + 1):
        value = real(value * real(scale))
        if step in checked:
            expected[step] = value
    slot = torch.full((len(checked), 2), start, dtype=torch.float32 if real is np.float32 else torch.float64)
    lag = Lag({"x": slot.clone(), "slot": slot}, {"slot": scale})
    for step in range(1, missed + 1):
        lag.stepped(np.array([row for row, steps in enumerate(checked) if missed - steps == step], np.int64))
    if some:
        lag.catch_up_rows(np.arange(len(checked)))
    else:
        lag.catch_up()
    for row, steps in enumerate(checked):
        apart = ulps(slot[row].numpy(), float(expected[steps]), np.dtype(real).name)
        assert apart.max() <= ULPS["dense run"].amount * steps, (steps, apart.max())


def test_a_power_too_small_for_its_type_keeps_its_digits():
    missed = 1_800  # 0.95 to that is 8e-41 in float32, which has no digits left for it
    slot = torch.full((1, 1), 1e20)
    lag = Lag({"x": slot, "slot": slot}, {"slot": 0.95})
    for _ in range(missed):
        lag.stepped(np.zeros(0, np.int64))
    assert multiplied(slot, lag.factors(np.arange(1))["slot"]).item() == pytest.approx(1e20 * 0.95**missed, rel=1e-6)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.0, 0.5, 0.95, -0.9, 0.9999, 0.9999999, 1.01])
def test_a_power_that_is_looked_up_is_the_power(scale: float, real: Any):
    powers = _Powers(scale, real)
    for most in (0, 1, 63, 64, 1_000, 200_000, 3_000_000, 5):
        missed = np.unique(np.geomspace(1, most + 1, 300).astype(np.int64) - 1)
        assert np.array_equal(powers.of(missed), _factors(scale, missed, real))
    assert powers.of(np.zeros(0, np.int64)).shape == (0, 2)


# --- Twins ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda p: ours.SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (lambda p: ours.Adagrad(p, lr=0.1, eps=1e-3), lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-3)),
        # torch adds eps to the root before it corrects it: they agree where it is negligible.
        (lambda p: ours.Adam(p, eps=1e-30, sparse="lazy"), lambda p: torch.optim.SparseAdam(p, eps=1e-30)),
    ],
    ids=["SGD", "Adagrad", "lazy Adam is SparseAdam"],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of tensors that torch's step makes
def test_twins(mine: Callable[..., Any], theirs: Callable[..., Any], dtype: torch.dtype):
    params = [table((ROWS, 3), dtype), table((ROWS, 3), dtype)]
    optimizers = [mine(params[:1]), theirs(params[1:])]
    for step, rows in enumerate(([1, 2], [3, 3, 1], [6], [0, 1, 2, 3, 6, 1])):
        for parameter, each in zip(params, optimizers, strict=True):
            parameter.grad = gradient(rows, parameter, seed=step)
            each.step()
    apart = ulps(params[0].detach(), params[1].detach().numpy(), str(dtype).removeprefix("torch."), 1.0)
    assert apart.max() <= ULPS["twin of torch.optim"].amount


# --- Lazy ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_THE_GRADIENT)
@pytest.mark.parametrize("form", ["plain", "coupled", "decoupled"])
def test_lazy_steps_the_rows_that_a_gradient_names_and_no_other(name: str, form: str):
    whole = table((ROWS, 3))
    rows = [1, 4]
    part = nn.Parameter(whole.detach()[rows].clone())
    first, second = (made(name, [each], FORMS[form], sparse="lazy") for each in (whole, part))
    before = whole.detach().clone()
    for step in range(3):
        whole.grad = gradient(rows, whole, seed=step)
        part.grad = whole.grad.to_dense()[rows]
        first.step()
        second.step()
    others = [row for row in range(ROWS) if row not in rows]
    assert torch.equal(whole.detach()[rows], part.detach())
    assert torch.equal(whole.detach()[others], before[others])
    for slot in RULES[name].slots:
        assert torch.equal(first.state[whole][slot][rows], second.state[part][slot])
        assert first.state[whole][slot][others].unique().tolist() == [RULES[name].slots[slot]]


def test_a_slot_that_is_set_to_a_number_has_its_own_digits():
    @rule
    def noted(g, last=0.0):
        return -0.5 * g, 0.1

    whole = table((ROWS, 3), torch.bfloat16)
    opt = optimizer(noted)([whole], sparse="lazy", state_dtype=torch.float32)
    whole.grad = gradient([1, 4], whole)
    opt.step()
    assert torch.equal(opt.state[whole]["last"][4], torch.tensor([0.1] * 3))


def test_exact_and_lazy_may_take_turns():
    pair = Pair("adadelta", (ROWS, 3), torch.float64)
    pair.step([1, 2])
    pair.step([3])
    pair.optimizers[0].param_groups[0]["sparse"] = "lazy"
    pair.step(list(range(ROWS)))
    pair.optimizers[0].param_groups[0]["sparse"] = "exact"
    pair.step([3])
    pair.agrees()


@pytest.mark.parametrize("value", ["sloppy", None, True])
def test_an_unknown_form_is_refused(value: Any):
    with pytest.raises(ValueError, match=f"^sparse is {value!r}; allowed is 'exact' or 'lazy'$"):
        ours.Adam([table((2, 2))], sparse=value)


# --- What is refused -----------------------------------------------------------------------------------------------------


def _refused(opt: RuleOptimizer, parameter: nn.Parameter, kind: type[Exception]) -> str:
    before = parameter.detach().clone()
    with pytest.raises(kind) as caught:
        opt.step()
    assert torch.equal(parameter.detach(), before)
    assert float(opt.state.get(parameter, {}).get("step", 0)) == 0
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted({*OF_THE_GRADIENT} - {*CAN}))
def test_a_rule_that_cannot_says_why_and_what_is_possible(name: str):
    beside, each = table((2, 2)), table((ROWS, 3))
    beside.grad, each.grad = torch.ones_like(beside), gradient([1], each)
    opt = made(name, [beside, each])
    message = _refused(opt, each, TypeError)
    assert message.startswith(f"{name} with lr=")
    assert "cannot take the sparse gradient of a parameter of shape (7, 3), since it " in message
    assert 'sparse="lazy"' in message
    # Nothing has stepped, others neither.
    assert torch.equal(beside.detach(), table((2, 2)).detach())
    assert float(opt.state[beside]["step"]) == 0


def test_a_step_that_would_make_nan_of_untouched_rows_is_refused():
    each = table((ROWS, 3))
    each.grad = gradient([1], each)
    assert "eps=0 cannot" in _refused(ours.Adadelta([each], eps=0.0), each, ValueError).replace(
        ", weight_decay=0, lr_decay=0", ""
    )
    # It is what the dense step does.
    other = table((ROWS, 3))
    other.grad = each.grad.to_dense()
    ours.Adadelta([other], eps=0.0).step()
    assert other.detach()[0].isnan().all()


def test_a_value_that_is_changed_to_one_that_cannot_be_is_refused_in_the_step():
    each = table((ROWS, 3))
    opt = ours.Adadelta([each])
    each.grad = gradient([1], each)
    opt.step()
    opt.param_groups[0]["eps"] = 0.0
    for _ in range(2):
        with pytest.raises(ValueError, match="may divide by 0"):
            opt.step()
    assert float(opt.state[each]["step"]) == 1
    opt.param_groups[0]["eps"] = 1e-6
    opt.step()


def test_gradients_that_are_sparse_in_other_dimensions_are_refused():
    each = table((3, 4))
    each.grad = torch.ones(3, 4, dtype=torch.float64).to_sparse()
    assert _refused(ours.Adagrad([each]), each, TypeError) == (
        "the gradient of a parameter of shape (3, 4) is sparse in 2 dimensions; allowed is one, its rows"
    )


@pytest.mark.parametrize("row", [-1, 3])
def test_rows_that_there_are_not_are_refused(row: int):
    each = table((3, 2))
    values = torch.ones(2, 2, dtype=torch.float64)
    each.grad = torch.sparse_coo_tensor(torch.tensor([[1, row]]), values, (3, 2), check_invariants=False)
    assert _refused(ours.Adagrad([each]), each, ValueError) == (
        f"the gradient of a parameter of shape (3, 2) names row {row}; allowed are 0 to 2"
    )


@pytest.mark.parametrize(
    ("what", "then"), [("slot", "step"), ("parameter", "step"), ("parameter", "catch_up"), ("parameter", "state_dict")]
)
def test_memory_that_is_replaced_while_rows_are_behind_is_told_of(what: str, then: str):
    pair = Pair("rmsprop", (ROWS, 3), torch.float64, FORMS["decoupled"])
    pair.step([1])
    pair.step([2])
    opt = pair.optimizers[0]
    if what == "slot":
        opt.state[pair.sparse]["square_avg"] = opt.state[pair.sparse]["square_avg"] + 0.5
    else:
        pair.sparse.data = pair.sparse.data.clone()
    with pytest.raises(
        RuntimeError, match=r"shape \(7, 3\) or of its state was replaced .* call optimizer.catch_up\(\)"
    ):
        getattr(opt, then)()
    # Once: from then on, what is there is taken as it is.
    getattr(opt, then)()
    opt.step()


@pytest.mark.parametrize("rows", [4, 9])
def test_a_table_may_have_other_rows_in_the_same_memory_once_it_is_caught_up(rows: int):
    pair = Pair("sgd", (9, 3), torch.float64, FORMS["decoupled"])
    wholes = [pair.sparse.data, pair.dense.data]

    def cut(rows: int) -> None:
        for each, whole in zip((pair.sparse, pair.dense), wholes, strict=True):
            each.grad = None
            each.data = whole[:rows]
        pair.largest = wholes[1].abs()[:rows]

    cut(ROWS)
    for row in (1, 2):
        pair.step([row])
    pair.optimizers[0].catch_up()
    cut(rows)
    for row in (rows - 1, 0):
        pair.step([row])
    pair.agrees()
    pair.step([1])
    cut(2)
    with pytest.raises(RuntimeError, match=r"of a parameter of shape \(2, 3\) or of its state was replaced"):
        pair.optimizers[0].catch_up()


def test_slots_that_are_behind_may_be_moved_to_shared_memory():
    pair = Pair("rmsprop", (ROWS, 3), torch.float64)
    for rows in ([1], [2]):
        pair.step(rows)
    pair.optimizers[0].share_memory()
    for rows in ([3], [1]):
        pair.step(rows)
    pair.agrees()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"state_dtype": "int8"}, torch.float32),
        ({"state_dtype": {"acc_delta": torch.bfloat16}}, torch.float32),
        ({"master_copies": True}, torch.bfloat16),
    ],
)
def test_a_state_in_a_form_without_rows_is_refused(options: dict[str, Any], dtype: torch.dtype):
    each = table((ROWS, 3), dtype)
    each.grad = gradient([1], each)
    assert _refused(ours.Adadelta([each], **options), each, TypeError) == (
        "adadelta steps a parameter of shape (7, 3) by a sparse gradient; allowed for that are state_dtype=None or "
        "torch.float32, master_copies=False and capturable=False"
    )
    ours.Adadelta([each], state_dtype=torch.float32).step()


# --- Rows that are read --------------------------------------------------------------------------------------------------


def test_a_table_that_shrinks_as_a_whole_must_be_watched():
    each = table((ROWS, 3))
    each.grad = gradient([1], each)
    message = _refused(ours.SGD([each], lr=0.1, weight_decay=0.1), each, RuntimeError)
    assert "call optimizer.watch(module) with the module that holds it" in message


def test_watch_wants_an_embedding():
    with pytest.raises(ValueError, match=r"Linear holds no nn.Embedding and no nn.EmbeddingBag to watch"):
        ours.SGD([table((2, 2))], lr=0.1).watch(nn.Linear(2, 2))


class Model(nn.Module):
    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 3, sparse=sparse, dtype=torch.float64, padding_idx=0)
        self.bags = nn.EmbeddingBag(20, 3, sparse=sparse, dtype=torch.float64, mode="sum")
        self.out = nn.Linear(3, 1, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        for each in self.parameters():
            each.data = torch.randn(each.shape, dtype=torch.float64, generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        # Twice, so that a second reading catches up what the first has saved for the backward pass.
        twice = self.bags(input=rows, per_sample_weights=rows.double()) + self.bags(rows.flip(0) // 2)
        return self.out(self.words(rows).sum(1) + twice).square().mean()


def train(model: Model, opt: RuleOptimizer, steps: int, seed: int) -> list[float]:
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        opt.zero_grad()
        loss = model(torch.randint(0, 20, (2, 3), generator=generator))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


def models() -> tuple[list[Model], list[RuleOptimizer]]:
    both = [Model(sparse=sparse) for sparse in (True, False)]
    opts = [ours.Adadelta(each.parameters(), weight_decay=0.25, decoupled_weight_decay=True) for each in both]
    opts[0].watch(both[0])
    opts[0].watch(both[0])  # to watch twice is to watch
    return both, opts


def test_watched_modules_read_what_the_dense_run_has():
    both, opts = models()
    losses = [train(model, opt, 30, 1) for model, opt in zip(both, opts, strict=True)]
    np.testing.assert_allclose(*losses, rtol=1e-12)
    # And whoever asks a module for its state gets all of it.
    first, second = (model.state_dict() for model in both)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-12, atol=0)


def test_a_model_that_is_loaded_is_not_shrunk_by_what_was_missed_before():
    both, opts = models()
    saved = copy.deepcopy(both[1].state_dict())
    for model, opt in zip(both, opts, strict=True):
        train(model, opt, 5, 1)
        model.load_state_dict(saved)
    losses = [train(model, opt, 5, 2) for model, opt in zip(both, opts, strict=True)]
    np.testing.assert_allclose(*losses, rtol=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_watched_module_may_be_copied(copied: Callable[[Any], Any]):
    both, opts = models()
    train(both[0], opts[0], 3, 1)
    opts[0].catch_up()
    other = copied(both[0])
    rows = torch.tensor([[1, 2, 3]])
    assert other(rows).item() == both[0](rows).item()
    del opts[0], other
    both[0](rows)


def test_rows_out_of_range_are_refused_by_the_module_itself():
    both, opts = models()
    train(both[0], opts[0], 3, 1)
    with pytest.raises((IndexError, RuntimeError), match="index out of range|Expected"):
        both[0].words(torch.tensor([25]))


def test_the_guides_examples_run():
    text = (Path(__file__).parents[2] / "docs" / "sparse.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("100_000", "100"), scope)
    torch.optim.Adadelta(scope["words"].parameters()).load_state_dict(scope["saved"])


# --- Other paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "decoupled"])
@pytest.mark.parametrize("name", CAN)
def test_a_table_with_gaps_steps_through_torchs_operations(name: str, form: str):
    pair = Pair(name, (ROWS, 3), torch.float64, FORMS[form])
    pair.sparse.data = pair.sparse.data.repeat_interleave(2, -1)[..., ::2]
    for rows in ([1, 2], [], [2, 2, 6], [0, 1]):
        pair.step(rows)
        assert sparse_paths(pair.optimizers[0]) == (0, 1)
    pair.agrees()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_types_round_to_what_they_have(dtype: torch.dtype):
    pair = Pair("adadelta", (ROWS, 3), dtype)
    for rows in ([1, 2], [], [2, 6, 2], [0, 1]):
        pair.step(rows)
        assert sparse_paths(pair.optimizers[0]) == (0, 1)
    torch.testing.assert_close(pair.sparse.float(), pair.dense.float(), rtol=0.05, atol=0.05)


@pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this PyTorch gives a gradient its parameter's type"
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_of_another_type_is_read_as_what_it_is(dtype: torch.dtype):
    for other in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        pair = Pair("adadelta", (ROWS, 3), dtype)
        for seed, rows in enumerate(([1, 2], [6, 2, 0])):
            for each in (pair.sparse, pair.dense):
                each.grad_dtype = None
            grad = gradient(rows, pair.dense, seed).to(other)
            pair.sparse.grad, pair.dense.grad = grad, grad.to_dense()
            for each in pair.optimizers:
                each.step()
            pair.steps += 1
            assert sparse_paths(pair.optimizers[0]) == (1, 0)
        pair.agrees()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_tables(shape: tuple[int, ...]):
    pair = Pair("adadelta", shape, torch.float32)
    for _ in range(2):
        pair.step([])
    pair.agrees()


def test_threads_share_the_rows():
    rows = torch.randperm(5_000)[:2_000]
    made_by = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            each = table((5_000, 64), torch.float32)
            opt = ours.Adadelta([each])
            for step in range(3):
                each.grad = gradient(rows.roll(step).tolist(), each, seed=step)
                opt.step()
            made_by.append(each.detach().clone())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*made_by)


def test_autograd_learns_of_the_change():
    each = table((4, 2))
    opt = ours.Adagrad([each])
    loss = (each * each).sum()
    each.grad = gradient([1], each)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_dense_and_sparse_parameters_step_side_by_side():
    both = [Model(sparse=sparse) for sparse in (True, False)]
    opts = [ours.RMSProp(each.parameters(), lr=0.01) for each in both]
    losses = [train(model, opt, 20, 1) for model, opt in zip(both, opts, strict=True)]
    np.testing.assert_allclose(*losses, rtol=1e-12)
    assert both[0].words.weight.grad.layout is torch.sparse_coo
    assert opts[0]._plan is not None
    assert sparse_paths(opts[0]) == (2, 0)


def test_nothing_is_planned_anew_where_gradients_come_and_go(monkeypatch: pytest.MonkeyPatch):
    pair = Pair("adadelta", (ROWS, 3), torch.float64)
    pair.step([1, 2])
    monkeypatch.setattr(plan.Plan, "__init__", None)
    for rows in (None, None, [2, 3], [1], None, [0, 1]):
        pair.step(rows)
        pair.agrees()


def test_a_plan_is_kept_from_step_to_step():
    both = [Model(sparse=True)]
    opt = ours.Adadelta(both[0].parameters())
    train(both[0], opt, 2, 1)
    first = opt._plan
    train(both[0], opt, 3, 2)
    assert opt._plan is first
