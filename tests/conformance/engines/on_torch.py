"""The engines that need PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tests.conformance.cases import EACH_PART_ONCE, Arrays, Form, beside
from tests.conformance.paths import paths, sparse_paths
from tests.interpreter import interpreting

import torch
from steprule import Rule
from steprule.kernels import gpu
from steprule.torch import optimizer
from steprule.torch.gpu import DeviceLaunch

from .engine import Engine, State


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
            for name, each in ({"grad": g} | beside(self._rule, g)).items():
                setattr(parameter, name, torch.tensor(each, dtype=self._dtype, device=self.device))
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


@contextmanager
def _one_thread() -> Iterator[None]:
    # Tests run side by side, and torch's threads would wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_ALL_TYPES: Final = ("float32", "float64", "bfloat16", "float16")
_NO_TRITON: Final = "" if gpu.installed() else "triton is not installed"
_NO_GPU: Final = "" if torch.cuda.is_available() else "there is no GPU that PyTorch can use"

_ENGINES: Final = {
    "steprule.torch, fused": Engine(_Torch, flushes=True),
    # Without dimensions, and with no or one element, a tensor is dense whatever its strides are.
    "steprule.torch, plain": Engine(_TorchPlain, shapes=("17", "3x5", "a chunk and one")),
    "steprule.torch, fused rows": Engine(
        _TorchRows, shapes=("empty", "17", "3x5", "a chunk and one"), curved=False, flushes=True
    ),
    "steprule.torch, plain rows": Engine(_TorchRowsPlain, shapes=("17", "3x5"), curved=False),
    "steprule.torch, lower types": Engine(_Torch, ("bfloat16", "float16"), forms=EACH_PART_ONCE, flushes=True),
    "steprule.torch, lower types, plain": Engine(
        _TorchPlain, ("bfloat16", "float16"), shapes=("17", "3x5", "a chunk and one")
    ),
    "GPU kernel (interpreter)": Engine(
        _TorchInterpreted, _ALL_TYPES, ("about a block",), EACH_PART_ONCE, many_steps=False, absent=_NO_TRITON
    ),
    "GPU kernel (interpreter), capturable": Engine(
        _TorchInterpretedCapturable,
        ("float32", "float64"),
        ("about a block",),
        EACH_PART_ONCE,
        many_steps=False,
        absent=_NO_TRITON,
    ),
    "GPU kernel": Engine(_TorchGpu, _ALL_TYPES, absent=_NO_GPU),
    "GPU kernel, capturable": Engine(_TorchGpuCapturable, _ALL_TYPES, absent=_NO_GPU),
}

ENGINES: Final[Mapping[str, Engine]] = {name: replace(each, within=_one_thread) for name, each in _ENGINES.items()}
