"""What only a GPU can show: that no step waits for it, and that a CUDA graph that holds a step is right at every replay.

That each rule's steps are right there, tests/conformance shows where there is one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.torch.checks import paths

import steprule.torch as ours
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]

MAKERS = [ours.SGD, ours.Momentum, ours.Adagrad, ours.RMSProp, ours.Adadelta, ours.Adam, ours.AdamW]
SHAPES = [(), (0,), (7,), (33, 65), (1024,), (300_001,)]


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator("cuda").manual_seed(0)
    made = [torch.randn(shape, device="cuda", generator=generator).to(dtype) for shape in SHAPES]
    return [torch.nn.Parameter(each) for each in made]


def give_gradients(some: list[torch.nn.Parameter], seed: int) -> None:
    """Give gradients of random numbers, in memory of their own."""
    generator = torch.Generator("cuda").manual_seed(seed)
    for each in some:
        each.grad = torch.randn(each.shape, device="cuda", generator=generator).to(each.dtype)


def refill(some: list[torch.nn.Parameter], seed: int) -> None:
    """Put such numbers where the gradients lie."""
    generator = torch.Generator("cuda").manual_seed(seed)
    for each in some:
        each.grad.copy_(torch.randn(each.shape, device="cuda", generator=generator).to(each.dtype))


@pytest.fixture
def never_waits() -> Iterator[Callable[[], None]]:
    """A function from which on whatever waits for the device raises."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_no_step_waits(make: Any, capturable: bool, dtype: torch.dtype, never_waits: Callable[[], None]) -> None:
    some = parameters(dtype)
    rate = torch.tensor(0.01, device="cuda") if capturable else 0.01
    optimizer = make([{"params": some, "capturable": capturable}], lr=0.01)
    optimizer.param_groups[0]["lr"] = rate
    give_gradients(some, 0)
    never_waits()
    for number in range(4):
        if number == 2:
            give_gradients(some, 1)
        if number == 3 and not capturable:
            optimizer.param_groups[0]["lr"] = 0.02
        optimizer.step()
    assert paths(optimizer) == (len(some), 0)


def captured(optimizer: torch.optim.Optimizer) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_graph_makes_the_steps(make: Any) -> None:
    some, others = parameters(), parameters()
    rate = torch.tensor(0.01, device="cuda")
    optimizer = make([{"params": some, "capturable": True}], lr=0.01)
    optimizer.param_groups[0]["lr"] = rate
    twin = make([{"params": others, "capturable": True}], lr=0.01)
    twin.param_groups[0]["lr"] = twins_rate = rate.clone()
    give_gradients(some, 0)
    give_gradients(others, 0)
    optimizer.step()
    twin.step()
    graph = captured(optimizer)
    gc.collect()
    for number in range(1, 6):
        for each in (rate, twins_rate):
            each.fill_(0.01 / number)
        refill(some, number)
        refill(others, number)
        graph.replay()
        twin.step()
    assert all(map(torch.equal, some, others))
    for one, other in zip(some, others, strict=True):
        for name, value in twin.state[other].items():
            assert torch.equal(optimizer.state[one][name], value), name


def test_a_graph_makes_the_steps_that_it_was_captured_with() -> None:
    some, others = parameters(), parameters()
    optimizer, twin = (ours.Adam([{"params": each, "capturable": True}]) for each in (some, others))
    for each in (some, others):
        give_gradients(each, 0)
    optimizer.step()
    twin.step()
    graph = captured(optimizer)
    held = [each.grad for each in some]
    give_gradients(some, 1)  # elsewhere: the next step sends other addresses
    give_gradients(others, 1)
    optimizer.step()
    twin.step()
    some[0].grad = others[0].grad = None  # and then there is another plan
    optimizer.step()
    twin.step()
    graph.replay()
    give_gradients(others, 0)
    twin.step()
    for each, other in zip(some[1:], others[1:], strict=True):
        other.grad = each.grad
    optimizer.step()  # after a replay, by its own gradients again
    twin.step()
    torch.cuda.synchronize()
    assert held
    assert all(map(torch.equal, some, others))
    assert [optimizer.state[each]["step"].item() for each in some] == [
        twin.state[each]["step"].item() for each in others
    ]


def test_a_capture_needs_a_step_before_it_and_the_count_on_the_device() -> None:
    some = parameters()
    give_gradients(some, 0)
    optimizer = ours.Adam([{"params": some, "capturable": True}])
    with pytest.raises(RuntimeError, match="captures a step that is the first"):
        captured(optimizer)
    optimizer = ours.Adam(some)
    optimizer.step()
    with pytest.raises(RuntimeError, match="whose capturable is False"):
        captured(optimizer)


def test_a_whole_iteration_may_be_a_graph() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 1)).cuda()
    optimizer = ours.Adadelta([{"params": model.parameters(), "capturable": True}])
    inputs, targets = torch.randn(64, 20, device="cuda"), torch.randn(64, 1, device="cuda")

    def iterate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            iterate()
    torch.cuda.current_stream().wait_stream(stream)
    optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = iterate()
    graph.replay()
    first = loss.item()
    for _ in range(300):
        graph.replay()
    assert loss.item() < first


def test_parameters_in_the_same_memory_step_one_after_the_other() -> None:
    memory = torch.ones(300_000, device="cuda")
    some = [torch.nn.Parameter(memory[:200_000]), torch.nn.Parameter(memory[100_000:])]
    for each in some:
        each.grad = torch.full_like(each, 0.25)
    optimizer = ours.SGD(some, lr=1.0)
    optimizer.step()
    assert paths(optimizer) == (0, 2)
    assert [float(memory[place]) for place in (0, 150_000, 299_999)] == [0.75, 0.5, 0.75]


def test_several_devices_step_together() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    some = [torch.nn.Parameter(torch.ones(5, device=f"cuda:{number}")) for number in (1, 0)]
    for each in some:
        each.grad = torch.full_like(each, 0.5)
    ours.SGD(some, lr=1.0).step()
    assert [each.tolist() for each in some] == [[0.5] * 5] * 2
