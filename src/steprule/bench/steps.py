"""One optimizer step: ours, every form of PyTorch's, and the loop that only moves the same memory."""

from __future__ import annotations

import functools
import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import torch
from torch import Tensor

from .. import torch as ours
from ..kernels import cpu
from ..program import lower
from ..specification import Rule, rule
from .timing import Times, interleaved

__all__ = ["LOW", "REPEATS", "SIZES", "TWINS", "StepBench", "Twin", "compiled_step", "contenders", "measure_steps"]

_LAYER: Final = [(2304, 768), (2304,), (768, 768), (768,), (3072, 768), (3072,), (768, 3072), (768,), *[(768,)] * 4]

SIZES: Final[Mapping[str, Sequence[tuple[int, ...]]]] = {
    "mnist": [(500, 784), (500,), (300, 500), (300,), (10, 300), (10,)],
    "small": [(40, 52)] * 400,
    "large": [(33_554_432,)],
    "transformer": [*_LAYER * 12, (768,), (768,)],
}
"""Shapes of parameters: the paper's MNIST net, 400 small tensors, one large, the 12 layers of a transformer."""

LOW: Final[Mapping[str, Any]] = {"bfloat16 state": torch.bfloat16, "int8 state": "int8"}
"""Our steps with state in fewer bits, by what the tables call them."""

# Turns, and steps in each turn, by how many elements there are.
REPEATS: Final = ((2_000_000, 48, 10), (100_000_000, 6, 4))


@dataclass(frozen=True)
class Twin:
    """Our class, PyTorch's, and the arguments of both."""

    mine: Callable[..., torch.optim.Optimizer]
    theirs: Callable[..., torch.optim.Optimizer]
    arguments: Mapping[str, float]
    fused: tuple[str, ...]
    """The types of devices on which PyTorch has a fused form."""

    @property
    def rule(self) -> Rule:
        return self.mine.rule  # type: ignore[attr-defined, no-any-return]  # ours have one


TWINS: Final = {
    "sgd": Twin(ours.SGD, torch.optim.SGD, {"lr": 0.01}, fused=("cpu", "cuda")),
    "adagrad": Twin(ours.Adagrad, torch.optim.Adagrad, {"lr": 0.01}, fused=("cpu",)),
    "adadelta": Twin(ours.Adadelta, torch.optim.Adadelta, {"rho": 0.95}, fused=()),
    "adam": Twin(ours.Adam, torch.optim.Adam, {"lr": 1e-3}, fused=("cpu", "cuda")),
}


@dataclass(frozen=True)
class StepBench:
    """The times of one rule at one size. `moved` is what a step must read and write, in bytes per element."""

    size: str
    rule: str
    tensors: int
    elements: int
    moved: int
    times: Mapping[str, Times]
    compile_seconds: float | None

    @property
    def best_of_eager(self) -> str:
        """The fastest of PyTorch's own forms that needs no compiler."""
        eager = [name for name in self.times if name.startswith("torch") and name != "torch compiled"]
        return min(eager, key=lambda name: self.times[name].median)

    def bandwidth(self, name: str) -> float:
        """Bytes per second at the median."""
        return self.moved * self.elements / self.times[name].median

    @property
    def share_of_limit(self) -> float:
        """The bandwidth of our step over that of the loop that only moves the same memory."""
        return self.times["limit"].median / self.times["steprule"].median


def measure_steps(size: str, name: str, *, compiled: bool = True) -> StepBench:
    """Time one step of the rule `name` for the parameters of `SIZES[size]`, float32, in `torch.get_num_threads()` threads.

    `compiled` asks for `torch.compile` of PyTorch's step as well, which takes its compiler's time and needs a C++ one.
    """
    shapes, twin = SIZES[size], TWINS[name]
    calls = {each: make() for each, make in contenders(twin, shapes, "cpu").items()}
    compile_seconds = None
    if compiled and shutil.which("c++") is not None:
        calls["torch compiled"], compile_seconds = compiled_step(twin, shapes, "cpu")
    program = lower(twin.rule)
    if twin.rule.slots:
        for form, dtype in LOW.items():
            calls[form] = twin.mine(_parameters(shapes), **twin.arguments, state_dtype=dtype).step
    calls["limit"] = _limit(len(program.arrays) - 2, shapes)
    elements = sum(int(np.prod(shape)) for shape in shapes)
    rounds, steps = next((rounds, steps) for most, rounds, steps in REPEATS if elements <= most)
    times = interleaved(calls, rounds, steps)
    gc.collect()
    return StepBench(size, name, len(shapes), elements, program.bytes_per_element(4), times, compile_seconds)


def contenders(
    twin: Twin, shapes: Sequence[tuple[int, ...]], device: str
) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return what makes our step and each form of PyTorch's but the compiled one, each with parameters of its own."""
    forms: dict[str, dict[str, bool]] = {"torch for-loop": {"foreach": False}, "torch foreach": {"foreach": True}}
    if device in twin.fused:
        forms["torch fused"] = {"fused": True}

    def theirs(flags: Mapping[str, bool]) -> Callable[[], object]:
        return twin.theirs(_parameters(shapes, device), **twin.arguments, **flags).step

    mine = {"steprule": lambda: twin.mine(_parameters(shapes, device), **twin.arguments).step}
    return mine | {form: functools.partial(theirs, flags) for form, flags in forms.items()}


def _parameters(shapes: Sequence[tuple[int, ...]], device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    parameters = [torch.randn(shape, generator=generator, device=device).requires_grad_() for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, device=device)
    return parameters


def compiled_step(twin: Twin, shapes: Sequence[tuple[int, ...]], device: str) -> tuple[Callable[[], object], float]:
    """Return PyTorch's step as `torch.compile` makes it, and the seconds that this took."""
    optimizer = twin.theirs(_parameters(shapes, device), **twin.arguments)
    step = torch.compile(optimizer.step)
    started = time.perf_counter()
    for _ in range(3):  # the second call may compile again, for a step count that is no constant
        step()
    return step, time.perf_counter() - started


def _limit(slots: int, shapes: Sequence[tuple[int, ...]]) -> Callable[[], object]:
    """Return a loop over the same memory as a rule of `slots` slots, with one addition for each number that it writes."""
    moved = _MOVERS[slots]
    run, columns = cpu.kernel(lower(moved), "float32"), 2 + slots
    sizes = [int(np.prod(shape)) for shape in shapes]
    arrays = [[np.ones(size, np.float32) for _ in range(columns)] for size in sizes]
    table = cpu.Table(np.array([[array.ctypes.data for array in row] for row in arrays]), sizes)
    scalars = np.zeros((1, 1), np.float32)

    def call(_keep: Any = arrays) -> None:
        cpu.launch(run, table, scalars, torch.get_num_threads())

    return call


@rule
def _move_0(g: Any, *, lr: float = 1.0) -> Any:  # noqa: ARG001  # so that nothing multiplies the update
    return g


@rule
def _move_1(g: Any, a: Any = 0.0, *, lr: float = 1.0) -> Any:  # noqa: ARG001  # as above
    return g, a + g


@rule
def _move_2(g: Any, a: Any = 0.0, b: Any = 0.0, *, lr: float = 1.0) -> Any:  # noqa: ARG001  # as above
    return g, a + g, b + g


_MOVERS: Final = (_move_0, _move_1, _move_2)
