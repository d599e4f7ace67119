"""Each engine behind one interface: it begins with parameters, takes gradients, and tells what parameters and slots are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jax
import numpy as np
from numpy.typing import NDArray
from tests.interpreter import interpreting

import torch
from steprule import Rule, around, reference
from steprule.around import Around
from steprule.kernels import cpu, gpu
from steprule.program import lower
from steprule.torch import optimizer
from steprule.torch.gpu import DeviceLaunch
from steprule.torch.launch import Launch
from steprule.torch.plain import PlainSteps
from steprule.torch.sparse import SparseSteps

from . import keras_engines
from .cases import SHAPES, Arrays, Form
from .tolerances import rounded

__all__ = ["ENGINES", "Engine", "State", "initial", "paths", "sparse_paths"]

State = list[dict[str, NDArray[np.float64]]]
"""For each tensor, the parameter `x` and each slot by name."""


def initial(rule: Rule, start: Arrays, dtype: str) -> State:
    """Return the state before the first step; an initial value is rounded to `dtype`, as the engine keeps it."""
    return [
        {"x": x, **{name: np.full(x.shape, rounded(value, dtype)) for name, value in rule.slots.items()}} for x in start
    ]


class _Reference:
    """`steprule.reference` on the arrays of one library."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._rule, self._form, self._values = rule, form, {**values, **form.values}
        self._dtype = dtype
        self._xs = [self.array(x) for x in start]
        self._states = [reference.init(rule, x) for x in self._xs]

    def array(self, values: NDArray[np.float64]) -> Any:
        return values.astype(self._dtype)

    def step(self, grads: Arrays) -> None:
        with np.errstate(all="ignore"):
            made = [
                reference.step(
                    self._rule,
                    x,
                    self.array(g),
                    state,
                    decoupled_weight_decay=self._form.decoupled,
                    maximize=self._form.maximize,
                    **self._values,
                )
                for x, g, state in zip(self._xs, grads, self._states, strict=True)
            ]
        self._xs, self._states = [x for x, _ in made], [state for _, state in made]

    def state(self) -> State:
        states = []
        for x, state in zip(self._xs, self._states, strict=True):
            arrays = {"x": x, **{name: state[name] for name in self._rule.slots}}
            for name, array in arrays.items():
                assert str(array.dtype).removeprefix("torch.") == self._dtype, f"{name} is {array.dtype}"
                assert tuple(array.shape) == tuple(x.shape), f"{name} is {array.shape}"
            states.append({name: np.asarray(array, np.float64) for name, array in arrays.items()})
        return states


class _TorchReference(_Reference):
    def array(self, values: NDArray[np.float64]) -> torch.Tensor:
        return torch.tensor(values, dtype=getattr(torch, self._dtype))


class _JaxReference(_Reference):
    def array(self, values: NDArray[np.float64]) -> Any:
        return jax.numpy.asarray(values, self._dtype)


class _Kernel:
    """`steprule.kernels.cpu` by itself, with one table for all tensors."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        complete = around.validated(rule, {**values, **form.values})
        self._values = complete
        self._program = lower(rule, Around.of(complete, decoupled=form.decoupled, maximize=form.maximize))
        self._run = cpu.kernel(self._program, dtype)
        self._dtype, self._t = dtype, 0
        self._arrays = [
            {"x": x.astype(dtype), "g": np.zeros(x.shape, dtype)}
            | {name: np.full(x.shape, initial, dtype) for name, initial in rule.slots.items()}
            for x in start
        ]
        addresses = [[arrays[name].ctypes.data for name in self._program.arrays] for arrays in self._arrays]
        self._table = cpu.Table(np.array(addresses), [x.size for x in start])

    def step(self, grads: Arrays) -> None:
        self._t += 1
        for arrays, g in zip(self._arrays, grads, strict=True):
            arrays["g"][...] = g
        scalars = np.array([self._program.fold(t=self._t, **self._values)], self._dtype)
        cpu.launch(self._run, self._table, scalars, threads=2)

    def state(self) -> State:
        return [
            {name: array.astype(np.float64) for name, array in arrays.items() if name != "g"} for arrays in self._arrays
        ]


def paths(made: torch.optim.Optimizer) -> tuple[int, int]:
    """Return how many parameters the last step took through the fused loop, and how many through torch's operations."""
    plan: Any = made._plan
    fused = sum(len(each.parameters) for each in plan._steppers if isinstance(each, Launch))
    return fused, sum(len(each._bounds) for each in plan._steppers if isinstance(each, PlainSteps))


def sparse_paths(made: torch.optim.Optimizer) -> tuple[int, int]:
    """Return of the parameters with sparse gradients how many the last step took as `paths` has it."""
    plan: Any = made._plan
    fused = [row._fused for each in plan._steppers if isinstance(each, SparseSteps) for row in each._steppers.values()]
    return sum(fused), len(fused) - sum(fused)


class _Torch:
    """A class of `steprule.torch`; every parameter must take the path `fused` or the plain one."""

    fused = True
    device = "cpu"
    capturable = False

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        self._rule, self._dtype = rule, getattr(torch, dtype)
        self._parameters = [torch.nn.Parameter(self.tensor(x)) for x in start]
        self._optimizer = optimizer(rule)(
            [{"params": self._parameters, "capturable": self.capturable}],
            decoupled_weight_decay=form.decoupled,
            maximize=form.maximize,
            **values,
            **form.values,
        )

    def tensor(self, values: NDArray[np.float64]) -> torch.Tensor:
        return torch.tensor(values, dtype=self._dtype, device=self.device)

    def step(self, grads: Arrays) -> None:
        for parameter, g in zip(self._parameters, grads, strict=True):
            parameter.grad = torch.tensor(g, dtype=self._dtype, device=self.device)
        self._optimizer.step()
        assert paths(self._optimizer)[0 if self.fused else 1] == len(self._parameters)

    def state(self) -> State:
        states = []
        for parameter in self._parameters:
            state = self._optimizer.state[parameter] if self._rule.slots else {}
            tensors = {"x": parameter.detach(), **{name: state[name] for name in self._rule.slots}}
            assert {tensor.dtype for tensor in tensors.values()} == {self._dtype}
            # A copy: the step changes them in place.
            states.append(
                {name: tensor.to("cpu", torch.float64, copy=True).numpy() for name, tensor in tensors.items()}
            )
        return states


class _TorchPlain(_Torch):
    """Parameters with gaps between their elements, so that no kernel can walk them."""

    fused = False

    def tensor(self, values: NDArray[np.float64]) -> torch.Tensor:
        tensor = super().tensor(values)
        return tensor.repeat_interleave(2, -1)[..., ::2]


class _TorchGpu(_Torch):
    """Parameters on a GPU."""

    device = "cuda"

    def step(self, grads: Arrays) -> None:
        super().step(grads)
        assert all(isinstance(each, DeviceLaunch) for each in self._optimizer._plan._steppers)


class _TorchGpuCapturable(_TorchGpu):
    capturable = True


class _TorchInterpreted(_Torch):
    """Parameters on the CPU as if they were on a GPU, whose kernel Triton interprets."""

    def step(self, grads: Arrays) -> None:
        with interpreting():
            super().step(grads)
        assert all(isinstance(each, DeviceLaunch) for each in self._optimizer._plan._steppers)


class _TorchInterpretedCapturable(_TorchInterpreted):
    capturable = True


class _TorchRows(_Torch):
    """Gradients that are sparse and name every row, in another order: what a row's step is, for every rule."""

    def __init__(self, rule: Rule, values: Mapping[str, float], form: Form, dtype: str, start: Arrays) -> None:
        super().__init__(rule, values, form, dtype, start)
        self._optimizer.param_groups[0]["sparse"] = "lazy"

    def step(self, grads: Arrays) -> None:
        for parameter, g in zip(self._parameters, grads, strict=True):
            rows = torch.arange(len(g) - 1, -1, -1)
            parameter.grad = torch.sparse_coo_tensor(
                rows[None], torch.tensor(g[::-1].copy(), dtype=self._dtype), g.shape, check_invariants=True
            )
        self._optimizer.step()
        assert sparse_paths(self._optimizer) == ((len(grads), 0) if self.fused else (0, len(grads)))


class _TorchRowsPlain(_TorchRows, _TorchPlain):
    fused = False


@dataclass(frozen=True)
class Engine:
    """An engine, and the element types and shapes (of `cases.SHAPES`) that it is tested with.

    `absent` says why it cannot be tested here.
    """

    begin: Callable[[Rule, Mapping[str, float], Form, str, Arrays], Any]
    dtypes: tuple[str, ...] = ("float32", "float64")
    shapes: tuple[str, ...] = tuple(SHAPES)
    absent: str = ""


_ALL_TYPES: Final = ("float32", "float64", "bfloat16", "float16")
_NO_TRITON: Final = "" if gpu.installed() else "triton is not installed"
_NO_GPU: Final = "" if torch.cuda.is_available() else "there is no GPU that PyTorch can use"

# The loops of an array library are not ours to test at every length, and its chunks are not those of the kernel.
_FEW: Final = ("0-dim", "empty", "17", "3x5")

ENGINES: Final[Mapping[str, Engine]] = {
    "reference on NumPy": Engine(_Reference, shapes=(*_FEW, "a chunk and one")),
    "reference on torch": Engine(_TorchReference, shapes=_FEW),
    "reference on JAX": Engine(_JaxReference, shapes=_FEW),
    "CPU kernel": Engine(_Kernel),
    "steprule.torch, fused": Engine(_Torch),
    # Without dimensions, and with no or one element, a tensor is dense whatever its strides are.
    "steprule.torch, plain": Engine(_TorchPlain, shapes=("17", "3x5", "a chunk and one")),
    "steprule.torch, fused rows": Engine(_TorchRows, shapes=("empty", "17", "3x5", "a chunk and one")),
    "steprule.torch, plain rows": Engine(_TorchRowsPlain, shapes=("17", "3x5")),
    "steprule.torch, lower types": Engine(_Torch, ("bfloat16", "float16")),
    "steprule.torch, lower types, plain": Engine(
        _TorchPlain, ("bfloat16", "float16"), shapes=("17", "3x5", "a chunk and one")
    ),
    "GPU kernel (interpreter)": Engine(_TorchInterpreted, _ALL_TYPES, ("about a block",), _NO_TRITON),
    "GPU kernel (interpreter), capturable": Engine(
        _TorchInterpretedCapturable, ("float32", "float64"), ("about a block",), _NO_TRITON
    ),
    "GPU kernel": Engine(_TorchGpu, _ALL_TYPES, absent=_NO_GPU),
    "GPU kernel, capturable": Engine(_TorchGpuCapturable, _ALL_TYPES, absent=_NO_GPU),
    **{
        name: Engine(keras_engines.OnKeras, keras_engines.DTYPES, ("several",), keras_engines.absent(backend))
        for name, backend in keras_engines.BACKENDS.items()
    },
}
