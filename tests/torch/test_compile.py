"""`torch.compile` around a training step: nothing fails, and nothing is compiled a second time.

The backend "eager" needs no C++ compiler; what is counted is what the compiler's front end makes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch._dynamo
from tests.conformance.cases import hyper
from tests.requirements import require_release
from tests.torch.checks import paths
from torch._dynamo.testing import CompileCounter
from torch.optim import lr_scheduler

import torch
from steprule import rules
from steprule import torch as ours
from steprule.torch import RuleOptimizer, optimizer

# The compiler looks at the loss that lives on behind the step, with torch's own optimizers too.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "none": lambda opt: None,
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 5),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100, cycle_momentum=False),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class _Training:
    """A net, its optimizer and its schedule; `step` is a whole training step, which may be compiled."""

    def __init__(self, rule: str, schedule: str, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).to(dtype)
        self.optimizer: RuleOptimizer = optimizer(rules.ALL[rule])(self.net.parameters(), **hyper(rule) | {"lr": 0.1})
        for each in self.net.parameters():
            each.h = each.g2 = torch.ones_like(each, requires_grad=False)
        self.schedule = SCHEDULES[schedule](self.optimizer)

    def step(self, inputs: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.net(inputs).square().sum()
        loss.backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        return loss.detach()


def _inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 4, generator=generator).to(dtype) for _ in range(6)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", rules.ALL)
def test_a_compiled_training_step_is_compiled_once_and_trains_as_it_does_otherwise(name: str, schedule: str):
    plain, compiled = _Training(name, schedule), _Training(name, schedule)
    counter = CompileCounter()
    step = torch.compile(compiled.step, backend=counter)
    losses = [(float(plain.step(some)), float(step(some))) for some in _inputs()[:1]]
    frames = counter.frame_count
    assert frames >= 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        losses += [(float(plain.step(some)), float(step(some))) for some in _inputs()[1:]]
    assert counter.frame_count == frames
    assert [a for a, _ in losses] == [b for _, b in losses]
    assert paths(compiled.optimizer) == (4, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_that_is_compiled_by_itself_is_left_as_it_is(schedule: str):
    plain, compiled = _Training("adam", schedule), _Training("adam", schedule)
    counter = CompileCounter()
    compiled.optimizer.step = torch.compile(compiled.optimizer.step, backend=counter)
    with torch._dynamo.config.patch(error_on_recompile=True):
        losses = [(float(plain.step(some)), float(compiled.step(some))) for some in _inputs()]
    assert counter.frame_count == 0
    assert [a for a, _ in losses] == [b for _, b in losses]


def test_steps_through_torchs_operations_are_left_too():
    compiled = _Training("adadelta", "ExponentialLR", torch.float32)
    for each in compiled.optimizer.param_groups[0]["params"]:
        each.data = each.data.repeat_interleave(2, -1)[..., ::2]  # with gaps
    step = torch.compile(compiled.step, backend="eager")
    first, *others = _inputs(torch.float32)
    step(first)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for some in others:
            step(some)
    assert paths(compiled.optimizer) == (0, 4)


def test_a_closure_may_be_compiled():
    training = _Training("adadelta", "none")
    counter = CompileCounter()
    some = _inputs()[0]

    @torch.compile(backend=counter)
    def loss() -> torch.Tensor:
        return training.net(some).square().sum()

    def closure() -> torch.Tensor:
        training.optimizer.zero_grad()
        found = loss()
        found.backward()
        return found

    losses = [float(training.optimizer.step(closure).detach()) for _ in range(5)]
    assert counter.frame_count == 1
    assert losses[-1] < losses[0]


def test_a_rate_that_is_a_tensor_and_changes_in_place():
    rate = torch.tensor(0.5)
    weight = torch.nn.Parameter(torch.ones(3))
    opt = ours.SGD([weight], lr=rate)

    @torch.compile(backend="eager")
    def step() -> None:
        opt.zero_grad()
        weight.sum().backward()
        opt.step()

    for value, expected in ((0.5, 0.5), (0.25, 0.25), (0.0, 0.25)):
        rate.fill_(value)
        step()
        assert weight.tolist() == [expected] * 3


def test_the_optimizer_may_be_made_in_compiled_code():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)

    @torch.compile(backend="eager")
    def made_and_stepped() -> None:
        ours.SGD([weight], lr=0.5).step()

    made_and_stepped()
    assert weight.tolist() == [0.5] * 3


def test_the_methods_of_several_optimizers_in_one_function_are_compiled_once():
    require_release("torch", "2.7", "it cannot be told to fail where it compiles too often")
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(10)]
    optimizers = [ours.SGD([each], lr=0.1) for each in parameters]

    @torch.compile(backend="eager")
    def forget() -> torch.Tensor:
        for each in optimizers:
            each.zero_grad()
        return torch.zeros(1)

    with torch._dynamo.config.patch(error_on_recompile=True, fail_on_recompile_limit_hit=True):
        for _ in range(2):
            for each in parameters:
                each.grad = torch.ones(3)
            forget()
            assert all(each.grad is None for each in parameters)


def test_what_others_put_around_torch_s_methods_is_called():
    code = (
        "import functools, torch\n"
        "whole, seen = torch.optim.Optimizer.zero_grad, []\n"
        "@functools.wraps(whole)\n"
        "def zero_grad(self, *arguments):\n"
        "    seen.append(self)\n"
        "    return whole(self, *arguments)\n"
        "torch.optim.Optimizer.zero_grad = zero_grad\n"
        "import steprule.torch\n"
        "steprule.torch.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1).zero_grad()\n"
        "print(len(seen))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"


def test_a_watched_embedding_may_be_compiled_before_it_has_run():
    code = (
        "import copy, torch, steprule.torch\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Embedding(6, 2, sparse=True), torch.nn.Linear(2, 2))\n"
        "found = []\n"
        "for compiled in True, False:\n"
        "    own = copy.deepcopy(net)\n"
        "    opt = steprule.torch.SGD(own.parameters(), lr=0.1, weight_decay=0.5, decoupled_weight_decay=True)\n"
        "    opt.watch(own)\n"
        "    forward = torch.compile(own, backend='eager') if compiled else own\n"
        "    for row in 0, 3, 0:\n"
        "        forward(torch.tensor([row])).square().sum().backward()\n"
        "        opt.step()\n"
        "        opt.zero_grad()\n"
        "    opt.catch_up()\n"
        "    found.append(own[0].weight.detach())\n"
        "assert torch.equal(*found) and not torch.equal(found[0], net[0].weight)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
