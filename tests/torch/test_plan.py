"""Whatever parameters an optimizer has, the fused loop and torch's operations make the same steps."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.conformance import users_rules
from tests.torch.checks import checked_step, paths

import torch
from steprule import torch as ours
from steprule.torch import optimizer

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]
FUSED = (torch.float32, torch.float64, torch.complex64, torch.complex128)
# Few rules, since each form of each is compiled once.
CLASSES = [ours.Adadelta, ours.Adam, optimizer(users_rules.yogi)]


@dataclasses.dataclass(frozen=True)
class Laid:
    """A tensor to be: its shape, the order of its dimensions in memory, and the gap between its elements."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    gap: int
    offset: int

    @property
    def dense(self) -> bool:
        return self.gap == 1 or torch.Size(self.shape).numel() <= 1

    def made(self, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
        inner = [self.shape[place] for place in self.order]
        flat = torch.randn(self.offset + self.gap * torch.Size(inner).numel(), dtype=torch.float64, generator=generator)
        strides, expected = [0] * len(inner), self.gap
        for place in reversed(range(len(inner))):
            strides[self.order[place]] = expected
            expected *= max(inner[place], 1)
        return flat.to(dtype).as_strided(self.shape, strides, self.offset)


def laid(shape: tuple[int, ...]) -> st.SearchStrategy[Laid]:
    orders = st.permutations(range(len(shape))).map(tuple)
    return st.builds(Laid, st.just(shape), orders, st.sampled_from([1, 1, 1, 2, 3]), st.integers(0, 3))


@dataclasses.dataclass(frozen=True)
class Kind:
    dtype: torch.dtype
    parameter: Laid
    grads: tuple[Laid | None, ...]
    """The gradient's layout at each step."""


STEPS = 3
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    shape = draw(SHAPES)
    own = draw(laid(shape))
    # As a rule the gradient lies as its parameter does.
    grad = st.one_of(st.just(own), st.just(own), st.just(dataclasses.replace(own, offset=0)), laid(shape), st.none())
    return Kind(draw(st.sampled_from(DTYPES)), own, tuple(draw(grad) for _ in range(STEPS)))


GROUPS = st.lists(
    st.tuples(
        st.lists(kinds(), min_size=1, max_size=4),
        st.fixed_dictionaries(
            {},
            optional={
                "lr": st.sampled_from([0.5, 0.125]),
                "weight_decay": st.sampled_from([0.0, 0.25]),
                "decoupled_weight_decay": st.booleans(),
                "maximize": st.booleans(),
            },
        ),
    ),
    min_size=1,
    max_size=3,
)


@given(groups=GROUPS, cls=st.sampled_from(CLASSES), seed=st.integers(0, 1000))
@settings(derandomize=True, max_examples=100)
def test_every_mixture_steps_as_the_reference_does(
    groups: list[tuple[list[Kind], dict[str, Any]]], cls: Any, seed: int
):
    generator = torch.Generator().manual_seed(seed)
    pairs: list[tuple[torch.nn.Parameter, Kind]] = []
    for members, _ in groups:
        pairs += [(torch.nn.Parameter(kind.parameter.made(kind.dtype, generator)), kind) for kind in members]
    params = iter(each for each, _ in pairs)
    opt = cls([{"params": [next(params) for _ in members], **values} for members, values in groups])
    for number in range(STEPS):
        for each, kind in pairs:
            layout = kind.grads[number]
            each.grad = None if layout is None else layout.made(kind.dtype, generator)
        checked_step(opt)
        stepping = [(each, kind) for each, kind in pairs if each.grad is not None]
        fused = [
            each
            for each, kind in stepping
            if kind.parameter.dense
            and (each.stride() == each.grad.stride() or (each.is_contiguous() and each.grad.is_contiguous()))
        ]
        assert paths(opt) == (len(fused), len(stepping) - len(fused))


@given(groups=GROUPS, cls=st.sampled_from(CLASSES), threads=st.sampled_from([1, 2]))
@settings(derandomize=True, max_examples=25)
def test_the_fused_loop_and_torchs_operations_agree(groups: list[Any], cls: Any, threads: int):
    # Each parameter twice: dense, and as every other element of a tensor.
    generator = torch.Generator().manual_seed(0)
    members = [(kind, values) for kinds_, values in groups for kind in kinds_ if kind.dtype in DTYPES[:2]]
    dense, strided = [], []
    for kind, values in members:
        x = torch.randn(5, *kind.parameter.shape, dtype=kind.dtype, generator=generator)
        g = torch.randn(5, *kind.parameter.shape, dtype=kind.dtype, generator=generator)
        for params, tensor in ((dense, x.clone()), (strided, x.repeat_interleave(2, 0)[::2])):
            each = torch.nn.Parameter(tensor)
            each.grad = g.clone()
            params.append({"params": [each], **values})
    assume(members)
    first, second = cls(dense), cls(strided)
    for _ in range(STEPS):
        checked_step(first)
        checked_step(second)
    assert paths(first) == (len(members), 0)
    empty = sum(group["params"][0].numel() == 0 for group in strided)
    assert paths(second) == (empty, len(members) - empty)


class TrainingLoop(RuleBasedStateMachine):
    """A training loop that does, in any order, what training loops do; each step is compared with the reference."""

    @initialize(cls=st.sampled_from(CLASSES), seed=st.integers(0, 100))
    def begin(self, cls: Any, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        params = [
            self.fresh(shape, dtype)
            for shape, dtype in (((3, 4), DTYPES[0]), ((5,), DTYPES[2]), ((3, 3), DTYPES[1]), ((), DTYPES[1]))
        ]
        self.optimizer = cls([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}])

    def fresh(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.randn(shape, generator=self.generator).to(dtype))

    def chosen(self, place: int) -> torch.nn.Parameter:
        every = [each for group in self.optimizer.param_groups for each in group["params"]]
        return every[place % len(every)]

    @rule()
    def step(self) -> None:
        checked_step(self.optimizer)

    @rule(kind=st.sampled_from(["new", "in place"]))
    def gradients_and_step(self, kind: str) -> None:
        self.gradients(kind)
        checked_step(self.optimizer)

    def teardown(self) -> None:
        if hasattr(self, "optimizer"):
            checked_step(self.optimizer)

    @rule(kind=st.sampled_from(["new", "none", "in place", "transposed", "expanded"]))
    def gradients(self, kind: str) -> None:
        for group in self.optimizer.param_groups:
            for each in group["params"]:
                g = torch.randn(each.shape, generator=self.generator).to(each.dtype)
                if kind == "in place" and each.grad is not None and 0 not in each.grad.stride():
                    each.grad.copy_(g)
                elif kind == "transposed" and each.ndim == 2:
                    each.grad = g.t().contiguous().t()
                elif kind == "expanded" and each.ndim:
                    each.grad = g[:1].expand(each.shape)
                else:
                    each.grad = None if kind == "none" else g

    @rule(place=st.integers(0, 5))
    def one_gradient_goes(self, place: int) -> None:
        self.chosen(place).grad = None

    @rule(place=st.integers(0, 5), value=st.sampled_from([0.0, 0.25, 1.0]), key=st.sampled_from(["lr", "weight_decay"]))
    def value_changes(self, place: int, value: float, key: str) -> None:
        groups = self.optimizer.param_groups
        groups[place % len(groups)][key] = value

    @rule(place=st.integers(0, 5), key=st.sampled_from(["maximize", "decoupled_weight_decay"]))
    def option_changes(self, place: int, key: str) -> None:
        group = self.optimizer.param_groups[place % len(self.optimizer.param_groups)]
        group[key] = not group[key]

    @rule(place=st.integers(0, 5), gap=st.sampled_from([1, 2]))
    def data_is_replaced(self, place: int, gap: int) -> None:
        each = self.chosen(place)
        data = torch.randn((*each.shape, gap), generator=self.generator).to(each.dtype)
        each.data = data[..., 0]

    @rule(place=st.integers(0, 5))
    def state_is_dropped(self, place: int) -> None:
        self.optimizer.state.pop(self.chosen(place), None)

    @rule(place=st.integers(0, 5), count=st.integers(0, 9), in_place=st.booleans())
    def count_is_set(self, place: int, count: int, in_place: bool) -> None:
        state = self.optimizer.state.get(self.chosen(place))
        if state and in_place:
            state["step"].fill_(count)
        elif state:
            state["step"] = torch.tensor(float(count))

    @rule(place=st.integers(0, 5))
    def slots_are_replaced(self, place: int) -> None:
        state = self.optimizer.state.get(self.chosen(place), {})
        for name in set(state) - {"step"}:
            state[name] = state[name].clone() + 0.5

    @rule(place=st.integers(0, 5), name=st.sampled_from(["step", "exp_avg", "square_avg", None]))
    def state_loses_entries(self, place: int, name: str | None) -> None:
        state = self.optimizer.state.get(self.chosen(place), {})
        for each in [name] if name else list(state):
            state.pop(each, None)

    @rule(place=st.integers(0, 5))
    def data_is_turned(self, place: int) -> None:
        each = self.chosen(place)
        if each.ndim == 2 and len(set(each.shape)) == 1:
            each.data = each.data.t()

    @rule(place=st.integers(0, 5), slots=st.booleans(), count=st.booleans())
    def memory_moves(self, place: int, slots: bool, count: bool) -> None:
        each = self.chosen(place)
        state = self.optimizer.state.get(each, {})
        tensors = [state[name] for name in state if (count if name == "step" else slots)]
        for tensor in tensors or [each.data]:
            tensor.share_memory_()

    @rule(place=st.integers(0, 5))
    def parameter_changes_its_group(self, place: int) -> None:
        groups = self.optimizer.param_groups
        source = groups[place % len(groups)]["params"]
        if len(source) > 1:
            groups[(place + 1) % len(groups)]["params"].insert(0, source.pop())

    @rule(dtype=st.sampled_from(DTYPES))
    def group_is_added(self, dtype: torch.dtype) -> None:
        if len(self.optimizer.param_groups) < 5:
            self.optimizer.add_param_group({"params": [self.fresh((2, 3), dtype)], "lr": 0.25})

    @rule(copied=st.sampled_from([copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]))
    def is_copied(self, copied: Any) -> None:
        self.optimizer = copied(self.optimizer)

    @rule()
    def state_is_loaded(self) -> None:
        kept = copy.deepcopy(self.optimizer.state_dict())
        whole = {"step", *self.optimizer.rule.slots}
        if all(state.keys() in (set(), whole) for state in kept["state"].values()):
            self.optimizer.load_state_dict(kept)
        else:
            with pytest.raises(ValueError, match="has .*; allowed for"):
                self.optimizer.load_state_dict(kept)


TrainingLoop.TestCase.settings = settings(derandomize=True, max_examples=40, stateful_step_count=25)
TestTrainingLoop = TrainingLoop.TestCase
